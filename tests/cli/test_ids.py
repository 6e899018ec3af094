from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_cli.ids import format_id, id_from_json, id_to_json, metadata_to_json, parse_id, to_json
from iqdb_core.errors import InvalidIdError

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
any_id = st.one_of(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=40), texts)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("0", 0),
        ("42", 42),
        ("007", 7),
        ("18446744073709551615", 2**64 - 1),
        ("00000000000000000000000000000001", 1),
        ("text:42", "42"),
        ("text:text:a", "text:a"),
        ("hex:2a", b"*"),
        ("hex:00FF", b"\x00\xff"),
        ("noun-06010583", "noun-06010583"),
        ("-5", "-5"),
        ("4.2", "4.2"),
        ("\u0664\u0662", "\u0664\u0662"),
        ("a:b", "a:b"),
        (" 42", " 42"),
    ],
)
def test_a_typed_word_is_an_integer_if_it_looks_like_one_and_text_unless_it_says_otherwise(
    typed: Any, meant: Any
) -> None:
    assert parse_id(typed) == meant
    assert type(parse_id(typed)) is type(meant)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "text:",
        "hex:",
        "hex:2",
        "hex:zz",
        "hex:2a 2b",
        "hex:\u0664\u0664",
        "18446744073709551616",
        "9" * 5000,
    ],
)
def test_a_typed_word_that_is_no_id_is_refused(typed: Any) -> None:
    with pytest.raises(InvalidIdError, match=r"^ids\.txt, line 3: id "):
        parse_id(typed, "ids.txt, line 3")


@given(any_id)
def test_the_typed_form_of_an_id_means_that_id(record_id: Any) -> None:
    again = parse_id(format_id(record_id))
    assert again == record_id
    assert type(again) is type(record_id)


@given(any_id)
def test_the_json_form_of_an_id_means_that_id(record_id: Any) -> None:
    import json

    again = id_from_json(json.loads(to_json(id_to_json(record_id))))
    assert again == record_id
    assert type(again) is type(record_id)


@pytest.mark.parametrize(
    "value", [True, None, 1.5, -1, 2**64, [], {}, {"hex": 1}, {"hex": "zz"}, {"text": "a"}, ""]
)
def test_a_json_value_that_is_no_id_is_refused(value: Any) -> None:
    with pytest.raises(InvalidIdError):
        id_from_json(value)


def test_floats_that_json_lacks_are_objects() -> None:
    odd_nan = struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]
    metadata = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.5, "e": None, "f": True, "g": odd_nan}
    assert metadata_to_json(metadata) == {
        "a": {"float": "nan"},
        "b": {"float": "inf"},
        "c": {"float": "-inf"},
        "d": 1.5,
        "e": None,
        "f": True,
        "g": {"float": "nan:fff8000000000001"},
    }
    assert metadata_to_json(None) is None


def test_json_keeps_text_readable() -> None:
    assert to_json({"word": "Zürich 日本"}) == '{"word": "Zürich 日本"}'
