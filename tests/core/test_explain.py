from __future__ import annotations

import json
from array import array
from typing import Any

import numpy as np
import pytest

from iqdb_core import FlatConfig, HnswConfig, InvalidParameterError, Iqdb, IqdbConfig, SearchExplanation

N, DIM = 4000, 16


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((N, DIM)).astype(np.float32)


def filled(vectors: np.ndarray, index: Any) -> Iqdb:
    config = IqdbConfig(dim=DIM, metric="euclidean", index=index, threads=2)
    db = Iqdb.open_in_memory_with(config)
    db.upsert_many(range(len(vectors)), vectors, [{"n": row % 10} for row in range(len(vectors))])
    db.flush()
    return db


@pytest.fixture
def graph(vectors: np.ndarray) -> Iqdb:
    return filled(vectors, HnswConfig(m=8, ef_construction=60))


def test_a_flat_search_compares_everything(vectors: np.ndarray) -> None:
    with filled(vectors[:500], FlatConfig()) as db:
        told = db.explain(vectors[0], 10)
    assert (told.index, told.plan, told.exact) == ("flat", "scan", True)
    assert (told.n_queries, told.k, told.threads) == (1, 10, 2)
    assert (told.n_records, told.matched, told.candidates, told.scored) == (500, 500, 500, 500)
    assert (told.tombstones, told.delta_rows, told.breadth, told.visited, told.rescanned) == (0, 0, 0, 0, 0)
    parts = [told.filter_seconds, told.index_seconds, told.delta_seconds]
    parts += [told.merge_seconds, told.metadata_seconds]
    assert min(parts) >= 0
    assert told.seconds == pytest.approx(sum(parts))


def test_a_walk_visits_a_part(graph: Iqdb, vectors: np.ndarray) -> None:
    told = graph.explain(vectors[0], 10, ef=32)
    assert (told.plan, told.exact, told.breadth) == ("graph", False, 32)
    assert 32 <= told.visited < N
    assert 10 <= told.scored < told.visited
    wide = graph.explain(vectors[0], 10, ef=100)
    assert wide.visited > told.visited


def test_exact_search_and_rare_matches_are_scans(graph: Iqdb, vectors: np.ndarray) -> None:
    assert graph.explain(vectors[0], 10, exact=True).plan == "scan"
    told = graph.explain(vectors[0], 10, filter="n = 3")
    assert (told.plan, told.exact) == ("scan", True)
    assert told.matched == told.candidates == told.scored == N // 10


def test_filter_widen_is_how_far_a_filter_widens_a_walk_before_it_keeps_to_matches() -> None:
    vectors = np.random.default_rng(3).standard_normal((12_000, DIM)).astype(np.float32)
    told = {}
    for widen in (1, 4, 8):
        with filled(vectors, HnswConfig(m=8, ef_construction=40, filter_widen=widen)) as db:
            told[widen] = db.explain(vectors[0], 5, ef=8, filter="n < 2")  # one row in five
            unfiltered = db.explain(vectors[0], 5, ef=8)
            hits = db.search(vectors[0], 5, ef=8, filter="n < 2")
        assert len(hits) == 5
        assert all(int(hit.id) % 10 < 2 for hit in hits)  # type: ignore[arg-type]
        assert (unfiltered.plan, unfiltered.breadth) == ("graph", 8)
    assert [(told[widen].plan, told[widen].breadth) for widen in told] == [
        ("matches", 8),
        ("matches", 8),
        ("graph", 40),
    ]
    assert told[4].visited == told[1].visited
    assert told[8].visited > 1.2 * told[4].visited


def test_what_was_written_since_is_counted(graph: Iqdb, vectors: np.ndarray) -> None:
    graph.delete([1, 2, 3])
    graph.upsert_many([4, 5000, 5001], vectors[:3], [{"n": 0}, {"n": 0}, {"n": 1}])
    told = graph.explain(vectors[0], 10)
    assert (told.n_records, told.matched) == (N - 1, N - 1)
    assert (told.candidates, told.tombstones, told.delta_rows) == (N - 4, 4, 3)
    told = graph.explain(vectors[0], 10, filter="n = 0")
    assert (told.candidates, told.delta_rows, told.matched) == (N // 10, 2, N // 10 + 2)


def test_a_database_whose_records_are_all_in_the_log(vectors: np.ndarray) -> None:
    db = Iqdb.open_in_memory_with(IqdbConfig(dim=DIM, index=HnswConfig()))
    assert db.explain(vectors[0], 3).plan == "none"
    db.upsert(1, vectors[0])
    told = db.explain(vectors[0], 3)
    assert (told.plan, told.exact, told.matched, told.delta_rows) == ("none", True, 1, 1)


@pytest.mark.parametrize("options", [{}, {"filter": "n < 5"}, {"exact": True}, {"max_distance": 4.0}])
def test_an_explained_search_has_the_hits_of_any_other(
    graph: Iqdb, vectors: np.ndarray, options: dict[str, Any]
) -> None:
    graph.delete([1, 2, 3])
    graph.upsert_many([4, 5000], vectors[:2])
    queries = array("f", vectors[:7].tobytes())
    hits, told = graph.explain_buffers(queries, 7, 5, **options)
    assert hits == graph.search_buffers(queries, 7, 5, **options)
    assert told.n_queries == 7
    hits, told = graph.explain_buffers(queries, 7, 5, metadata=False, **options)
    assert hits == graph.search_buffers(queries, 7, 5, **options)
    assert graph.explain_buffers(array("f"), 0, 5)[0] == []


def test_a_walk_that_comes_short_is_followed_by_a_scan(vectors: np.ndarray) -> None:
    # Two far groups: the walk from a query in the one hardly meets the candidates, all in the other.
    count = 3000
    both = np.concatenate([vectors[:count], vectors[:1000] + 500])
    db = Iqdb.open_in_memory_with(IqdbConfig(dim=DIM, metric="euclidean", index=HnswConfig(m=2)))
    db.upsert_many(range(len(both)), both, [{"far": row >= count} for row in range(len(both))])
    db.flush()
    told = db.explain(both[0], 20, filter="far = true", ef=1)
    assert len(db.search(both[0], 20, filter="far = true", ef=1)) == 20
    assert told.rescanned in {0, 1}
    assert told.exact == (told.rescanned == 1 or told.plan == "scan")


def test_the_explanation_goes_through_json(graph: Iqdb, vectors: np.ndarray) -> None:
    told = graph.explain(vectors[0], 10)
    assert SearchExplanation.from_dict(json.loads(json.dumps(told.to_dict()))) == told


def test_arguments_are_those_of_a_search(graph: Iqdb, vectors: np.ndarray) -> None:
    with pytest.raises(InvalidParameterError, match="n_probes"):
        graph.explain(vectors[0], 10, n_probes=3)
    with pytest.raises(InvalidParameterError, match="k is"):
        graph.explain(vectors[0], 0)
