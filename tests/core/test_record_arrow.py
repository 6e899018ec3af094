from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core.errors import InvalidMetadataError
from iqdb_core.records import ColumnType, MetadataColumns


def read(array: Any, **options: Any) -> list[Any]:
    return MetadataColumns.from_arrow([("k", array)], len(array), **options).to_dicts()


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS, *STRINGS, pa.bool_()], ids=str)
def test_values_of_every_width_become_plain_values(kind: Any) -> None:
    if kind in INTEGERS:
        values: list[Any] = [1, 2, 100]
    elif kind in FLOATS:
        values = [0.5, -2.0, float("inf")]
    elif kind == pa.bool_():
        values = [True, False, True]
    else:
        values = ["x", "é", "a longer string than fits a view"]
    array = (
        pa.array([values[0], None, *values[1:]], pa.string()).cast(kind)
        if kind in STRINGS
        else pa.array([values[0], None, *values[1:]], kind)
    )
    assert read(array) == [{"k": values[0]}, {"k": None}, {"k": values[1]}, {"k": values[2]}]
    assert read(array, nulls="absent") == [{"k": values[0]}, {}, {"k": values[1]}, {"k": values[2]}]
    assert read(array.slice(2)) == [{"k": values[1]}, {"k": values[2]}]
    assert [type(row["k"]) for row in read(array.slice(2))] == [type(values[0])] * 2
    chunked = pa.chunked_array([array.slice(0, 2), array.slice(2, 0), array.slice(2)])
    assert read(chunked) == read(array)
    assert read(array.slice(0, 0)) == []


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                "f": st.none() | st.floats(allow_nan=False),
                "b": st.none() | st.booleans(),
                "s": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            }
        )
    )
)
def test_a_table_gives_the_same_columns_as_its_rows(rows: list[dict[str, Any]]) -> None:
    kinds = {"i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "s": pa.string()}
    columns = [(key, pa.array([row[key] for row in rows], kind)) for key, kind in kinds.items()]
    found = MetadataColumns.from_arrow(columns, len(rows))
    assert found.to_dicts() == [dict(sorted(row.items())) for row in rows]
    expected = MetadataColumns.from_dicts(rows)
    assert [(c.key, c.type, len(c)) for c in found.columns] == [
        (c.key, c.type, len(c)) for c in expected.columns
    ]


def test_a_column_of_nulls_alone_has_no_type_to_know() -> None:
    assert read(pa.nulls(2)) == [{"k": None}] * 2
    assert read(pa.nulls(2), nulls="absent") == [{}] * 2
    assert read(pa.nulls(2, pa.string())) == [{"k": None}] * 2


def test_extension_types_are_read_as_what_they_store() -> None:
    assert read(pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8()))) == [
        {"k": 1},
        {"k": 0},
    ]


def test_the_largest_unsigned_integers_are_refused_with_their_row() -> None:
    assert read(pa.array([2**63 - 1], pa.uint64())) == [{"k": 2**63 - 1}]
    chunks = pa.chunked_array([[1], [None, 5, 2**63]], pa.uint64())
    with pytest.raises(InvalidMetadataError, match="integer 9223372036854775808 is outside") as caught:
        read(chunks, where="t.parquet")
    assert caught.value.where == "t.parquet, record 3"
    assert caught.value.key == "k"


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("us"), pa.date32(), pa.time64("us"), pa.duration("s"), pa.decimal128(5), pa.binary()],
    ids=str,
)
def test_types_without_counterpart_are_refused_by_name(kind: Any) -> None:
    with pytest.raises(InvalidMetadataError) as caught:
        read(pa.nulls(1, kind))
    assert str(kind) in caught.value.reason


def test_lists_are_refused_by_name() -> None:
    with pytest.raises(InvalidMetadataError, match="list<item: int64>"):
        read(pa.array([[1]]))


def strings_of(data: bytes, *offsets: int) -> Any:
    buffers = [None, pa.py_buffer(np.array(offsets, np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.string(), len(offsets) - 1, buffers)


def test_text_that_is_not_utf8_is_refused_with_its_row() -> None:
    with pytest.raises(InvalidMetadataError, match=r"record 1: .*not UTF-8"):
        read(strings_of(b"a\xffb", 0, 1, 2, 3))
    with pytest.raises(InvalidMetadataError, match=r"record 0: .*not UTF-8"):
        read(strings_of("é".encode(), 0, 1, 2))


def test_a_string_over_the_limit_is_refused_with_its_row() -> None:
    with pytest.raises(InvalidMetadataError, match=r"record 1: .*takes 16777217 bytes"):
        read(pa.array(["", "x" * (2**24 + 1)]))


def test_a_record_over_the_limit_is_refused_with_its_row() -> None:
    long = pa.array(["", "x" * 2**24])
    with pytest.raises(InvalidMetadataError, match=r"record 1: .*the limit is 67108864"):
        MetadataColumns.from_arrow([(str(number), long) for number in range(4)], 2)
    short = pa.array([1])
    with pytest.raises(InvalidMetadataError, match=r"record 0: .*4097 keys"):
        MetadataColumns.from_arrow([(str(number), short) for number in range(4097)], 1)


def test_one_key_may_have_several_columns_of_different_types() -> None:
    columns = [
        ("k", pa.array([1, None, None, None]), ColumnType.INT64),
        ("k", pa.array([None, "x", None, None]), ColumnType.STRING),
        ("k", pa.array([None, False, True, None]), ColumnType.NULL),
    ]
    found = MetadataColumns.from_arrow(columns, 4, nulls="absent")
    assert found.to_dicts() == [{"k": 1}, {"k": "x"}, {"k": None}, {}]
    columns[2] = ("k", pa.array([None, True, True, None]), ColumnType.NULL)
    with pytest.raises(InvalidMetadataError, match=r"record 1: .*two values"):
        MetadataColumns.from_arrow(columns, 4, nulls="absent")


def test_a_column_of_another_type_than_declared_is_refused() -> None:
    with pytest.raises(InvalidMetadataError, match="expected int64 values, found string"):
        MetadataColumns.from_arrow([("k", pa.array(["x"]), ColumnType.INT64)], 1)
    with pytest.raises(InvalidMetadataError, match="expected bool marks of nulls, found string"):
        MetadataColumns.from_arrow([("k", pa.array(["x"]), ColumnType.NULL)], 1)


def test_records_may_be_without_mapping() -> None:
    has = np.array([True, False, True])
    columns = [("k", pa.array([1, None, None]))]
    found = MetadataColumns.from_arrow(columns, 3, nulls="absent", has_metadata=has)
    assert found.to_dicts() == [{"k": 1}, None, {}]
    with pytest.raises(InvalidMetadataError, match=r"record 1: .*no mapping"):
        MetadataColumns.from_arrow(columns, 3, has_metadata=has)


def test_a_key_over_the_limit_is_refused() -> None:
    with pytest.raises(InvalidMetadataError, match="limit is 65535"):
        MetadataColumns.from_arrow([("k" * 65_536, pa.array([1]))], 1)
