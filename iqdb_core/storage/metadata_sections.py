"""The metadata sections of a snapshot that is being written: groups, and where they begin."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from iqdb_core.records import MetadataColumns
from iqdb_core.storage.columns import encode_group
from iqdb_core.storage.layout import GROUP_ROWS, MAX_GROUP_WEIGHT, META_DATA, META_GROUPS, META_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqdb_core.storage.section_stream import SectionStream
    from iqdb_core.storage.snapshot import Snapshot

    NewStream: TypeAlias = Callable[[str, str], SectionStream]


class MetadataSections:
    """Takes the metadata of rows in order and closes a group whenever it is full.

    A group closes after the row with which it reaches GROUP_ROWS rows or MAX_GROUP_WEIGHT, so the
    borders depend on the records alone. Nothing is written as long as no record has metadata.
    """

    def __init__(self, new_stream: NewStream) -> None:
        """Begin. `new_stream(name, dtype)` opens a section."""
        self._new_stream = new_stream
        self._data: SectionStream | None = None
        self._first_rows = array("Q", [0])
        self._offsets = array("Q", [0])
        self._pending: list[MetadataColumns] = []
        self._pending_rows = 0
        self._pending_weight = 0

    def append(self, metadata: MetadataColumns | None, n_rows: int) -> None:
        """Take the metadata of the `n_rows` rows that follow; None when none of them has any."""
        if metadata is not None and self._data is None and _any_mapping(metadata):
            self._begin()
        if self._data is None:
            self._pending_rows += n_rows
            return
        self._take(MetadataColumns.none(n_rows) if metadata is None else metadata)

    def append_rows(self, snapshot: Snapshot, start: int, stop: int) -> None:
        """Take the metadata of rows start..stop of a snapshot, whole groups as they are."""
        if not snapshot.has_metadata:
            self.append(None, stop - start)
            return
        for first, last, view in snapshot.groups(start, stop):
            # The last group may not be full and would go on here; the others end where they do
            # because they are full, and would end there here as well.
            whole = start <= first and last <= stop and last < snapshot.n_rows
            if whole and not self._pending_rows and self._data is not None:
                self._write(snapshot.group_blob(snapshot.group_of(first)), last - first)
            else:
                part = view.to_columns(rows=(max(start - first, 0), min(stop, last) - first))
                self.append(part, part.n_rows)

    def finish(self) -> list[tuple[SectionStream, tuple[int, ...]]]:
        """End the sections and return them with their shapes: none when no record has metadata."""
        if self._data is None:
            return []
        if self._pending_rows:
            self._close_group()
        rows = self._new_stream(META_ROWS, "u64")
        rows.append(self._first_rows.tobytes())
        groups = self._new_stream(META_GROUPS, "u64")
        groups.append(self._offsets.tobytes())
        return [
            (rows, (len(self._first_rows),)),
            (groups, (len(self._offsets),)),
            (self._data, (self._data.raw_bytes,)),
        ]

    def _begin(self) -> None:
        """Write groups for the rows without metadata so far."""
        self._data = self._new_stream(META_DATA, "u8")
        bare, self._pending_rows = self._pending_rows, 0
        if bare >= GROUP_ROWS:
            blob = encode_group(MetadataColumns.none(GROUP_ROWS))
            for _ in range(bare // GROUP_ROWS):
                self._write(blob, GROUP_ROWS)
        if bare % GROUP_ROWS:
            self._take(MetadataColumns.none(bare % GROUP_ROWS))

    def _take(self, metadata: MetadataColumns) -> None:
        weights = np.cumsum(metadata.weights())
        start, taken = 0, 0
        while start < metadata.n_rows:
            room = GROUP_ROWS - self._pending_rows
            full = np.uint64(taken + MAX_GROUP_WEIGHT - self._pending_weight)
            heavy = int(np.searchsorted(weights, full)) + 1
            stop = min(metadata.n_rows, start + room, heavy)
            part = metadata if (start, stop) == (0, metadata.n_rows) else metadata.slice(start, stop)
            self._pending_rows += part.n_rows
            self._pending_weight += int(weights[stop - 1]) - taken
            if self._pending_rows == GROUP_ROWS or self._pending_weight >= MAX_GROUP_WEIGHT:
                self._pending.append(part)
                self._close_group()
            else:
                # What waits must not be the caller's memory, which may be reused; `take` copies.
                self._pending.append(part.take(np.arange(part.n_rows)))
            start, taken = stop, int(weights[stop - 1])

    def _close_group(self) -> None:
        blob = encode_group(MetadataColumns.concat(self._pending))
        n_rows = self._pending_rows
        self._pending, self._pending_rows, self._pending_weight = [], 0, 0
        self._write(blob, n_rows)

    def _write(self, blob: bytes | memoryview, n_rows: int) -> None:
        assert self._data is not None
        self._data.append(blob)
        self._offsets.append(self._offsets[-1] + len(blob))
        self._first_rows.append(self._first_rows[-1] + n_rows)


def _any_mapping(metadata: MetadataColumns) -> bool:
    if metadata.has_metadata is None:
        return metadata.n_rows > 0
    return bool(metadata.has_metadata.any())
