"""Floats and metadata as JSON values. JSON has no NaN and no infinities, metadata may."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from iqdb_core.errors import InvalidMetadataError
from iqdb_core.types import validate_metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqdb_core.types import MetadataValue

_USUAL_NAN = "7ff8000000000000"


def float_to_json(value: float) -> float | dict[str, str]:
    """Return a float as a JSON value: a number, or `{"float": "nan" | "inf" | "-inf"}`.

    A NaN with other bits than the usual one is `{"float": "nan:..."}` with its 64 bits in hex, so that
    no value changes by going through JSON.
    """
    if math.isfinite(value):
        return value
    if math.isinf(value):
        return {"float": "inf" if value > 0 else "-inf"}
    bits = struct.pack(">d", value).hex()
    return {"float": "nan" if bits == _USUAL_NAN else f"nan:{bits}"}


def float_from_json(value: object) -> float:
    """Return the float that `float_to_json` wrote.

    Raises:
        ValueError: it is none of its forms.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    text = value.get("float") if isinstance(value, dict) and len(value) == 1 else None
    if text in ("nan", "inf", "-inf"):
        return float(text)
    if isinstance(text, str) and text.startswith("nan:"):
        bits = text[4:]
        # bytes.fromhex would skip spaces.
        if len(bits) == 16 and bits.isalnum():
            number: float = struct.unpack(">d", bytes.fromhex(bits))[0]
            if math.isnan(number):
                return number
    message = f'{value!r} is no float; in JSON it is a number or {{"float": "nan" | "inf" | "-inf"}}'
    raise ValueError(message)


def metadata_to_json(metadata: Mapping[str, MetadataValue] | None) -> dict[str, Any] | None:
    """Return metadata as JSON values, with the floats that JSON lacks as `float_to_json` has them."""
    if metadata is None:
        return None
    return {key: float_to_json(item) if isinstance(item, float) else item for key, item in metadata.items()}


def metadata_from_json(value: object, where: str = "") -> dict[str, MetadataValue] | None:
    """Return the metadata that `metadata_to_json` wrote.

    Raises:
        InvalidMetadataError: a key or a value is not acceptable.
    """
    if not isinstance(value, dict):
        return validate_metadata(value, where)
    fields = dict(value)
    for key, item in value.items():
        if isinstance(item, dict):
            try:
                fields[key] = float_from_json(item)
            except ValueError as error:
                raise InvalidMetadataError(key, str(error), where=where) from None
    return validate_metadata(fields, where)
