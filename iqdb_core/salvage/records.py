"""The records of a damaged snapshot: what of each row is proved, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from iqdb_core.batches import slab_rows
from iqdb_core.records import Ids, MetadataColumns
from iqdb_core.salvage.groups import Group, find_groups, read_group
from iqdb_core.salvage.sections import SalvagedSection
from iqdb_core.storage.layout import (
    GROUP_ROWS,
    ID_BYTES,
    ID_ENCODING_U64,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
    META_DATA,
    VECTORS,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from iqdb_core.salvage.layout import Layout
    from iqdb_core.storage.files import FileSystem, OpenFile

_U64 = np.dtype("<u8")


class Slab(NamedTuple):
    """Rows first..first + n of a damaged snapshot. A value that is not proved means nothing.

    Attributes:
        first: the first row.
        vectors: f32[n, dim].
        ids: n ids; any id where it is not proved.
        metadata: n mappings; none where they are not proved. None when no row has any.
        has_vector: bool[n], whether the vector is proved, and finite.
        has_id: bool[n].
        has_metadata: bool[n], whether the mapping, or that there is none, is proved.
    """

    first: int
    vectors: NDArray[np.float32]
    ids: Ids
    metadata: MetadataColumns | None
    has_vector: NDArray[np.bool_]
    has_id: NDArray[np.bool_]
    has_metadata: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def whole(self) -> bool:
        """Whether everything is proved."""
        return bool(self.has_vector.all() and self.has_id.all() and self.has_metadata.all())


class SalvagedRecords:
    """The records of a snapshot whose sections were found.

    Attributes:
        n_rows: rows that the snapshot had.
        ids_restored: ids in damaged blocks that follow from those beside them.
        damaged: where in the file blocks of the records are damaged, by the section's name.
    """

    def __init__(self, layout: Layout, file: OpenFile, files: FileSystem) -> None:
        self._layout = layout
        self._path = file.path
        self.n_rows = layout.header.n_rows
        self.dim = layout.header.dim
        self.sections = {
            name: SalvagedSection(
                entry, layout.seed, layout.checksums_crcs.get(name), file, files, trusted=layout.trusted
            )
            for name, entry in layout.entries.items()
        }
        self.damaged = {name: part.damaged_ranges() for name, part in self.sections.items() if not part.whole}
        self.ids_restored = 0
        self._integers: tuple[NDArray[np.uint64], NDArray[np.bool_]] | None = None
        if layout.header.id_encoding == ID_ENCODING_U64:
            self._integers = self._integer_ids()
        self._groups: list[Group] = []
        if META_DATA in self.sections:
            self._groups = find_groups(self.sections, self.n_rows)

    def slabs(self) -> Iterator[Slab]:
        """Yield all rows in their order, in bounded memory."""
        step = slab_rows(self.dim)
        ranges = self._groups or [
            Group(start, min(start + GROUP_ROWS, self.n_rows), 0, -1)
            for start in range(0, self.n_rows, GROUP_ROWS)
        ]
        for group in ranges:
            columns, known = None, np.ones(group.last_row - group.first_row, np.bool_)
            if self._groups:
                columns, known = read_group(self.sections[META_DATA], group, self._path)
            for start in range(group.first_row, group.last_row, step):
                stop = min(start + step, group.last_row)
                rows = slice(start - group.first_row, stop - group.first_row)
                part = None if columns is None else columns.slice(rows.start, rows.stop)
                yield self._slab(start, stop, part, known[rows])

    def _slab(
        self, start: int, stop: int, metadata: MetadataColumns | None, known: NDArray[np.bool_]
    ) -> Slab:
        width = 4 * self.dim
        section = self.sections[VECTORS]
        vectors = np.frombuffer(section.raw(width * start, width * stop), np.float32)
        vectors = vectors.reshape(stop - start, self.dim)
        has_vector = ~section.lost_items(start, stop, width) & np.isfinite(vectors).all(axis=1)
        ids, has_id = self._ids(start, stop)
        return Slab(start, vectors, ids, metadata, has_vector, has_id, known)

    def damage(self, what: str, first_row: int, last_row: int) -> list[tuple[int, int]]:
        """Return where in the file that is because of which rows lack "records", "ids" or "metadata"."""
        if what == "records":
            width = 4 * self.dim
            return self.sections[VECTORS].damage_of(width * first_row, width * last_row)
        if what == "ids" and self._integers is not None:
            return self.sections[IDS].damage_of(8 * first_row, 8 * last_row)
        if what == "ids":
            offsets = self.sections[ID_OFFSETS]
            found = self.sections[ID_KINDS].damage_of(first_row, last_row)
            found += offsets.damage_of(8 * first_row, 8 * last_row + 8)
            return found + self.sections[ID_BYTES].damaged_ranges()
        return [place for name in self.damaged if name.startswith("meta.") for place in self.damaged[name]]

    # --- Ids ----------------------------------------------------------------------------------------

    def _ids(self, start: int, stop: int) -> tuple[Ids, NDArray[np.bool_]]:
        if self._integers is not None:
            values, known = self._integers
            return Ids.from_u64(values[start:stop]), known[start:stop]
        count = stop - start
        kinds_part, offsets_part, data_part = (
            self.sections[name] for name in (ID_KINDS, ID_OFFSETS, ID_BYTES)
        )
        kinds = np.frombuffer(kinds_part.raw(start, stop), np.uint8)
        offsets = np.frombuffer(offsets_part.raw(8 * start, 8 * stop + 8), _U64)
        lost = kinds_part.lost_items(start, stop, 1) | offsets_part.lost_items(start, stop, 8, 16)
        if not lost.any() and not data_part.lost(int(offsets[0]), int(offsets[-1])):
            data = np.frombuffer(data_part.raw(int(offsets[0]), int(offsets[-1])), np.uint8)
            relative = offsets - offsets[0]
            if Ids(None, kinds, relative, data).first_problem() is None:
                return Ids.from_var(kinds, relative, data), np.ones(count, np.bool_)
        known = np.zeros(count, np.bool_)
        listed: list[object] = [0] * count
        for row in np.flatnonzero(~lost).tolist():
            one = self._one_id(data_part, int(kinds[row]), int(offsets[row]), int(offsets[row + 1]))
            if one is not None:
                listed[row] = one
                known[row] = True
        return Ids.from_list(listed), known

    @staticmethod
    def _one_id(part: SalvagedSection, kind: int, start: int, stop: int) -> object:
        if not start < stop or part.lost(start, stop):
            return None
        data = np.frombuffer(part.raw(start, stop), np.uint8)
        one = Ids(None, np.array([kind], np.uint8), np.array([0, len(data)], np.uint64), data)
        return None if one.first_problem() is not None else one[0]

    def _integer_ids(self) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Return all integer ids and which of them are known.

        In the order of the ids they ascend strictly. So where k of them are lost between a and a + k + 1,
        they can only be the k numbers between.
        """
        section = self.sections[IDS]
        values = np.frombuffer(section.raw(0, 8 * self.n_rows), _U64).astype(np.uint64)
        known = ~section.lost_items(0, self.n_rows, 8)
        if known.all():
            return values, known
        order = np.arange(self.n_rows)
        ordered = self.sections.get(ID_ORDER)
        if ordered is not None:
            if not ordered.whole:
                return values, known
            order = np.frombuffer(ordered.raw(0, 4 * self.n_rows), np.uint32).astype(np.int64)
            if not np.array_equal(np.sort(order), np.arange(self.n_rows)):
                return values, known
        places = np.flatnonzero(known[order])
        numbers = values[order[places]]
        if bool((numbers[1:] <= numbers[:-1]).any()):
            return values, known  # they do not ascend, so nothing follows
        # Before the first there can be no number below 0.
        before, low = -1, -1
        for place, number in zip(places.tolist(), numbers.tolist(), strict=True):
            if place - before > 1 and number - low == place - before:
                rows = order[before + 1 : place]
                values[rows] = np.arange(low + 1, number, dtype=np.uint64)
                known[rows] = True
                self.ids_restored += len(rows)
            before, low = place, number
        return values, known


__all__ = ["SalvagedRecords", "Slab"]
