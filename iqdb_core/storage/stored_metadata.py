"""The metadata of a snapshot, by row or by group. What is looked at is verified and checked first."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from iqdb_core.errors import StructureError
from iqdb_core.storage.layout import META_DATA, META_GROUPS, META_ROWS, Header

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.records import MetadataColumns
    from iqdb_core.storage.columns import GroupView
    from iqdb_core.storage.columns_reader import NumberPart
    from iqdb_core.storage.section import Sections

_CACHED_GROUPS = 64
# An opened column takes some 450 bytes: about 30 MB, and one group, whatever a file says.
_CACHED_COLUMNS = 1 << 16
_CACHED_KEYS = 16


class StoredMetadata:
    """The sections `meta.*` of one snapshot.

    Attributes:
        exists: whether there are any; without them no record has metadata.
    """

    def __init__(self, sections: Sections, header: Header) -> None:
        self._sections = sections
        self._path = sections.path
        self._n_rows = header.n_rows
        self.exists = META_DATA in sections
        self._opened: dict[int, GroupView] = {}
        self._opened_columns = 0
        self._numbers: dict[str, list[NumberPart]] = {}
        self._checked_bounds: tuple[memoryview, memoryview] | None = None

    @property
    def n_groups(self) -> int:
        """The number of metadata groups, 0 when no record has metadata."""
        return self._sections.part(META_ROWS).shape[0] - 1 if self.exists else 0

    def group_rows(self, group: int) -> tuple[int, int]:
        """Return the first row of a group and the one after its last."""
        rows, _ = self.bounds()
        return rows[group], rows[group + 1]

    def group_of(self, row: int) -> int:
        """Return the number of the group that holds a row in 0..n_rows-1."""
        return bisect_right(self.bounds()[0], row) - 1

    def group(self, group: int) -> GroupView:
        """Return the metadata of one group, of which nothing is read before it is asked for."""
        view = self._opened.get(group)
        if view is None:
            view = self._open_group(group)
            self._opened_columns += len(view.columns)
            if len(self._opened) >= _CACHED_GROUPS or self._opened_columns > _CACHED_COLUMNS:
                self._opened = {}
                self._opened_columns = len(view.columns)
            self._opened[group] = view
        return view

    def groups(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, GroupView]]:
        """Yield first row, end row and view of every group that has rows in start..stop."""
        stop = self._n_rows if stop is None else stop
        if not self.exists or start >= stop:
            return
        for number in range(self.group_of(start), self.n_groups):
            first, last = self.group_rows(number)
            if first >= stop:
                return
            yield first, last, self.group(number)

    def numbers(self, key: str) -> list[NumberPart]:
        """Return all numbers that rows have under a key, group by group. The arrays are kept.

        Numbers are not copied, so what is kept is small, and no group has to stay open for it.
        """
        parts = self._numbers.get(key)
        if parts is None:
            from iqdb_core.storage.columns_reader import number_parts

            parts = [part for first, _, group in self.groups() for part in number_parts(group, key, first)]
            if len(self._numbers) >= _CACHED_KEYS:
                self._numbers = {}
            self._numbers[key] = parts
        return parts

    def group_blob(self, group: int) -> memoryview:
        """Return the stored form of one group, verified and decoded, as it was encoded."""
        _, offsets = self.bounds()
        return self._sections.part(META_DATA).read(offsets[group], offsets[group + 1])

    def at(self, row: int) -> dict[str, Any] | None:
        """Return the metadata of a row in 0..n_rows-1, None when it has none."""
        if not self.exists:
            return None
        group = self.group_of(row)
        first, last = self.group_rows(group)
        assert first <= row < last, "the bounds of the groups were checked"
        metadata: dict[str, Any] | None = self.group(group).row(row - first)
        return metadata

    def slice(self, start: int, stop: int) -> MetadataColumns | None:
        """Return the metadata of rows start..stop; None when no record of the snapshot has any."""
        from iqdb_core.records import MetadataColumns

        if not self.exists:
            return None
        if start >= stop:
            return MetadataColumns.none(0)
        parts = [
            view.to_columns(rows=(max(start - first, 0), min(stop, last) - first))
            for first, last, view in self.groups(start, stop)
        ]
        return MetadataColumns.concat(parts)

    def bounds(self) -> tuple[memoryview, memoryview]:
        """Return the first rows and the byte offsets of the groups, which are checked once."""
        bounds = self._checked_bounds
        if bounds is None:
            rows, offsets = self._sections.part(META_ROWS).array(), self._sections.part(META_GROUPS).array()
            for name, array, end in (
                (META_ROWS, rows, self._n_rows),
                (META_GROUPS, offsets, self._sections.part(META_DATA).raw_bytes),
            ):
                ascending = all(array[i] < array[i + 1] for i in range(len(array) - 1))
                if array[0] != 0 or array[-1] != end or not ascending:
                    raise StructureError(self._path, name, f"ascending from 0 to {end}", "something else")
            bounds = self._checked_bounds = rows, offsets
        return bounds

    def _open_group(self, group: int) -> GroupView:
        from iqdb_core.storage.columns import GroupView

        rows, offsets = self.bounds()
        start, stop = offsets[group], offsets[group + 1]
        section = self._sections.part(META_DATA)

        def ensure(first: int, last: int) -> None:
            section.read(start + first, start + last)

        blob = section.decoded() if section.compressed else section.unverified()
        view = GroupView(blob[start:stop], self._path, f"metadata group {group}", ensure)
        if view.n_rows != rows[group + 1] - rows[group]:
            raise StructureError(
                self._path, f"metadata group {group}", f"{rows[group + 1] - rows[group]} rows", view.n_rows
            )
        return view

    def close(self) -> None:
        """Forget the groups that were opened."""
        self._opened = {}
        self._opened_columns = 0
        self._numbers = {}
        self._checked_bounds = None

    def take(self, rows: NDArray[np.int64]) -> MetadataColumns | None:
        """Return the metadata of `rows`, in that order; each group that holds some is read once."""
        import numpy as np

        from iqdb_core.records import MetadataColumns

        if not self.exists:
            return None
        if not len(rows):
            return MetadataColumns.none(0)
        first_rows = np.frombuffer(self.bounds()[0], np.uint64).astype(np.int64)
        groups = np.searchsorted(first_rows, rows, side="right") - 1
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
        parts = []
        for places in np.split(order, starts[1:]):
            group = int(groups[places[0]])
            parts.append(self.group(group).to_columns().take(rows[places] - first_rows[group]))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return MetadataColumns.concat(parts).take(back)
