"""Filters over a snapshot's metadata as row bitmaps.

Comparisons with numbers go from the columns of all groups straight to bits. Whatever else a filter asks is
evaluated group by group, as bools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from iqdb_core import _kernels
from iqdb_core.filter_intervals import Interval, interval
from iqdb_core.filters import And, Combination, Comparison, Filter, Membership, Not, Or
from iqdb_core.filters_eval import evaluate_group

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.storage.snapshot import Snapshot

Bits: TypeAlias = "NDArray[np.uint8]"

# Up to this many values of an `in` are compared one by one.
_FEW_VALUES = 8
# A call of the kernel does not let other threads run, hence so many groups a call.
_GROUPS_PER_CALL = 64


def snapshot_mask(snapshot: Snapshot, condition: Filter) -> bytearray:
    """Return the bitmap of the rows whose metadata meets a filter.

    Only the columns that the filter names are verified and decoded.

    Raises:
        DamagedError: metadata that the filter needs is damaged.
    """
    n_rows = snapshot.n_rows
    if not snapshot.has_metadata:
        byte = 0xFF if condition.matches(None) else 0
        return bytearray([byte]) * ((n_rows + 7) >> 3)
    return bytearray(_bits(snapshot, condition))


def _bits(snapshot: Snapshot, condition: Filter) -> Bits:
    """Return the bitmap, 0 behind the last row, as a new array."""
    if _is_numeric(condition):
        return _numeric(snapshot, condition)
    if isinstance(condition, Combination):
        numeric = tuple(inner for inner in condition.filters if _is_numeric(inner))
        if numeric:
            # One pass over the groups for all that is left.
            others = tuple(inner for inner in condition.filters if not _is_numeric(inner))
            bits = _group_by_group(snapshot, type(condition)(others) if len(others) > 1 else others[0])
            found = _numeric(snapshot, type(condition)(numeric) if len(numeric) > 1 else numeric[0])
            combine: Any = np.bitwise_and if isinstance(condition, And) else np.bitwise_or
            result: Bits = combine(bits, found, out=bits)
            return result
    return _group_by_group(snapshot, condition)


def _group_by_group(snapshot: Snapshot, condition: Filter) -> Bits:
    matches = np.empty(snapshot.n_rows, np.bool_)
    keys = condition.keys()
    for first, last, group in snapshot.groups():
        group.check_keys(keys)
        matches[first:last] = evaluate_group(condition, group)
    return np.packbits(matches, bitorder="little")


# --- Comparisons with numbers -------------------------------------------------------------------


def _is_numeric(condition: Filter) -> bool:
    """Return whether a filter does nothing but compare with numbers."""
    if isinstance(condition, Comparison):
        return type(condition.value) in (int, float)
    if isinstance(condition, Membership):
        few = len(condition.values) <= _FEW_VALUES and not condition.negated
        return few and all(type(value) in (int, float) for value in condition.values)
    if isinstance(condition, Combination):
        return all(map(_is_numeric, condition.filters))
    return isinstance(condition, Not) and _is_numeric(condition.inner)


def _numeric(snapshot: Snapshot, condition: Filter) -> Bits:
    if isinstance(condition, And):
        return _conjunction(snapshot, condition.filters)
    bits = np.zeros((snapshot.n_rows + 7) >> 3, np.uint8)
    if isinstance(condition, Comparison):
        assert not isinstance(condition.value, str)
        _set_within(snapshot, condition.key, interval(condition.op, condition.value), bits)
    elif isinstance(condition, Membership):
        # With an empty list nothing is looked at, but the column must be whole all the same.
        snapshot.numbers(condition.key)
        for value in condition.values:
            assert not isinstance(value, str)
            _set_within(snapshot, condition.key, interval("eq", value), bits)
    elif isinstance(condition, Or):
        for inner in condition.filters:
            bits |= _numeric(snapshot, inner)
    else:
        assert isinstance(condition, Not)
        np.bitwise_not(_numeric(snapshot, condition.inner), out=bits)
        if snapshot.n_rows & 7:
            bits[-1] &= (1 << (snapshot.n_rows & 7)) - 1
    return bits


def _conjunction(snapshot: Snapshot, filters: tuple[Filter, ...]) -> Bits:
    """Return where all of the filters are true; bounds of one key take one pass over its values."""
    intervals: dict[str, Interval] = {}
    others: list[Filter] = []
    for inner in filters:
        if not isinstance(inner, Comparison) or inner.op == "ne":
            others.append(inner)
            continue
        assert not isinstance(inner.value, str)
        bounds, known = interval(inner.op, inner.value), intervals.get(inner.key)
        intervals[inner.key] = bounds if known is None else known.both(bounds)
    result: Bits | None = None
    for key, bounds in intervals.items():
        bits = np.zeros((snapshot.n_rows + 7) >> 3, np.uint8)
        _set_within(snapshot, key, bounds, bits)
        result = bits if result is None else np.bitwise_and(result, bits, out=result)
    for inner in others:
        bits = _numeric(snapshot, inner)
        result = bits if result is None else np.bitwise_and(result, bits, out=result)
    assert result is not None
    return result


def _set_within(snapshot: Snapshot, key: str, bounds: Interval, bits: Bits) -> None:
    parts = snapshot.numbers(key)
    for start in range(0, len(parts), _GROUPS_PER_CALL):
        _kernels.mask_within(parts[start : start + _GROUPS_PER_CALL], *bounds, bits)
