"""Masks of whole snapshots against the filters' own answer, record by record."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels
from iqdb_core.filter_intervals import interval
from iqdb_core.filter_masks import snapshot_mask
from iqdb_core.filters import SYMBOLS, Filter
from iqdb_core.filters_match import COMPARE
from iqdb_core.records import MetadataColumns
from iqdb_core.storage.columns import GroupView, encode_group
from iqdb_core.storage.columns_reader import NumberPart, number_parts

# Few keys and values that collide; the numbers sit where int64 and float64 part ways.
KEYS = st.sampled_from(["a", "b"])
INTEGERS = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, -(2**63), -(2**63) + 1])
FLOATS = st.sampled_from([0.0, -0.0, 0.5, 1.0, 2.0**53, 2.0**63, -(2.0**63), 5e-324, math.inf, -math.inf])
NUMBERS = INTEGERS | FLOATS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
OTHERS = st.sampled_from(["", "a", "ab", True, False])
RECORD_VALUES = NUMBERS | OTHERS | st.none() | st.just(math.nan)
RECORDS = st.lists(st.none() | st.dictionaries(KEYS, RECORD_VALUES), min_size=1, max_size=12)


class Groups:
    """The part of a snapshot that masks are made of, with groups of any size."""

    has_metadata = True

    def __init__(self, groups: list[list[Any]]) -> None:
        self._groups = [GroupView(encode_group(MetadataColumns.from_dicts(group))) for group in groups]
        self.n_rows = sum(map(len, groups))

    def groups(self) -> Iterator[tuple[int, int, GroupView]]:
        first = 0
        for group in self._groups:
            yield first, first + group.n_rows, group
            first += group.n_rows

    def numbers(self, key: str) -> list[NumberPart]:
        return [part for first, _, group in self.groups() for part in number_parts(group, key, first)]


def check(condition: Filter, groups: list[list[Any]]) -> None:
    expected = [condition.matches(record) for group in groups for record in group]
    snapshot: Any = Groups(groups)
    mask = snapshot_mask(snapshot, condition)
    assert bytes(mask) == np.packbits(expected, bitorder="little").tobytes()


def trees(leaves: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda parts: Filter.and_(*parts), st.lists(inner, min_size=1, max_size=4)),
            st.builds(lambda parts: Filter.or_(*parts), st.lists(inner, min_size=1, max_size=4)),
            st.builds(Filter.not_, inner),
        ),
        max_leaves=8,
    )


NUMERIC_LEAVES = st.builds(
    lambda op, key, value: getattr(Filter, op)(key, value), st.sampled_from(sorted(SYMBOLS)), KEYS, NUMBERS
) | st.builds(Filter.in_, KEYS, st.lists(NUMBERS, max_size=4))
NUMERIC_FILTERS = trees(NUMERIC_LEAVES)
FILTERS = trees(
    NUMERIC_LEAVES
    | st.builds(Filter.eq, KEYS, OTHERS)
    | st.builds(Filter.not_in, KEYS, st.lists(NUMBERS | OTHERS, max_size=4))
    | st.builds(Filter.exists, KEYS)
    | st.builds(Filter.is_null, KEYS)
)


@given(FILTERS, st.lists(RECORDS, min_size=1, max_size=4))
def test_a_mask_is_what_the_filter_says_of_each_record(condition: Filter, groups: list[list[Any]]) -> None:
    check(condition, groups)


@given(NUMERIC_FILTERS, st.lists(RECORDS, min_size=1, max_size=4))
def test_comparisons_with_numbers_are_what_the_filter_says(
    condition: Filter, groups: list[list[Any]]
) -> None:
    check(condition, groups)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("sizes", [[64, 128], [100, 1, 63, 200], [7, 1000, 129]], ids=str)
def test_groups_need_not_begin_at_a_byte(sizes: list[int], share: float) -> None:
    rng = np.random.default_rng(len(sizes))
    values = [3, 4, 4.5, math.nan, math.inf, "4", True, None]
    groups = [
        [{"a": values[rng.integers(len(values))]} if rng.random() < share else None for _ in range(size)]
        for size in sizes
    ]
    for condition in ("a = 4", "a != 4", "a >= 4 and a < 5", "not a > 3", "a in (3, 4.5) or a = 'x'"):
        check(Filter.parse(condition), groups)


@given(st.sampled_from(sorted(SYMBOLS)), NUMBERS, NUMBERS | INTEGERS | st.just(math.nan))
def test_an_interval_holds_what_compares_so(op: str, value: float, found: float) -> None:
    bounds = interval(op, value)
    inside = (
        bounds.int_low <= found <= bounds.int_high
        if isinstance(found, int)
        else bounds.float_low <= found <= bounds.float_high
    )
    assert (inside is not bounds.inverted) == COMPARE[op](found, value)


# --- The kernel ---------------------------------------------------------------------------------


@pytest.fixture(params=_kernels.variants())
def _variant(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _kernels.variant()
    _kernels.set_variant(request.param)
    yield
    _kernels.set_variant(before)


@pytest.mark.usefixtures("_variant")
@pytest.mark.parametrize("n_rows", [1, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("first", [0, 3, 8, 61])
@pytest.mark.parametrize("inverted", [False, True])
def test_every_variant_sets_the_bits_of_the_values_inside(n_rows: int, first: int, inverted: bool) -> None:
    rng = np.random.default_rng(n_rows)
    integers = rng.integers(-5, 6, n_rows)
    floats = rng.choice([-math.inf, -1.5, -0.0, 0.5, 3.0, math.inf, math.nan], n_rows)
    has = rng.random(n_rows) < 0.7
    presence = np.packbits(has, bitorder="little")
    bounds = (-2, 3, -1.5, 3.0)
    for values, inside in (
        (integers, (integers >= -2) & (integers <= 3)),
        (floats, (floats >= -1.5) & (floats <= 3.0)),
    ):
        expected = inside ^ inverted
        for parts, kept in (
            ([(first, n_rows, values, None)], expected),
            ([(first, n_rows, values[has], presence)], expected & has),
        ):
            mask = np.zeros((first + n_rows + 7) // 8, np.uint8)
            _kernels.mask_within(parts, *bounds, inverted, mask)
            bits = np.unpackbits(mask, bitorder="little")
            assert bits[first : first + n_rows].tolist() == kept.tolist()
            assert bits.sum() == kept.sum()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((0, 17, np.zeros(17, np.int64), None), "a bit for each row"),
        ((2**63, 2**63, np.zeros(1, np.int64), None), "a bit for each row"),
        ((0, 4, np.zeros(3, np.int64), None), "a value for each row"),
        ((0, 4, np.zeros(3, np.int64), b"\x0f"), "one bit within the rows for each value"),
        ((0, 4, np.zeros(3, np.int64), b"\x03"), "one bit within the rows for each value"),
        ((0, 4, np.zeros(3, np.int64), b"\x13"), "one bit within the rows for each value"),
        ((0, 9, np.zeros(3, np.int64), b"\x07"), "at least 2 items"),
        ((0, 0, np.zeros(1, np.int64), b""), "one bit within the rows for each value"),
        ((0, 4, np.zeros(4, np.int32), None), "must hold int64"),
        ((0, 4, np.zeros(4, np.float32), None), "must hold float64"),
        ((0, 4, "four", None), "contiguous buffers"),
        ((0, 4), "a column must be"),
    ],
)
def test_the_kernel_refuses_columns_that_do_not_fit(part: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        _kernels.mask_within([part], 0, 1, 0.0, 1.0, False, bytearray(2))
