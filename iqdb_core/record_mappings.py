"""Mappings to metadata columns, with as few steps per value in Python as possible."""

from __future__ import annotations

from array import array
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core.column_type import ColumnType
from iqdb_core.record_ids import Where, place
from iqdb_core.record_metadata import Column, MetadataColumns, Values
from iqdb_core.record_strings import StringValues
from iqdb_core.types import (
    MAX_KEY_BYTES,
    MAX_KEYS_PER_RECORD,
    MAX_METADATA_WEIGHT,
    MAX_STRING_BYTES,
    Metadata,
    validate_metadata,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

_ABSENT: Any = object()


def metadata_from_mappings(rows: Sequence[Metadata | None], where: Where = "") -> MetadataColumns:
    """Check and transpose the metadata of records. See `MetadataColumns.from_dicts`."""
    try:
        return _transpose(rows)
    except _NotPlainError:
        return _transpose([validate_metadata(value, place(where, row)) for row, value in enumerate(rows)])


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
    if result.may_be_too_heavy and int(result.weights().max()) > MAX_METADATA_WEIGHT:
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
