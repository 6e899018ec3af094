"""The body of a log frame with one upserted record, laid out without arrays.

Writing one record with a sync each is what an application does most, and building columns for a single
row would cost it more than writing does. The bytes are those of `frames.encode_upsert`; a test compares
the two.
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
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqdb_core.types import MetadataValue, VectorId

_PAIR = struct.Struct("<QQ")
_INTEGER_ID = struct.Struct("<IIQ")
_OTHER_ID = struct.Struct("<IIQQQ")
_INT64 = struct.Struct("<q")
_FLOAT64 = struct.Struct("<d")
_STRING = struct.Struct("<II")
_ZEROS = bytes(8)
_FALSE, _TRUE = bytes(8), b"\1" + bytes(7)


def encode_single_upsert(
    record_id: VectorId, vector: bytes, metadata: Mapping[str, MetadataValue] | None
) -> bytes:
    """Return the body of an upsert frame with one valid record.

    Args:
        record_id: its id.
        vector: its components, 4 * dim bytes of little-endian float32.
        metadata: its mapping, plain values only, or None.
    """
    if isinstance(record_id, int):
        ids = _INTEGER_ID.pack(ID_ENCODING_U64, 0, record_id)
    else:
        text = isinstance(record_id, str)
        raw = record_id.encode() if isinstance(record_id, str) else record_id
        kind = ID_KIND_STR if text else ID_KIND_BYTES
        ids = _OTHER_ID.pack(ID_ENCODING_VAR, 0, 0, len(raw), kind) + raw + _ZEROS[: -len(raw) % 8]
    padding = _ZEROS[: -len(vector) % 8]
    if metadata is None:
        return b"".join((_PAIR.pack(len(ids), 0), ids, vector, padding))
    group = encode_single_group(metadata)
    offsets = _PAIR.pack(_PAIR.size, _PAIR.size + len(group))
    head = _PAIR.pack(len(ids), len(offsets) + len(group))
    return b"".join((head, ids, vector, padding, offsets, group))


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
