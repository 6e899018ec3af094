"""Evaluates filters record by record, as functions made once for a filter."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, TypeAlias

from iqdb_core.filters import (
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqdb_core.types import Metadata

Match: TypeAlias = "Callable[[Metadata], bool]"

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def family(value: FilterValue) -> frozenset[type]:
    """Return the types whose values a filter compares with `value`."""
    # bool is a subclass of int in Python, hence exact types.
    return frozenset(
        (bool,) if isinstance(value, bool) else (str,) if isinstance(value, str) else (int, float)
    )


def compile_filter(condition: Filter) -> Match:
    """Return a function that tells whether the filter is true for a mapping of plain values."""
    match condition:
        case Comparison():
            return _comparison(condition)
        case Membership():
            return _membership(condition)
        case Contains(key, text):
            return lambda metadata: isinstance(found := metadata.get(key), str) and text in found
        case NullTest(key, negated=True):
            return lambda metadata: metadata.get(key) is not None
        case NullTest(key):
            return lambda metadata: metadata.get(key, 0) is None
        case Exists(key):
            return lambda metadata: key in metadata
        case And(filters):
            every = [compile_filter(inner) for inner in filters]
            return lambda metadata: all(match(metadata) for match in every)
        case Or(filters):
            some = [compile_filter(inner) for inner in filters]
            return lambda metadata: any(match(metadata) for match in some)
        case Not(inner):
            holds = compile_filter(inner)
            return lambda metadata: not holds(metadata)
    raise AssertionError(condition)


def _comparison(condition: Comparison) -> Match:
    key, value, compare = condition.key, condition.value, COMPARE[condition.op]
    types = family(value)

    def holds(metadata: Metadata) -> bool:
        found = metadata.get(key)
        return type(found) in types and bool(compare(found, value))

    return holds


def _membership(condition: Membership) -> Match:
    key, negated = condition.key, condition.negated
    types = frozenset[type]().union(*map(family, condition.values))
    # 1 == True in Python but not here: a set of values for every type of the record's value.
    values: dict[type, frozenset[FilterValue]] = {
        kind: frozenset(value for value in condition.values if kind in family(value)) for kind in types
    }

    def holds(metadata: Metadata) -> bool:
        found: Any = metadata.get(key)
        kind = type(found)
        return kind in types and (found in values[kind]) is not negated

    return holds
