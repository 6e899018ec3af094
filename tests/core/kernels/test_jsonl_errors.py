"""Every way in which a line can be wrong, by the place and the reason that the parser gives."""

from __future__ import annotations

from typing import Any

import pytest

from iqdb_core import _kernels


def problem(data: bytes, **options: Any) -> tuple[int, int, str]:
    """Line, column and reason of the error that the data give."""
    options = {"id_field": "id", "vector_field": "v"} | options
    with pytest.raises(_kernels.JsonlError) as caught:
        _kernels.parse_jsonl(data, **options)
    error = caught.value
    assert isinstance(error, ValueError)
    assert str(error) == f"line {error.line}, column {error.column}: {error.reason}"
    return error.line, error.column, error.reason


ID_RULE = (
    "an id is an integer from 0 to 18446744073709551615, a string of 1 to 65535 bytes "
    'or {"hex": "..."}, found '
)
VALUE_RULE = (
    'the value of "k" must be a string, a number, true, false, null '
    'or {"float": "nan", "inf" or "-inf"}, found '
)


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (b"[1]", 1, "a line must be a JSON object, found an array"),
        (b" null", 2, "a line must be a JSON object, found null"),
        (b'"x"', 1, "a line must be a JSON object, found a string"),
        (b"not json", 1, "a line must be a JSON object, found 'n'"),
        (b"\xff", 1, "a line must be a JSON object, found byte 0xff"),
        (b"{", 2, "expected a key, found the end of the line"),
        (b'{"v":[1]', 9, "expected ',' or '}', found the end of the line"),
        (b'{"v":[1] "a":1}', 10, "expected ',' or '}', found '\"'"),
        (b'{"v":[1],}', 10, "expected a key, found '}'"),
        (b'{"v" [1]}', 6, "expected ':', found '['"),
        (b"{v:1}", 2, "expected a key, found 'v'"),
        (b'{"v":[1]} x', 11, "expected the end of the line, found 'x'"),
        (b'{"v":[1]}{"v":[1]}', 10, "expected the end of the line, found '{'"),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"v":[1]}', 1, "a line must be a JSON object, found byte 0xef"),
    ],
)
def test_a_line_must_be_one_object(line: bytes, column: int, reason: str) -> None:
    assert problem(line) == (1, column, reason)


@pytest.mark.parametrize(
    ("vector", "column", "reason"),
    [
        (b"null", 6, 'the field "v" must be an array of numbers, found null'),
        (b"1.5", 6, 'the field "v" must be an array of numbers, found a number'),
        (b"[]", 6, "the vector is empty"),
        (b"[1,]", 9, "component 1 of the vector must be a number, found ']'"),
        (b"[1,null]", 9, "component 1 of the vector must be a number, found null"),
        (b"[[1]]", 7, "component 0 of the vector must be a number, found an array"),
        (b'["1"]', 7, "component 0 of the vector must be a number, found a string"),
        (b"[NaN]", 7, "component 0 of the vector must be a number, found NaN or Infinity"),
        (b"[1,Infinity]", 9, "component 1 of the vector must be a number, found NaN or Infinity"),
        (b"[-Infinity]", 8, "expected a digit after '-', found 'I'"),
        (b"[1 2]", 9, "expected ',' or ']', found '2'"),
        (b"[1", 8, "expected ',' or ']', found the end of the line"),
        (b"[01]", 7, "a number starts with a superfluous 0"),
        (b"[1.]", 9, "expected a digit after '.', found ']'"),
        (b"[.5]", 7, "component 0 of the vector must be a number, found '.'"),
        (b"[+1]", 7, "component 0 of the vector must be a number, found '+'"),
        (b"[1e]", 9, "expected a digit in the exponent, found ']'"),
        (b"[0x10]", 8, "expected ',' or ']', found 'x'"),
        (b"[0, 1e39]", 10, "component 1 of the vector is too large for float32"),
        (b"[-3.4028236e38]", 7, "component 0 of the vector is too large for float32"),
        (b"[1" + b"0" * 400 + b"]", 7, "component 0 of the vector is too large for float32"),
    ],
)
def test_a_vector_is_a_non_empty_array_of_numbers_within_float32(
    vector: bytes, column: int, reason: str
) -> None:
    assert problem(b'{"v":' + vector + (b"}" if vector.endswith(b"]") else b"")) == (1, column, reason)


def test_vectors_must_have_the_expected_dimension() -> None:
    assert problem(b'{"v":[1,2]}\n{"v":[1,2,3]}') == (2, 6, "the vector has 3 components, expected 2")
    assert problem(b'{"v":[1]}\n', dim=4) == (1, 6, "the vector has 1 components, expected 4")
    many = b"[" + b"0," * 65536 + b"0]"
    assert problem(b'{"v":' + many + b"}") == (1, 6, "the vector has 65537 components, more than 65536")


def test_a_vector_must_be_there() -> None:
    assert problem(b' {"id":1}') == (1, 2, 'the record has no field "v"')


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (b"-1", "-1"),
        (b"-0", "-0"),
        (b"1.0", "1.0"),
        (b"1e3", "1e3"),
        (b"18446744073709551616", "18446744073709551616"),
        (b"9" * 60, "another number"),
        (b"true", "true"),
        (b"null", "null"),
        (b"[1]", "an array"),
        (b'""', "an empty one"),
        (b'"' + b"x" * 65536 + b'"', "one of 65536 bytes"),
        (b'{"hex":""}', "an empty one"),
        (b'{"hex":"abc"}', "another object"),
        (b'{"hex":"zz"}', "another object"),
        (b'{"hex":"+1"}', "another object"),
        (b'{"hex":"ab","x":1}', "another object"),
        (b'{"hex":12}', "another object"),
        (b'{"Hex":"ab"}', "another object"),
        (b"{}", "another object"),
    ],
)
def test_an_id_is_an_integer_a_text_or_bytes(found: bytes, name: str) -> None:
    assert problem(b'{"id":' + found + b',"v":[1]}') == (1, 7, ID_RULE + name)


def test_the_longest_ids_are_taken() -> None:
    long = b'{"id":"%s","v":[1]}\n{"id":{"hex":"%s"},"v":[1]}' % (b"x" * 65535, b"0f" * 65535)
    assert list(_kernels.parse_jsonl(long, id_field="id", vector_field="v").id_offsets) == [0, 65535, 131070]


def test_either_all_records_have_ids_or_none() -> None:
    with_id, without = b'{"id":1,"v":[1]}', b'{"v":[1]}'
    assert problem(b"\n".join([b"", with_id, with_id, without]), first_line=6) == (
        9,
        1,
        'the record has no field "id" but that of line 7 has',
    )
    assert problem(without + b"\n" + with_id) == (
        2,
        1,
        'the record has a field "id" but that of line 1 has none',
    )


@pytest.mark.parametrize(
    ("value", "column", "reason"),
    [
        (b"[1]", 15, VALUE_RULE + "an array"),
        (b'{"a":1}', 15, VALUE_RULE + "an object"),
        (b'{"float":"Inf"}', 15, VALUE_RULE + "an object"),
        (b'{"float":1.5}', 15, VALUE_RULE + "an object"),
        (b'{"float":"nan","b":1}', 15, VALUE_RULE + "an object"),
        (b'{"float":"nan:7ff0000000000000"}', 15, VALUE_RULE + "an object"),
        (b'{"float":"nan:7ff800000000000"}', 15, VALUE_RULE + "an object"),
        (b'{"float":"nan:7ff800000000000x"}', 15, VALUE_RULE + "an object"),
        (b"9223372036854775808", 15, 'the integer of "k" is outside -2^63 to 2^63-1'),
        (b"-9223372036854775809", 15, 'the integer of "k" is outside -2^63 to 2^63-1'),
        (b"1e309", 15, 'the number of "k" is too large for float64'),
        (b"NaN", 15, "expected a value, found 'N'"),
        (b"nul", 15, "expected a value, found 'n'"),
        (b"True", 15, "expected a value, found 'T'"),
        (b"tru", 15, "expected a value, found 't'"),
        (b"nullx", 19, "expected ',' or '}', found 'x'"),
        (b"", 15, "expected a value, found '}'"),
        (b'"' + b"x" * (2**24 + 1) + b'"', 15, 'the value of "k" has 16777217 bytes, more than 16 MiB'),
    ],
    ids=lambda value: value[:24].decode() if isinstance(value, bytes) else None,
)
def test_a_metadata_value_is_a_scalar(value: bytes, column: int, reason: str) -> None:
    assert problem(b'{"v":[1],"k":' + b" " + value + b"}") == (1, column, reason)


def test_a_nested_value_is_no_error_where_it_is_not_kept() -> None:
    line = b'{"v":[1],"k":{"deep":[1,{"x":null}]},"l":[]}'
    assert _kernels.parse_jsonl(line, vector_field="v", columns=["other"]).columns == []
    assert _kernels.parse_jsonl(line, vector_field="v", no_metadata=True).columns == []
    assert _kernels.parse_jsonl(line, vector_field="v", metadata_field="m").columns == []


def test_a_nested_value_beside_the_vector_is_passed_over_on_request() -> None:
    lines = b'{"v":[1],"k":[1,{"a":2}],"l":{"b":{}},"m":{"float":"inf"},"n":7}\n{"v":[2],"k":[]}'
    batch = _kernels.parse_jsonl(lines, vector_field="v", scalars_only=True)
    assert [(key, list(values)) for key, _, _, values, _ in batch.columns] == [
        ("m", [float("inf")]),
        ("n", [7]),
    ]
    assert list(batch.has_metadata) == [1, 0]
    assert problem(b'{"v":[1],"k":[1,]}', scalars_only=True) == (1, 17, "expected a value, found ']'")
    assert (
        problem(b'{"v":[1],"m":{"k":[1]}}', scalars_only=True, metadata_field="m")[2]
        == VALUE_RULE + "an array"
    )


def test_the_metadata_field_holds_an_object_or_null() -> None:
    for found, name in ((b"1", "a number"), (b"[1]", "an array"), (b'"x"', "a string"), (b"false", "false")):
        assert problem(b'{"v":[1],"m":' + found + b"}", metadata_field="m") == (
            1,
            14,
            f'the field "m" must be an object or null, found {name}',
        )


@pytest.mark.parametrize(
    ("text", "offset", "reason"),
    [
        (b'"abc', 4, "the line ends within a string"),
        (b'"a\tb"', 2, "a control character in a string must be written as an escape, found byte 0x09"),
        (b'"a\0b"', 2, "a control character in a string must be written as an escape, found byte 0x00"),
        (rb'"\x41"', 2, "unknown escape: '\\' and 'x'"),
        (b'"\\', 2, "unknown escape: '\\' and the end of the line"),
        (rb'"\u12g4"', 5, "expected four hexadecimal digits after '\\u', found 'g'"),
        (rb'"\udc00"', 1, "a low surrogate without a high one in an escape"),
        (rb'"\ud800"', 1, "a high surrogate without a low one in an escape"),
        (rb'"\ud800\n"', 1, "a high surrogate without a low one in an escape"),
        (rb'"\ud800A"', 1, "a high surrogate without a low one in an escape"),
        (rb'"\ud800\ud800"', 1, "a high surrogate without a low one in an escape"),
        *[
            (b'"a' + wrong + b'"', 2, "invalid UTF-8 in a string")
            for wrong in (
                b"\x80",
                b"\xc0\x80",
                b"\xc1\xbf",
                b"\xc3",
                b"\xe0\x80\x80",
                b"\xe2\x82",
                b"\xed\xa0\x80",
                b"\xf0\x8f\xbf\xbf",
                b"\xf4\x90\x80\x80",
                b"\xf5\x80\x80\x80",
                b"\xf0\x9f\x98",
                b"\xff",
            )
        ],
    ],
)
@pytest.mark.parametrize("skipped", [False, True])
def test_strings_are_valid_utf8_and_escaped_right(
    text: bytes, offset: int, reason: str, skipped: bool
) -> None:
    end = b"}" if text.endswith(b'"') and len(text) > 1 else b""
    assert problem(b'{"v":[1],"k":' + text + end, no_metadata=skipped) == (1, 14 + offset, reason)


@pytest.mark.parametrize("options", [{}, {"no_metadata": True}, {"columns": []}])
def test_a_key_may_be_there_once_only(options: dict[str, Any]) -> None:
    assert problem(b'{"v":[1],"a":1,"b":2,"\\u0061":3}', **options) == (1, 22, 'the key "a" is there twice')
    assert problem(b'{"v":[1],"v":[2]}', **options) == (1, 10, 'the key "v" is there twice')
    assert problem(b'{"id":1,"v":[1],"id":1}', **options) == (1, 17, 'the key "id" is there twice')


def test_a_key_may_be_there_once_only_in_the_metadata_field() -> None:
    assert problem(b'{"v":[1],"m":{"a":1,"a":1}}', metadata_field="m")[1:] == (
        21,
        'the key "a" is there twice',
    )
    assert problem(b'{"x":1,"v":[1],"m":{"a":1},"x":1}', metadata_field="m")[1:] == (
        28,
        'the key "x" is there twice',
    )


def test_the_same_key_in_record_and_metadata_field_is_not_twice() -> None:
    line = b'{"a":1,"v":[1],"m":{"a":1,"v":2}}\n'
    assert _kernels.parse_jsonl(line * 3, vector_field="v", metadata_field="m").n_rows == 3


def test_keys_have_limits() -> None:
    assert problem(b'{"v":[1],"' + b"k" * 65536 + b'":1}') == (
        1,
        10,
        f'the key "{"k" * 80}"... has 65536 bytes, more than 65535',
    )
    many = b",".join(b'"%d":1' % i for i in range(4097))
    assert problem(b'{"v":[1],' + many + b"}")[2] == "there are more than 4096 metadata keys"
    assert (
        problem(b'{"v":[1],"m":{' + many + b"}}", metadata_field="m")[2]
        == "there are more than 4096 metadata keys"
    )
    fits = many.removesuffix(b',"4096":1')
    assert (
        len(_kernels.parse_jsonl(b'{"id":1,"v":[1],' + fits + b"}", vector_field="v", id_field="id").columns)
        == 4096
    )


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_skipped_values_are_nested_64_levels_deep_at_most(opening: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    fits = b'{"v":[1],"k":' + opening * 64 + b"1" + closing * 64 + b"}"
    assert _kernels.parse_jsonl(fits, vector_field="v", no_metadata=True).n_rows == 1
    line, column, reason = problem(b'{"v":[1],"k":' + opening * 100_000, no_metadata=True)
    assert (line, column, reason) == (1, 14 + 64 * len(opening), "values are nested deeper than 64 levels")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"[1,]", "expected a value, found ']'"),
        (b'{"a"}', "expected ':', found '}'"),
        (b"{1:2}", "expected a key, found '1'"),
        (b"[1}", "expected ',' or ']', found '}'"),
        (b"nul", "expected a value, found 'n'"),
        (b"[NaN]", "expected a value, found 'N'"),
        (b"-", "expected a digit after '-', found '}'"),
    ],
)
def test_skipped_values_are_checked_too(value: bytes, reason: str) -> None:
    assert problem(b'{"v":[1],"k":' + value + b"}", no_metadata=True)[2] == reason


@pytest.mark.parametrize("final", [False, True])
def test_a_line_has_a_longest_length(final: bool) -> None:
    line = b'{"v":[1]}'
    assert _kernels.parse_jsonl(line + b"\n", vector_field="v", max_line_bytes=9, final=final).n_rows == 1
    for data in (line + b" \n", line + b" "):
        assert problem(b"\n" + data, max_line_bytes=9, final=final) == (
            2,
            1,
            "the line is longer than 9 bytes",
        )


def test_lines_are_counted_from_first_line_and_columns_in_bytes() -> None:
    assert problem(b'\r\n \n{"\xc3\xa9":1,"v":[x]}', first_line=10)[:2] == (12, 14)


def test_a_message_shows_long_keys_shortened_between_characters() -> None:
    key = "x" * 79 + "\u20ac" * 10
    reason = problem(f'{{"v":[1],"{key}":[]}}'.encode())[2]
    assert reason.startswith('the value of "' + "x" * 79 + '"... must be')


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_rows": 0}, "max_rows must be from 1"),
        ({"max_rows": 2**32}, "max_rows must be from 1"),
        ({"max_line_bytes": 0}, "max_line_bytes must be from 1"),
        ({"max_line_bytes": 2**28 + 1}, "max_line_bytes must be from 1"),
        ({"dim": 65537}, "dim must be at most 65536"),
        ({"id_field": "v"}, "must differ"),
        ({"metadata_field": "v"}, "must differ"),
        ({"metadata_field": "id", "id_field": "id"}, "must differ"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.parse_jsonl(b"", **({"vector_field": "v"} | options))
