"""The body of a log frame with one upserted record, written and read without arrays.

Writing one record with a sync each is what an application does most, and building columns for a single
row would cost it more than writing does; the same holds for replaying thousands of such frames. The
bytes are those of `frames.encode_upsert`; a test compares the two.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from iqdb_core.column_type import ColumnType
from iqdb_core.storage.columns_layout import (
    ALL,
    COLUMN_ENTRY,
    COLUMN_ENTRY_BYTES,
    GROUP_HEADER,
    GROUP_HEADER_BYTES,
    HAS_ALL,
    PLAIN,
    pad8,
)
from iqdb_core.storage.layout import (
    ID_ENCODING_U64,
    ID_ENCODING_VAR,
    ID_KIND_BYTES,
    ID_KIND_STR,
    MAX_ID_BYTES,
    MAX_KEYS_PER_RECORD,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqdb_core.types import MetadataValue, VectorId

_U32 = struct.Struct("<I")
_PAIR = struct.Struct("<QQ")
_INTEGER_ID = struct.Struct("<IIQ")
_PLAIN = struct.Struct("<QQIIQ")
"""Both of the above in one: what stands before the vector of a record with an integer id."""
_OTHER_ID = struct.Struct("<IIQQQ")
_INT64 = struct.Struct("<q")
_FLOAT64 = struct.Struct("<d")
_STRING = struct.Struct("<II")
_MOST_BYTES = 1 << 20
"""Bodies up to this length cannot exceed the limits of a record but for those that are checked."""
_ZEROS = bytes(8)
_FALSE, _TRUE = bytes(8), b"\1" + bytes(7)


def single_upsert_parts(
    record_id: VectorId, vector: bytes, metadata: Mapping[str, MetadataValue] | None
) -> tuple[bytes, ...]:
    """Return the body of an upsert frame with one valid record, in parts.

    Args:
        record_id: its id.
        vector: its components, 4 * dim bytes of little-endian float32.
        metadata: its mapping, plain values only, or None.
    """
    if metadata is None and isinstance(record_id, int) and not len(vector) & 7:
        return _PLAIN.pack(_INTEGER_ID.size, 0, ID_ENCODING_U64, 0, record_id), vector
    if isinstance(record_id, int):
        ids = _INTEGER_ID.pack(ID_ENCODING_U64, 0, record_id)
    else:
        text = isinstance(record_id, str)
        raw = record_id.encode() if isinstance(record_id, str) else record_id
        kind = ID_KIND_STR if text else ID_KIND_BYTES
        ids = _OTHER_ID.pack(ID_ENCODING_VAR, 0, 0, len(raw), kind) + raw + _ZEROS[: -len(raw) % 8]
    padding = _ZEROS[: -len(vector) % 8]
    if metadata is None:
        return _PAIR.pack(len(ids), 0), ids, vector, padding
    group = encode_single_group(metadata)
    offsets = _PAIR.pack(_PAIR.size, _PAIR.size + len(group))
    head = _PAIR.pack(len(ids), len(offsets) + len(group))
    return head, ids, vector, padding, offsets, group


def encode_single_upsert(
    record_id: VectorId, vector: bytes, metadata: Mapping[str, MetadataValue] | None
) -> bytes:
    """Return the body of an upsert frame with one valid record; see `single_upsert_parts`."""
    return b"".join(single_upsert_parts(record_id, vector, metadata))


def encode_single_group(metadata: Mapping[str, MetadataValue]) -> bytes:
    """Return the metadata group of one record that has a mapping; see `columns_layout`."""
    keys = sorted(metadata)
    raw_keys = [key.encode() for key in keys]
    key_offset = GROUP_HEADER_BYTES + COLUMN_ENTRY_BYTES * len(keys)
    keys_end = key_offset + sum(map(len, raw_keys))
    offset = pad8(keys_end)
    directory = []
    payload = [_ZEROS[: offset - keys_end]]
    for key, raw_key in zip(keys, raw_keys, strict=True):
        value = metadata[key]
        if isinstance(value, str):
            raw = value.encode()
            data = _STRING.pack(0, len(raw)) + raw + _ZEROS[: -len(raw) % 8]
            kind = ColumnType.STRING
        elif isinstance(value, bool):
            kind, data = ColumnType.BOOL, _TRUE if value else _FALSE
        elif isinstance(value, int):
            kind, data = ColumnType.INT64, _INT64.pack(value)
        elif isinstance(value, float):
            kind, data = ColumnType.FLOAT64, _FLOAT64.pack(value)
        else:
            kind, data = ColumnType.NULL, b""
        directory.append(
            COLUMN_ENTRY.pack(key_offset, len(raw_key), kind, ALL, 1, PLAIN, b"", offset, len(data), b"")
        )
        payload.append(data)
        key_offset += len(raw_key)
        offset += len(data)
    header = GROUP_HEADER.pack(1, len(keys), HAS_ALL, b"", offset)
    return b"".join((header, *directory, *raw_keys, *payload))


def decode_single_upsert(
    body: memoryview, vector_bytes: int
) -> tuple[VectorId, memoryview, dict[str, MetadataValue] | None] | None:
    """Return id, components and mapping of an upsert body with one record, or None.

    None means that the body is not plainly what `encode_single_upsert` writes, and that the general
    decoder has to say what it is. There is one encoding for each record, so a body is valid if encoding
    what was read gives the same bytes again. Only the components are not checked.
    """
    if len(body) > _MOST_BYTES:
        return None
    data = bytes(body)
    try:
        ids_bytes, metadata_bytes = _PAIR.unpack_from(data)
        vector_at = _PAIR.size + ids_bytes
        record_id: VectorId
        if _U32.unpack_from(data, _PAIR.size)[0] == ID_ENCODING_U64:
            record_id = _INTEGER_ID.unpack_from(data, _PAIR.size)[2]
        else:
            _, _, _, size, kind = _OTHER_ID.unpack_from(data, _PAIR.size)
            raw = data[_PAIR.size + _OTHER_ID.size :][:size]
            record_id = raw.decode() if kind == ID_KIND_STR else raw
            if not 0 < len(raw) <= MAX_ID_BYTES:
                return None
        group_at = pad8(vector_at + vector_bytes) + _PAIR.size
        metadata = decode_single_group(data[group_at:]) if metadata_bytes else None
        vector = data[vector_at : vector_at + vector_bytes]
        if len(vector) != vector_bytes or encode_single_upsert(record_id, vector, metadata) != data:
            return None
    except (struct.error, UnicodeDecodeError, LookupError):
        return None
    return record_id, body[vector_at : vector_at + vector_bytes], metadata


def decode_single_group(data: bytes) -> dict[str, MetadataValue]:
    """Return the mapping of a metadata group of one record, of which nothing is checked."""
    n_columns = min(GROUP_HEADER.unpack_from(data)[1], MAX_KEYS_PER_RECORD)
    metadata: dict[str, MetadataValue] = {}
    end = GROUP_HEADER_BYTES + COLUMN_ENTRY_BYTES * n_columns
    # Not by an `iter_unpack` that lives on: with one, CPython 3.11 crashed in its garbage collector.
    for at in range(GROUP_HEADER_BYTES, end, COLUMN_ENTRY_BYTES):
        key_offset, key_bytes, kind, _, _, _, _, offset, _, _ = COLUMN_ENTRY.unpack_from(data, at)
        value: MetadataValue
        if kind == ColumnType.STRING:
            value = data[offset + _STRING.size :][: _STRING.unpack_from(data, offset)[1]].decode()
        elif kind == ColumnType.INT64:
            value = _INT64.unpack_from(data, offset)[0]
        elif kind == ColumnType.FLOAT64:
            value = _FLOAT64.unpack_from(data, offset)[0]
        elif kind == ColumnType.BOOL:
            value = data[offset] != 0
        else:
            value = None
        metadata[data[key_offset : key_offset + key_bytes].decode()] = value
    return metadata
