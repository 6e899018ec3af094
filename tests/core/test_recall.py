from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import FlatConfig, HnswConfig, InvalidParameterError, Iqdb, IqdbConfig
from iqdb_core.recall import RecallReport, sample_queries

N, DIM = 4000, 16


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((N, DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((60, DIM)).astype(np.float32)


def filled(vectors: np.ndarray, index: Any, **options: Any) -> Iqdb:
    db = Iqdb.open_in_memory_with(IqdbConfig(dim=DIM, index=index, **options))
    db.upsert_many(range(len(vectors)), vectors, [{"n": row % 10} for row in range(len(vectors))])
    db.flush()
    return db


@pytest.fixture(scope="module")
def db(vectors: np.ndarray) -> Iqdb:
    return filled(vectors, HnswConfig(m=4, ef_construction=40, ef_search=20), metric="euclidean")


def test_recall_is_the_share_of_the_exact_hits(db: Iqdb, queries: np.ndarray) -> None:
    report = db.recall(queries, 5, sweep=[5, 50])
    assert (report.index, report.parameter, report.default, report.sampled) == ("hnsw", "ef", 20, False)
    assert (report.k, report.n_queries, report.filter) == (5, 60, None)
    exact = db.search_batch(queries, 5, exact=True)
    for point in report.points:
        found = db.search_batch(queries, 5, ef=point.value)
        shares = [
            len({hit.id for hit in a} & {hit.id for hit in b}) / 5 for a, b in zip(found, exact, strict=True)
        ]
        assert point.recall_mean == pytest.approx(np.mean(shares))
        assert point.recall_p5 == pytest.approx(np.percentile(shares, 5))
        assert point.recall_worst == min(shares)
        assert point.plan == "graph"
        assert point.queries_per_second > 0
    assert report.exact_queries_per_second > 0


def test_the_common_sweep_has_the_default_and_rises(db: Iqdb, queries: np.ndarray) -> None:
    points = db.recall(queries).points
    assert [point.value for point in points] == [16, 20, 32, 64, 128, 256, 512]
    assert points[-1].recall_mean > points[0].recall_mean


def test_a_wide_search_of_few_records_is_a_scan_and_finds_all(db: Iqdb, queries: np.ndarray) -> None:
    (point,) = db.recall(queries, sweep=[2000]).points
    assert (point.plan, point.recall_mean, point.recall_worst) == ("scan", 1.0, 1.0)


def test_sampled_records_do_not_find_themselves(db: Iqdb) -> None:
    report = db.recall(sample=50, k=1, sweep=[8])
    assert (report.sampled, report.n_queries) == (True, 50)
    # With itself every record would have found the one nearest record.
    assert report.points[0].recall_mean < 1.0


def test_the_sample_is_the_same_each_time_and_spans_snapshot_and_log(vectors: np.ndarray) -> None:
    with filled(vectors[:500], HnswConfig()) as handle:
        handle.delete(range(0, 500, 2))
        handle.upsert_many(range(1000, 1250), vectors[1000:1250])
        view = handle._store.view()
        sample, again = sample_queries(view, 100), sample_queries(view, 100)
        assert sample.own_ids == again.own_ids
        assert sample.own_ids is not None
        assert len(set(sample.own_ids)) == 100
        assert all(type(record) is int and (record % 2 or record >= 1000) for record in sample.own_ids)
        assert {record >= 1000 for record in sample.own_ids if type(record) is int} == {True, False}
        for record, vector in zip(sample.own_ids, sample.vectors, strict=True):
            stored = handle.get(record)
            assert stored is not None
            assert np.array_equal(stored[0], vector)
        assert len(sample_queries(view, 10_000)) == 500


def test_records_at_equal_distances_stand_for_one_another(vectors: np.ndarray) -> None:
    with filled(np.repeat(vectors[:500], 8, axis=0), HnswConfig(), metric="euclidean") as handle:
        (point,) = handle.recall(sample=50, k=3, sweep=[60]).points
        assert (point.plan, point.recall_mean) == ("graph", 1.0)


def test_a_filter_is_used_on_both_sides(db: Iqdb, queries: np.ndarray) -> None:
    report = db.recall(queries, filter="n < 5", sweep=[20, 100])
    assert report.filter == "n < 5"
    assert report.points[-1].recall_mean > 0.9
    nothing = db.recall(queries, filter="n > 100", sweep=[20])
    assert nothing.points[0].recall_mean == 1.0


@pytest.mark.parametrize("sweep", [None, [4], [400], [4, 400]])
def test_the_smallest_value_that_reaches_the_target_is_found(
    db: Iqdb, queries: np.ndarray, sweep: list[int] | None
) -> None:
    report = db.recall(queries, sweep=sweep, target=0.9)
    assert report.target == 0.9
    assert report.reached is not None
    means = {point.value: point.recall_mean for point in report.points}
    assert means[report.reached] >= 0.9
    assert means[report.reached - 1] < 0.9
    assert list(means) == sorted(means)


def test_a_target_of_everything_is_reached_by_a_scan_at_the_latest(db: Iqdb, queries: np.ndarray) -> None:
    assert db.recall(queries, sweep=[10], target=1.0).reached is not None


def test_an_exact_index_has_nothing_to_sweep(vectors: np.ndarray, queries: np.ndarray) -> None:
    with filled(vectors[:300], FlatConfig()) as handle:
        report = handle.recall(queries, target=0.5)
    assert (report.index, report.parameter, report.points, report.reached) == ("flat", None, [], None)
    assert report.exact_queries_per_second > 0


def test_progress_hears_of_every_point(db: Iqdb, queries: np.ndarray) -> None:
    heard: list[Any] = []
    report = db.recall(queries, sweep=[10, 20], target=0.8, progress=heard.append)
    assert sorted(heard, key=lambda point: point.value) == report.points


def test_the_report_goes_through_json(db: Iqdb, queries: np.ndarray) -> None:
    report = db.recall(queries, filter="n = 1", sweep=[10], target=0.8)
    assert RecallReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    with pytest.raises(InvalidParameterError):
        RecallReport.from_dict({**report.to_dict(), "points": [{}]})


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"sample": 0}, {"sweep": []}, {"sweep": [0]}, {"target": 0.0}, {"target": 1.5}],
)
def test_what_is_out_of_range_is_refused(db: Iqdb, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError):
        db.recall(**options)


def test_without_a_record_or_a_query_there_is_nothing_to_measure(db: Iqdb) -> None:
    with pytest.raises(InvalidParameterError, match="at least one query"):
        db.recall(np.empty((0, DIM), np.float32))
    empty = Iqdb.open_in_memory_with(IqdbConfig(dim=DIM, index=HnswConfig()))
    with empty, pytest.raises(InvalidParameterError, match="at least one query"):
        empty.recall()


def test_a_read_only_handle_measures_too(vectors: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "db.iqdb"
    with Iqdb.open_with(path, IqdbConfig(dim=DIM, index=HnswConfig())) as handle:
        handle.upsert_many(range(2000), vectors[:2000])
    with Iqdb.open_existing(path, read_only=True) as handle:
        assert handle.recall(sample=20, sweep=[64]).points[0].recall_mean > 0.9
