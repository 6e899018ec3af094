"""Filters as plain dicts, lists and values, and back.

A leaf is `{"op": ..., "key": ...}` with `"value"` (eq, ne, lt, le, gt, ge, contains) or `"values"` (in,
not_in) or neither (is_null, is_not_null, exists). Combinations are `{"op": "and", "filters": [...]}`,
`"or"` likewise, and `{"op": "not", "filter": ...}`. An infinite value is `{"float": "inf"}` or "-inf".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iqdb_core.errors import InvalidFilterError
from iqdb_core.filters import (
    MAX_LEVELS,
    SYMBOLS,
    And,
    Comparison,
    Contains,
    Exists,
    Filter,
    FilterValue,
    Membership,
    Not,
    NullTest,
    Or,
)
from iqdb_core.json_values import float_from_json, float_to_json


def filter_to_dict(condition: Filter) -> dict[str, Any]:
    """Return the tree as plain data."""
    match condition:
        case Comparison(key, op, value):
            return {"op": op, "key": key, "value": _to_json(value)}
        case Membership(key, values, negated):
            return {"op": "not_in" if negated else "in", "key": key, "values": list(map(_to_json, values))}
        case Contains(key, text):
            return {"op": "contains", "key": key, "value": text}
        case NullTest(key, negated):
            return {"op": "is_not_null" if negated else "is_null", "key": key}
        case Exists(key):
            return {"op": "exists", "key": key}
        case And(filters) | Or(filters):
            op = "and" if isinstance(condition, And) else "or"
            return {"op": op, "filters": [filter_to_dict(inner) for inner in filters]}
        case Not(inner):
            return {"op": "not", "filter": filter_to_dict(inner)}
    raise AssertionError(condition)


def filter_from_dict(data: Mapping[str, Any]) -> Filter:
    """Return the filter that plain data describes.

    Raises:
        InvalidFilterError: the data is not what `filter_to_dict` returns.
    """
    return _from_dict(data, 1)


_FIELDS = {
    **dict.fromkeys((*SYMBOLS, "contains"), ("key", "op", "value")),
    **dict.fromkeys(("in", "not_in"), ("key", "op", "values")),
    **dict.fromkeys(("is_null", "is_not_null", "exists"), ("key", "op")),
    **dict.fromkeys(("and", "or"), ("filters", "op")),
    "not": ("filter", "op"),
}


def _from_dict(data: object, level: int) -> Filter:
    # Levels are counted on the way down as well: the data may be deeper than Python can recurse.
    if level > MAX_LEVELS:
        raise InvalidFilterError(f"more than {MAX_LEVELS} levels")
    if not isinstance(data, Mapping):
        raise InvalidFilterError(f"expected a mapping with op, not {type(data).__name__}")
    op = data.get("op")
    if not isinstance(op, str) or op not in _FIELDS:
        raise InvalidFilterError(f"op is {op!r}, expected one of {', '.join(sorted(_FIELDS))}")
    fields = _FIELDS[op]
    if set(data) != set(fields):
        found = ", ".join(sorted(map(str, data)))
        raise InvalidFilterError(f"{op} has {found}, expected {', '.join(fields)}")
    match op:
        case "and" | "or":
            inner = [_from_dict(item, level + 1) for item in _list(data, "filters")]
            return Filter.and_(*inner) if op == "and" else Filter.or_(*inner)
        case "not":
            return Not(_from_dict(data["filter"], level + 1))
        case "in" | "not_in":
            return Membership(
                data["key"], tuple(map(_from_json, _list(data, "values"))), negated=op == "not_in"
            )
        case "contains":
            return Contains(data["key"], data["value"])
        case "is_null" | "is_not_null":
            return NullTest(data["key"], negated=op == "is_not_null")
        case "exists":
            return Exists(data["key"])
    return Comparison(data["key"], op, _from_json(data["value"]))


def _to_json(value: FilterValue) -> Any:
    return float_to_json(value) if isinstance(value, float) else value


def _from_json(value: object) -> Any:
    try:
        return float_from_json(value) if isinstance(value, dict) else value
    except ValueError:
        return value  # which the leaf refuses


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    value = data[name]
    if not isinstance(value, (list, tuple)):
        raise InvalidFilterError(f"{name} is a {type(value).__name__}, expected a list")
    return list(value)
