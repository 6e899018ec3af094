"""Filters: conditions on a record's metadata, as a tree.

A leaf looks at one key. It is false for a record without that key, and for one whose value has another
type than the leaf asks for (the world is closed); `not` inverts. Integers and floats are one type here
and are compared exactly; bool is a type of its own, with equality but no order; strings compare by code
point, which is the order of their UTF-8 bytes.

=================  ===================================================================================
leaf               true when the value
=================  ===================================================================================
key = v            equals v
key != v           has the type of v and differs from it; `not key = v` is also true without a value
key < v, ...       has the type of v and is so ordered; NaN is unequal to every number and has no order
key in (...)       equals one of the values
key not in (...)   has the type of one of the values and equals none of them
key contains s     is a string in which the string s occurs
key is null        is an explicit null (that of an absent key is not)
key is not null    is there and is not null
exists(key)        is there, null or not
=================  ===================================================================================

The expressions are described in `iqdb_core.filters_text`. `Filter.matches` (row by row) and
`iqdb_core.filters_eval` (over columns) give the same answers.

Limits: 64 levels, of which a leaf is one; 1,024 values in one `in`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from iqdb_core.errors import InvalidFilterError, InvalidMetadataError
from iqdb_core.types import MAX_INT64, MAX_KEY_BYTES, MIN_INT64, Metadata, validate_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FilterValue: TypeAlias = str | int | float | bool

MAX_LEVELS = 64
MAX_IN_VALUES = 1024

SYMBOLS = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
"""How the comparisons are written in expressions."""


class Filter:
    """A condition on a record's metadata.

    Filters are immutable, and equal when they are the same tree; 1, 1.0 and True are different values
    there. `str(filter)` is an expression that parses to an equal filter. An `and` within an `and`, or an
    `or` within an `or`, becomes part of it.
    """

    levels: int
    """How deep the tree is; 1 for a leaf."""

    @staticmethod
    def eq(key: str, value: FilterValue) -> Filter:
        """Match records whose value equals `value`."""
        return Comparison(key, "eq", value)

    @staticmethod
    def ne(key: str, value: FilterValue) -> Filter:
        """Match records whose value has the type of `value` and differs from it."""
        return Comparison(key, "ne", value)

    @staticmethod
    def lt(key: str, value: FilterValue) -> Filter:
        """Match records whose value is less than `value`, a number or a string."""
        return Comparison(key, "lt", value)

    @staticmethod
    def le(key: str, value: FilterValue) -> Filter:
        """Match records whose value is at most `value`, a number or a string."""
        return Comparison(key, "le", value)

    @staticmethod
    def gt(key: str, value: FilterValue) -> Filter:
        """Match records whose value is greater than `value`, a number or a string."""
        return Comparison(key, "gt", value)

    @staticmethod
    def ge(key: str, value: FilterValue) -> Filter:
        """Match records whose value is at least `value`, a number or a string."""
        return Comparison(key, "ge", value)

    @staticmethod
    def in_(key: str, values: Iterable[FilterValue]) -> Filter:
        """Match records whose value equals one of `values`, at most 1,024; none match without values."""
        return Membership(key, tuple(values))

    @staticmethod
    def not_in(key: str, values: Iterable[FilterValue]) -> Filter:
        """Match records whose value has the type of one of `values` and equals none of them."""
        return Membership(key, tuple(values), negated=True)

    @staticmethod
    def contains(key: str, text: str) -> Filter:
        """Match records whose value is a string in which `text` occurs."""
        return Contains(key, text)

    @staticmethod
    def is_null(key: str) -> Filter:
        """Match records whose value is an explicit None."""
        return NullTest(key)

    @staticmethod
    def is_not_null(key: str) -> Filter:
        """Match records that have the key, with another value than None."""
        return NullTest(key, negated=True)

    @staticmethod
    def exists(key: str) -> Filter:
        """Match records that have the key, whatever its value."""
        return Exists(key)

    @staticmethod
    def and_(*filters: Filter) -> Filter:
        """Match records for which all of one or more filters are true."""
        return _combined(And, filters)

    @staticmethod
    def or_(*filters: Filter) -> Filter:
        """Match records for which at least one of one or more filters is true."""
        return _combined(Or, filters)

    @staticmethod
    def not_(inner: Filter) -> Filter:
        """Match records for which a filter is false."""
        return Not(inner)

    def __and__(self, other: Filter) -> Filter:
        return And((self, other)) if isinstance(other, Filter) else NotImplemented

    def __or__(self, other: Filter) -> Filter:
        return Or((self, other)) if isinstance(other, Filter) else NotImplemented

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> bool:
        # `f and g` would silently be g.
        message = "a Filter has no truth value; combine filters with &, | and ~, and ask with matches()"
        raise TypeError(message)

    @staticmethod
    def parse(expression: str) -> Filter:
        """Return the filter that an expression describes. The grammar is in `iqdb_core.filters_text`.

        Raises:
            InvalidFilterError: it is not an expression; `column` says where it stops being one.
        """
        from iqdb_core.filters_text import parse_filter

        return parse_filter(expression)

    @staticmethod
    def coerce(value: Filter | str) -> Filter:
        """Return a filter as it is, and an expression parsed."""
        if isinstance(value, Filter):
            return value
        if isinstance(value, str):
            return Filter.parse(value)
        raise InvalidFilterError(f"expected a Filter or an expression, not {type(value).__name__}")

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as plain dicts, lists and values, such as JSON has."""
        from iqdb_core.filters_plain import filter_to_dict

        return filter_to_dict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Filter:
        """Return the filter that `to_dict` described.

        Raises:
            InvalidFilterError: `data` is not such a description.
        """
        from iqdb_core.filters_plain import filter_from_dict

        return filter_from_dict(data)

    def matches(self, metadata: Metadata | None) -> bool:
        """Return whether the filter is true for a record with this metadata (None: no mapping)."""
        match: Callable[[Metadata], bool] | None = self.__dict__.get("_match")
        if match is None:
            from iqdb_core.filters_match import compile_filter

            match = compile_filter(self)
            object.__setattr__(self, "_match", match)
        return match({} if metadata is None else metadata)

    def keys(self) -> frozenset[str]:
        """Return the metadata keys that the filter looks at."""
        raise NotImplementedError

    def _identity(self) -> tuple[Any, ...]:
        """Return what makes this filter equal to others."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filter):
            return NotImplemented
        return self is other or self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __str__(self) -> str:
        from iqdb_core.filters_text import format_filter

        return format_filter(self)

    def __repr__(self) -> str:
        return f"Filter.parse({str(self)!r})"

    def __getstate__(self) -> dict[str, Any]:
        # The compiled function cannot be pickled, and is soon made again.
        return {name: value for name, value in self.__dict__.items() if name != "_match"}


# --- Leaves -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Leaf(Filter):
    """A condition on one key."""

    key: str
    levels: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", _checked_key(self.key))

    def keys(self) -> frozenset[str]:
        """Return the one key that the leaf looks at."""
        return frozenset((self.key,))


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Leaf):
    """The value compares to `value` as `op` says, one of `SYMBOLS`."""

    op: str
    value: FilterValue

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", _checked_value(self.value))
        if isinstance(self.value, bool) and self.op not in {"eq", "ne"}:
            raise InvalidFilterError(
                f"true and false have no order, so {SYMBOLS[self.op]} cannot compare them"
            )

    def _identity(self) -> tuple[Any, ...]:
        return self.op, self.key, type(self.value), self.value


@dataclass(frozen=True, eq=False, repr=False)
class Membership(Leaf):
    """The value equals one of `values`; or, when negated, has the type of one and equals none."""

    values: tuple[FilterValue, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) > MAX_IN_VALUES:
            raise InvalidFilterError(f"{len(self.values)} values in one in, the limit is {MAX_IN_VALUES}")
        object.__setattr__(self, "values", tuple(map(_checked_value, self.values)))

    def _identity(self) -> tuple[Any, ...]:
        return "in", self.negated, self.key, tuple((type(value), value) for value in self.values)


@dataclass(frozen=True, eq=False, repr=False)
class Contains(Leaf):
    """The value is a string in which `text` occurs."""

    text: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.text, str):
            raise InvalidFilterError(f"contains takes a string, not {type(self.text).__name__}")
        object.__setattr__(self, "text", _checked_value(self.text))

    def _identity(self) -> tuple[Any, ...]:
        return "contains", self.key, self.text


@dataclass(frozen=True, eq=False, repr=False)
class NullTest(Leaf):
    """The value is an explicit null; or, when negated, is there and is none."""

    negated: bool = False

    def _identity(self) -> tuple[Any, ...]:
        return "null", self.negated, self.key


@dataclass(frozen=True, eq=False, repr=False)
class Exists(Leaf):
    """The key is there."""

    def _identity(self) -> tuple[Any, ...]:
        return "exists", self.key


# --- Combinations -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Combination(Filter):
    """Two or more filters, none of them of the combination's own kind."""

    filters: tuple[Filter, ...]
    levels: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        flat: list[Filter] = []
        for inner in self.filters:
            if not isinstance(inner, Filter):
                raise InvalidFilterError(f"expected a Filter, not {type(inner).__name__}")
            flat.extend(inner.filters if type(inner) is type(self) else (inner,))
        object.__setattr__(self, "filters", tuple(flat))
        object.__setattr__(self, "levels", _level_above(*flat))

    def keys(self) -> frozenset[str]:
        """Return the keys that the filters look at."""
        return frozenset[str]().union(*(inner.keys() for inner in self.filters))

    def _identity(self) -> tuple[Any, ...]:
        return type(self), self.filters


class And(Combination):
    """All of the filters are true."""


class Or(Combination):
    """At least one of the filters is true."""


@dataclass(frozen=True, eq=False, repr=False)
class Not(Filter):
    """The inner filter is false."""

    inner: Filter
    levels: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Filter):
            raise InvalidFilterError(f"expected a Filter, not {type(self.inner).__name__}")
        object.__setattr__(self, "levels", _level_above(self.inner))

    def keys(self) -> frozenset[str]:
        """Return the keys that the inner filter looks at."""
        return self.inner.keys()

    def _identity(self) -> tuple[Any, ...]:
        return "not", self.inner


def _combined(kind: type[Combination], filters: tuple[Filter, ...]) -> Filter:
    if not filters:
        raise InvalidFilterError(f"{kind.__name__.lower()} needs at least one filter")
    combination = kind(filters)
    return combination if len(combination.filters) > 1 else combination.filters[0]


def _level_above(*filters: Filter) -> int:
    levels = 1 + max(inner.levels for inner in filters)
    if levels > MAX_LEVELS:
        raise InvalidFilterError(f"more than {MAX_LEVELS} levels")
    return levels


def _checked_key(key: object) -> str:
    # Filters are often made for one search, so what is plainly right takes no detour.
    if type(key) is str and key.isascii() and len(key) <= MAX_KEY_BYTES:
        return key
    try:
        checked = validate_metadata({key: None})
    except InvalidMetadataError as error:
        raise InvalidFilterError(error.reason) from None
    assert checked is not None
    return next(iter(checked))


def _checked_value(value: object) -> FilterValue:
    """Return a value as the plain Python object that it is equal to."""
    if type(value) is bool or (type(value) is int and MIN_INT64 <= value <= MAX_INT64):
        return value
    if type(value) is float and value == value:  # noqa: PLR0124 - only NaN differs from itself
        return value
    if value is None:
        raise InvalidFilterError('null equals and orders nothing; ask "is null" or "is not null"')
    try:
        checked = validate_metadata({"": value})
    except InvalidMetadataError as error:
        raise InvalidFilterError(error.reason) from None
    assert checked is not None
    plain = checked[""]
    assert plain is not None
    if plain != plain:  # noqa: PLR0124 - only NaN differs from itself
        raise InvalidFilterError("NaN equals and orders nothing; compare with a number")
    return plain
