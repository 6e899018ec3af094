"""Ids, vectors and metadata as both files of 1.x hold them: bytes to values and back.

The buffers are hostile: nothing is sliced or counted that is not within them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

from iqdb_core.legacy.layout import (
    F64,
    I64,
    ID_BYTES,
    ID_INT,
    U32,
    U64,
    VALUE_BOOL,
    VALUE_FLOAT,
    VALUE_INT,
    VALUE_NULL,
    VALUE_STRING,
)

if TYPE_CHECKING:
    from iqdb_core.types import MetadataValue, VectorId

Buffer: TypeAlias = bytes | memoryview

_ID_FIELD = {4: U32, 8: U64}
_FIXED_BYTES = {VALUE_INT: 8, VALUE_FLOAT: 8, VALUE_BOOL: 1, VALUE_NULL: 0}


class MalformedError(ValueError):
    """The bytes mean nothing. `offset` is the place within the buffer."""

    def __init__(self, offset: int, part: str, found: object, expected: str) -> None:
        self.offset = offset
        self.part = part
        self.found = found
        self.expected = expected
        super().__init__(f"{part} is {found}, expected {expected}")


def cut_off(offset: int, part: str) -> MalformedError:
    """Return the error for something that reaches behind the end."""
    return MalformedError(offset, part, "cut off", "all of it")


# --- Ids ----------------------------------------------------------------------------------------


def id_end(data: Buffer, at: int, end: int, *, length_bytes: int) -> int:
    """Return where the id ends that begins at `at`.

    Args:
        data: the buffer.
        at: where the id begins.
        end: where the bytes end that may hold it.
        length_bytes: 4 in a snapshot, 8 in a log: the width of the length of a bytes id.

    Raises:
        MalformedError: there is no id.
    """
    if at >= end:
        raise cut_off(at, "id")
    kind = data[at]
    if kind == ID_INT:
        stop = at + 9
    elif kind == ID_BYTES:
        stop = at + 1 + length_bytes
        if stop > end:
            raise cut_off(at, "id")
        size: int = _ID_FIELD[length_bytes].unpack_from(data, at + 1)[0]
        if size == 0:
            raise MalformedError(at, "id", "empty", "at least one byte")
        stop += size
    else:
        raise MalformedError(at, "kind of id", kind, f"{ID_INT} or {ID_BYTES}")
    if stop > end:
        raise cut_off(at, "id")
    return stop


def decode_id(data: Buffer, at: int, stop: int, *, length_bytes: int) -> VectorId:
    """Return the id between `at` and `stop`, as `id_end` has found it."""
    if data[at] == ID_INT:
        number: int = U64.unpack_from(data, at + 1)[0]
        return number
    return bytes(data[at + 1 + length_bytes : stop])


def encode_id(value: VectorId) -> bytes:
    """Return an id as a snapshot holds it; a str becomes its bytes in UTF-8."""
    if isinstance(value, int):
        return struct.pack("<BQ", ID_INT, value)
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<BI", ID_BYTES, len(raw)) + raw


# --- Metadata -----------------------------------------------------------------------------------


def metadata_end(data: Buffer, at: int, end: int) -> int:
    """Return where the metadata end that begin with their presence byte at `at`.

    Only what leads from one field to the next is looked at; `decode_metadata` checks the rest.

    Raises:
        MalformedError: they do not end before `end`.
    """
    if at >= end:
        raise cut_off(at, "metadata")
    present = data[at]
    if present == 0:
        return at + 1
    if present != 1:
        raise MalformedError(at, "presence of metadata", present, "0 or 1")
    try:
        (count,) = U32.unpack_from(data, at + 1)
        at += 5
        for _ in range(count):
            at += 4 + U32.unpack_from(data, at)[0]
            # The key's length may be anything, so the tag behind it is looked for with care.
            tag = data[at]
            if tag == VALUE_STRING:
                at += 5 + U32.unpack_from(data, at + 1)[0]
            else:
                at += 1 + _FIXED_BYTES[tag]
            if at > end:
                raise cut_off(at, "metadata")
    except (struct.error, IndexError):
        raise cut_off(min(at, end), "metadata") from None
    except KeyError as error:
        raise MalformedError(at, "type of a value", error.args[0], "0 to 4") from None
    if at > end:
        raise cut_off(end, "metadata")
    return at


def decode_metadata(data: Buffer, at: int) -> dict[str, MetadataValue] | None:
    """Return the metadata at `at`, of which `metadata_end` has found the end.

    Raises:
        MalformedError: a text is not UTF-8, a bool is neither 0 nor 1, or the keys do not ascend.
    """
    if data[at] == 0:
        return None
    (count,) = U32.unpack_from(data, at + 1)
    at += 5
    found: dict[str, MetadataValue] = {}
    last = b""
    for number in range(count):
        start = at + 4
        at = start + U32.unpack_from(data, at)[0]
        raw = bytes(data[start:at])
        if number and raw <= last:
            raise MalformedError(start, "key", repr(raw), f"one behind {last!r} in byte order")
        last = raw
        key = _text(raw, start, "key")
        tag = data[at]
        at += 1
        value: MetadataValue
        if tag == VALUE_STRING:
            stop = at + 4 + U32.unpack_from(data, at)[0]
            value = _text(bytes(data[at + 4 : stop]), at, "text")
            at = stop
        elif tag == VALUE_INT:
            value = I64.unpack_from(data, at)[0]
            at += 8
        elif tag == VALUE_FLOAT:
            value = F64.unpack_from(data, at)[0]
            at += 8
        elif tag == VALUE_BOOL:
            if data[at] > 1:
                raise MalformedError(at, "bool", data[at], "0 or 1")
            value = data[at] == 1
            at += 1
        else:
            value = None
        found[key] = value
    return found


def _text(raw: bytes, at: int, part: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise MalformedError(at, part, "not UTF-8", "UTF-8") from None


def encode_metadata(metadata: dict[str, MetadataValue] | None) -> bytes:
    """Return the metadata of a record with the presence byte, keys in ascending byte order."""
    if metadata is None:
        return b"\0"
    parts = [struct.pack("<BI", 1, len(metadata))]
    # UTF-8 sorts by bytes as the characters sort by code point, which is how Python compares.
    for key in sorted(metadata):
        raw = key.encode()
        parts += (U32.pack(len(raw)), raw, _encode_value(metadata[key]))
    return b"".join(parts)


def _encode_value(value: MetadataValue) -> bytes:
    if value is None:
        return bytes([VALUE_NULL])
    if isinstance(value, bool):
        return bytes([VALUE_BOOL, value])
    if isinstance(value, int):
        return struct.pack("<Bq", VALUE_INT, value)
    if isinstance(value, float):
        return struct.pack("<Bd", VALUE_FLOAT, value)
    raw = value.encode()
    return struct.pack("<BI", VALUE_STRING, len(raw)) + raw
