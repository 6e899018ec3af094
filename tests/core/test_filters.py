from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core.errors import InvalidFilterError
from iqdb_core.filters import Filter
from iqdb_core.filters_eval import evaluate, evaluate_group
from iqdb_core.record_strings import CodedStrings
from iqdb_core.records import MetadataColumns
from iqdb_core.storage.columns import GroupView, encode_group
from iqdb_core.storage.columns_reader import read_column

# Few keys and values that collide, so that filters often match; the numbers sit where int64 and
# float64 part ways.
KEYS = st.sampled_from(["a", "b", "is", "odd key"])
INTEGERS = st.sampled_from(
    [0, 1, 2, -1, 2**53, 2**53 + 1, 2**53 + 2, 2**63 - 1, 2**63 - 2, -(2**63), -(2**63) + 1]
)
FLOATS = st.sampled_from(
    [
        0.0,
        -0.0,
        0.5,
        1.0,
        2.0,
        -1.0,
        2.0**53,
        2.0**53 + 2,
        2.0**63,
        -(2.0**63),
        1e300,
        -1e300,
        5e-324,
        math.inf,
        -math.inf,
    ]
)
NUMBERS = INTEGERS | FLOATS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
STRINGS = st.sampled_from(["", "a", "aa", "ab", "b", "é", "\U0001f600", "\uffff", "it's", 'say "x"', "a\0b"])
BOOLS = st.booleans()
FILTER_VALUES = NUMBERS | STRINGS | BOOLS
RECORD_VALUES = FILTER_VALUES | st.none() | st.just(math.nan)
RECORDS = st.lists(st.none() | st.dictionaries(KEYS, RECORD_VALUES), min_size=1, max_size=12)

ORDERED = st.sampled_from([Filter.lt, Filter.le, Filter.gt, Filter.ge])
LEAVES = st.one_of(
    st.builds(
        lambda make, key, value: make(key, value),
        st.sampled_from([Filter.eq, Filter.ne]),
        KEYS,
        FILTER_VALUES,
    ),
    st.builds(lambda make, key, value: make(key, value), ORDERED, KEYS, NUMBERS | STRINGS),
    st.builds(
        lambda make, key, values: make(key, values),
        st.sampled_from([Filter.in_, Filter.not_in]),
        KEYS,
        st.lists(FILTER_VALUES, max_size=12),
    ),
    st.builds(Filter.contains, KEYS, STRINGS),
    st.builds(
        lambda make, key: make(key),
        st.sampled_from([Filter.is_null, Filter.is_not_null, Filter.exists]),
        KEYS,
    ),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda parts: Filter.and_(*parts), st.lists(inner, min_size=1, max_size=4)),
        st.builds(lambda parts: Filter.or_(*parts), st.lists(inner, min_size=1, max_size=4)),
        st.builds(Filter.not_, inner),
    ),
    max_leaves=12,
)


@given(FILTERS, RECORDS)
def test_row_by_row_and_column_by_column_agree(condition: Filter, records: list[Any]) -> None:
    expected = [condition.matches(record) for record in records]
    columns = MetadataColumns.from_dicts(records)
    assert evaluate(condition, columns).tolist() == expected
    assert evaluate_group(condition, GroupView(encode_group(columns))).tolist() == expected


@given(LEAVES, RECORDS)
def test_leaves_agree_where_strings_are_in_dictionaries(condition: Filter, records: list[Any]) -> None:
    repeated = records * 5
    columns = MetadataColumns.from_dicts(repeated)
    expected = [condition.matches(record) for record in repeated]
    assert evaluate_group(condition, GroupView(encode_group(columns))).tolist() == expected


@given(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]), NUMBERS, NUMBERS)
def test_numbers_compare_exactly_as_in_python(op: str, found: float, value: float) -> None:
    expected = {
        "eq": found == value,
        "ne": found != value,
        "lt": found < value,
        "le": found <= value,
        "gt": found > value,
        "ge": found >= value,
    }[op]
    condition = getattr(Filter, op)("a", value)
    assert condition.matches({"a": found}) == expected
    assert evaluate(condition, MetadataColumns.from_dicts([{"a": found}])).tolist() == [expected]


@given(FILTERS)
def test_a_filter_comes_back_from_its_expression(condition: Filter) -> None:
    assert Filter.parse(str(condition)) == condition
    assert eval(repr(condition), {"Filter": Filter}) == condition


@given(FILTERS)
def test_a_filter_comes_back_from_plain_data(condition: Filter) -> None:
    assert Filter.from_dict(condition.to_dict()) == condition
    assert Filter.from_dict(json.loads(json.dumps(condition.to_dict()))) == condition


@given(FILTERS, FILTERS)
def test_equal_filters_are_equal_text(one: Filter, other: Filter) -> None:
    assert (one == other) == (str(one).replace("-0.0", "0.0") == str(other).replace("-0.0", "0.0"))
    if one == other:
        assert hash(one) == hash(other)


# --- Meaning ------------------------------------------------------------------------------------

RECORD = {"i": 3, "f": 2.5, "t": True, "s": "noun", "n": None, "nan": math.nan}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Filter.eq("i", 3), True),
        (Filter.eq("i", 3.0), True),
        (Filter.eq("i", "3"), False),
        (Filter.eq("t", True), True),
        (Filter.eq("t", 1), False),
        (Filter.eq("i", True), False),
        (Filter.ne("i", 4), True),
        (Filter.ne("i", 3.5), True),
        (Filter.ne("i", "3"), False),
        (Filter.ne("absent", 4), False),
        (~Filter.eq("absent", 4), True),
        (~Filter.eq("i", "3"), True),
        (Filter.ne("n", 1), False),
        (Filter.ne("nan", 1), True),
        (Filter.eq("nan", 1), False),
        (Filter.lt("nan", 1), False),
        (Filter.ge("nan", 1), False),
        (Filter.gt("f", 2), True),
        (Filter.le("f", 2), False),
        (Filter.lt("s", "p"), True),
        (Filter.lt("s", 5), False),
        (Filter.in_("s", ["verb", "noun", 3]), True),
        (Filter.in_("i", [3.0]), True),
        (Filter.in_("t", [1]), False),
        (Filter.in_("t", [False, True]), True),
        (Filter.in_("i", []), False),
        (Filter.not_in("i", []), False),
        (Filter.not_in("i", [1, "x"]), True),
        (Filter.not_in("i", ["x"]), False),
        (Filter.not_in("absent", [1]), False),
        (~Filter.in_("absent", [1]), True),
        (Filter.not_in("nan", [1]), True),
        (Filter.contains("s", "ou"), True),
        (Filter.contains("s", ""), True),
        (Filter.contains("i", "3"), False),
        (Filter.is_null("n"), True),
        (Filter.is_null("absent"), False),
        (Filter.is_null("i"), False),
        (Filter.is_not_null("n"), False),
        (Filter.is_not_null("absent"), False),
        (Filter.is_not_null("nan"), True),
        (Filter.exists("n"), True),
        (Filter.exists("absent"), False),
    ],
    ids=str,
)
def test_a_leaf_means_what_the_table_says(condition: Filter, expected: bool) -> None:
    assert condition.matches(RECORD) is expected
    assert evaluate(condition, MetadataColumns.from_dicts([RECORD])).tolist() == [expected]
    assert not condition.matches(None) or str(condition).startswith("not ")


def test_strings_order_by_their_utf8_bytes() -> None:
    # UTF-16 would put the emoji, a pair of surrogates, before U+FFFF.
    assert Filter.lt("s", "\U0001f600").matches({"s": "\uffff"})
    assert evaluate(Filter.lt("s", "\U0001f600"), MetadataColumns.from_dicts([{"s": "\uffff"}])).tolist() == [
        True
    ]


def test_only_columns_that_the_filter_names_are_read() -> None:
    blob = bytearray(encode_group(MetadataColumns.from_dicts([{"a": "x", "b": "y"}])))
    at = bytes(blob).rindex(b"y") - 4
    blob[at] = 9
    view = GroupView(bytes(blob))
    assert evaluate_group(Filter.eq("a", "x"), view).tolist() == [True]
    with pytest.raises(Exception, match=r"columns\[1\]"):
        evaluate_group(Filter.eq("b", "y"), view)


def test_the_result_can_be_changed_without_harm() -> None:
    columns = MetadataColumns.from_dicts([{"t": True}, {"t": False}])
    first = evaluate(Filter.eq("t", True), columns)
    first[:] = False
    assert evaluate(Filter.eq("t", True), columns).tolist() == [True, False]


# --- Building -----------------------------------------------------------------------------------


def test_operators_combine_and_flatten() -> None:
    a, b, c = Filter.eq("a", 1), Filter.eq("b", 2), Filter.exists("c")
    assert a & b & c == Filter.and_(a, b, c) == a & (b & c)
    assert a | b | c == Filter.or_(a, b, c) == a | (b | c)
    assert (a & b & c).levels == 2
    assert ((a & b) | ~c).levels == 3
    assert Filter.and_(a) == a
    assert ((a & b) | ~c).keys() == {"a", "b", "c"}


def test_values_of_different_types_make_different_filters() -> None:
    assert len({Filter.eq("a", value) for value in (1, 1.0, True, "1")}) == 4
    assert Filter.eq("a", 1) == Filter.eq("a", np.int64(1))
    assert Filter.eq("a", 1) != "a = 1"


def test_a_filter_is_not_a_truth_value() -> None:
    with pytest.raises(TypeError, match="&"):
        bool(Filter.eq("a", 1))
    with pytest.raises(TypeError):
        Filter.eq("a", 1) & True  # type: ignore[operator]


def test_a_filter_that_was_used_can_be_copied() -> None:
    condition = Filter.eq("a", 1) & Filter.exists("b")
    assert condition.matches({"a": 1, "b": None})
    assert pickle.loads(pickle.dumps(condition)) == copy.deepcopy(condition) == condition


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Filter.eq("a", None), "is null"),
        (lambda: Filter.in_("a", [1, None]), "is null"),
        (lambda: Filter.eq("a", math.nan), "NaN"),
        (lambda: Filter.eq("a", 2**63), "outside"),
        (lambda: Filter.eq("a", [1]), "not list"),
        (lambda: Filter.eq("a", "\ud800"), "UTF-8"),
        (lambda: Filter.eq(1, 1), "a key is a str"),
        (lambda: Filter.exists("\ud800"), "UTF-8"),
        (lambda: Filter.lt("a", True), "no order"),
        (lambda: Filter.contains("a", 1), "takes a string"),
        (lambda: Filter.in_("a", range(1025)), "1025 values in one in, the limit is 1024"),
        (Filter.and_, "at least one"),
        (lambda: Filter.or_(1), "expected a Filter"),
        (lambda: Filter.not_("a = 1"), "expected a Filter"),
        (lambda: Filter.coerce(1), "expected a Filter or an expression"),
    ],
)
def test_what_cannot_be_a_filter_is_refused(make: Any, reason: str) -> None:
    with pytest.raises(InvalidFilterError, match=reason):
        make()


def test_sixty_four_levels_are_the_limit() -> None:
    condition = Filter.eq("a", 1)
    for _ in range(63):
        condition = ~condition
    assert condition.levels == 64
    assert Filter.parse(str(condition)) == Filter.from_dict(condition.to_dict()) == condition
    assert not condition.matches({"a": 1})
    with pytest.raises(InvalidFilterError, match="more than 64 levels"):
        Filter.not_(condition)
    with pytest.raises(InvalidFilterError, match="more than 64 levels"):
        Filter.parse(f"not {condition}")
    with pytest.raises(InvalidFilterError, match="more than 64 levels"):
        Filter.from_dict({"op": "not", "filter": condition.to_dict()})


def test_the_deepest_mixed_tree_is_parsed() -> None:
    condition = Filter.eq("a", 1)
    while condition.levels < 64:
        condition = (
            (condition & Filter.exists("b")) if condition.levels % 2 else (condition | Filter.exists("c"))
        )
    assert Filter.parse(str(condition)) == condition
    assert evaluate(condition, MetadataColumns.from_dicts([{"a": 1, "b": 2}, {}])).tolist() == [
        condition.matches({"a": 1, "b": 2}),
        condition.matches({}),
    ]


def test_data_deeper_than_python_can_recurse_is_refused() -> None:
    data: dict[str, Any] = {"op": "exists", "key": "a"}
    for _ in range(100_000):
        data = {"op": "not", "filter": data}
    with pytest.raises(InvalidFilterError, match="more than 64 levels"):
        Filter.from_dict(data)
    # Unpacked here: freeing it in one go would recurse as deep.
    while "filter" in data:
        data = data["filter"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "expected a mapping"),
        ({}, "op is None"),
        ({"op": "like", "key": "a", "value": "x"}, "op is 'like'"),
        ({"op": [], "key": "a"}, "op is"),
        ({"op": "eq", "key": "a"}, "eq has key, op, expected key, op, value"),
        ({"op": "exists", "key": "a", "value": 1}, "exists has key, op, value"),
        ({"op": "in", "key": "a", "values": "abc"}, "values is a str"),
        ({"op": "and", "filters": {}}, "filters is a dict"),
        ({"op": "and", "filters": []}, "at least one"),
        ({"op": "eq", "key": 5, "value": 1}, "a key is a str"),
        ({"op": "eq", "key": "a", "value": {}}, "not dict"),
    ],
)
def test_plain_data_that_is_no_filter_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(InvalidFilterError, match=reason):
        Filter.from_dict(data)


@given(
    st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=40),
    st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]),
    st.sampled_from("abcdefgh"),
)
def test_entries_of_a_dictionary_are_compared_as_their_strings(texts: list[str], op: str, value: str) -> None:
    # Many of each, so that they are stored in a dictionary.
    records = [{"a": text} for text in texts * 8]
    group = GroupView(encode_group(MetadataColumns.from_dicts(records)))
    assert isinstance(read_column(group, group.columns[0]).values, CodedStrings)
    for condition in (getattr(Filter, op)("a", value), Filter.in_("a", [value, "c", "f"])):
        found = evaluate_group(condition, group)
        assert found.dtype == np.bool_
        assert found.tolist() == [condition.matches(record) for record in records]
