"""The parameters of a search, checked."""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import TYPE_CHECKING

from iqdb_core.errors import InvalidFilterError, InvalidParameterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqdb_core.filters import Filter
    from iqdb_core.index.protocol import Index

_NO_PARAMETERS: Mapping[str, int] = {}


class Request:
    """What one search call asks for, checked."""

    __slots__ = ("condition", "exact", "k", "max_distance", "parameters")

    def __init__(
        self,
        k: int,
        condition: Filter | None = None,
        max_distance: float = math.inf,
        *,
        exact: bool = False,
        parameters: Mapping[str, int] = _NO_PARAMETERS,
    ) -> None:
        self.k = k
        self.condition = condition
        self.max_distance = max_distance
        self.exact = exact
        self.parameters = parameters


def search_request(
    index: Index,
    k: int,
    condition: Filter | str | None,
    ef: int | None,
    n_probes: int | None,
    max_distance: float | None,
    *,
    exact: bool,
) -> Request:
    """Check everything about a search but the queries.

    Raises:
        InvalidParameterError, InvalidFilterError: something is not acceptable.
    """
    count = at_least_one("k", k)
    chosen = None if condition is None else parsed_filter(condition)
    limit = math.inf if max_distance is None else _distance(max_distance)
    if ef is None and n_probes is None:
        return Request(count, chosen, limit, exact=exact)
    parameters = {}
    for name, value in (("ef", ef), ("n_probes", n_probes)):
        if value is None:
            continue
        if name not in index.parameters:
            expected = f"nothing: the index kind {index.kind.value} has no such parameter"
            raise InvalidParameterError(name, value, expected)
        parameters[name] = at_least_one(name, value)
    return Request(count, chosen, limit, exact=exact, parameters=parameters)


@lru_cache(maxsize=128)
def _parsed(expression: str) -> Filter:
    from iqdb_core.filters import Filter

    return Filter.parse(expression)


def parsed_filter(value: Filter | str | None) -> Filter | None:
    """Return a filter, parsed if it is an expression.

    Raises:
        InvalidFilterError: it is no filter, or the expression is not one.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _parsed(value)
    from iqdb_core.filters import Filter

    if isinstance(value, Filter):
        return value
    raise InvalidFilterError(f"expected a Filter or an expression, not {type(value).__name__}")


def at_least_one(name: str, value: object) -> int:
    """Return a positive integer of any size.

    Raises:
        InvalidParameterError: it is something else.
    """
    if type(value) is int and value > 0:
        return value
    if not isinstance(value, bool):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
        else:
            if number > 0:
                return number
    raise InvalidParameterError(name, value, "an integer of at least 1")


def _distance(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, str) or math.isnan(number):
        raise InvalidParameterError("max_distance", value, "a number")
    return number
