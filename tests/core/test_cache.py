from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iqdb_core.cache
from iqdb_core import (
    CacheConfig,
    CachePolicy,
    CacheStats,
    Filter,
    InvalidConfigError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    MetadataColumns,
    RecordBatch,
)
from iqdb_core.cache import ResultCache
from iqdb_core.records import Ids
from iqdb_core.search_request import Request

DIM = 4
QUERY = [1.0, 0.0, 0.0, 0.0]


def memory(**cache: Any) -> Iqdb:
    db = Iqdb.open_in_memory_with(
        IqdbConfig(dim=DIM, metric="euclidean", cache=CacheConfig(**cache), auto_compact=None)
    )
    fill(db)
    return db


def fill(db: Iqdb) -> None:
    vectors = np.random.default_rng(7).normal(size=(40, DIM)).astype(np.float32)
    db.upsert_many(range(40), vectors, [{"n": i, "even": i % 2 == 0} for i in range(40)])


def counts(db: Iqdb) -> tuple[int, int]:
    stats = db.cache_stats()
    return stats.hits, stats.misses


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: Any) -> Clock:
    """Every cache that is made from here on runs by this clock."""
    clock = Clock()
    original = ResultCache.__init__

    def init(self: Any, config: Any) -> None:
        original(self, config, clock=clock)

    monkeypatch.setattr(ResultCache, "__init__", init)
    return clock


# --- What is found in the cache -----------------------------------------------------------------


def test_there_is_no_cache_unless_one_is_asked_for() -> None:
    db = Iqdb.open_in_memory(DIM)
    fill(db)
    db.search(QUERY, 3)
    db.clear_cache()
    assert db.cache_stats() == CacheStats(0, 0, 0, 0, 0)
    assert db.cache_stats().hit_rate() == 0.0
    assert db.config.cache is None


def test_a_search_without_a_cache_does_not_even_import_one() -> None:
    program = (
        "import sys; from iqdb_core import Iqdb; db = Iqdb.open_in_memory(2); db.upsert(1, [1, 2]);"
        "db.search([1, 2], 1); print('iqdb_core.cache' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_same_search_is_answered_from_the_cache() -> None:
    db = memory()
    first = db.search(QUERY, 3)
    second = db.search(np.array(QUERY, np.float32), 3)
    assert first == second
    assert [hit.metadata for hit in second] == [hit.metadata for hit in first]
    stats = db.cache_stats()
    assert stats == CacheStats(hits=1, misses=1, evictions=0, len=1, capacity=1024)
    assert stats.lookups() == 2
    assert stats.hit_rate() == 0.5


@pytest.mark.parametrize(
    "other",
    [
        {"query": [1.0, 0.0, 0.0, 0.5]},
        {"k": 4},
        {"filter": "n < 20"},
        {"filter": "n = 1"},
        {"filter": "n = 1.0"},
        {"filter": "n = true"},
        {"max_distance": 0.5},
        {"exact": True},
    ],
    ids=str,
)
def test_a_search_that_differs_in_one_argument_is_another_search(other: Any) -> None:
    db = memory()
    arguments = {"query": QUERY, "k": 3, "filter": None, "max_distance": None, "exact": False}
    db.search(**arguments)
    if other.get("filter") == "n = 1":
        db.search(**{**arguments, "filter": "n = 1.0"})
        db.search(**{**arguments, "filter": "n = true"})
    misses = db.cache_stats().misses
    found = db.search(**{**arguments, **other})
    assert counts(db) == (0, misses + 1)
    assert found == Iqdb.search(uncached(db), **{**arguments, **other})


def test_the_parameters_of_an_index_are_part_of_the_key() -> None:
    def key(**parameters: int) -> Any:
        query = np.zeros((1, 2), np.float32)
        return iqdb_core.cache._keys(query, 1, Request(3, parameters=parameters))

    assert key(ef=1) != key(ef=2) != key(n_probes=2) != key()
    assert key(ef=1, n_probes=2) == key(n_probes=2, ef=1)


def test_a_filter_and_its_expression_are_the_same_search() -> None:
    db = memory()
    first = db.search(QUERY, 3, filter="n < 20 and even = true")
    second = db.search(QUERY, 3, filter=Filter.lt("n", 20) & Filter.eq("even", True))
    assert first == second
    assert counts(db) == (1, 1)


def test_a_batch_and_single_searches_share_the_cache() -> None:
    db = memory()
    queries = np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float32)
    single = [db.search(queries[1], 3), db.search(queries[3], 3)]
    batch = db.search_batch(queries, 3)
    assert counts(db) == (2, 5)
    assert [batch[1], batch[3]] == single
    assert batch == uncached(db).search_batch(queries, 3)
    assert db.search_buffers(queries, 5, 3) == batch
    assert counts(db) == (7, 5)
    assert db.search_batch(queries[:0], 3) == []
    assert counts(db) == (7, 5)


def test_a_query_twice_in_one_batch_has_its_answer_twice() -> None:
    db = memory()
    batch = db.search_batch([QUERY, QUERY], 3)
    assert batch[0] == batch[1]
    assert batch[0] is not batch[1]
    assert db.cache_stats().len == 1


def test_a_bad_query_is_refused_before_the_cache_is_asked() -> None:
    db = memory()
    with pytest.raises(InvalidVectorError):
        db.search([float("nan")] * DIM, 3)
    assert counts(db) == (0, 0)


def test_what_a_caller_does_to_hits_is_seen_by_nobody_else() -> None:
    db = memory()
    expected = [hit.to_dict() for hit in uncached(db).search(QUERY, 3)]
    for _ in range(3):
        hits = db.search(QUERY, 3)
        assert [hit.to_dict() for hit in hits] == expected
        metadata = hits[0].metadata
        assert metadata is not None
        metadata["n"] = -1
        hits[1].distance = -1.0
        hits.clear()


def test_cached_hits_keep_their_metadata_after_the_database_is_closed() -> None:
    db = memory()
    db.search(QUERY, 2)
    hits = db.search(QUERY, 2)
    db.close()
    assert all(hit.metadata is not None for hit in hits)
    assert db.cache_stats().hits == 1
    assert db.cache_stats().len == 0


# --- Invalidation -------------------------------------------------------------------------------


def uncached(db: Iqdb) -> Iqdb:
    """The same handle without its cache."""
    copy = Iqdb.open_in_memory_with(db.config.replace(cache=None))
    for batch in db.batches():
        copy.upsert_batch(batch)
    return copy


def a_batch() -> RecordBatch:
    return RecordBatch(Ids.from_list([3, 50]), np.ones((2, DIM), np.float32), MetadataColumns.none(2))


MUTATIONS = {
    "upsert": lambda db: db.upsert(99, QUERY, {"n": 99}),
    "upsert of the same id": lambda db: db.upsert(5, QUERY),
    "upsert_many": lambda db: db.upsert_many([98, 99], [QUERY, QUERY]),
    "upsert_batch": lambda db: db.upsert_batch(a_batch()),
    "delete": lambda db: db.delete(db.search(QUERY, 1)[0].id),
    "delete_many": lambda db: db.delete_many(list(range(30))),
    "bulk_load": lambda db: db.bulk_load([a_batch()]),
    "flush": lambda db: db.flush(),
    "compact": lambda db: db.compact(),
}


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("in_file", [False, True])
def test_every_change_empties_the_cache(name: Any, in_file: Any, tmp_path: Path) -> None:
    if in_file:
        config = IqdbConfig(dim=DIM, metric="euclidean", cache=CacheConfig(), auto_compact=None)
        db = Iqdb.create(tmp_path / "a.iqdb", config)
        fill(db)
    else:
        db = memory()
    with db:
        db.search(QUERY, 3)
        assert db.cache_stats().len == 1
        MUTATIONS[name](db)
        assert db.cache_stats().len == 0
        hits = db.cache_stats().hits
        found = db.search(QUERY, 3)
        assert db.cache_stats().hits == hits
        assert found == uncached(db).search(QUERY, 3)


def test_a_change_that_changes_nothing_leaves_the_cache() -> None:
    db = memory()
    db.search(QUERY, 3)
    db.delete(12345)
    db.upsert_many([], np.empty((0, DIM)))
    db.search(QUERY, 3)
    assert counts(db) == (1, 1)


def test_a_refresh_empties_the_cache_when_something_is_new_and_keeps_counting(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, DIM, "euclidean") as writer:
        fill(writer)
        reader = Iqdb.open_existing(path, read_only=True, cache=CacheConfig(capacity=7))
        first = reader.search(QUERY, 3)
        assert not reader.refresh()
        assert reader.search(QUERY, 3) == first
        assert counts(reader) == (1, 1)
        writer.upsert(99, QUERY)
        assert reader.search(QUERY, 3) == first
        assert reader.refresh()
        assert reader.cache_stats() == CacheStats(2, 1, 0, 0, 7)
        assert reader.search(QUERY, 3)[0].id == 99
        assert reader.search(QUERY, 3)[0].id == 99
        assert counts(reader) == (3, 2)
        reader.close()


def test_a_result_computed_before_a_write_is_not_stored_after_it(monkeypatch: Any) -> None:
    db = memory()
    original = iqdb_core.cache.search

    def slow_search(*arguments: Any) -> Any:
        results = original(*arguments)
        monkeypatch.setattr(iqdb_core.cache, "search", original)
        db.upsert(99, QUERY)
        return results

    monkeypatch.setattr(iqdb_core.cache, "search", slow_search)
    assert db.search(QUERY, 1)[0].id != 99
    assert db.cache_stats().len == 0
    assert db.search(QUERY, 1)[0].id == 99
    assert counts(db) == (0, 2)


def test_a_search_on_an_older_view_gets_nothing_newer() -> None:
    db = memory()
    store = db._store
    old = store.lease()
    expected = uncached(db).search(QUERY, 1)
    db.upsert(99, QUERY)
    assert db.search(QUERY, 1)[0].id == 99
    assert store.cache is not None
    found = store.cache.search(old, np.array([QUERY], np.float32), 1, Request(1), 1)
    store.release(old)
    assert found == [expected]
    assert db.search(QUERY, 1)[0].id == 99


def test_results_of_an_old_snapshot_are_let_go_with_it() -> None:
    import gc
    import weakref

    db = memory()
    db.compact()
    db.search(QUERY, 3)
    entry = next(iter(db._store.cache._entries.values()))[1]  # type: ignore[union-attr]
    held = weakref.ref(entry._hits[0]._source)  # type: ignore[type-var]
    del entry
    assert held() is not None
    db.upsert(1, QUERY)
    db.compact()
    gc.collect()
    assert held() is None


def test_clear_cache_keeps_the_counts() -> None:
    db = memory()
    db.search(QUERY, 3)
    db.clear_cache()
    db.search(QUERY, 3)
    assert counts(db) == (0, 2)
    assert db.cache_stats().len == 1


# --- Capacity and time --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(CachePolicy))
def test_a_full_cache_gives_up_results_and_counts_them(policy: Any) -> None:
    db = memory(capacity=2, policy=policy)
    for k in (1, 2, 3, 4, 4):
        db.search(QUERY, k)
    assert db.cache_stats() == CacheStats(hits=1, misses=4, evictions=2, len=2, capacity=2)


def test_a_result_lives_as_long_as_its_time(clock: Clock) -> None:
    db = memory(ttl_seconds=10)
    db.search(QUERY, 3)
    clock.now += 9.5
    db.search(QUERY, 3)
    assert counts(db) == (1, 1)
    # Use does not lengthen its life.
    clock.now += 0.5
    assert db.cache_stats().len == 0
    db.search(QUERY, 3)
    assert counts(db) == (1, 2)
    assert db.cache_stats().evictions == 0


@pytest.mark.parametrize("policy", list(CachePolicy))
def test_results_whose_time_is_over_go_before_living_ones(policy: Any, clock: Clock) -> None:
    db = memory(capacity=2, policy=policy, ttl_seconds=10)
    db.search(QUERY, 1)
    clock.now += 6
    db.search(QUERY, 2)
    db.search(QUERY, 1)
    clock.now += 6
    db.search(QUERY, 3)
    assert db.cache_stats().len == 2
    assert db.cache_stats().evictions == 0
    db.search(QUERY, 2)
    assert counts(db) == (2, 3)


def test_a_cache_without_ttl_never_asks_for_the_time(monkeypatch: Any) -> None:
    def clock() -> float:
        raise AssertionError

    cache = ResultCache(CacheConfig(), clock=clock)
    assert cache.stats() == CacheStats(capacity=1024)


@settings(max_examples=40)
@given(
    policy=st.sampled_from(CachePolicy),
    capacity=st.integers(1, 4),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("search"), st.integers(1, 4), st.integers(0, 3)),
            st.tuples(st.just("upsert"), st.integers(0, 9), st.integers(0, 3)),
            st.tuples(st.just("delete"), st.integers(0, 9), st.just(0)),
            st.tuples(st.just("compact"), st.just(0), st.just(0)),
            st.tuples(st.just("clear"), st.just(0), st.just(0)),
        ),
        max_size=25,
    ),
)
def test_a_cache_never_changes_an_answer(policy: Any, capacity: Any, steps: Any) -> None:
    config = IqdbConfig(dim=2, metric="euclidean", threads=1)
    plain = Iqdb.open_in_memory_with(config)
    cached = Iqdb.open_in_memory_with(config.with_cache(CacheConfig(capacity=capacity, policy=policy)))
    vectors = [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]
    lookups = 0
    for action, number, vector in steps:
        if action == "search":
            lookups += 1
            assert cached.search(vectors[vector], number) == plain.search(vectors[vector], number)
            continue
        for db in (plain, cached):
            if action == "upsert":
                db.upsert(number, vectors[vector], {"v": vector})
            elif action == "delete":
                db.delete(number)
            elif action == "compact":
                db.compact()
            else:
                db.clear_cache()
    stats = cached.cache_stats()
    assert stats.lookups() == lookups
    assert stats.len <= capacity


def test_many_threads_search_while_one_writes() -> None:
    db = memory(capacity=4, policy="arc")
    failures: list[BaseException] = []
    written = [0]

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(150):
                before = written[0]
                hit = db.search(
                    QUERY, 1, filter="kind = 'moving'", max_distance=None, exact=bool(rng.integers(2))
                )
                # An answer is never older than what was acknowledged before the search began.
                if before:
                    metadata = hit[0].metadata
                    assert metadata is not None
                    version = metadata["version"]
                    assert isinstance(version, int)
                    assert version >= before
        except BaseException as error:  # noqa: BLE001 - shown below, in the test's own thread
            failures.append(error)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for version in range(1, 60):
        db.upsert(1000, QUERY, {"kind": "moving", "version": version})
        written[0] = version
    for reader in readers:
        reader.join()
    assert failures == []
    assert db.cache_stats().lookups() == 450


# --- Settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"capacity": 0},
        {"capacity": 2**24 + 1},
        {"capacity": True},
        {"capacity": 1.0},
        {"policy": "mru"},
        {"policy": None},
        {"ttl_seconds": 0},
        {"ttl_seconds": -1.0},
        {"ttl_seconds": float("nan")},
        {"ttl_seconds": float("inf")},
        {"ttl_seconds": "1"},
        {"ttl_seconds": True},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: Any) -> None:
    with pytest.raises(InvalidConfigError, match="cache"):
        CacheConfig(**settings)


def test_the_cache_belongs_to_the_handle_and_not_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    config = IqdbConfig(dim=DIM, cache=CacheConfig(policy="lfu"))
    with Iqdb.create(path, config) as db:
        assert db.config.cache == CacheConfig(policy=CachePolicy.LFU)
    with Iqdb.open_existing(path) as db:
        assert db.config.cache is None
    with Iqdb.open_with(path, config.with_cache(CacheConfig(capacity=3))) as db:
        assert db.cache_stats().capacity == 3
    assert b"lfu" not in path.read_bytes()
