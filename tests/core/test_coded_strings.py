"""Strings as codes of a few entries are the same strings as those written out, whatever is done to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from iqdb_core import Iqdb, IqdbConfig
from iqdb_core.column_type import ColumnType
from iqdb_core.filters_eval import evaluate
from iqdb_core.filters_text import parse_filter
from iqdb_core.record_strings import CodedStrings, StringValues
from iqdb_core.records import Column, Ids, MetadataColumns, RecordBatch
from iqdb_core.storage.columns import GroupView, encode_group

ENTRIES = ["aa", "", "ö", "aa", "z" * 300, "never"]
CODES = [0, 2, 2, 4, 1, 3, 0, 4, 4, 2, 1, 0]


def coded(codes: list[int] | None = None) -> CodedStrings:
    return CodedStrings(
        StringValues.from_str(ENTRIES), np.array(CODES if codes is None else codes, np.uint16)
    )


def texts(values: StringValues | CodedStrings) -> list[str]:
    found = values.to_str()
    plain = values.plain()
    assert plain.to_str() == found
    assert values.lengths.tolist() == plain.lengths.tolist()
    assert values.text_bytes == len(plain.data)
    assert len(values) == len(found)
    return found


def columns(values: StringValues | CodedStrings, rows: list[int] | None = None) -> MetadataColumns:
    n_rows = len(values) if rows is None else 20
    where = None if rows is None else np.array(rows, np.uint32)
    return MetadataColumns(n_rows, None, (Column("name", ColumnType.STRING, where, values),))


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values,
        lambda values: values.slice(3, 9),
        lambda values: values.slice(4, 4),
        lambda values: values.take(np.array([11, 0, 0, 7])),
        lambda values: values.take(np.array([], np.int64)),
    ],
)
def test_they_are_the_strings_that_are_written_out(change: Callable[[Any], Any]) -> None:
    assert texts(change(coded())) == texts(change(coded().plain()))


def test_they_join_with_others() -> None:
    other = StringValues.from_str(["x", "aa", "y"])
    joined = CodedStrings.concat([coded(), other, coded([4, 4]).slice(0, 1)])

    assert texts(joined) == [*texts(coded()), "x", "aa", "y", "z" * 300]


def test_a_part_keeps_what_it_needs_and_no_more() -> None:
    part = coded().take(np.array([4, 10]))

    assert part.entries.to_str() == [""]
    assert texts(part) == ["", ""]


@pytest.mark.parametrize("rows", [None, [0, 1, 3, 4, 5, 6, 7, 10, 11, 13, 18, 19]])
def test_metadata_does_not_tell_them_apart(rows: list[int] | None) -> None:
    some, plain = columns(coded(), rows), columns(coded().plain(), rows)
    hashes = [np.empty((some.n_rows, 2), np.uint64) for _ in range(2)]
    some.hash(hashes[0])
    plain.hash(hashes[1])

    assert some.to_dicts() == plain.to_dicts()
    assert some.row(7) == plain.row(7)
    assert np.array_equal(*hashes)
    assert some.weights().tolist() == plain.weights().tolist()
    assert encode_group(some) == encode_group(plain)
    for text in ("name = 'aa'", "name >= 'aa'", "name contains 'z'", "name in ('', 'never')"):
        for both in ((some, plain), (some.slice(5, 8), plain.slice(5, 8))):
            found = [evaluate(parse_filter(text), each).tolist() for each in both]
            assert found[0] == found[1]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 12])
def test_the_encoding_of_a_group_follows_from_the_strings_alone(count: int) -> None:
    blob = encode_group(columns(coded().slice(0, count)))

    assert blob == encode_group(columns(coded().slice(0, count).plain()))
    view = GroupView(memoryview(blob), "a.iqdb", "group 0")
    view.check()
    assert view.to_columns().to_dicts() == columns(coded()).slice(0, count).to_dicts()


def test_plain_strings_become_codes_where_most_are_the_same() -> None:
    few, many = columns(coded().plain()).coded(), columns(StringValues.from_str(["a", "b", "a"])).coded()

    assert isinstance(few.columns[0].values, CodedStrings)
    assert isinstance(many.columns[0].values, StringValues)
    assert few.to_dicts() == columns(coded()).to_dicts()
    assert many.to_dicts() == [{"name": "a"}, {"name": "b"}, {"name": "a"}]


@pytest.mark.parametrize(
    ("n_rows", "n_texts", "text_bytes"), [(300, 2, 40), (100, 2, 5000), (100, 2, 40), (90, 80, 9)]
)
def test_what_a_log_repeats_is_read_searched_and_folded(
    tmp_path: Any, n_rows: int, n_texts: int, text_bytes: int
) -> None:
    path = tmp_path / "a.iqdb"
    entries = StringValues.from_str([f"{i:04}" * (text_bytes // 4) for i in range(n_texts)])
    expected = {}
    with Iqdb.create(path, IqdbConfig(dim=2)) as db:
        for first in range(0, 8 * n_rows, n_rows):
            codes = np.arange(first, first + n_rows, dtype=np.uint32) // 3 % np.uint32(n_texts)
            column = Column("name", ColumnType.STRING, None, CodedStrings(entries, codes))
            ids = list(range(first, first + n_rows))
            vectors = np.ones((n_rows, 2), np.float32)
            metadata = MetadataColumns(n_rows, None, (column,))
            expected.update(zip(ids, metadata.to_dicts(), strict=True))
            db.upsert_batch(RecordBatch(Ids.from_list(ids), vectors, metadata))
        db.upsert(3, [1, 2], {"name": "another"})
        expected[3] = {"name": "another"}
        db.close(compact=False)

    with Iqdb.open_existing(path, auto_compact=None) as db:
        for _ in range(2):
            assert {id_: db.metadata(id_) for id_ in db.ids()} == expected
            text = entries.to_str()[1]
            hits = db.search([1, 1], 8 * n_rows, filter=f"name = '{text}'")
            assert {hit.id for hit in hits} == {id_ for id_, row in expected.items() if row == {"name": text}}
            read = {}
            for batch in db.batches(batch_rows=37):
                assert batch.metadata is not None
                read.update(zip(batch.ids.to_list(), batch.metadata.to_dicts(), strict=True))
            assert read == expected
            db.compact()
