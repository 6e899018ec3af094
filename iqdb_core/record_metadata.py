"""The metadata of many records as typed columns: one for each pair of key and type that occurs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from iqdb_core.column_type import ColumnType
from iqdb_core.record_strings import CodedStrings, StringValues
from iqdb_core.storage.layout import KEY_WEIGHT
from iqdb_core.types import (
    MAX_METADATA_WEIGHT,
    Metadata,
    MetadataValue,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from iqdb_core.record_ids import Where

Values: TypeAlias = "NDArray[Any] | StringValues | CodedStrings"


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The values that one key has in one type.

    Attributes:
        key: the metadata key.
        type: the type of all values here.
        rows: u32[count], ascending, the rows that have these values; None when every row has one.
        values: bool[count], i64[count], f64[count], `StringValues` or `CodedStrings`; for nulls
            bool[count], all false, which only counts them.
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
        if not isinstance(self.values, np.ndarray):
            return list(self.values.to_str())
        plain: list[MetadataValue] = self.values.tolist()
        return plain


_ColumnKey: TypeAlias = "tuple[str, ColumnType]"


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
        from iqdb_core.record_mappings import metadata_from_mappings

        return metadata_from_mappings(rows, where)

    @classmethod
    def from_arrow(
        cls,
        columns: Sequence[tuple[str, Any] | tuple[str, Any, ColumnType]],
        n_rows: int,
        *,
        nulls: Literal["null", "absent"] = "null",
        has_metadata: NDArray[np.bool_] | None = None,
        where: Where = "",
    ) -> MetadataColumns:
        """Convert Arrow columns; all values become int64, float64, bool or UTF-8.

        Args:
            columns: pairs of key and Arrow array or chunked array of `n_rows`: integers of every width,
                floats, bool, every kind of string, null, and dictionaries of these. A third item says
                which type the values must have. `ColumnType.NULL` there means that the array is bool
                and true where the value is an explicit None; elsewhere the key is absent. A key may
                occur in several items, but with no more than one value a row.
            n_rows: the number of records.
            nulls: what a null cell means: an explicit None ("null"), or that the key is absent.
            has_metadata: bool[n_rows], which records have a mapping; None when all have.
            where: names the records in an error: a prefix, or a function of the row.

        Raises:
            InvalidMetadataError: a column has another type, or a value breaks the rules.
        """
        from iqdb_core.record_arrow import metadata_from_arrow

        return metadata_from_arrow(columns, n_rows, nulls=nulls, has_metadata=has_metadata, where=where)

    def __len__(self) -> int:
        return self.n_rows

    @property
    def any_mapping(self) -> bool:
        """True when at least one record has a mapping, be it an empty one."""
        return self.n_rows > 0 and (self.has_metadata is None or bool(self.has_metadata.any()))

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
                columns.append(Column(column.key, column.type, None, part_of(column.values, start, stop)))
                continue
            first, last = np.searchsorted(column.rows, (start, stop)).tolist()
            if first < last:
                rows = column.rows[first:last] - np.uint32(start)
                columns.append(Column(column.key, column.type, rows, part_of(column.values, first, last)))
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
            cells: Any = np.uint64(KEY_WEIGHT + len(column.key.encode()))
            if not isinstance(column.values, np.ndarray):
                cells = cells + column.values.lengths.view(np.uint64)
            if column.rows is None:
                weights += cells
            else:
                weights[column.rows] += cells
        return weights

    @property
    def may_be_too_heavy(self) -> bool:
        """False when no record can weigh more than one may, because all together do not."""
        total = 0
        for column in self.columns:
            total += len(column) * (KEY_WEIGHT + 4 * len(column.key))
            if not isinstance(column.values, np.ndarray):
                total += column.values.text_bytes
        return total > MAX_METADATA_WEIGHT

    @property
    def repeated_bytes(self) -> int:
        """How many bytes the strings would take beyond what they take, were they all written out."""
        coded = [column.values for column in self.columns if isinstance(column.values, CodedStrings)]
        return sum(values.text_bytes - values.entries.text_bytes for values in coded)

    def coded(self) -> MetadataColumns:
        """Return the same with strings as codes where many are the same."""
        columns = [
            Column(column.key, column.type, column.rows, column.values.coded())
            if isinstance(column.values, StringValues)
            else column
            for column in self.columns
        ]
        return MetadataColumns(self.n_rows, self.has_metadata, tuple(columns))

    def hash(self, out: NDArray[np.uint64]) -> None:
        """Write the content digest's hashes of the mappings to `out`, u64[n_rows, 2]."""
        from iqdb_core import _kernels

        out[:] = np.array(_kernels.hash_bytes(b""), np.uint64)
        for column in self.columns:
            key = column.key.encode()
            prefix = len(key).to_bytes(4, "little") + key + bytes([column.type])
            values, rows = column.values, column.rows
            if isinstance(values, CodedStrings):
                few = values.trimmed()
                hashes = np.zeros((len(few.entries), 2), np.uint64)
                data = np.ascontiguousarray(few.entries.data)
                _kernels.hash_strings(prefix, few.entries.offsets, data, None, hashes)
                # No row has two values of one column.
                out[slice(None) if rows is None else rows] += hashes[few.codes]
            elif isinstance(values, StringValues):
                _kernels.hash_strings(prefix, values.offsets, np.ascontiguousarray(values.data), rows, out)
            elif column.type is ColumnType.NULL:
                out[slice(None) if rows is None else rows] += np.array(_kernels.hash_bytes(prefix), np.uint64)
            else:
                raw = np.ascontiguousarray(values).view(np.uint8)
                _kernels.hash_values(prefix, raw, values.itemsize, rows, out)
        if self.has_metadata is not None:
            out[~self.has_metadata] = 0


# --- Parts of columns ---------------------------------------------------------------------------


def part_of(values: Values, start: int, stop: int) -> Values:
    """Return the values start..stop, shared where possible."""
    return values[start:stop] if isinstance(values, np.ndarray) else values.slice(start, stop)


def _take(values: Values, rows: NDArray[np.integer]) -> Values:
    return values[rows] if isinstance(values, np.ndarray) else values.take(rows)


def _concat(parts: Sequence[Any]) -> Values:
    if any(isinstance(part, CodedStrings) for part in parts):
        return parts[0] if len(parts) == 1 else CodedStrings.concat(parts)
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
