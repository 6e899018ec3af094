"""The id sections of a snapshot that is being written, and the order by which ids are found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from iqdb_core import _kernels
from iqdb_core.records import Ids
from iqdb_core.storage.layout import (
    ID_BYTES,
    ID_ENCODING_U64,
    ID_ENCODING_VAR,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
)
from iqdb_core.storage.section_stream import SectionStream, Spool, as_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    NewStream: TypeAlias = Callable[[str, str], SectionStream]

_CONVERTED_TOGETHER = 1 << 16


class FinishedIds(NamedTuple):
    """The sections with their shapes, the header's `id_encoding`, and which rows to keep if ids repeat."""

    streams: list[tuple[SectionStream, tuple[int, ...]]]
    encoding: int
    kept_rows: NDArray[np.int64] | None


class IdSections:
    """Takes ids in order. As long as all are integers they are kept as such."""

    def __init__(self, new_stream: NewStream, new_spool: Callable[[], Spool]) -> None:
        """Begin. `new_stream(name, dtype)` opens a section that `new_spool()` would hold."""
        self._new_stream = new_stream
        self._new_spool = new_spool
        self._integers = self._kept(IDS, "u64")
        self._variable: tuple[_Kept, _Kept, _Kept] | None = None
        self._data_bytes = 0
        self._last: int = -1
        self._ascending = True

    def append(self, ids: Ids) -> None:
        """Take the ids of the rows that follow, of which there is at least one."""
        if self._variable is None:
            if ids.u64 is not None:
                self._append_integers(ids.u64)
                return
            self._convert()
        self._append_variable(ids)

    def finish(self, n_rows: int) -> FinishedIds:
        """End the sections; sort the ids unless they came in ascending order."""
        order, repeats = self._sort(n_rows)
        streams: list[tuple[SectionStream, tuple[int, ...]]]
        if self._variable is None:
            encoding = ID_ENCODING_U64
            streams = [(self._integers.stream, (n_rows,))]
        else:
            encoding = ID_ENCODING_VAR
            kinds, offsets, data = self._variable
            streams = [
                (kinds.stream, (n_rows,)),
                (offsets.stream, (n_rows + 1,)),
                (data.stream, (self._data_bytes,)),
            ]
        kept_rows = None
        if order is not None:
            stream = self._new_stream(ID_ORDER, "u32")
            stream.append(as_bytes(order.data))
            streams.append((stream, (n_rows,)))
            if repeats is not None and repeats.any():
                kept_rows = _kept_rows(order, repeats)
        return FinishedIds(streams, encoding, kept_rows)

    def _kept(self, name: str, dtype: str) -> _Kept:
        stream = self._new_stream(name, dtype)
        assert isinstance(stream.output, Spool)
        return _Kept(stream, self._new_spool() if stream.compressed else stream.output)

    def _append_integers(self, ids: NDArray[np.uint64]) -> None:
        ids = np.ascontiguousarray(ids)
        if self._ascending:
            self._ascending = int(ids[0]) > self._last and bool(np.all(ids[1:] > ids[:-1]))
            self._last = int(ids[-1])
        self._integers.append(ids)

    def _append_variable(self, ids: Ids) -> None:
        assert self._variable is not None
        kinds, offsets, data = ids.as_var()
        base = np.uint64(self._data_bytes)
        self._variable[0].append(np.ascontiguousarray(kinds))
        self._variable[1].append(offsets[1:] - offsets[0] + base)
        stored = data[int(offsets[0]) : int(offsets[-1])]
        self._variable[2].append(np.ascontiguousarray(stored))
        self._data_bytes += len(stored)

    def _convert(self) -> None:
        """Go over to ids of any kind: the first one came that is no integer."""
        integers = np.frombuffer(self._integers.view(), np.uint64)
        self._variable = (
            self._kept(ID_KINDS, "u8"),
            self._kept(ID_OFFSETS, "u64"),
            self._kept(ID_BYTES, "u8"),
        )
        self._variable[1].append(np.zeros(1, np.uint64))
        for start in range(0, len(integers), _CONVERTED_TOGETHER):
            self._append_variable(Ids.from_u64(integers[start : start + _CONVERTED_TOGETHER]))
        self._integers.close()

    def _sort(self, n_rows: int) -> tuple[NDArray[np.uint32] | None, NDArray[np.bool_] | None]:
        """Return the rows in ascending order of their ids, and where an id equals the one before.

        None when the rows are in strictly ascending order already.
        """
        if self._variable is None:
            if self._ascending:
                return None, None
            integers = np.frombuffer(self._integers.view(), np.uint64)
            order = np.argsort(integers, kind="stable").astype(np.uint32)
            ordered = integers[order]
            return order, ordered[1:] == ordered[:-1]
        kinds, offsets, data = (kept.view() for kept in self._variable)
        order = np.empty(n_rows, np.uint32)
        _kernels.sort_ids_var(kinds, offsets.cast("Q"), data, order)
        forms = (
            np.frombuffer(kinds, np.uint8),
            np.frombuffer(offsets, np.uint64),
            np.frombuffer(data, np.uint8),
        )
        repeats = _repeats(*forms, order)
        if not repeats.any() and bool(np.all(order[1:] > order[:-1])):
            return None, None
        return order, repeats


class _Kept:
    """A section that is needed again as a whole: where it is compressed, its raw bytes stay beside it."""

    def __init__(self, stream: SectionStream, raw: Spool) -> None:
        self.stream = stream
        self._raw = raw

    def append(self, values: NDArray[Any]) -> None:
        raw = as_bytes(values.data)
        self.stream.append(raw)
        if self._raw is not self.stream.output:
            self._raw.append(raw)

    def view(self) -> memoryview:
        return self._raw.view()

    def close(self) -> None:
        self._raw.close()


def _repeats(
    kinds: NDArray[np.uint8],
    offsets: NDArray[np.uint64],
    data: NDArray[np.uint8],
    order: NDArray[np.uint32],
) -> NDArray[np.bool_]:
    """Return for each place in the order but the first whether its id equals the one before."""
    lengths = (offsets[1:] - offsets[:-1])[order]
    ordered_kinds = kinds[order]
    hashes = np.empty((len(order), 2), np.uint64)
    _kernels.hash_ids_var(kinds, offsets, data, hashes)
    ordered_hashes = hashes[order, 0]
    repeats: NDArray[np.bool_] = (
        (lengths[1:] == lengths[:-1])
        & (ordered_kinds[1:] == ordered_kinds[:-1])
        & (ordered_hashes[1:] == ordered_hashes[:-1])
    )
    # Equal hashes are a hint; the bytes decide.
    for place in np.flatnonzero(repeats).tolist():
        first, second = int(order[place]), int(order[place + 1])
        one = data[int(offsets[first]) : int(offsets[first + 1])]
        two = data[int(offsets[second]) : int(offsets[second + 1])]
        repeats[place] = np.array_equal(one, two)
    return repeats


def _kept_rows(order: NDArray[np.uint32], repeats: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return one row for each id: the last that has it, at the place of the first."""
    starts = np.flatnonzero(np.concatenate([[True], ~repeats]))
    stops = np.append(starts[1:], len(order))
    first_rows = order[starts].astype(np.int64)
    last_rows = order[stops - 1].astype(np.int64)
    kept: NDArray[np.int64] = last_rows[np.argsort(first_rows, kind="stable")]
    return kept
