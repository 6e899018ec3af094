from __future__ import annotations

import math
import pickle
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    DimensionMismatchError,
    Filter,
    Hit,
    InvalidFilterError,
    InvalidParameterError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
)

METRICS = ["cosine", "dot", "euclidean", "manhattan", "hamming"]


def numpy_distances(metric: str, rows: Any, query: Any) -> Any:
    """Return the distances that the design defines, in float64."""
    a, b = np.asarray(rows, np.float64), np.asarray(query, np.float64)
    if metric == "cosine":
        norms = np.sqrt((a * a).sum(1) * (b * b).sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(norms == 0, 1.0, 1 - a @ b / norms)
    if metric == "dot":
        return -(a @ b)
    if metric == "euclidean":
        return np.sqrt(((a - b) ** 2).sum(1))
    if metric == "manhattan":
        return np.abs(a - b).sum(1)
    bits = np.asarray(rows, np.float32).view(np.uint32) != np.asarray(query, np.float32).view(np.uint32)
    return bits.sum(1).astype(np.float64)


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_agrees_with_numpy_and_orders_ties_by_insertion(metric: str, some_records: Any) -> None:
    ids, vectors, metadata = some_records(300)
    vectors[17] = 0
    with Iqdb.open_in_memory_with(IqdbConfig(dim=6, metric=metric, auto_compact=None)) as db:
        db.upsert_many(ids[:150], vectors[:150], metadata[:150])
        db.compact()
        db.upsert_many(ids[150:], vectors[150:], metadata[150:])
        replaced = np.array([3, 100, 160])
        vectors[replaced] = vectors[[4, 101, 161]]
        db.upsert_many([ids[i] for i in replaced], vectors[replaced])
        gone = [5, 155]
        db.delete([ids[i] for i in gone])
        kept = np.setdiff1d(np.arange(300), gone)
        for query in vectors[::37]:
            expected = numpy_distances(metric, vectors[kept], query)
            order = kept[np.argsort(np.round(expected, 9), kind="stable")][:20]
            hits = db.search(query, 20)
            np.testing.assert_allclose(
                [hit.distance for hit in hits], np.sort(expected)[:20], rtol=1e-12, atol=1e-12
            )
            assert [hit.id for hit in hits] == [ids[i] for i in order]


def test_single_batch_buffer_and_array_searches_give_the_same_hits(filled: Iqdb, some_records: Any) -> None:
    _, vectors, _ = some_records(40, seed=1)
    filled.delete([0, "id 1", 201])
    filled.upsert(3, vectors[0])
    for settings in ({}, {"filter": "n > 100 and even = true"}, {"max_distance": 4.5}, {"exact": True}):
        single = [filled.search(query, 7, **settings) for query in vectors]
        assert filled.search_batch(vectors, 7, **settings) == single
        assert filled.search_buffers(array("f", vectors.ravel()), 40, 7, **settings) == single
        ids, distances = filled.search_arrays(vectors, 7, **settings)
        assert ids.shape == distances.shape == (40, 7)
        for row, hits in enumerate(single):
            count = len(hits)
            assert ids[row, :count].tolist() == [hit.id for hit in hits]
            assert distances[row, :count].tolist() == [hit.distance for hit in hits]
            assert np.isinf(distances[row, count:]).all()
            assert all(missing is None for missing in ids[row, count:])


def test_search_arrays_gives_integers_where_all_ids_are() -> None:
    with Iqdb.open_in_memory(1, "euclidean") as db:
        db.upsert_many([2**64 - 1, 5], [[0], [1]])
        db.compact()
        ids, distances = db.search_arrays([[0]], 5)
        assert (ids.dtype, ids.tolist(), distances.tolist()) == (np.uint64, [[2**64 - 1, 5]], [[0, 1]])
        db.upsert(7, [2])
        ids, _ = db.search_arrays([[0]], 3)
        assert (ids.dtype, ids.tolist()) == (np.uint64, [[2**64 - 1, 5, 7]])
        ids, distances = db.search_arrays([[0]], 3, max_distance=1.5)
        assert (ids.tolist(), distances.tolist()) == ([[2**64 - 1, 5, 0]], [[0, 1, math.inf]])
        db.upsert("text", [3])
        ids, _ = db.search_arrays([[0]], 4)
        assert ids.tolist() == [[2**64 - 1, 5, 7, "text"]]
        assert db.search_arrays(np.empty((0, 1)), 3)[0].shape == (0, 3)


@pytest.mark.parametrize("k", [299, 300, 301, 2**63, 2**64 - 1, 2**70])
def test_misleading_4_k_beyond_the_number_of_records_gives_them_all(filled: Iqdb, k: int) -> None:
    assert len(filled.search([0] * 6, k)) == min(k, 300)
    assert len(filled.search([0] * 6, k, filter="even = true")) == len(
        [i for i in range(300) if i % 2 == 0 and i % 5]
    )
    assert filled.search_arrays([[0] * 6], k)[0].shape == (1, min(k, 300))


@pytest.mark.parametrize("k", [0, -1, 1.0, "1", None, True])
def test_a_k_that_is_no_positive_integer_is_refused(filled: Iqdb, k: Any) -> None:
    for search in (filled.search, lambda q, k: filled.search_batch([q], k)):
        with pytest.raises(InvalidParameterError, match="k is"):
            search([0] * 6, k)


def test_numpy_integers_are_accepted_as_k(filled: Iqdb) -> None:
    assert len(filled.search([0] * 6, np.int32(3))) == 3


@pytest.mark.parametrize(("name", "value"), [("ef", 64), ("n_probes", 8)])
def test_misleading_8_a_parameter_that_the_index_kind_does_not_have_is_refused(
    filled: Iqdb, name: str, value: int
) -> None:
    with pytest.raises(InvalidParameterError, match="flat has no such parameter"):
        filled.search([0] * 6, 3, **{name: value})


def test_misleading_6_huge_vectors_have_finite_distances_in_the_right_order() -> None:
    rows = np.array([[1e20, 0], [0, 1e20], [1e20, 1e20], [3e38, -3e38]], np.float32)
    for metric in ("cosine", "euclidean", "dot", "manhattan"):
        with Iqdb.open_in_memory(2, metric) as db:
            db.upsert_many(range(4), rows)
            hits = db.search(rows[2], 4)
            assert [hit.id for hit in hits] == np.argsort(
                numpy_distances(metric, rows, rows[2]), kind="stable"
            ).tolist()
            assert all(math.isfinite(hit.distance) for hit in hits)
    with Iqdb.open_in_memory(2, "cosine") as db:
        db.upsert_many(range(4), rows)
        assert db.search(rows[0], 1)[0].distance == 0.0


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ([0] * 5, DimensionMismatchError),
        ([], DimensionMismatchError),
        (np.zeros((1, 6)), InvalidVectorError),
        ([0, 0, 0, 0, 0, math.nan], InvalidVectorError),
        ([0, 0, 0, 0, 0, 1e39], InvalidVectorError),
        (np.full(6, np.inf, np.float32), InvalidVectorError),
        ("abcdef", InvalidVectorError),
        (b"abcdef", InvalidVectorError),
        (None, InvalidVectorError),
        ([None] * 6, InvalidVectorError),
    ],
    ids=range(10),
)
def test_a_query_that_is_no_vector_is_refused(filled: Iqdb, query: Any, error: type[Exception]) -> None:
    with pytest.raises((error, InvalidVectorError), match=r"query|empty"):
        filled.search(query, 3)


def test_a_batch_of_queries_names_the_bad_one(filled: Iqdb) -> None:
    queries = np.zeros((3, 6), np.float32)
    queries[2, 4] = np.nan
    with pytest.raises(InvalidVectorError, match=r"query 2: holds nan \(component 4\)"):
        filled.search_batch(queries, 3)
    with pytest.raises(InvalidVectorError, match=r"query 2: holds nan \(component 4\)"):
        filled.search_buffers(queries, 3, 3)
    with pytest.raises(DimensionMismatchError):
        filled.search_buffers(queries[:2], 3, 3)
    assert filled.search_batch([], 3) == []
    assert filled.search_buffers(array("f"), 0, 3) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda v: v,
        lambda v: v.astype(np.float64),
        lambda v: v.astype(">f4"),
        lambda v: np.repeat(v, 2)[::2],
        lambda v: v.tolist(),
        lambda v: tuple(v.tolist()),
        lambda v: array("f", v),
        lambda v: array("d", v),
        memoryview,
        lambda v: v.astype(np.int64),
    ],
    ids=range(10),
)
def test_queries_are_accepted_in_every_numeric_form(filled: Iqdb, make: Any) -> None:
    query = np.arange(6, dtype=np.float32)
    assert filled.search(make(query), 5) == filled.search(query.copy(), 5)


@pytest.mark.parametrize(
    "expression", ["n > 50", "even = true and name = 'n3'", "none is null", "not n > 50", "n = -1"]
)
def test_misleading_3_a_filtered_search_gives_the_smaller_of_k_and_the_matches(
    filled: Iqdb, expression: str
) -> None:
    condition = Filter.parse(expression)
    everything = filled.search([0] * 6, 10**6)
    matching = [hit for hit in everything if condition.matches(hit.metadata)]
    for k in (1, 10, 1000):
        assert filled.search([0] * 6, k, filter=expression) == matching[:k]
        assert filled.search_with([0] * 6, k, condition) == matching[:k]
        assert filled.search_batch_with([[0] * 6], k, condition) == [matching[:k]]


def test_filters_see_writes_and_deletes_at_once(filled: Iqdb) -> None:
    assert filled.search([0] * 6, 5, filter="tag = 'x'") == []
    filled.upsert_many(range(1000, 1600), np.zeros((600, 6)), [{"tag": "x"}] * 600)
    filled.upsert(0, [0] * 6, {"tag": "x"})
    assert len(filled.search([0] * 6, 1000, filter="tag = 'x'")) == 601
    filled.delete([0, *range(1000, 1599)])
    assert [hit.id for hit in filled.search([0] * 6, 1000, filter="tag = 'x'")] == [1599]
    filled.upsert(1599, [0] * 6, {"tag": "y"})
    assert filled.search([0] * 6, 5, filter="tag = 'x'") == []


@pytest.mark.parametrize("wrong", ["n >", {"n": 1}, 7, ["n"]])
def test_what_is_no_filter_is_refused(filled: Iqdb, wrong: Any) -> None:
    with pytest.raises(InvalidFilterError):
        filled.search([0] * 6, 5, filter=wrong)


def test_max_distance_keeps_the_hits_at_it_and_nearer(filled: Iqdb) -> None:
    everything = filled.search([0] * 6, 300)
    limit = everything[40].distance
    assert filled.search([0] * 6, 300, max_distance=limit) == [h for h in everything if h.distance <= limit]
    assert filled.search([0] * 6, 300, max_distance=-1) == []
    assert filled.search([0] * 6, 3, max_distance=math.inf) == everything[:3]
    for wrong in (math.nan, "1", None.__class__):
        with pytest.raises(InvalidParameterError, match="max_distance"):
            filled.search([0] * 6, 3, max_distance=wrong)


def test_an_empty_database_gives_no_hits() -> None:
    with Iqdb.open_in_memory(2) as db:
        assert db.search([1, 2], 5) == []
        assert db.search([1, 2], 5, filter="a = 1") == []
        assert db.search_batch([[1, 2]] * 3, 5) == [[], [], []]
        assert db.search_arrays([[1, 2]] * 3, 5)[0].shape == (3, 0)
        db.upsert(1, [1, 2])
        db.compact()
        db.delete(1)
        assert db.search([1, 2], 5) == []
        db.compact()
        assert db.search([1, 2], 5) == []


def test_a_hit_is_plain_data_that_goes_through_dicts_and_pickle(filled: Iqdb) -> None:
    for hit in filled.search([0] * 6, 20):
        assert Hit.from_dict(hit.to_dict()) == hit
        assert pickle.loads(pickle.dumps(hit)) == hit
        assert hash(Hit(hit.id, hit.distance, hit.metadata)) == hash(hit)
        assert repr(hit.id) in repr(hit)
        assert hit != Hit(hit.id, hit.distance + 1, hit.metadata)
        assert hit != "hit"
    assert Hit(1, 0.5) != Hit("1", 0.5)


def test_hits_can_be_asked_for_metadata_after_the_database_was_changed_and_closed(tmp_path: Path) -> None:
    with Iqdb.open(tmp_path / "a.iqdb", 1, "euclidean") as db:
        db.upsert_many([1, 2], [[1], [2]], [{"a": 1}, {"a": 2}])
        db.compact()
        db.upsert(3, [3], {"a": 3})
        hits = db.search([0], 3)
        db.delete([1, 3])
        db.compact()
    assert [hit.metadata for hit in hits] == [{"a": 1}, {"a": 2}, {"a": 3}]
