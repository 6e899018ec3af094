"""Ids as people type them and as JSON holds them.

Typed: a decimal integer is an integer id; `text:...` and `hex:...` say otherwise; anything else is text.
JSON: a number is an integer id, a string is text, and `{"hex": "..."}` is bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from iqdb_core.errors import InvalidIdError
from iqdb_core.types import MetadataValue, VectorId, validate_id

TEXT_PREFIX = "text:"
HEX_PREFIX = "hex:"


def parse_id(text: str, where: str = "") -> VectorId:
    """Return the id that a typed word means.

    Raises:
        InvalidIdError: it is empty, an integer above 2^64-1, or `hex:` without pairs of hex digits.
    """
    if text.isascii() and text.isdigit():
        # Python refuses to convert very long numbers; no id has more than 20 digits.
        significant = text.lstrip("0")
        if len(significant) > 20:
            raise InvalidIdError(text[:40], "an integer id lies in 0..2^64-1", where=where)
        return validate_id(int(significant or "0"), where)
    if text.startswith(TEXT_PREFIX):
        return validate_id(text[len(TEXT_PREFIX) :], where)
    if text.startswith(HEX_PREFIX):
        return validate_id(_bytes_from_hex(text[len(HEX_PREFIX) :], text, where), where)
    return validate_id(text, where)


def format_id(record_id: VectorId) -> str:
    """Return the typed form of an id: `parse_id` of it gives the id back."""
    if isinstance(record_id, int):
        return str(record_id)
    if isinstance(record_id, bytes):
        return HEX_PREFIX + record_id.hex()
    looks_otherwise = (record_id.isascii() and record_id.isdigit()) or record_id.startswith(
        (TEXT_PREFIX, HEX_PREFIX)
    )
    return TEXT_PREFIX + record_id if looks_otherwise else record_id


def id_to_json(record_id: VectorId) -> int | str | dict[str, str]:
    """Return the value that stands for an id in JSON."""
    return {"hex": record_id.hex()} if isinstance(record_id, bytes) else record_id


def id_from_json(value: object, where: str = "") -> VectorId:
    """Return the id that a JSON value stands for.

    Raises:
        InvalidIdError: it is neither an integer, a string nor `{"hex": "..."}`.
    """
    if isinstance(value, dict):
        if set(value) != {"hex"} or not isinstance(value["hex"], str):
            raise InvalidIdError(value, 'in JSON an id of bytes is {"hex": "..."}', where=where)
        return validate_id(_bytes_from_hex(value["hex"], value, where), where)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise InvalidIdError(value, 'in JSON an id is an integer, a string or {"hex": "..."}', where=where)
    return validate_id(value, where)


def _bytes_from_hex(digits: str, found: object, where: str) -> bytes:
    try:
        if digits.isalnum():  # bytes.fromhex would skip spaces
            return bytes.fromhex(digits)
    except ValueError:
        pass
    raise InvalidIdError(found, "expected pairs of hex digits", where=where)


def metadata_to_json(metadata: Mapping[str, MetadataValue] | None) -> dict[str, Any] | None:
    """Return metadata with the floats that JSON lacks as `{"float": "nan" | "inf" | "-inf"}`."""
    if metadata is None:
        return None
    return {
        key: {"float": str(value)} if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in metadata.items()
    }


def to_json(value: object) -> str:
    """Return the JSON of a value on one line, text as it is (not escaped to ASCII)."""
    return _ENCODE(value)


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
