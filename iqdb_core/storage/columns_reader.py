"""Reads metadata groups as arrays. The layout is that of `columns_layout`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from iqdb_core.column_type import ColumnType
from iqdb_core.record_metadata import Column, MetadataColumns, Values, part_of
from iqdb_core.record_strings import CodedStrings, StringValues
from iqdb_core.storage.columns_layout import ALL, BITMAP, DICTIONARY, MAX_BLOB_WEIGHT, bitmap_bytes
from iqdb_core.storage.layout import KEY_WEIGHT
from iqdb_core.types import MAX_KEYS_PER_RECORD, MAX_METADATA_WEIGHT, MAX_STRING_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from iqdb_core.storage.columns import ColumnView, GroupView


NumberPart: TypeAlias = "tuple[int, int, NDArray[np.int64] | NDArray[np.float64], NDArray[np.uint8] | None]"
"""A group's column of numbers: its first row, how many rows the group has, the values, and the bitmap of
the rows that have one (None: all)."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumn:
    """A column's rows (u32[count], ascending; None: all) and values, as they are stored.

    Strings have checked bounds but are not checked to be UTF-8. Those of a dictionary are codes into it.
    """

    rows: NDArray[np.uint32] | None
    values: Values


def read_column(group: GroupView, column: ColumnView) -> StoredColumn:
    """Return one column as arrays; they are kept with the group.

    Raises:
        StructureError: an offset, a code or a row is out of bounds.
    """
    stored: StoredColumn | None = column.arrays
    if stored is None:
        group.ensure(column.data_offset, column.end_offset)
        stored = column.arrays = StoredColumn(_rows(group, column), _values(group, column))
    return stored


def number_parts(group: GroupView, key: str, first: int) -> Iterator[NumberPart]:
    """Yield the columns of numbers that a group has under a key, all of whose columns are checked.

    Args:
        group: the group.
        key: the key.
        first: the row of the snapshot that is the group's first.

    Raises:
        StructureError: something under the key contradicts the format.
    """
    group.check_keys((key,))
    for view in group.columns:
        if view.key != key or view.type not in (ColumnType.INT64, ColumnType.FLOAT64):
            continue
        stored = read_column(group, view)
        present: NDArray[np.uint8] | None = None
        if view.presence == BITMAP:
            present = _array(group, view.data_offset, bitmap_bytes(group.n_rows), "u1")
        elif stored.rows is not None:
            has = np.zeros(group.n_rows, np.bool_)
            has[stored.rows] = True
            present = np.packbits(has, bitorder="little")
        assert isinstance(stored.values, np.ndarray)
        yield first, group.n_rows, stored.values, present


def read_columns(
    group: GroupView, keys: Collection[str] | None, rows: tuple[int, int] | None = None
) -> MetadataColumns:
    """Return the metadata of all rows of a group, or only what they have under `keys`.

    Args:
        group: the group.
        keys: leave out all others; None: all.
        rows: only those of the rows start..stop. All are checked, but a dictionary's entries are repeated
            for these alone.

    Raises:
        StructureError: something in these columns contradicts the format.
    """
    n_rows = group.n_rows
    has = None
    if group.mappings != (1 << n_rows) - 1:
        bits = np.frombuffer(group.mappings.to_bytes((n_rows + 7) // 8, "little"), np.uint8)
        has = np.unpackbits(bits, count=n_rows, bitorder="little").view(np.bool_)
    checked = check_columns(group, keys)
    if rows is None or rows == (0, n_rows):
        columns = [
            Column(view.key, ColumnType(view.type), stored.rows, stored.values) for view, stored in checked
        ]
        return MetadataColumns(n_rows, has, tuple(columns))
    start, stop = rows
    some = []
    for view, stored in checked:
        places, first, last = stored.rows, start, stop
        if places is not None:
            first, last = np.searchsorted(places, (start, stop)).tolist()
            places = places[first:last] - np.uint32(start)
        if first < last:
            some.append(Column(view.key, ColumnType(view.type), places, part_of(stored.values, first, last)))
    return MetadataColumns.build(stop - start, None if has is None else has[start:stop], some)


def check_columns(group: GroupView, keys: Collection[str] | None) -> list[tuple[ColumnView, StoredColumn]]:
    """Return the columns of a group, or those under `keys`, checked; no value is copied.

    Raises:
        StructureError: something in these columns contradicts the format.
    """
    weight = 0
    columns: list[tuple[ColumnView, StoredColumn]] = []
    for view in group.columns:
        if keys is not None and view.key not in keys:
            continue
        weight += view.count * (KEY_WEIGHT + len(view.key.encode()))
        _check_weight(view, weight)
        stored = read_column(group, view)
        if not isinstance(stored.values, np.ndarray):
            weight += _check_strings(view, stored.values)
            _check_weight(view, weight)
        if columns and columns[-1][0].key == view.key:
            _check_disjoint(view, columns, stored, group.n_rows)
        columns.append((view, stored))
    return columns


def check_records(group: GroupView, columns: MetadataColumns) -> None:
    """Check the limits of single records.

    Raises:
        StructureError: a record has too many keys or weighs too much.
    """
    keys = np.zeros(columns.n_rows, np.uint32)
    for column in columns.columns:
        keys[slice(None) if column.rows is None else column.rows] += 1
    if int(keys.max()) > MAX_KEYS_PER_RECORD:
        raise group.damaged(f"row {keys.argmax()}", f"at most {MAX_KEYS_PER_RECORD} keys", int(keys.max()))
    weights = columns.weights()
    if int(weights.max()) > MAX_METADATA_WEIGHT:
        expected = f"a weight of at most {MAX_METADATA_WEIGHT}"
        raise group.damaged(f"row {weights.argmax()}", expected, int(weights.max()))


def _rows(group: GroupView, column: ColumnView) -> NDArray[np.uint32] | None:
    column.check_presence()
    if column.presence == ALL:
        return None
    if column.presence == BITMAP:
        return np.flatnonzero(_bits(group, column.data_offset, group.n_rows)).astype(np.uint32)
    return _array(group, column.data_offset, column.count, "<u2").astype(np.uint32)


def _values(group: GroupView, column: ColumnView) -> Values:
    column.check_frame()
    count, offset = column.count, column.values_offset
    match column.type:
        case ColumnType.NULL:
            # They take no room, neither in the file nor here.
            return np.broadcast_to(np.False_, count)
        case ColumnType.BOOL:
            return _bits(group, offset, count)
        case ColumnType.INT64:
            return _array(group, offset, count, "<i8")
        case ColumnType.FLOAT64:
            return _array(group, offset, count, "<f8")
    offsets_offset, text_offset, text_bytes, codes_offset = column.places
    offsets = _array(group, offsets_offset, column.n_entries + 1, "<u4")
    if bool(np.any(offsets[1:] < offsets[:-1])):
        raise column.damaged("offsets", "offsets that never descend", "offsets that do")
    text = _array(group, text_offset, text_bytes, "u1")
    strings = StringValues(offsets.astype(np.uint64), text)
    if column.encoding != DICTIONARY:
        return strings
    codes = _array(group, codes_offset, count, "<u2")
    if int(codes.max()) >= len(strings):
        raise column.damaged("codes", f"codes below {len(strings)}", int(codes.max()))
    return CodedStrings(strings, codes)


def _array(group: GroupView, offset: int, count: int, dtype: str) -> NDArray[Any]:
    return np.frombuffer(group.blob, dtype, count, offset)


def _bits(group: GroupView, offset: int, count: int) -> NDArray[np.bool_]:
    packed = _array(group, offset, (count + 7) // 8, "u1")
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)


def _check_strings(view: ColumnView, values: StringValues | CodedStrings) -> int:
    """Check what is text in a column, and return how many bytes its values take."""
    strings = values.entries if isinstance(values, CodedStrings) else values
    lengths = strings.lengths
    if int(lengths.max()) > MAX_STRING_BYTES:
        raise view.damaged("value", f"at most {MAX_STRING_BYTES} bytes", int(lengths.max()))
    index = strings.first_not_utf8()
    if index >= 0:
        raise view.damaged("value", "UTF-8", f"string {index} that is not")
    return values.text_bytes


def _check_weight(view: ColumnView, weight: int) -> None:
    if weight > MAX_BLOB_WEIGHT:
        raise view.damaged("values", f"a group of weight {MAX_BLOB_WEIGHT} at most", f"{weight} up to here")


def _check_disjoint(
    view: ColumnView, columns: list[tuple[ColumnView, StoredColumn]], column: StoredColumn, n_rows: int
) -> None:
    """Check that no row has a value in `column` and in another of `columns` with the same key."""
    taken = np.zeros(n_rows, np.bool_)
    for before, other in columns:
        if before.key == view.key:
            taken[slice(None) if other.rows is None else other.rows] = True
    if bool(taken[slice(None) if column.rows is None else column.rows].any()):
        raise view.damaged("presence", "one value for a key and a row", "two")
