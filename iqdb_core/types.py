"""What a record is made of: ids, metadata values and the distance, with the rules that they must meet.

Nothing here needs NumPy; NumPy scalars are accepted where their plain counterparts are.
"""

from __future__ import annotations

import enum
import operator
import sys
from collections.abc import Mapping
from typing import Final, TypeAlias

from iqdb_core.errors import InvalidConfigError, InvalidIdError, InvalidMetadataError

VectorId: TypeAlias = int | bytes | str
MetadataValue: TypeAlias = str | int | float | bool | None
Metadata: TypeAlias = Mapping[str, MetadataValue]

MAX_DIM: Final = 65_536
MAX_ROWS: Final = 2**32 - 1
MAX_INTEGER_ID: Final = 2**64 - 1
MAX_ID_BYTES: Final = 65_535
MAX_KEY_BYTES: Final = 65_535
MAX_STRING_BYTES: Final = 16 * 1024 * 1024
MAX_KEYS_PER_RECORD: Final = 4_096
MAX_METADATA_WEIGHT: Final = 64 * 1024 * 1024
"""Bytes of one record's keys and strings together, with 16 more for each key."""
MIN_INT64: Final = -(2**63)
MAX_INT64: Final = 2**63 - 1


class DistanceMetric(enum.Enum):
    """How far two vectors are apart. Smaller is nearer for every metric.

    cosine is 1 - cos (a zero vector is at distance 1 from everything), dot is -(a.b), euclidean is the
    root of the sum of squares, manhattan the sum of absolute differences, and hamming the number of
    components whose float32 bits differ.
    """

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"
    HAMMING = "hamming"

    @property
    def tag(self) -> int:
        """The number of the metric in files and kernels."""
        return _METRIC_TAGS[self]

    @classmethod
    def from_tag(cls, tag: int) -> DistanceMetric:
        """Return the metric with a file's number; `ValueError` when there is none."""
        for metric, its_tag in _METRIC_TAGS.items():
            if its_tag == tag:
                return metric
        message = f"no metric has tag {tag}"
        raise ValueError(message)

    @classmethod
    def parse(cls, text: str | DistanceMetric) -> DistanceMetric:
        """Return the metric that `text` names.

        Raises:
            InvalidConfigError: there is no such metric.
        """
        if isinstance(text, cls):
            return text
        try:
            return cls(text)
        except ValueError:
            names = ", ".join(metric.value for metric in cls)
            raise InvalidConfigError("metric", text, f"one of {names}") from None


_METRIC_TAGS: Final = {
    DistanceMetric.COSINE: 0,
    DistanceMetric.DOT: 1,
    DistanceMetric.EUCLIDEAN: 2,
    DistanceMetric.MANHATTAN: 3,
    DistanceMetric.HAMMING: 4,
}


class IndexKind(enum.Enum):
    """How a database finds neighbours. `flat` is exact."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"

    @property
    def tag(self) -> int:
        """The number of the kind in files."""
        return _INDEX_TAGS[self]


_INDEX_TAGS: Final = {IndexKind.FLAT: 0, IndexKind.HNSW: 1, IndexKind.IVF: 2}


def validate_id(value: object, where: str = "") -> VectorId:
    """Return `value` as a plain `int`, `bytes` or `str` id.

    Args:
        value: an integer in 0..2^64-1 (NumPy integers too, but no bool), or 1 to 65,535 bytes, or a
            str of 1 to 65,535 bytes in UTF-8.
        where: the place of the id in the caller's data, for the error message.

    Raises:
        InvalidIdError: it is none of these.
    """
    kind = type(value)
    if kind is int:
        if 0 <= value <= MAX_INTEGER_ID:  # type: ignore[operator]
            return value  # type: ignore[return-value]
        raise InvalidIdError(value, "an integer id lies in 0..2^64-1", where=where)
    if isinstance(value, str):
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise InvalidIdError(value, "a str id must be encodable as UTF-8", where=where) from None
        _check_id_size(value, size, where)
        return str.__str__(value)
    if isinstance(value, bytes):
        _check_id_size(value, len(value), where)
        return bytes(memoryview(value))
    if not isinstance(value, bool):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
        else:
            return validate_id(number, where)
    raise InvalidIdError(
        value, f"an id is an int in 0..2^64-1, bytes or a str, not {kind.__name__}", where=where
    )


def _check_id_size(value: object, size_bytes: int, where: str) -> None:
    if size_bytes == 0:
        raise InvalidIdError(value, "an id must not be empty", where=where)
    if size_bytes > MAX_ID_BYTES:
        shown = value[:32] if isinstance(value, (str, bytes)) else value
        reason = f"(its beginning) it takes {size_bytes} bytes, the limit is {MAX_ID_BYTES}"
        raise InvalidIdError(shown, reason, where=where)


def validate_metadata(value: object, where: str = "") -> dict[str, MetadataValue] | None:
    """Return `value` as a new dict of plain values, or None when it is None.

    Args:
        value: None, or a mapping of str to str, int (int64), float, bool or None. NaN and infinite
            floats are kept.
        where: the place of the record in the caller's data, for the error message.

    Raises:
        InvalidMetadataError: a key or a value is something else or too large.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidMetadataError(None, f"expected a mapping, not {type(value).__name__}", where=where)
    if len(value) > MAX_KEYS_PER_RECORD:
        reason = f"the record has {len(value)} keys, the limit is {MAX_KEYS_PER_RECORD}"
        raise InvalidMetadataError(None, reason, where=where)
    result: dict[str, MetadataValue] = {}
    weight = 0
    for key, item in value.items():
        if not isinstance(key, str):
            raise InvalidMetadataError(key, f"a key is a str, not {type(key).__name__}", where=where)
        weight += 16 + _text_bytes(key, key, MAX_KEY_BYTES, "the key", where)
        if isinstance(item, str):
            weight += _text_bytes(key, item, MAX_STRING_BYTES, "the value", where)
            result[str.__str__(key)] = str.__str__(item)
        else:
            result[str.__str__(key)] = _plain_value(key, item, where)
    if weight > MAX_METADATA_WEIGHT:
        reason = f"the record's keys and strings take {weight} bytes, the limit is {MAX_METADATA_WEIGHT}"
        raise InvalidMetadataError(None, reason, where=where)
    return result


def _plain_value(key: str, value: object, where: str) -> MetadataValue:
    # bool stands before int: in Python a bool is an int, here it is not a number.
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return _plain_int(key, value, where)
    # A value of NumPy can only be here when somebody has imported NumPy.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.bool_):
            return bool(value)
        if isinstance(value, numpy.integer) and not isinstance(value, numpy.timedelta64):
            return _plain_int(key, value, where)
        if isinstance(value, numpy.floating) and value.itemsize <= 8:
            return float(value)
    reason = f"a value is a str, int, float, bool or None, not {type(value).__name__}"
    raise InvalidMetadataError(key, reason, where=where)


def _plain_int(key: str, value: object, where: str) -> int:
    number = operator.index(value)  # type: ignore[arg-type]
    if MIN_INT64 <= number <= MAX_INT64:
        return number
    raise InvalidMetadataError(key, f"integer {number} is outside -2^63..2^63-1", where=where)


def _text_bytes(key: str, text: str, limit_bytes: int, what: str, where: str) -> int:
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidMetadataError(key, f"{what} cannot be encoded as UTF-8", where=where) from None
    if size > limit_bytes:
        reason = f"{what} takes {size} bytes in UTF-8, the limit is {limit_bytes}"
        raise InvalidMetadataError(key[:64], reason, where=where)
    return size


def id_to_json(record_id: VectorId) -> int | str | dict[str, str]:
    """Return the id as a JSON value: a number, a string, or `{"hex": "00ff"}` for bytes."""
    return {"hex": record_id.hex()} if isinstance(record_id, bytes) else record_id


def id_from_json(value: object, where: str = "") -> VectorId:
    """Return the id that `id_to_json` wrote.

    Raises:
        InvalidIdError: the value is not one of its three forms.
    """
    if isinstance(value, dict):
        text = value.get("hex")
        if len(value) != 1 or not isinstance(text, str):
            raise InvalidIdError(value, 'an id in JSON is a number, a string or {"hex": "00ff"}', where=where)
        try:
            return validate_id(bytes.fromhex(text), where)
        except ValueError:
            raise InvalidIdError(
                value, "hex takes an even number of hexadecimal digits", where=where
            ) from None
    if isinstance(value, bytes):
        raise InvalidIdError(value, 'an id in JSON is a number, a string or {"hex": "00ff"}', where=where)
    return validate_id(value, where)
