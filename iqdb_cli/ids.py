"""Ids and metadata as people type them and as JSON holds them.

Typed ids: a decimal integer is an integer id; `text:...` and `hex:...` say otherwise; anything else is
text. JSON: a number is an integer id, a string is text, and `{"hex": "..."}` is bytes.
"""

from __future__ import annotations

import json

from iqdb_core.errors import InvalidIdError
from iqdb_core.json_values import metadata_to_json
from iqdb_core.types import VectorId, id_from_json, id_to_json, validate_id

__all__ = ["format_id", "id_from_json", "id_to_json", "metadata_to_json", "parse_id", "to_json"]

TEXT_PREFIX = "text:"
HEX_PREFIX = "hex:"


def parse_id(text: str, where: str = "") -> VectorId:
    """Return the id that a typed word means.

    Raises:
        InvalidIdError: it is empty, an integer above 2^64-1, or `hex:` without pairs of hex digits.
    """
    if _is_decimal(text):
        # Python refuses to convert very long numbers; no integer id has more than 20 digits.
        significant = text.lstrip("0")
        if len(significant) > 20:
            raise InvalidIdError(text[:40], "an integer id lies in 0..2^64-1", where=where)
        return validate_id(int(significant or "0"), where)
    if text.startswith(TEXT_PREFIX):
        return validate_id(text[len(TEXT_PREFIX) :], where)
    if text.startswith(HEX_PREFIX):
        return _parse_hex(text, where)
    return validate_id(text, where)


def format_id(record_id: VectorId) -> str:
    """Return the typed form of an id: `parse_id` of it gives the id back."""
    if isinstance(record_id, int):
        return str(record_id)
    if isinstance(record_id, bytes):
        return HEX_PREFIX + record_id.hex()
    if _is_decimal(record_id) or record_id.startswith((TEXT_PREFIX, HEX_PREFIX)):
        return TEXT_PREFIX + record_id
    return record_id


def to_json(value: object) -> str:
    """Return the JSON of a value on one line, with text as it is and not escaped to ASCII."""
    return _encode(value)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _parse_hex(text: str, where: str) -> VectorId:
    digits = text[len(HEX_PREFIX) :]
    try:
        # bytes.fromhex would skip spaces.
        raw = bytes.fromhex(digits) if digits.isalnum() or not digits else None
    except ValueError:
        raw = None
    if raw is None:
        raise InvalidIdError(text[:80], "expected pairs of hex digits behind hex:", where=where)
    return validate_id(raw, where)
