"""Comparisons with a number as closed intervals, one of integers and one of floats.

Both are exact: an integer and a float compare as they do in Python. An interval may be empty.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from iqdb_core.types import MAX_INT64, MIN_INT64


class Interval(NamedTuple):
    """The integers and the floats for which a comparison is true, or false when `inverted`.

    NaN is in no interval.
    """

    int_low: int
    int_high: int
    float_low: float
    float_high: float
    inverted: bool = False

    def both(self, other: Interval) -> Interval:
        """Return what is in two intervals, neither of them inverted."""
        return Interval(
            max(self.int_low, other.int_low),
            min(self.int_high, other.int_high),
            max(self.float_low, other.float_low),
            min(self.float_high, other.float_high),
        )


def interval(op: str, value: float) -> Interval:
    """Return the interval of `x op value`, with `op` one of `iqdb_core.filters.SYMBOLS`."""
    return Interval(*_integers(op, value), *_floats(op, value), op == "ne")


def _integers(op: str, value: float) -> tuple[int, int]:
    if isinstance(value, float) and math.isinf(value):
        everything = op in ({"lt", "le"} if value > 0 else {"gt", "ge"})
        return (MIN_INT64, MAX_INT64) if everything else (MAX_INT64, MIN_INT64)
    # Between integers nothing lies: i < x exactly when i <= ceil(x) - 1, and so on.
    low, high = MIN_INT64, MAX_INT64
    if op in {"eq", "ne", "ge"}:
        low = math.ceil(value)
    elif op == "gt":
        low = math.floor(value) + 1
    if op in {"eq", "ne", "le"}:
        high = math.floor(value)
    elif op == "lt":
        high = math.ceil(value) - 1
    if low > MAX_INT64 or high < MIN_INT64:
        return MAX_INT64, MIN_INT64
    return max(low, MIN_INT64), min(high, MAX_INT64)


def _floats(op: str, value: float) -> tuple[float, float]:
    # The least float that is not below the value, and the greatest that is not above it.
    above = below = nearest = float(value)
    if nearest < value:
        above = math.nextafter(nearest, math.inf)
    elif nearest > value:
        below = math.nextafter(nearest, -math.inf)
    if op in {"eq", "ne"}:
        return above, below
    if op in {"ge", "gt"}:
        if op == "gt" and above == value:
            if above == math.inf:
                return math.inf, -math.inf
            above = math.nextafter(above, math.inf)
        return above, math.inf
    if op == "lt" and below == value:
        if below == -math.inf:
            return math.inf, -math.inf
        below = math.nextafter(below, -math.inf)
    return -math.inf, below
