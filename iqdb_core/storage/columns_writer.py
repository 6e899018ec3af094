"""Encodes metadata groups. The layout is that of `columns_layout`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core.column_type import ColumnType
from iqdb_core.errors import BatchTooLargeError
from iqdb_core.record_strings import CodedStrings, StringValues
from iqdb_core.storage.columns_layout import (
    ALL,
    BITMAP,
    COLUMN_ENTRY,
    COLUMN_ENTRY_BYTES,
    DICTIONARY,
    GROUP_HEADER,
    GROUP_HEADER_BYTES,
    HAS_ALL,
    HAS_BITMAP,
    HAS_NONE,
    MAX_BLOB_WEIGHT,
    PLAIN,
    pad8,
    presence_of,
)
from iqdb_core.storage.layout import GROUP_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.record_metadata import Column, MetadataColumns

_ZEROS = bytes(8)


def encode_group(columns: MetadataColumns) -> bytes:
    """Return the blob that holds the metadata of 1..16384 records."""
    n_rows = columns.n_rows
    assert 0 < n_rows <= GROUP_ROWS
    weight = _weight(columns)
    if weight > MAX_BLOB_WEIGHT:
        raise BatchTooLargeError(weight, MAX_BLOB_WEIGHT)
    keys = {column.key: column.key.encode() for column in columns.columns}
    key_offsets = {}
    offset = GROUP_HEADER_BYTES + COLUMN_ENTRY_BYTES * len(columns.columns)
    for key, text in keys.items():
        key_offsets[key] = offset
        offset += len(text)
    parts = [*keys.values(), _ZEROS[: pad8(offset) - offset]]
    offset = pad8(offset)
    has = HAS_ALL
    if columns.has_metadata is not None and not columns.has_metadata.all():
        has = HAS_BITMAP if columns.has_metadata.any() else HAS_NONE
        if has == HAS_BITMAP:
            parts.append(_bitmap(columns.has_metadata))
            offset += len(parts[-1])
    directory = []
    for column in columns.columns:
        count = len(column)
        presence = presence_of(count, n_rows)
        encoding, values = _values(column)
        payload = [] if presence == ALL else [_presence(presence, column.rows, n_rows)]
        payload += values
        data_bytes = sum(map(len, payload))
        directory.append(
            COLUMN_ENTRY.pack(
                key_offsets[column.key],
                len(keys[column.key]),
                column.type,
                presence,
                count,
                encoding,
                b"",
                offset,
                data_bytes,
                b"",
            )
        )
        offset += data_bytes
        parts += payload
    header = GROUP_HEADER.pack(n_rows, len(columns.columns), has, b"", offset)
    return b"".join([header, *directory, *parts])


def _weight(columns: MetadataColumns) -> int:
    """Return the sum of `columns.weights()`, without an array of them."""
    weight = 0
    for column in columns.columns:
        weight += len(column) * (16 + len(column.key.encode()))
        if not isinstance(column.values, np.ndarray):
            weight += column.values.text_bytes
    return weight


def _bitmap(bits: NDArray[np.bool_]) -> bytes:
    packed = np.packbits(bits, bitorder="little").tobytes()
    return packed + _ZEROS[: -len(packed) % 8]


def _padded(array: NDArray[Any]) -> bytes:
    raw = array.tobytes()
    return raw + _ZEROS[: -len(raw) % 8]


def _presence(presence: int, rows: NDArray[np.uint32] | None, n_rows: int) -> bytes:
    assert rows is not None
    if presence == BITMAP:
        bits = np.zeros(n_rows, np.bool_)
        bits[rows] = True
        return _bitmap(bits)
    return _padded(rows.astype("<u2"))


def _values(column: Column) -> tuple[int, list[bytes]]:
    """Return a column's encoding and its values, in parts."""
    values = column.values
    if not isinstance(values, np.ndarray):
        return _strings(values)
    if column.type is ColumnType.NULL:
        return PLAIN, []
    if column.type is ColumnType.BOOL:
        return PLAIN, [_bitmap(values)]
    return PLAIN, [values.astype("<i8" if column.type is ColumnType.INT64 else "<f8", copy=False).tobytes()]


def _strings(values: StringValues | CodedStrings) -> tuple[int, list[bytes]]:
    coded = _distinct(values)
    if coded is None:
        plain = values.plain()
        offsets = plain.offsets.astype("<u4").tobytes()
        text = plain.data.tobytes()
        return PLAIN, [offsets, text, _ZEROS[: -(len(offsets) + len(text)) % 8]]
    entries = coded.entries.to_bytes()
    n_entries = len(entries)
    # The kernel numbers entries as they appear, the file as they ascend.
    order = sorted(range(n_entries), key=entries.__getitem__)
    places = np.empty(n_entries, "<u2")
    places[order] = np.arange(n_entries)
    dictionary = StringValues.from_bytes([entries[entry] for entry in order])
    return DICTIONARY, [
        n_entries.to_bytes(8, "little"),
        _padded(dictionary.offsets.astype("<u4")),
        _padded(dictionary.data),
        _padded(places[coded.codes]),
    ]


def _distinct(values: StringValues | CodedStrings) -> CodedStrings | None:
    """Return the strings as codes into distinct entries that are all used; None: they are too many."""
    if isinstance(values, StringValues):
        found = values.coded()
        return None if isinstance(found, StringValues) else found
    from iqdb_core import _kernels

    used = values.used()
    entries = used.entries
    # Entries of several dictionaries may be the same.
    codes = np.empty(len(entries), np.uint32)
    first = np.empty(len(values) // 2, np.uint32)
    n_entries = _kernels.dictionary_strings(entries.offsets, entries.data, codes, first)
    return None if n_entries < 0 else CodedStrings(entries.take(first[:n_entries]), codes[used.codes])
