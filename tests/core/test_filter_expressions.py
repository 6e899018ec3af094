from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import filters_text
from iqdb_core.errors import InvalidFilterError
from iqdb_core.filters import Filter

a, b, c = Filter.eq("a", 1), Filter.eq("b", 2), Filter.eq("c", 3)


def test_the_example_of_the_manual_is_parsed() -> None:
    text = "pos = 'noun' and (n_words >= 2 or not lexfile in (3, 5)) and gloss is not null"
    condition = Filter.parse(text)
    assert condition == Filter.and_(
        Filter.eq("pos", "noun"),
        Filter.or_(Filter.ge("n_words", 2), Filter.not_(Filter.in_("lexfile", [3, 5]))),
        Filter.is_not_null("gloss"),
    )
    assert str(condition) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1", a),
        ("a == 1", a),
        ("a=1", a),
        ("  a\n=\t1  ", a),
        ("a != 1", Filter.ne("a", 1)),
        ("a <> 1", Filter.ne("a", 1)),
        ("a < 1", Filter.lt("a", 1)),
        ("a<=1", Filter.le("a", 1)),
        ("a > 1", Filter.gt("a", 1)),
        ("a>=-1", Filter.ge("a", -1)),
        ("a in (1, 'x', true, 2.5)", Filter.in_("a", [1, "x", True, 2.5])),
        ("a in ()", Filter.in_("a", [])),
        ("a not in (1)", Filter.not_in("a", [1])),
        ("not a in (1)", ~Filter.in_("a", [1])),
        ("a contains 'x'", Filter.contains("a", "x")),
        ("a is null", Filter.is_null("a")),
        ("a IS Not NULL", Filter.is_not_null("a")),
        ("exists(a)", Filter.exists("a")),
        ("exists a", Filter.exists("a")),
        ('EXISTS ( "a" )', Filter.exists("a")),
        ("a = 1 and b = 2 or c = 3", (a & b) | c),
        ("a = 1 or b = 2 and c = 3", a | (b & c)),
        ("(a = 1 or b = 2) and c = 3", (a | b) & c),
        ("not a = 1 and b = 2", ~a & b),
        ("not (a = 1 and b = 2)", ~(a & b)),
        ("not not a = 1", ~~a),
        ("((a = 1))", a),
        ("(a = 1 and b = 2) and c = 3", Filter.and_(a, b, c)),
        ('"odd ""key""" = 1', Filter.eq('odd "key"', 1)),
        ('"" = 1', Filter.eq("", 1)),
        ('"and" = 1', Filter.eq("and", 1)),
        ("meta.lang.0 = 1", Filter.eq("meta.lang.0", 1)),
        ("größe = 1", Filter.eq("größe", 1)),
        ("inf = 1", Filter.eq("inf", 1)),
        ("a = 'it''s'", Filter.eq("a", "it's")),
        ("a = ''", Filter.eq("a", "")),
        ("a = ''''", Filter.eq("a", "'")),
        ("a = 'x\ny'", Filter.eq("a", "x\ny")),
        ("a = TRUE", Filter.eq("a", True)),
        ("a = 007", Filter.eq("a", 7)),
        ("a = +5", Filter.eq("a", 5)),
        ("a = 5.", Filter.eq("a", 5.0)),
        ("a = .5", Filter.eq("a", 0.5)),
        ("a = 1e3", Filter.eq("a", 1000.0)),
        ("a = -1.5E-3", Filter.eq("a", -0.0015)),
        ("a < inf", Filter.lt("a", math.inf)),
        ("a > -Inf", Filter.gt("a", -math.inf)),
        ("a = -9223372036854775808", Filter.eq("a", -(2**63))),
        ("a = 9223372036854775807", Filter.eq("a", 2**63 - 1)),
    ],
)
def test_an_expression_means_this_filter(text: str, expected: Filter) -> None:
    assert Filter.parse(text) == expected
    assert Filter.coerce(text) == Filter.coerce(expected)
    assert Filter.parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "the expression is empty"),
        ("   ", 4, "the expression is empty"),
        ("pos", 4, "expected a comparison: = != < <= > >= in contains is, found the end"),
        ("pos = noun", 7, "expected a value, found the name noun (a string stands in single quotes)"),
        ('pos = "noun"', 7, 'expected a value, found "noun" (a string stands in single quotes)'),
        ("pos = 'noun", 7, "this string has no closing '"),
        ('"pos = 1', 1, 'this key has no closing "'),
        (
            "'pos' = 1",
            1,
            "expected a key, found the string 'pos' (a key that is no plain name stands in double quotes)",
        ),
        ("2 <= a", 1, "expected a key, found the number 2"),
        (
            "and = 3",
            1,
            'expected a key, found "and" (a key with the name of a keyword stands in double quotes)',
        ),
        ("a = null", 5, 'expected a value, found "null" (ask "is null" or "is not null")'),
        ("a in (1, null)", 10, "expected a value, found"),
        ("a in 3", 6, 'expected "(", found the number 3'),
        ("a in (1 2)", 9, 'expected "," or ")", found the number 2'),
        ("a in (1,)", 9, 'expected a value, found ")"'),
        ("a is 3", 6, 'expected "null", found the number 3'),
        ("a is not 3", 10, 'expected "null", found the number 3'),
        ("a not = 3", 7, 'expected "in", found "="'),
        ("a contains 3", 12, "expected a string in single quotes, found the number 3"),
        ("a < true", 3, "true and false have no order"),
        ("(a = 1", 7, 'expected ")", found the end'),
        ("a = 1)", 6, 'expected "and", "or" or the end, found ")"'),
        ("a = 1 b = 2", 7, 'expected "and", "or" or the end, found the name b'),
        ("a = 1 and", 10, "expected a key, found the end"),
        ("not", 4, "expected a key, found the end"),
        ("exists(3)", 8, "expected a key, found the number 3"),
        ("a $ 3", 3, "unexpected character '$'"),
        ("a = 1 & b = 2", 7, "unexpected character '&'"),
        ("a = 1.2.3", 5, "this is not a number"),
        ("a = 12ab", 5, "this is not a number"),
        ("a = -", 5, "this is not a number"),
        ("a = 1e999", 5, "this number is too large for a float"),
        ("a = 9223372036854775808", 5, "this integer is outside -2^63..2^63-1"),
        ("a = " + "9" * 5000, 5, "this integer is outside"),
        ("a = '\ud800'", 3, "UTF-8"),
        ("(" * 70 + "a = 1" + ")" * 70, 65, "more than 64 levels"),
        (f"a in ({', '.join(['1'] * 1025)})", 7 + 3 * 1024, "more than 1024 values in one in"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, reason: str) -> None:
    with pytest.raises(InvalidFilterError) as caught:
        Filter.parse(text)
    assert reason in caught.value.reason
    assert caught.value.column == column
    assert caught.value.expression == text


def test_an_expression_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidFilterError, match="1048577 characters, the limit is 1048576"):
        Filter.parse("(" * (2**20 + 1))


def test_the_longest_chain_is_parsed() -> None:
    text = " and ".join(["a=1"] * 100_000)
    condition = Filter.parse(text)
    assert condition.levels == 2
    assert condition.matches({"a": 1})


def test_an_expression_is_a_string() -> None:
    with pytest.raises(InvalidFilterError, match="not bytes"):
        Filter.parse(b"a = 1")  # type: ignore[arg-type]


TOKENS = st.sampled_from(
    [
        *sorted(filters_text.KEYWORDS),
        "(",
        ")",
        ",",
        "=",
        "<",
        ">=",
        "!=",
        "a",
        '"b c"',
        "'x'",
        "1",
        "-2.5",
        "''",
        "é",
        "$",
    ]
)


@given(st.one_of(st.lists(TOKENS).map(" ".join), st.text(max_size=30)))
def test_any_text_is_a_filter_or_an_error_with_a_column(text: str) -> None:
    try:
        condition = Filter.parse(text)
    except InvalidFilterError as error:
        assert 1 <= (error.column or 0) <= len(text) + 1  # noqa: PT017
    else:
        assert Filter.parse(str(condition)) == condition


def test_the_grammar_names_every_keyword() -> None:
    grammar = filters_text.__doc__ or ""
    quoted = set(re.findall(r'"([a-z]+)"', grammar)) - {"e", "inf"}
    assert quoted == filters_text.KEYWORDS
