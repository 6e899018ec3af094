from __future__ import annotations

import math
import struct
import types
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from iqdb_core.errors import InvalidMetadataError
from iqdb_core.records import Column, ColumnType, MetadataColumns, StringValues

KEYS = ["", "a", "b", "pos", "é", "z" * 20, "\U0001f600"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    TEXT,
    st.sampled_from(["noun", "verb"]),
)
ROW = st.one_of(st.none(), st.dictionaries(st.sampled_from(KEYS), VALUE))
# Rows that share their keys and types take other paths than rows that do not.
UNIFORM = st.lists(st.fixed_dictionaries({"a": st.integers(-5, 5), "b": st.sampled_from(["x", "é"])}))
ROWS = st.one_of(st.lists(ROW), UNIFORM, st.lists(st.dictionaries(TEXT, VALUE, max_size=2)))

Row = dict[str, Any] | None


def bits(row: Row) -> Any:
    """Make rows comparable that differ only in NaN, in the sign of zero or in the type of a number."""
    if row is None:
        return None
    return {
        key: (type(value), struct.pack("<d", value) if isinstance(value, float) else value)
        for key, value in row.items()
    }


def same(found: list[Row], expected: list[Row]) -> bool:
    return list(map(bits, found)) == list(map(bits, expected))


@given(ROWS)
def test_mappings_come_back_as_they_went_in(rows: list[Row]) -> None:
    columns = MetadataColumns.from_dicts(rows)
    assert columns.n_rows == len(columns) == len(rows)
    assert same(columns.to_dicts(), rows)
    assert same([columns.row(index) for index in range(len(rows))], rows)
    for row in columns.to_dicts():
        assert row is None or list(row) == sorted(row)


@given(ROWS)
def test_columns_have_the_promised_form(rows: list[Row]) -> None:
    columns = MetadataColumns.from_dicts(rows)
    order = [(column.key.encode(), column.type) for column in columns.columns]
    assert order == sorted(set(order))
    assert columns.keys == sorted({key for row in rows for key in row or {}})
    assert columns.any_mapping == any(row is not None for row in rows)
    assert (columns.has_metadata is None) == (None not in rows)
    for column in columns.columns:
        assert 0 < len(column) <= len(rows)
        assert (column.rows is None) == (len(column) == len(rows))
        if column.rows is not None:
            assert column.rows.dtype == np.uint32
            assert np.all(np.diff(column.rows.astype(np.int64)) > 0)


@given(ROWS, st.data())
def test_slices_and_selections_are_those_of_a_list(rows: list[Row], data: st.DataObject) -> None:
    columns = MetadataColumns.from_dicts(rows)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    assert same(columns.slice(start, stop).to_dicts(), rows[start:stop])
    if rows:
        chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))
        taken = columns.take(np.array(chosen, np.int64))
        assert same(taken.to_dicts(), [rows[row] for row in chosen])


@given(st.lists(ROWS, max_size=4))
def test_joined_columns_are_joined_lists(parts: list[list[Row]]) -> None:
    joined = MetadataColumns.concat(MetadataColumns.from_dicts(part) for part in parts)
    assert same(joined.to_dicts(), [row for part in parts for row in part])


@given(ROWS)
def test_mappings_hash_as_the_content_digest_says(rows: list[Row]) -> None:
    out = np.full((len(rows), 2), 7, np.uint64)
    MetadataColumns.from_dicts(rows).hash(out)
    for number, row in enumerate(rows):
        for seed in (0, 1):
            assert int(out[number, seed]) == expected_hash(row, seed)


def expected_hash(row: Row, seed: int) -> int:
    if row is None:
        return 0
    total = xxhash.xxh64_intdigest(b"", seed)
    for key, value in row.items():
        if value is None:
            cell = b"\1"
        elif isinstance(value, bool):
            cell = b"\2" + bytes([value])
        elif isinstance(value, int):
            cell = b"\3" + value.to_bytes(8, "little", signed=True)
        elif isinstance(value, float):
            cell = b"\4" + struct.pack("<d", value)
        else:
            cell = b"\5" + value.encode()
        total += xxhash.xxh64_intdigest(struct.pack("<I", len(key.encode())) + key.encode() + cell, seed)
    return total % 2**64


@given(ROWS)
def test_the_weight_of_a_record_bounds_its_metadata(rows: list[Row]) -> None:
    weights = MetadataColumns.from_dicts(rows).weights().tolist()
    assert weights == [
        sum(
            16 + len(k.encode()) + (len(v.encode()) if isinstance(v, str) else 0)
            for k, v in (row or {}).items()
        )
        for row in rows
    ]


def test_values_keep_their_type() -> None:
    row = {"int": 1, "float": 1.0, "bool": True, "str": "1", "null": None}
    columns = MetadataColumns.from_dicts([row])
    assert [(column.key, column.type) for column in columns.columns] == [
        ("bool", ColumnType.BOOL),
        ("float", ColumnType.FLOAT64),
        ("int", ColumnType.INT64),
        ("null", ColumnType.NULL),
        ("str", ColumnType.STRING),
    ]
    assert [type(value) for value in (columns.row(0) or {}).values()] == [bool, float, int, type(None), str]


def test_numpy_scalars_and_other_mappings_are_accepted() -> None:
    class Name(str):
        __slots__ = ()

    row = {"i": np.int8(-3), "u": np.uint64(7), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x")}
    columns = MetadataColumns.from_dicts([types.MappingProxyType(row), {Name("k"): Name("v")}])
    assert columns.to_dicts() == [{"b": True, "f": 0.5, "i": -3, "s": "x", "u": 7}, {"k": "v"}]
    assert [type(value) for value in (columns.row(0) or {}).values()] == [bool, float, int, str, int]


@pytest.mark.parametrize(
    ("bad", "key", "reason"),
    [
        ({"a": 2**63}, "a", "outside"),
        ({"a": -(2**63) - 1}, "a", "outside"),
        ({"a": "\ud800"}, "a", "UTF-8"),
        ({"\udfff": 1}, "\udfff", "UTF-8"),
        ({1: 1}, 1, "a key is a str"),
        ({"a": [1]}, "a", "not list"),
        ({"a": {"b": 1}}, "a", "not dict"),
        ({"a": b"x"}, "a", "not bytes"),
        ({"a": np.array([1, 2])}, "a", "not ndarray"),
        ({"a": "x" * (2**24 + 1)}, "a", "limit is 16777216"),
        ({"k" * 65_536: 1}, "k" * 64, "limit is 65535"),
        ({str(number): 1 for number in range(4097)}, None, "4097 keys, the limit is 4096"),
        ({str(number): "x" * 2**24 for number in range(4)}, None, "limit is 67108864"),
        ([1], None, "expected a mapping"),
    ],
)
def test_an_invalid_record_is_refused_with_its_place(bad: Any, key: object, reason: str) -> None:
    with pytest.raises(InvalidMetadataError) as caught:
        MetadataColumns.from_dicts([{"a": 1}, None, bad, {"a": object()}])
    assert caught.value.where == "record 2"
    assert caught.value.key == key
    assert reason in caught.value.reason


def test_the_largest_strings_keys_and_records_are_accepted() -> None:
    rows = [{"s": "x" * 2**24}, {"k" * 65_535: 1}, {str(number): number for number in range(4096)}]
    assert MetadataColumns.from_dicts(rows).to_dicts() == [dict(sorted(row.items())) for row in rows]


def test_half_pairs_of_surrogates_do_not_join_between_values() -> None:
    with pytest.raises(InvalidMetadataError):
        MetadataColumns.from_dicts([{"a": "\ud83d"}, {"a": "\ude00"}])


def test_the_bits_of_a_nan_are_kept() -> None:
    value = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0123))[0]
    found = (MetadataColumns.from_dicts([{"x": value}]).row(0) or {})["x"]
    assert isinstance(found, float)
    assert math.isnan(found)
    assert struct.pack("<d", found) == struct.pack("<d", value)


def test_records_without_mapping_need_no_columns() -> None:
    columns = MetadataColumns.none(3)
    assert columns.to_dicts() == [None, None, None]
    assert not columns.any_mapping
    assert not MetadataColumns.none(0).any_mapping
    with pytest.raises(IndexError):
        columns.row(3)


def test_build_sorts_and_tidies_columns() -> None:
    everything = np.arange(2, dtype=np.uint32)
    columns = MetadataColumns.build(
        2,
        np.ones(2, np.bool_),
        [
            Column("b", ColumnType.INT64, everything, np.array([1, 2])),
            Column("a", ColumnType.STRING, everything[:0], StringValues.from_str([])),
        ],
    )
    assert columns.has_metadata is None
    assert [column.key for column in columns.columns] == ["b"]
    assert columns.columns[0].rows is None


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=60)), st.data())
def test_strings_are_taken_alike_whether_short_or_long(values: list[bytes], data: st.DataObject) -> None:
    strings = StringValues.from_bytes(values)
    assert strings.to_bytes() == values
    if values:
        rows = data.draw(st.lists(st.integers(0, len(values) - 1)))
        assert strings.take(np.array(rows, np.int64)).to_bytes() == [values[row] for row in rows]


@given(st.lists(st.one_of(TEXT.map(str.encode), st.binary(max_size=4))))
def test_the_first_string_that_is_not_utf8_is_found(values: list[bytes]) -> None:
    def valid(value: bytes) -> bool:
        try:
            value.decode()
        except UnicodeDecodeError:
            return False
        return True

    expected = next((index for index, value in enumerate(values) if not valid(value)), -1)
    assert StringValues.from_bytes(values).first_not_utf8() == expected


def test_a_character_cut_in_two_is_not_utf8() -> None:
    both = "é".encode()
    assert StringValues.from_bytes([b"a", both[:1], both[1:]]).first_not_utf8() == 1


def test_text_is_checked_across_the_pieces_in_which_it_is_decoded() -> None:
    long = b"x" * ((1 << 20) - 1) + "é".encode() + b"x" * (1 << 20)
    assert StringValues.from_bytes([b"a", long]).first_not_utf8() == -1
    assert StringValues.from_bytes([b"a", long + b"\xc3"]).first_not_utf8() == 1
    assert StringValues.from_bytes([b"a", long, b"\xa9"]).first_not_utf8() == 2
    assert StringValues.from_bytes([long]).to_str() == [long.decode()]
