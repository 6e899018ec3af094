"""Evaluates filters over columns: one bool for each row, as `Filter.matches` would give it.

Only columns that the filter names are looked at. Strings in dictionaries are compared once an entry.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from iqdb_core.column_type import ColumnType
from iqdb_core.filters import (
    And,
    Comparison,
    Contains,
    Exists,
    Filter,
    FilterValue,
    Leaf,
    Membership,
    Not,
    NullTest,
    Or,
)
from iqdb_core.filters_match import COMPARE
from iqdb_core.record_strings import CodedStrings, StringValues
from iqdb_core.storage.columns_reader import read_column
from iqdb_core.types import MAX_INT64, MIN_INT64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from iqdb_core.record_metadata import MetadataColumns, Values
    from iqdb_core.storage.columns import GroupView

Bools: TypeAlias = "NDArray[np.bool_]"
_Found: TypeAlias = "tuple[ColumnType, NDArray[np.uint32] | None, Values]"

# Up to this many values are compared one by one; more are looked up in a set.
_FEW_VALUES = 8


def evaluate(condition: Filter, columns: MetadataColumns) -> Bools:
    """Return bool[n_rows], for which records the filter is true."""
    return _Evaluation(columns.n_rows, _lookup_in_columns(columns)).run(condition)


def evaluate_group(condition: Filter, group: GroupView) -> Bools:
    """Return bool[n_rows], for which records of a group the filter is true.

    Raises:
        StructureError: a column that the filter needs contradicts the format.
    """
    return _Evaluation(group.n_rows, _lookup_in_group(group)).run(condition)


def _lookup_in_columns(columns: MetadataColumns) -> Callable[[str], Iterable[_Found]]:
    by_key: dict[str, list[_Found]] = {}
    for column in columns.columns:
        by_key.setdefault(column.key, []).append((column.type, column.rows, column.values))
    return lambda key: by_key.get(key, ())


def _lookup_in_group(group: GroupView) -> Callable[[str], Iterable[_Found]]:
    def lookup(key: str) -> Iterable[_Found]:
        for view in group.columns:
            if view.key == key:
                stored = read_column(group, view)
                yield ColumnType(view.type), stored.rows, stored.values

    return lookup


class _Evaluation:
    """One run over the columns that `lookup` finds for a key."""

    def __init__(self, n_rows: int, lookup: Callable[[str], Iterable[_Found]]) -> None:
        self._n_rows = n_rows
        self._lookup = lookup

    def run(self, condition: Filter) -> Bools:
        """Return a new array, which the caller may change."""
        match condition:
            case Leaf():
                return self._leaf(condition)
            case Not(inner):
                inverted = self.run(inner)
                return np.logical_not(inverted, out=inverted)
            case And(filters):
                result = self.run(filters[0])
                for inner in filters[1:]:
                    if not result.any():
                        break
                    result &= self.run(inner)
                return result
            case Or(filters):
                result = self.run(filters[0])
                for inner in filters[1:]:
                    if result.all():
                        break
                    result |= self.run(inner)
                return result
        raise AssertionError(condition)

    def _leaf(self, condition: Leaf) -> Bools:
        # No row is in two columns of a key, so each column decides for its rows alone.
        result: Bools | None = None
        for type_, rows, values in self._lookup(condition.key):
            hits = _hits(condition, type_, values)
            if hits is None:
                continue
            if rows is None:
                return hits
            if result is None:
                result = np.zeros(self._n_rows, np.bool_)
            result[rows] = hits
        return np.zeros(self._n_rows, np.bool_) if result is None else result


def _hits(condition: Leaf, type_: ColumnType, values: Values) -> Bools | None:
    """Return for each value of a column whether the leaf is true; None when it is for none."""
    match condition:
        case Exists():
            return np.ones(len(values), np.bool_)
        case NullTest(_, negated):
            return np.ones(len(values), np.bool_) if (type_ is ColumnType.NULL) is not negated else None
        case Comparison(_, op, value):
            return _compare(type_, values, op, value) if _in_family(type_, value) else None
        case Membership(_, wanted, negated):
            wanted = tuple(value for value in wanted if _in_family(type_, value))
            if not wanted:
                return None
            hits = _members(type_, values, wanted)
            return ~hits if negated else hits
        case Contains(_, text):
            return _strings(values, text.encode(), _contains) if type_ is ColumnType.STRING else None
    raise AssertionError(condition)


def _in_family(type_: ColumnType, value: FilterValue) -> bool:
    if isinstance(value, bool):
        return type_ is ColumnType.BOOL
    if isinstance(value, str):
        return type_ is ColumnType.STRING
    return type_ in (ColumnType.INT64, ColumnType.FLOAT64)


def _compare(type_: ColumnType, values: Values, op: str, value: FilterValue) -> Bools:
    if isinstance(value, str):
        compare = COMPARE[op]
        return _strings(values, value.encode(), lambda strings, needle: compare(_signs(strings, needle), 0))
    assert isinstance(values, np.ndarray)
    if type_ is ColumnType.INT64:
        return _compare_int64(values, op, value)
    if type_ is ColumnType.FLOAT64 and isinstance(value, int):
        return _compare_float64(values, op, value)
    result: Bools = COMPARE[op](values, value)
    return result


def _constant(values: NDArray[Any], *, outcome: bool) -> Bools:
    return np.full(len(values), outcome, np.bool_)


def _compare_int64(values: NDArray[np.int64], op: str, value: int | float) -> Bools:
    """Compare int64 with an int64 or a float, exactly."""
    if isinstance(value, float):
        if math.isinf(value):
            bound = MAX_INT64 + 1 if value > 0 else MIN_INT64 - 1
        elif op in {"eq", "ne"} and not value.is_integer():
            return _constant(values, outcome=op == "ne")
        else:
            # i < x exactly when i < ceil(x), and so on: between integers nothing lies.
            bound = math.ceil(value) if op in {"lt", "ge"} else math.floor(value)
        if bound > MAX_INT64:
            return _constant(values, outcome=op in {"lt", "le", "ne"})
        if bound < MIN_INT64:
            return _constant(values, outcome=op in {"gt", "ge", "ne"})
        value = bound
    result: Bools = COMPARE[op](values, np.int64(value))
    return result


def _compare_float64(values: NDArray[np.float64], op: str, value: int) -> Bools:
    """Compare float64 with an int64, exactly."""
    nearest = float(value)
    if nearest != value:
        # No float equals the integer, and none lies between it and the nearest one.
        if op in {"eq", "ne"}:
            return _constant(values, outcome=op == "ne")
        if op in {"lt", "le"}:
            op = "lt" if nearest > value else "le"
        else:
            op = "ge" if nearest > value else "gt"
    result: Bools = COMPARE[op](values, nearest)
    return result


def _members(type_: ColumnType, values: Values, wanted: Sequence[Any]) -> Bools:
    """Return which values equal one of `wanted`, all of which have the column's type."""
    if len(wanted) <= _FEW_VALUES:
        hits = _compare(type_, values, "eq", wanted[0])
        for value in wanted[1:]:
            hits |= _compare(type_, values, "eq", value)
        return hits
    if type_ is ColumnType.STRING:
        needles = frozenset(value.encode() for value in wanted)
        return _strings(values, needles, _among)
    if type_ is ColumnType.BOOL:
        return _members(type_, values, tuple(set(wanted)))
    assert isinstance(values, np.ndarray)
    if type_ is ColumnType.INT64:
        integers = [int(value) for value in wanted if math.isfinite(value) and value == int(value)]
        integers = [value for value in integers if MIN_INT64 <= value <= MAX_INT64]
        return np.isin(values, np.array(integers, np.int64))
    floats = [float(value) for value in wanted if float(value) == value]
    return np.isin(values, np.array(floats, np.float64))


# --- Strings ------------------------------------------------------------------------------------


def _strings(values: Values, needle: Any, test: Callable[[StringValues, Any], Bools]) -> Bools:
    """Test each string, or each entry of a dictionary and then each code."""
    if isinstance(values, CodedStrings):
        few = values.trimmed()
        return _of_entries(test(few.entries, needle), few.codes)
    assert isinstance(values, StringValues)
    return test(values, needle)


def _of_entries(hits: Bools, codes: NDArray[np.uint16] | NDArray[np.uint32]) -> Bools:
    """Return `hits[codes]`. Entries of a file ascend, so that those that hit mostly form a run of codes."""
    found = np.flatnonzero(hits)
    if not len(found):
        return np.zeros(len(codes), np.bool_)
    first, last = int(found[0]), int(found[-1])
    if last - first + 1 != len(found):
        return hits[codes]
    kind = codes.dtype.type
    result: Bools
    if first == last:
        result = codes == kind(first)
    elif first == 0:
        result = codes <= kind(last)
    else:
        result = (codes >= kind(first)) & (codes <= kind(last))
    return result


def _signs(strings: StringValues, needle: bytes) -> NDArray[np.int8]:
    """Return -1, 0 or 1 for strings less than, equal to or greater than the needle."""
    from iqdb_core import _kernels

    signs = np.empty(len(strings), np.int8)
    _kernels.compare_strings(strings.offsets, np.ascontiguousarray(strings.data), needle, signs)
    return signs


def _contains(strings: StringValues, needle: bytes) -> Bools:
    from iqdb_core import _kernels

    found = np.empty(len(strings), np.uint8)
    _kernels.contains_strings(strings.offsets, np.ascontiguousarray(strings.data), needle, found)
    return found.view(np.bool_)


def _among(strings: StringValues, needles: frozenset[bytes]) -> Bools:
    return np.fromiter(map(needles.__contains__, strings.to_bytes()), np.bool_, len(strings))
