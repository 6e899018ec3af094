from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core.errors import InvalidIdError
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.types import VectorId

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
ID = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 3), st.binary(min_size=1, max_size=9), TEXT)
IDS = st.one_of(
    st.lists(ID), st.lists(st.integers(0, 2**64 - 1)), st.lists(TEXT), st.lists(st.binary(min_size=1))
)


@given(IDS)
def test_ids_come_back_as_they_went_in(values: list[VectorId]) -> None:
    ids = Ids.from_list(values)
    assert ids.to_list() == values
    assert [type(value) for value in ids.to_list()] == [type(value) for value in values]
    assert [ids[row] for row in range(len(ids))] == values
    assert len(ids) == len(values)
    assert ids.is_u64 == all(type(value) is int for value in values)
    assert ids.first_problem() is None


@given(IDS, st.data())
def test_slices_and_selections_of_ids_are_those_of_a_list(
    values: list[VectorId], data: st.DataObject
) -> None:
    ids = Ids.from_list(values)
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    assert ids.slice(start, stop).to_list() == values[start:stop]
    if values:
        rows = data.draw(st.lists(st.integers(0, len(values) - 1)))
        taken = ids.take(np.array(rows, np.int64))
        assert taken.to_list() == [values[row] for row in rows]
        assert taken.is_u64 == all(type(values[row]) is int for row in rows)


@given(st.lists(IDS))
def test_joined_ids_are_a_joined_list(parts: list[list[VectorId]]) -> None:
    joined = Ids.concat(Ids.from_list(part) for part in parts)
    assert joined.to_list() == [value for part in parts for value in part]


@given(st.lists(st.one_of(st.integers(0, 4), st.sampled_from(["1", "a", b"1", b"a"]))))
def test_of_repeated_ids_the_last_row_takes_the_first_place(values: list[VectorId]) -> None:
    ids = Ids.from_list(values)
    repeated = [row for row, value in enumerate(values) if value in values[:row]]
    assert ids.find_duplicates().tolist() == repeated
    kept = ids.last_wins()
    if not repeated:
        assert kept is None
        return
    assert kept is not None
    last = {value: row for row, value in enumerate(values)}
    assert [values[row] for row in kept] == list(dict.fromkeys(values))
    assert kept.tolist() == [last[value] for value in dict.fromkeys(values)]


@given(IDS)
def test_ids_hash_as_the_content_digest_says(values: list[VectorId]) -> None:
    out = np.full((len(values), 2), 7, np.uint64)
    Ids.from_list(values).hash(out)
    for row, value in enumerate(values):
        kind, payload = (
            (0, value.to_bytes(8, "little"))
            if isinstance(value, int)
            else (1, value)
            if isinstance(value, bytes)
            else (2, value.encode())
        )
        for seed in (0, 1):
            assert int(out[row, seed]) == xxhash.xxh64_intdigest(bytes([kind]) + payload, seed)


@given(IDS)
def test_ids_are_the_same_in_the_form_with_kinds(values: list[VectorId]) -> None:
    ids = Ids.from_list(values)
    assert Ids.from_var(*ids.as_var()).to_list() == values


def test_numpy_integers_and_strings_are_ids() -> None:
    ids = Ids.from_list([np.uint64(2**64 - 1), np.int8(3)])
    assert ids.to_list() == [2**64 - 1, 3]
    assert Ids.from_list([np.str_("a"), b"b"]).to_list() == ["a", b"b"]


@pytest.mark.parametrize(
    "bad",
    [-1, 2**64, "", b"", True, None, 1.0, "\ud800", "x" * 65_536, b"x" * 65_536, ["a"], bytearray(b"x")],
)
@pytest.mark.parametrize("others", [[1, 2], ["a", "b"], [b"a", b"b"], [1, "b"]])
def test_an_invalid_id_is_refused_with_its_record(bad: object, others: list[object]) -> None:
    with pytest.raises(InvalidIdError) as caught:
        Ids.from_list([*others, bad], where="x.npy")
    assert caught.value.where == "x.npy, record 2"


def test_a_place_may_be_named_by_a_function() -> None:
    with pytest.raises(InvalidIdError, match="line 11: "):
        Ids.from_list([1, -1], where=lambda row: f"line {row + 10}")


@pytest.mark.parametrize(
    ("kinds", "offsets", "data", "row"),
    [
        ([2, 3], [0, 1, 2], b"ab", 1),
        ([2, 2], [0, 0, 2], b"ab", 0),
        ([0, 2], [0, 7, 8], b"abcdefgh", 0),
        ([2, 2], [0, 1, 2], "é".encode(), 0),
        ([1, 2], [0, 1, 2], b"a\xff", 1),
        ([2, 2], [0, 2, 1], b"ab", 0),
        ([2, 2], [1, 1, 2], b"ab", 0),
    ],
)
def test_ids_from_a_file_are_checked_on_request(
    kinds: list[int], offsets: list[int], data: bytes, row: int
) -> None:
    ids = Ids.from_var(np.array(kinds, np.uint8), np.array(offsets, np.uint64), np.frombuffer(data, np.uint8))
    problem = ids.first_problem()
    assert problem is not None
    assert problem[0] == row


def batch(*ids: int, metadata: bool = True, first_row: int = 0) -> RecordBatch:
    columns = MetadataColumns.from_dicts([{"id": number} for number in ids]) if metadata else None
    vectors = np.array([[number, 0] for number in ids], np.float32).reshape(-1, 2)
    return RecordBatch(Ids.from_list(ids), vectors, columns, first_row)


def numbers(records: RecordBatch) -> list[object]:
    assert records.ids.to_list() == records.vectors[:, 0].tolist()
    return records.ids.to_list()


def test_a_batch_is_cut_chosen_from_and_joined_in_all_its_parts() -> None:
    records = batch(5, 6, 7, 8, first_row=100)
    assert len(records) == 4
    assert records.where(2) == "record 102"
    middle = records.slice(1, 3)
    assert numbers(middle) == [6, 7]
    assert middle.where(0) == "record 101"
    assert middle.metadata is not None
    assert middle.metadata.to_dicts() == [{"id": 6}, {"id": 7}]
    chosen = records.take(np.array([3, 0]))
    assert numbers(chosen) == [8, 5]
    assert chosen.metadata is not None
    assert chosen.metadata.to_dicts() == [{"id": 8}, {"id": 5}]
    joined = RecordBatch.concat([batch(1, metadata=False), batch(2)])
    assert numbers(joined) == [1, 2]
    assert joined.metadata is not None
    assert joined.metadata.to_dicts() == [None, {"id": 2}]
    assert RecordBatch.concat([batch(1, metadata=False), batch(2, metadata=False)]).metadata is None
    assert RecordBatch.concat([records]) is records


def test_a_batch_without_metadata_stays_without() -> None:
    records = batch(1, 2, metadata=False)
    assert records.slice(0, 1).metadata is None
    assert records.take(np.array([1])).metadata is None
