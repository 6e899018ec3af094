"""Arrow arrays to metadata columns, without a Python object for each value."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from iqdb_core.column_type import ColumnType
from iqdb_core.errors import InvalidMetadataError
from iqdb_core.record_ids import Where, place
from iqdb_core.record_metadata import Column, MetadataColumns, Values
from iqdb_core.record_strings import StringValues
from iqdb_core.types import (
    MAX_INT64,
    MAX_KEYS_PER_RECORD,
    MAX_METADATA_WEIGHT,
    MAX_STRING_BYTES,
    validate_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Nulls: TypeAlias = Literal["null", "absent"]
ArrowColumn: TypeAlias = "tuple[str, Any] | tuple[str, Any, ColumnType]"

types = pa.types


def metadata_from_arrow(
    columns: Sequence[ArrowColumn],
    n_rows: int,
    *,
    nulls: Nulls = "null",
    has_metadata: NDArray[np.bool_] | None = None,
    where: Where = "",
) -> MetadataColumns:
    """Return the metadata that Arrow columns hold. See `MetadataColumns.from_arrow`."""
    found: list[Column] = []
    for key, array, *declared in columns:
        validate_metadata({key: None}, "")
        assert len(array) == n_rows
        chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        parts = []
        first = 0
        for chunk in chunks:
            reader = _ChunkReader(key, first, where)
            if declared == [ColumnType.NULL]:
                parts.append(reader.marked_nulls(chunk))
            else:
                parts.append(reader.read(chunk, nulls))
            first += len(chunk)
        read = MetadataColumns.concat(parts).columns
        for column in read:
            if declared and column.type not in (*declared, ColumnType.NULL):
                reason = f"expected {declared[0].label} values, found {column.type.label}"
                raise InvalidMetadataError(key, reason)
        found.extend(read)
    result = MetadataColumns.build(n_rows, has_metadata, found)
    _check_rows(result, where)
    return result


class _ChunkReader:
    """Converts one chunk of one column, whose first row is `first`."""

    def __init__(self, key: str, first: int, where: Where) -> None:
        self._key = key
        self._first = first
        self._where = where

    def read(self, chunk: Any, nulls: Nulls) -> MetadataColumns:
        if isinstance(chunk, pa.ExtensionArray):
            chunk = chunk.storage
        if types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_decode()
        if str(chunk.type) == "string_view":
            chunk = chunk.cast(pa.large_string())
        n_rows = len(chunk)
        columns = []
        rows = None
        if chunk.null_count:
            valid = chunk.is_valid().to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(valid).astype(np.uint32)
            if nulls == "null":
                missing = np.flatnonzero(~valid).astype(np.uint32)
                columns.append(Column(self._key, ColumnType.NULL, missing, np.zeros(len(missing), np.bool_)))
            chunk = chunk.drop_null()
        if len(chunk) or not types.is_null(chunk.type):
            type_, values = self._values(chunk, rows)
            columns.append(Column(self._key, type_, rows, values))
        return MetadataColumns.build(n_rows, None, columns)

    def marked_nulls(self, chunk: Any) -> MetadataColumns:
        """Read a column of explicit nulls: a bool array that is true where there is one."""
        if not types.is_boolean(chunk.type):
            raise InvalidMetadataError(self._key, f"expected bool marks of nulls, found {chunk.type}")
        rows = np.flatnonzero(chunk.fill_null(False).to_numpy(zero_copy_only=False)).astype(np.uint32)
        column = Column(self._key, ColumnType.NULL, rows, np.zeros(len(rows), np.bool_))
        return MetadataColumns.build(len(chunk), None, [column])

    def _values(self, chunk: Any, rows: NDArray[np.uint32] | None) -> tuple[ColumnType, Values]:
        """Convert a chunk without nulls; `rows` are the rows of its values."""
        kind = chunk.type
        if types.is_boolean(kind):
            return ColumnType.BOOL, chunk.to_numpy(zero_copy_only=False)
        if types.is_integer(kind):
            integers = chunk.to_numpy(zero_copy_only=False)
            if integers.dtype == np.uint64:
                too_large = np.flatnonzero(integers > np.uint64(MAX_INT64))
                if len(too_large):
                    reason = f"integer {integers[too_large[0]]} is outside -2^63..2^63-1"
                    raise self._error(reason, rows, int(too_large[0]))
            return ColumnType.INT64, integers.astype(np.int64, copy=False)
        if types.is_floating(kind):
            return ColumnType.FLOAT64, chunk.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        if types.is_string(kind) or types.is_large_string(kind):
            return ColumnType.STRING, self._strings(chunk, rows)
        reason = f"a column of Arrow type {kind} cannot be metadata; make it text or numbers, or leave it out"
        raise InvalidMetadataError(self._key, reason)

    def _strings(self, chunk: Any, rows: NDArray[np.uint32] | None) -> StringValues:
        count = len(chunk)
        if not count:
            return StringValues.from_bytes([])
        chunk = chunk.cast(pa.large_string())
        _, offsets_buffer, data_buffer = chunk.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int64)[chunk.offset : chunk.offset + count + 1]
        data = np.frombuffer(data_buffer or b"", np.uint8)
        lengths = offsets[1:] - offsets[:-1]
        if int(offsets[0]) < 0 or int(offsets[-1]) > len(data) or int(lengths.min()) < 0:
            raise InvalidMetadataError(self._key, "the column's string offsets are damaged")
        strings = StringValues(offsets.view(np.uint64), data).slice(0, count)
        if int(lengths.max()) > MAX_STRING_BYTES:
            index = int(np.argmax(lengths > MAX_STRING_BYTES))
            reason = f"the value takes {lengths[index]} bytes in UTF-8, the limit is {MAX_STRING_BYTES}"
            raise self._error(reason, rows, index)
        index = strings.first_not_utf8()
        if index >= 0:
            raise self._error("the value is not UTF-8", rows, index)
        return strings

    def _error(self, reason: str, rows: NDArray[np.uint32] | None, index: int) -> InvalidMetadataError:
        row = self._first + (index if rows is None else int(rows[index]))
        return InvalidMetadataError(self._key, reason, where=place(self._where, row))


def _check_rows(metadata: MetadataColumns, where: Where) -> None:
    """Check what must hold between the columns of each row."""
    n_rows = metadata.n_rows
    keys_per_row = np.zeros(n_rows, np.uint32)
    for key, group in groupby(metadata.columns, key=lambda column: column.key):
        taken = np.zeros(n_rows, np.uint8)
        for column in group:
            taken[slice(None) if column.rows is None else column.rows] += 1
        if n_rows and int(taken.max()) > 1:
            row = int(np.argmax(taken))
            raise InvalidMetadataError(key, "the record has two values", where=place(where, row))
        keys_per_row += taken
    if n_rows and int(keys_per_row.max()) > MAX_KEYS_PER_RECORD:
        row = int(np.argmax(keys_per_row))
        reason = f"the record has {keys_per_row[row]} keys, the limit is {MAX_KEYS_PER_RECORD}"
        raise InvalidMetadataError(None, reason, where=place(where, row))
    if metadata.has_metadata is not None and bool(np.any(keys_per_row[~metadata.has_metadata])):
        row = int(np.argmax((keys_per_row > 0) & ~metadata.has_metadata))
        raise InvalidMetadataError(None, "the record has values but no mapping", where=place(where, row))
    if n_rows and metadata.may_be_too_heavy:
        weights = metadata.weights()
        row = int(np.argmax(weights))
        if int(weights[row]) > MAX_METADATA_WEIGHT:
            reason = f"the record's metadata takes {weights[row]} bytes, the limit is {MAX_METADATA_WEIGHT}"
            raise InvalidMetadataError(None, reason, where=place(where, row))
