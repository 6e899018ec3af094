"""The ids of a snapshot, found by row or by id. What is looked at is verified and checked first."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from iqdb_core.errors import StructureError
from iqdb_core.storage.layout import (
    ID_BYTES,
    ID_ENCODING_U64,
    ID_KIND_BYTES,
    ID_KIND_INT,
    ID_KIND_STR,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
    MAX_ID_BYTES,
    Header,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.records import Ids
    from iqdb_core.storage.section import Section, Sections
    from iqdb_core.types import VectorId

_U32 = Struct("<I")
_U64 = Struct("<Q")
_U64_PAIR = Struct("<QQ")
_MAX_U64 = 2**64 - 1
# Up to this many ids, a binary search each touches less than verifying all ids does.
_FEW_IDS = 64


class StoredIds:
    """The sections `ids` or `ids.*` of one snapshot."""

    def __init__(self, sections: Sections, header: Header) -> None:
        self._sections = sections
        self._path = sections.path
        self._n_rows = header.n_rows
        self._all_integers = header.id_encoding == ID_ENCODING_U64

    def at(self, row: int) -> VectorId:
        """Return the id of a row in 0..n_rows-1."""
        if self._all_integers:
            number: int = _U64.unpack(self._sections.part(IDS).read(8 * row, 8 * row + 8))[0]
            return number
        kind, data = self._var_id(row)
        if kind == ID_KIND_INT:
            return int.from_bytes(data, "little")
        if kind == ID_KIND_BYTES:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise StructureError(self._path, f"the id of row {row}", "UTF-8", str(error)) from error

    def find(self, record_id: VectorId) -> int:
        """Return the row of an id, or -1. Only the blocks that a binary search touches are verified."""
        ordered = ID_ORDER in self._sections
        order = self._sections.part(ID_ORDER) if ordered else None
        low, high = 0, self._n_rows
        if self._all_integers:
            if type(record_id) is not int or not 0 <= record_id <= _MAX_U64:
                return -1
            ids = self._sections.part(IDS)
            if order is None and high:
                # Strictly ascending integers: row r holds at least ids[0] + r. Where they are
                # consecutive, as row numbers are, the first probe hits.
                first: int = _U64.unpack(ids.read(0, 8))[0]
                high = min(high, record_id - first + 1)
            probe = high - 1
            while low < high:
                row = self._ordered_row(order, probe)
                found: int = _U64.unpack(ids.read(8 * row, 8 * row + 8))[0]
                if found == record_id:
                    return row
                if found < record_id:
                    low = probe + 1
                else:
                    high = probe
                probe = (low + high) >> 1
            return -1
        key = _id_key(record_id)
        while low < high:
            probe = (low + high) >> 1
            row = self._ordered_row(order, probe)
            kind, data = self._var_id(row)
            # Integers order by value: their bytes reversed compare as big-endian numbers do.
            found_key = (kind, data[::-1] if kind == ID_KIND_INT else data)
            if found_key == key:
                return row
            if found_key < key:
                low = probe + 1
            else:
                high = probe
        return -1

    def find_many(self, ids: Ids) -> NDArray[np.int64]:
        """Return the row of each id, -1 where there is none, as i64[len(ids)].

        Raises:
            ChecksumError, StructureError: the stored ids are damaged.
        """
        import numpy as np

        from iqdb_core import _kernels

        rows = np.full(len(ids), -1, np.int64)
        if not len(ids) or not self._n_rows:
            return rows
        if len(ids) <= _FEW_IDS:
            rows[:] = [self.find(record_id) for record_id in ids.to_list()]
            return rows
        order = self._array(ID_ORDER) if ID_ORDER in self._sections else None
        try:
            if self._all_integers:
                if ids.u64 is not None:
                    _kernels.lookup_u64(self._array(IDS), order, np.ascontiguousarray(ids.u64), rows)
                else:
                    self._find_integers(ids, order, rows)
            else:
                kinds, offsets, data = map(np.ascontiguousarray, ids.as_var())
                _kernels.lookup_var(
                    self._array(ID_KINDS),
                    self._array(ID_OFFSETS),
                    self._array(ID_BYTES),
                    order,
                    kinds,
                    offsets,
                    data,
                    rows,
                )
        except ValueError as error:
            raise StructureError(self._path, "ids", "offsets and rows in range", str(error)) from error
        return rows

    def slice(self, start: int, stop: int) -> Ids:
        """Return the ids of rows start..stop; integers without a copy.

        Raises:
            ChecksumError, StructureError: they are damaged.
        """
        import numpy as np

        from iqdb_core.records import Ids

        if self._all_integers:
            return Ids.from_u64(np.frombuffer(self._sections.part(IDS).read(8 * start, 8 * stop), np.uint64))
        kinds = np.frombuffer(self._sections.part(ID_KINDS).read(start, stop), np.uint8)
        offsets = np.frombuffer(self._sections.part(ID_OFFSETS).read(8 * start, 8 * stop + 8), np.uint64)
        if np.any(offsets[1:] < offsets[:-1]):
            raise StructureError(self._path, "ids.offsets", "ascending offsets", f"others in {start}..{stop}")
        first, last = int(offsets[0]), int(offsets[-1])
        data = np.frombuffer(self._sections.part(ID_BYTES).read(first, last), np.uint8)
        # The stored form is kept even when all ids here are integers; `from_var` normalises it.
        relative = offsets - offsets[0]
        problem = Ids(None, kinds, relative, data).first_problem()
        if problem is not None:
            row, reason = problem
            raise StructureError(self._path, f"the id of row {start + row}", "an id", f"one that {reason}")
        return Ids.from_var(kinds, relative, data)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint64] | list[VectorId]:
        """Return the ids of `rows`: u64[len(rows)] when all stored ids are integers, else a list."""
        import numpy as np

        if not self._all_integers:
            return [self.at(row) for row in rows.tolist()]
        if len(rows) <= _FEW_IDS:
            return np.array([self.at(row) for row in rows.tolist()], np.uint64)
        ids: NDArray[np.uint64] = np.frombuffer(self._array(IDS), np.uint64)[rows]
        return ids

    def _find_integers(self, ids: Ids, order: memoryview | None, rows: NDArray[np.int64]) -> None:
        """Look up ids of several kinds where all stored ones are integers."""
        import numpy as np

        from iqdb_core import _kernels

        kinds, _, _ = ids.as_var()
        places = np.flatnonzero(kinds == ID_KIND_INT)
        if len(places):
            integers = ids.take(places).u64
            assert integers is not None
            found = np.empty(len(places), np.int64)
            _kernels.lookup_u64(self._array(IDS), order, np.ascontiguousarray(integers), found)
            rows[places] = found

    def _ordered_row(self, order: Section | None, place: int) -> int:
        if order is None:
            return place
        row: int = _U32.unpack(order.read(4 * place, 4 * place + 4))[0]
        if row >= self._n_rows:
            raise StructureError(self._path, f"ids.order[{place}]", f"a row below {self._n_rows}", row)
        return row

    def _var_id(self, row: int) -> tuple[int, bytes]:
        kind = self._sections.part(ID_KINDS).read(row, row + 1)[0]
        start, stop = _U64_PAIR.unpack(self._sections.part(ID_OFFSETS).read(8 * row, 8 * row + 16))
        size = stop - start
        if kind > ID_KIND_STR or not 1 <= size <= MAX_ID_BYTES or (kind == ID_KIND_INT and size != 8):
            raise StructureError(self._path, f"the id of row {row}", "an id", f"kind {kind} of {size} bytes")
        return kind, bytes(self._sections.part(ID_BYTES).read(start, stop))

    def _array(self, name: str) -> memoryview:
        return self._sections.part(name).array()


def _id_key(record_id: VectorId) -> tuple[int, bytes]:
    """Return what orders ids: the kind, then bytes that compare as the ids do."""
    if isinstance(record_id, str):
        return ID_KIND_STR, record_id.encode()
    if isinstance(record_id, bytes):
        return ID_KIND_BYTES, record_id
    return ID_KIND_INT, record_id.to_bytes(8, "big")
