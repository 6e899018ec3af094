from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iqdb_core import Filter, Ids, Iqdb, IqdbConfig, MetadataColumns, RecordBatch
from iqdb_core.bitmap import Bitmap, are_set, count_ones, unpack
from iqdb_core.delta import Delta

DIM = 2
some_ids = st.integers(0, 15) | st.sampled_from(["a", "b", "ç"]) | st.sampled_from([b"a", b"\0"])
some_vectors = st.tuples(st.integers(-3, 3), st.integers(-3, 3))
some_metadata = st.none() | st.dictionaries(
    st.sampled_from(["n", "s"]), st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.none(), max_size=2
)
some_records = st.lists(st.tuples(some_ids, some_vectors, some_metadata), max_size=8)
some_filters = st.sampled_from([None, "n >= 1", "s = 'x' or n = 2", "not s is null"])


def batch_of(records: Any) -> RecordBatch:
    return RecordBatch(
        Ids.from_list([record[0] for record in records]),
        np.array([record[1] for record in records], np.float32).reshape(-1, DIM),
        MetadataColumns.from_dicts([record[2] for record in records]),
    )


class AgainstADict(RuleBasedStateMachine):
    """Whatever is done to a database, in a file or in memory, a dict says what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.path = self.directory / "a.iqdb"
        self.model: dict[Any, tuple[Any, Any]] = {}
        self.readers: list[tuple[Iqdb, list[Any]]] = []

    @initialize(
        memory=st.booleans(), auto=st.sampled_from([None, 5, "auto"]), codec=st.sampled_from(["none", "lz4"])
    )
    def begin(self, memory: bool, auto: Any, codec: str) -> None:
        self.memory = memory
        self.auto = auto
        config = IqdbConfig(
            dim=DIM, metric="manhattan", auto_compact=auto, compression=codec, fsync="never", threads=1
        )
        self.db = Iqdb.open_in_memory_with(config) if memory else Iqdb.create(self.path, config)

    def put(self, records: Any) -> None:
        for record_id, vector, metadata in records:
            self.model[record_id] = (vector, metadata)

    @rule(record=st.tuples(some_ids, some_vectors, some_metadata))
    def upsert(self, record: Any) -> None:
        self.db.upsert(*record)
        self.put([record])

    @rule(records=some_records)
    def upsert_many(self, records: Any) -> None:
        batch = batch_of(records)
        assert self.db.upsert_batch(batch) == len({record[0] for record in records})
        self.put(records)

    @rule(records=some_records, cut=st.integers(0, 8))
    def bulk_load(self, records: Any, cut: int) -> None:
        new = {record[0] for record in records} - set(self.model)
        report = self.db.bulk_load([batch_of(records[:cut]), batch_of(records[cut:])])
        assert (report.rows_read, report.rows_added) == (len(records), len(new))
        self.put(records)

    @rule(record_id=some_ids)
    def delete(self, record_id: Any) -> None:
        assert self.db.delete(record_id) == (self.model.pop(record_id, None) is not None)

    @rule(ids=st.lists(some_ids, max_size=6))
    def delete_many(self, ids: Any) -> None:
        assert self.db.delete_many(ids) == len(set(ids) & set(self.model))
        for record_id in ids:
            self.model.pop(record_id, None)

    @rule()
    def compact(self) -> None:
        assert self.db.compact().n_rows == len(self.model)

    @rule(compact=st.booleans())
    def reopen(self, compact: bool) -> None:
        if not self.memory:
            self.db.close(compact=compact)
            self.db = Iqdb.open_existing(self.path, fsync="never", threads=1, auto_compact=self.auto)

    @rule()
    def open_a_reader(self) -> None:
        if not self.memory and len(self.readers) < 3:
            reader = Iqdb.open_existing(self.path, read_only=True, threads=1)
            self.readers.append((reader, list(self.model)))

    @rule()
    def refresh_the_readers(self) -> None:
        self.readers = [(reader, list(self.model)) for reader, _ in self.readers if reader.refresh() or True]

    @rule(record_id=some_ids)
    def get(self, record_id: Any) -> None:
        found = self.db.get(record_id)
        if record_id not in self.model:
            assert found is None
        else:
            assert found is not None
            assert (tuple(found[0].tolist()), found[1]) == self.model[record_id]

    @rule(query=some_vectors, k=st.sampled_from([1, 3, 100]), expression=some_filters)
    def search(self, query: Any, k: int, expression: str | None) -> None:
        condition = None if expression is None else Filter.parse(expression)
        expected = sorted(
            (abs(vector[0] - query[0]) + abs(vector[1] - query[1]), place, record_id)
            for place, (record_id, (vector, metadata)) in enumerate(self.model.items())
            if condition is None or condition.matches(metadata)
        )[:k]
        hits = self.db.search(query, k, filter=expression)
        assert [(hit.distance, hit.id) for hit in hits] == [(d, i) for d, _, i in expected]
        assert [hit.metadata for hit in hits] == [self.model[i][1] for _, _, i in expected]
        ids, distances = self.db.search_arrays([query], k, filter=expression)
        assert ids[0, : len(expected)].tolist() == [i for _, _, i in expected]
        assert distances[0, : len(expected)].tolist() == [d for d, _, _ in expected]

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        if not hasattr(self, "db"):
            return
        assert len(self.db) == len(self.model)
        assert list(self.db.ids()) == list(self.model)
        for reader, ids in self.readers:
            assert list(reader.ids()) == ids

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
        for reader, _ in self.readers:
            reader.close()
        shutil.rmtree(self.directory)


AgainstADict.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
TestAgainstADict = AgainstADict.TestCase


def filled_delta() -> Delta:
    delta = Delta(10, DIM)
    batch = batch_of([(i, (i, i), {"n": i}) for i in range(5)])
    delta.upsert(batch, np.array([3, -1, 9, -1, -1], np.int64))
    return delta


def test_a_replacing_row_takes_the_place_of_what_it_replaces_and_new_ones_count_on() -> None:
    delta = filled_delta()
    assert delta.view().places.tolist() == [3, 10, 9, 11, 12]
    assert (delta.n_records, delta.weight) == (13, 7)
    delta.upsert_one(1, np.zeros(DIM, np.float32).tobytes(), None, -1)
    delta.upsert_one("new", np.zeros(DIM, np.float32).tobytes(), None, -1)
    assert delta.view().places.tolist() == [3, 10, 9, 11, 12, 10, 13]
    assert delta.view().live_rows().tolist() == [0, 2, 5, 3, 4, 6]


def test_a_snapshot_row_that_was_deleted_does_not_lend_its_place() -> None:
    delta = filled_delta()
    assert delta.delete([7], np.array([5])) == 1
    assert delta.delete([7], np.array([5])) == 0
    delta.upsert_one(7, np.zeros(DIM, np.float32).tobytes(), None, 5)
    assert delta.view().places[-1] == 13


def test_a_published_view_never_changes() -> None:
    delta = filled_delta()
    view = delta.view()
    hidden = delta.base_live.bits
    before = bytes(hidden)
    delta.pin()
    for step in range(700):
        delta.upsert_one(step % 7, np.full(DIM, step, np.float32).tobytes(), {"step": step}, -1)
    delta.delete([0, 1, 2], np.array([3, -1, 9]))
    delta.upsert(batch_of([(i, (0, 0), None) for i in range(300)]), np.full(300, -1))
    assert bytes(hidden) == before
    assert (view.n_rows, view.n_live) == (5, 5)
    assert view.live_rows().tolist() == [0, 2, 1, 3, 4]
    assert view.vectors.tolist() == [[i, i] for i in range(5)]
    assert view.metadata.columns().to_dicts() == [{"n": i} for i in range(5)]
    assert [view.id_at(row) for row in range(5)] == [0, 1, 2, 3, 4]


def test_bitmaps_are_copied_only_when_a_search_holds_them() -> None:
    delta = filled_delta()
    before = delta.base_live.bits
    delta.delete([20], np.array([0]))
    assert delta.base_live.bits is before
    delta.pin()
    delta.delete([21], np.array([1]))
    assert delta.base_live.bits is not before
    after = delta.base_live.bits
    delta.delete([22], np.array([2]))
    assert delta.base_live.bits is after


@pytest.mark.parametrize("sizes", [[1] * 1500, [127] * 12, [128] * 4, [1, 600, 1, 50, 3], [5000]])
def test_metadata_is_the_same_whether_it_came_in_ones_or_in_thousands(sizes: list[int]) -> None:
    delta = Delta(0, DIM)
    expected: list[Any] = []
    for size in sizes:
        start = len(expected)
        records = [
            (start + i, (0, 0), None if (start + i) % 3 == 0 else {"n": start + i, "s": f"x{i % 5}"})
            for i in range(size)
        ]
        expected += [record[2] for record in records]
        if size == 1:
            delta.upsert_one(start, bytes(4 * DIM), records[0][2], -1)
        else:
            delta.upsert(batch_of(records), np.full(size, -1))
    view = delta.view()
    assert [view.metadata_at(row) for row in range(len(expected))] == expected
    assert view.metadata.columns().to_dicts() == expected
    condition = Filter.parse("n > 100 and s = 'x2'")
    assert view.metadata.matches(condition).tolist() == [condition.matches(metadata) for metadata in expected]


@pytest.mark.parametrize("n", [1, 7, 8, 9, 64, 100])
def test_bitmaps_hold_what_was_set_and_cleared(n: int) -> None:
    bitmap = Bitmap(n, filled=False)
    bits = np.zeros(n, bool)
    for start, stop in ((0, n // 2), (n // 2, n // 2 + (n > 1)), (n // 2 + (n > 1), n)):
        bitmap.append_ones(start, stop)
        bits[start:stop] = True
        assert unpack(bitmap.bits, 0, n).tolist() == bits.tolist()
    rows = np.arange(0, n, 3)
    bitmap.clear(rows)
    bits[rows] = False
    assert unpack(bitmap.bits, 0, n).tolist() == bits.tolist()
    assert unpack(bitmap.bits, n // 3, n).tolist() == bits[n // 3 :].tolist()
    assert are_set(bitmap.bits, np.arange(n)).tolist() == bits.tolist()
    assert count_ones(bitmap.bits, n) == bits.sum() == n - bitmap.n_zeros
    assert [bitmap.is_set(row) for row in range(n)] == bits.tolist()
