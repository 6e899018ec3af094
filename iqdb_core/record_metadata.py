"""The metadata of many records as typed columns: one for each pair of key and type that occurs."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from iqdb_core.column_type import ColumnType
from iqdb_core.errors import InvalidMetadataError
from iqdb_core.record_ids import Where, place
from iqdb_core.record_strings import StringValues
from iqdb_core.types import (
    MAX_KEY_BYTES,
    MAX_KEYS_PER_RECORD,
    MAX_STRING_BYTES,
    Metadata,
    MetadataValue,
    validate_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

Values: TypeAlias = "NDArray[Any] | StringValues"

MAX_RECORD_WEIGHT = 64 << 20
"""The most metadata, by `MetadataColumns.weights`, that one record may have."""

_CELL_WEIGHT = 16
_ABSENT: Any = object()


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values that one key has in one type.

    Attributes:
        key: the metadata key.
        type: the type of all values here.
        rows: u32[count], ascending, the rows that have these values; None when every row has one.
        values: bool[count], i64[count], f64[count] or `StringValues`; for nulls bool[count], all
            false, which only counts them.
    """

    key: str
    type: ColumnType
    rows: NDArray[np.uint32] | None
    values: Values

    def __len__(self) -> int:
        return len(self.values)

    def to_list(self) -> list[MetadataValue]:
        """Return the values as plain Python objects, one for each row that has one."""
        if self.type is ColumnType.NULL:
            return [None] * len(self.values)
        if isinstance(self.values, StringValues):
            return list(self.values.to_str())
        plain: list[MetadataValue] = self.values.tolist()
        return plain


_ColumnKey: TypeAlias = "tuple[str, ColumnType]"
_DTYPES = {ColumnType.NULL: np.bool_, ColumnType.BOOL: np.bool_, ColumnType.INT64: np.int64}


@dataclass(frozen=True, slots=True, eq=False)
class MetadataColumns:
    """The metadata of `n_rows` records.

    Attributes:
        n_rows: the number of records.
        has_metadata: bool[n_rows], which records have a mapping at all (an empty one counts); None
            when all have.
        columns: sorted by key (its UTF-8 bytes) and type, none of them empty. No row is in two
            columns of one key, and none without a mapping is in any.
    """

    n_rows: int
    has_metadata: NDArray[np.bool_] | None
    columns: tuple[Column, ...]

    @classmethod
    def none(cls, n_rows: int) -> MetadataColumns:
        """Return `n_rows` records without a mapping."""
        return cls(n_rows, np.zeros(n_rows, np.bool_) if n_rows else None, ())

    @classmethod
    def build(
        cls, n_rows: int, has_metadata: NDArray[np.bool_] | None, columns: Iterable[Column]
    ) -> MetadataColumns:
        """Bring columns of valid content into the form that the class promises.

        Sorts them, leaves out the empty ones, and turns masks and row lists that select every row
        into None.
        """
        if has_metadata is not None and bool(has_metadata.all()):
            has_metadata = None
        tidy = []
        for column in columns:
            if not len(column):
                continue
            if column.rows is not None and len(column) == n_rows:
                tidy.append(Column(column.key, column.type, None, column.values))
            else:
                tidy.append(column)
        # UTF-8 sorts by bytes as the characters sort by code point, which is how Python compares.
        tidy.sort(key=lambda column: (column.key, column.type))
        return cls(n_rows, has_metadata, tuple(tidy))

    @classmethod
    def from_dicts(cls, rows: Sequence[Metadata | None], *, where: Where = "") -> MetadataColumns:
        """Check and transpose the metadata of records.

        Args:
            rows: for each record a mapping of str to str, int (int64), float, bool or None, or None
                when it has no mapping. NumPy's scalars are accepted as their plain counterparts.
            where: names the records in an error: a prefix, or a function of the row.

        Raises:
            InvalidMetadataError: a key or value is something else or too large; it names the first
                such record.
        """
        try:
            columns = _transpose(rows)
        except _NotPlainError:
            plain = []
            for row, value in enumerate(rows):
                plain.append(validate_metadata(value, place(where, row)))
                _check_weight(plain[-1], place(where, row))
            columns = _transpose(plain)
        return columns

    def __len__(self) -> int:
        return self.n_rows

    @property
    def keys(self) -> list[str]:
        """The distinct keys, sorted."""
        return list(dict.fromkeys(column.key for column in self.columns))

    def to_dicts(self) -> list[dict[str, MetadataValue] | None]:
        """Return the metadata of every record; the keys of each are sorted."""
        columns = self.columns
        full = all(column.rows is None for column in columns)
        if columns and full and self.has_metadata is None:
            keys = [column.key for column in columns]
            cells = zip(*[column.to_list() for column in columns], strict=True)
            return [dict(zip(keys, row, strict=True)) for row in cells]
        result: list[Any] = [{} for _ in range(self.n_rows)]
        if self.has_metadata is not None:
            for row in np.flatnonzero(~self.has_metadata).tolist():
                result[row] = None
        for column in columns:
            key = column.key
            rows = range(self.n_rows) if column.rows is None else column.rows.tolist()
            for row, value in zip(rows, column.to_list(), strict=True):
                result[row][key] = value
        return result

    def row(self, row: int) -> dict[str, MetadataValue] | None:
        """Return the metadata of one record."""
        if not 0 <= row < self.n_rows:
            message = f"row {row} of {self.n_rows}"
            raise IndexError(message)
        return self.slice(row, row + 1).to_dicts()[0]

    def slice(self, start: int, stop: int) -> MetadataColumns:
        """Return the metadata of the records start..stop. Values are shared where possible."""
        assert 0 <= start <= stop <= self.n_rows
        has = None if self.has_metadata is None else self.has_metadata[start:stop]
        columns = []
        for column in self.columns:
            if column.rows is None:
                columns.append(Column(column.key, column.type, None, _slice(column.values, start, stop)))
                continue
            first, last = np.searchsorted(column.rows, (start, stop)).tolist()
            if first < last:
                rows = column.rows[first:last] - np.uint32(start)
                columns.append(Column(column.key, column.type, rows, _slice(column.values, first, last)))
        return MetadataColumns.build(stop - start, has, columns)

    def take(self, rows: NDArray[np.integer]) -> MetadataColumns:
        """Return the metadata of the records at `rows`, in that order; a row may occur repeatedly."""
        has = None if self.has_metadata is None else self.has_metadata[rows]
        columns = []
        for column in self.columns:
            if column.rows is None:
                columns.append(Column(column.key, column.type, None, _take(column.values, rows)))
                continue
            places = np.searchsorted(column.rows, rows)
            places[places == len(column.rows)] = 0
            here = np.flatnonzero(column.rows[places] == rows)
            if len(here):
                values = _take(column.values, places[here])
                columns.append(Column(column.key, column.type, here.astype(np.uint32), values))
        return MetadataColumns.build(len(rows), has, columns)

    @staticmethod
    def concat(parts: Iterable[MetadataColumns]) -> MetadataColumns:
        """Return the metadata of the records of all parts, in order."""
        every = [part for part in parts if part.n_rows]
        if len(every) == 1:
            return every[0]
        n_rows = sum(part.n_rows for part in every)
        has: NDArray[np.bool_] | None = None
        if any(part.has_metadata is not None for part in every):
            has = np.concatenate([_mask(part) for part in every])
        pieces: dict[_ColumnKey, list[tuple[int, int, Column]]] = {}
        first = 0
        for part in every:
            for column in part.columns:
                pieces.setdefault((column.key, column.type), []).append((first, part.n_rows, column))
            first += part.n_rows
        columns = []
        for (key, type_), found in pieces.items():
            values = _concat([column.values for _, _, column in found])
            rows = None
            if len(values) < n_rows:
                rows = np.concatenate([_rows_from(start, count, column) for start, count, column in found])
            columns.append(Column(key, type_, rows, values))
        return MetadataColumns.build(n_rows, has, columns)

    def weights(self) -> NDArray[np.uint64]:
        """Return u64[n_rows], a bound on the bytes that each record's metadata takes in a file.

        It is the sum over the record's keys of 16 + the key's bytes + the bytes of a string value.
        """
        weights = np.zeros(self.n_rows, np.uint64)
        for column in self.columns:
            cells: Any = np.uint64(_CELL_WEIGHT + len(column.key.encode()))
            if isinstance(column.values, StringValues):
                cells = cells + column.values.lengths.view(np.uint64)
            if column.rows is None:
                weights += cells
            else:
                weights[column.rows] += cells
        return weights

    def hash(self, out: NDArray[np.uint64]) -> None:
        """Write the content digest's hashes of the mappings to `out`, u64[n_rows, 2]."""
        from iqdb_core import _kernels

        out[:] = np.array(_kernels.hash_bytes(b""), np.uint64)
        for column in self.columns:
            key = column.key.encode()
            prefix = len(key).to_bytes(4, "little") + key + bytes([column.type])
            values, rows = column.values, column.rows
            if isinstance(values, StringValues):
                _kernels.hash_strings(prefix, values.offsets, np.ascontiguousarray(values.data), rows, out)
            elif column.type is ColumnType.NULL:
                out[slice(None) if rows is None else rows] += np.array(_kernels.hash_bytes(prefix), np.uint64)
            else:
                raw = np.ascontiguousarray(values).view(np.uint8)
                _kernels.hash_values(prefix, raw, values.itemsize, rows, out)
        if self.has_metadata is not None:
            out[~self.has_metadata] = 0


# --- Parts of columns ---------------------------------------------------------------------------


def _slice(values: Values, start: int, stop: int) -> Values:
    return values.slice(start, stop) if isinstance(values, StringValues) else values[start:stop]


def _take(values: Values, rows: NDArray[np.integer]) -> Values:
    return values.take(rows) if isinstance(values, StringValues) else values[rows]


def _concat(parts: Sequence[Any]) -> Values:
    if isinstance(parts[0], StringValues):
        return StringValues.concat(parts)
    joined: NDArray[Any] = np.concatenate(parts)
    return joined


def _mask(columns: MetadataColumns) -> NDArray[np.bool_]:
    return np.ones(columns.n_rows, np.bool_) if columns.has_metadata is None else columns.has_metadata


def _rows_from(first: int, n_rows: int, column: Column) -> NDArray[np.uint32]:
    if column.rows is None:
        return np.arange(first, first + n_rows, dtype=np.uint32)
    return column.rows + np.uint32(first)


# --- From mappings to columns -------------------------------------------------------------------


class _NotPlainError(Exception):
    """Something is not plainly valid; whether it is wrong, and where, is for the slow pass to say."""


def _transpose(rows: Sequence[Any]) -> MetadataColumns:
    """Build columns from dicts, with as few steps per value in Python as possible."""
    n_rows = len(rows)
    types = set(map(type, rows))
    has: NDArray[np.bool_] | None = None
    present: Sequence[dict[str, Any]] = rows
    numbers: NDArray[np.uint32] | None = None
    if not types <= {dict}:
        if not types <= {dict, type(None)}:
            raise _NotPlainError
        has = np.fromiter([row is not None for row in rows], np.bool_, n_rows)
        present = [row for row in rows if row is not None]
        numbers = np.flatnonzero(has).astype(np.uint32)
    if not present:
        return MetadataColumns.build(n_rows, has, ())
    keys = set(chain.from_iterable(present))
    _check_keys(keys, max(map(len, present)))
    columns: list[Column] = []
    for key, cells, where in _cells(present, keys):
        if where is None:
            where_rows = numbers
        else:
            indices = np.array(where, np.uint32)
            where_rows = indices if numbers is None else numbers[indices]
        columns.extend(_typed_columns(key, cells, where_rows))
    result = MetadataColumns.build(n_rows, has, columns)
    if _may_be_too_heavy(columns) and int(result.weights().max()) > MAX_RECORD_WEIGHT:
        raise _NotPlainError
    return result


def _cells(
    rows: Sequence[dict[str, Any]], keys: set[str]
) -> Iterable[tuple[str, Sequence[Any], list[int] | None]]:
    """Yield for each key its values and the rows that have one (None: all have)."""
    n_cells = sum(map(len, rows))
    if n_cells == len(rows) * len(keys):
        for key in keys:
            yield key, list(map(itemgetter(key), rows)), None
    elif len(rows) * len(keys) <= 4 * n_cells:
        for key in keys:
            cells = [row.get(key, _ABSENT) for row in rows]
            where = [index for index, value in enumerate(cells) if value is not _ABSENT]
            if len(where) == len(cells):
                yield key, cells, None
            else:
                yield key, [cells[index] for index in where], where
    else:
        # Few rows have any one key: go through the values, not through the rows for every key.
        found: dict[str, tuple[list[Any], list[int]]] = {key: ([], []) for key in keys}
        for index, row in enumerate(rows):
            for key, value in row.items():
                values, indices = found[key]
                values.append(value)
                indices.append(index)
        for key, (values, indices) in found.items():
            yield key, values, indices


def _check_keys(keys: set[Any], most_keys: int) -> None:
    if not set(map(type, keys)) <= {str} or most_keys > MAX_KEYS_PER_RECORD:
        raise _NotPlainError
    try:
        sizes = [len(key.encode()) for key in keys]
    except UnicodeEncodeError:
        raise _NotPlainError from None
    if max(sizes, default=0) > MAX_KEY_BYTES:
        raise _NotPlainError


def _nulls(values: Sequence[Any]) -> Values:
    return np.zeros(len(values), np.bool_)


def _bools(values: Sequence[Any]) -> Values:
    return np.frombuffer(bytes(values), np.bool_)


def _int64s(values: Sequence[Any]) -> Values:
    try:
        return np.frombuffer(array("q", values), np.int64)
    except OverflowError:
        raise _NotPlainError from None


def _float64s(values: Sequence[Any]) -> Values:
    return np.frombuffer(array("d", values), np.float64)


def _strings(values: Sequence[Any]) -> Values:
    try:
        strings = StringValues.from_str(values)
    except UnicodeEncodeError:
        raise _NotPlainError from None
    if len(strings.data) > MAX_STRING_BYTES and int(strings.lengths.max()) > MAX_STRING_BYTES:
        raise _NotPlainError
    return strings


_READERS: dict[type, tuple[ColumnType, Callable[[Sequence[Any]], Values]]] = {
    type(None): (ColumnType.NULL, _nulls),
    bool: (ColumnType.BOOL, _bools),
    int: (ColumnType.INT64, _int64s),
    float: (ColumnType.FLOAT64, _float64s),
    str: (ColumnType.STRING, _strings),
}


def _typed_columns(key: str, cells: Sequence[Any], rows: NDArray[np.uint32] | None) -> list[Column]:
    """Split the values of one key by their types."""
    types = set(map(type, cells))
    if not types <= _READERS.keys():
        raise _NotPlainError
    if len(types) == 1:
        type_, read = _READERS[types.pop()]
        return [Column(key, type_, rows, read(cells))]
    columns = []
    for kind in types:
        type_, read = _READERS[kind]
        where = np.array([index for index, value in enumerate(cells) if type(value) is kind], np.uint32)
        values = read([value for value in cells if type(value) is kind])
        columns.append(Column(key, type_, where if rows is None else rows[where], values))
    return columns


def _may_be_too_heavy(columns: Iterable[Column]) -> bool:
    """Return whether all records together weigh more than one may."""
    total = 0
    for column in columns:
        total += len(column) * (_CELL_WEIGHT + 4 * len(column.key))
        if isinstance(column.values, StringValues):
            total += len(column.values.data)
    return total > MAX_RECORD_WEIGHT


def _check_weight(row: Mapping[str, MetadataValue] | None, where: str) -> None:
    weight = 0
    for key, value in (row or {}).items():
        weight += _CELL_WEIGHT + len(key.encode()) + (len(value.encode()) if isinstance(value, str) else 0)
    if weight > MAX_RECORD_WEIGHT:
        reason = f"the record's metadata takes {weight} bytes, the limit is {MAX_RECORD_WEIGHT}"
        raise InvalidMetadataError(None, reason, where=where)
