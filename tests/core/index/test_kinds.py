"""What holds on every index kind: the contract that a search may rely on.

The eight tests named `..._misleads_...` are the ways in which searches of the 1.x series went wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core import (
    ConfigConflictError,
    DistanceMetric,
    FlatConfig,
    HnswConfig,
    InvalidMetricError,
    InvalidParameterError,
    Iqdb,
    IqdbConfig,
    IvfConfig,
    _kernels,
)

if TYPE_CHECKING:
    from pathlib import Path

METRICS = ["cosine", "dot", "euclidean", "manhattan", "hamming"]
KINDS: dict[str, Any] = {
    "flat": FlatConfig(),
    "hnsw": HnswConfig(ef_construction=100),
    "ivf": IvfConfig(n_clusters=64, n_probes=16),
    "ivf-pq": IvfConfig(n_clusters=64, n_probes=16, use_pq=True),
}
# Settings at which a search is close to exact, and at which it is not.
WIDE: dict[str, dict[str, int]] = {
    "flat": {},
    "hnsw": {"ef": 100},
    "ivf": {"n_probes": 40},
    "ivf-pq": {"n_probes": 40},
}
NARROW: dict[str, dict[str, int]] = {"hnsw": {"ef": 10}, "ivf": {"n_probes": 1}, "ivf-pq": {"n_probes": 1}}
KINDS_AND_METRICS = [
    (kind, metric)
    for kind in KINDS
    for metric in METRICS
    if kind != "ivf-pq" or metric in ("dot", "euclidean", "manhattan")
]
DIM = 16


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "db.iqdb"


def open_database(kind: str, place: Path | None = None, metric: str = "euclidean", dim: int = DIM) -> Iqdb:
    config = IqdbConfig(dim=dim, metric=DistanceMetric.parse(metric), index=KINDS[kind])
    return Iqdb.open_in_memory_with(config) if place is None else Iqdb.open_with(place, config)


def clustered(n: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((20, dim))
    return (centres[generator.integers(0, 20, n)] + 0.6 * generator.standard_normal((n, dim))).astype(
        np.float32
    )


def recall(db: Iqdb, queries: np.ndarray, k: int = 10, **options: Any) -> float:
    found = db.search_batch(queries, k, **options)
    wanted = db.search_batch(queries, k, exact=True)
    assert all(len(hits) == k for hits in found)
    shares = [len({h.id for h in a} & {h.id for h in b}) / k for a, b in zip(found, wanted, strict=True)]
    return float(np.mean(shares))


@pytest.mark.parametrize(("kind", "metric"), KINDS_AND_METRICS)
def test_hits_come_in_order_with_the_distances_of_exact_search(kind: str, metric: str) -> None:
    vectors = clustered(3000)
    with open_database(kind, metric=metric) as db:
        db.upsert_many(range(3000), vectors)
        db.flush()
        for hits, exact in zip(
            db.search_batch(vectors[:20], 10), db.search_batch(vectors[:20], 3000, exact=True), strict=True
        ):
            true = {hit.id: hit.distance for hit in exact}
            assert [hit.distance for hit in hits] == sorted(true[hit.id] for hit in hits)
            assert all(hit.distance == true[hit.id] for hit in hits)


@pytest.mark.parametrize(("kind", "metric"), KINDS_AND_METRICS)
def test_recall_is_high_at_the_default_settings(kind: str, metric: str) -> None:
    with open_database(kind, metric=metric) as db:
        db.upsert_many(range(4000), clustered(4000))
        db.flush()
        assert recall(db, clustered(100, seed=9)) > 0.9


def test_no_queries_have_no_hits(kind: str) -> None:
    with open_database(kind) as db:
        db.upsert_many(range(3000), clustered(3000))
        db.flush()
        none = np.empty((0, DIM), np.float32)
        assert db.search_batch(none, 10) == []
        assert db.search_batch(none, 10, exact=True) == []
        ids, distances = db.search_arrays(none, 10)
        assert ids.shape == distances.shape == (0, 10)


def test_replacing_every_row_again_and_again_misleads_no_search(kind: str, place: Path | None) -> None:
    vectors = clustered(1500)
    queries = clustered(50, seed=9)
    with open_database(kind, place) as db:
        for times in range(4):
            db.upsert_many(range(1500), vectors + np.float32(0.01) * times)
            if times != 2:
                db.flush()
        assert len(db) == 1500
        assert recall(db, queries, **WIDE[kind]) > 0.97


@pytest.mark.parametrize("left", [100, 10])
def test_deleting_most_rows_misleads_no_search(kind: str, place: Path | None, left: int) -> None:
    vectors = clustered(3000)
    with open_database(kind, place) as db:
        db.upsert_many(range(3000), vectors)
        db.flush()
        db.delete(*[list(range(left, 3000))])
        for _ in range(2):
            assert recall(db, vectors[:20]) == 1.0
            db.flush()


@pytest.mark.parametrize("share", [2, 30, 1000])
def test_a_filter_misleads_no_search(kind: str, place: Path | None, share: int) -> None:
    vectors = clustered(3000)
    with open_database(kind, place) as db:
        db.upsert_many(range(3000), vectors, [{"part": i % share} for i in range(3000)])
        db.flush()
        matching = len(range(0, 3000, share))
        for hits in db.search_batch(vectors[:20], 10, filter="part = 0"):
            assert len(hits) == min(10, matching)
            assert all(int(hit.id) % share == 0 for hit in hits)


@pytest.mark.parametrize("k", [3000, 3001, 2**64 - 1])
def test_a_k_above_the_number_of_rows_misleads_no_search(kind: str, place: Path | None, k: int) -> None:
    with open_database(kind, place) as db:
        db.upsert_many(range(3000), clustered(3000))
        db.flush()
        hits = db.search(clustered(1)[0], k)
        assert sorted(int(hit.id) for hit in hits) == list(range(3000))


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_few_rows_mislead_no_search(kind: str, place: Path | None, rows: int) -> None:
    with open_database(kind, place) as db:
        if rows:
            db.upsert_many(range(rows), clustered(rows))
        db.flush()
        assert len(db.search(clustered(1, seed=3)[0], 10)) == rows


@pytest.mark.parametrize(("kind", "metric"), KINDS_AND_METRICS)
@pytest.mark.parametrize("magnitude", [1e-40, 1e-20, 1e20, 1e38])
def test_extreme_magnitudes_mislead_no_search(kind: str, metric: str, magnitude: float) -> None:
    vectors = (clustered(2500) * np.float32(0.1)).astype(np.float64) * magnitude
    with open_database(kind, metric=metric) as db:
        db.upsert_many(range(2500), vectors.astype(np.float32))
        db.flush()
        hits = db.search(vectors[7].astype(np.float32), 10)
        exact = db.search(vectors[7].astype(np.float32), 10, exact=True)
        assert np.isfinite([hit.distance for hit in hits]).all()
        assert hits[0].distance == exact[0].distance
        if metric == "cosine" and magnitude > 1e-30:
            assert hits[0].id == 7
            assert abs(hits[0].distance) < 1e-12


def test_another_configuration_at_reopening_is_refused(kind: str, tmp_path: Path) -> None:
    open_database(kind, tmp_path / "db.iqdb").close()
    other = next(name for name in KINDS if name != kind)
    with pytest.raises(ConfigConflictError, match="index"):
        open_database(other, tmp_path / "db.iqdb")


def test_a_breadth_is_used_or_refused_but_never_ignored(kind: str) -> None:
    with open_database(kind) as db:
        db.upsert_many(range(6000), clustered(6000))
        db.flush()
        for name in {"ef", "n_probes"} - WIDE[kind].keys():
            with pytest.raises(InvalidParameterError, match=name):
                db.search(clustered(1)[0], 10, **{name: 50})
        if kind in NARROW:
            queries = clustered(100, seed=9)
            assert recall(db, queries, **NARROW[kind]) < recall(db, queries, **WIDE[kind])


@pytest.mark.parametrize("metric", ["cosine", "hamming"])
def test_product_quantisation_is_refused_where_it_misleads(metric: str) -> None:
    with pytest.raises(InvalidMetricError):
        open_database("ivf-pq", metric=metric)


@pytest.mark.parametrize(("kind", "metric"), KINDS_AND_METRICS)
def test_the_file_is_the_same_for_any_number_of_threads_and_any_kernels(
    kind: str, metric: str, tmp_path: Path
) -> None:
    vectors = clustered(1600)
    images: dict[tuple[str, int], list[bytes]] = {}
    before = _kernels.variant()
    try:
        for variant in _kernels.variants():
            _kernels.set_variant(variant)
            for threads in (1, 2):
                path = tmp_path / f"{variant}-{threads}.iqdb"
                config = IqdbConfig(
                    dim=DIM,
                    metric=DistanceMetric.parse(metric),
                    index=KINDS[kind],
                    threads=threads,
                    database_id=bytes(16),
                )
                stages = images[variant, threads] = []
                with Iqdb.open_with(path, config) as db:
                    db.upsert_many(range(1500), vectors[:1500])
                    db.flush()  # builds the index
                    stages.append(path.read_bytes())
                    db.upsert_many(range(1450, 1600), vectors[1450:])
                    db.delete_many(range(0, 100, 3))
                    db.flush()  # extends and repairs it
                    stages.append(path.read_bytes())
                    db.optimize()  # builds it anew
                stages.append(path.read_bytes())
    finally:
        _kernels.set_variant(before)
    first = images[_kernels.variants()[0], 1]
    for where, stages in images.items():
        for stage, (image, wanted) in enumerate(zip(stages, first, strict=True)):
            assert image == wanted, (where, stage)


def test_searches_see_writes_at_once_and_after_a_fold(kind: str, place: Path | None) -> None:
    vectors = clustered(3000)
    with open_database(kind, place) as db:
        db.upsert_many(range(2900), vectors[:2900])
        db.flush()
        db.upsert_many(range(2900, 3000), vectors[2900:])
        db.delete(5)
        for _ in range(2):
            for row in (2950, 17):
                assert db.search(vectors[row], 1)[0].id == row
            assert 5 not in {hit.id for hit in db.search(vectors[5], 10)}
            db.flush()


def test_half_of_the_rows_may_come_and_go_in_many_small_steps(kind: str) -> None:
    vectors = clustered(6000)
    queries = clustered(100, seed=9)
    options = {"ef": 40} if kind == "hnsw" else {}
    with open_database(kind) as db, open_database(kind) as fresh:
        db.upsert_many(range(3000), vectors[:3000])
        db.flush()
        for start in range(0, 1500, 150):
            db.delete(*[list(range(start, start + 150))])
            db.upsert_many(range(3000 + start, 3150 + start), vectors[3000 + start : 3150 + start])
            db.flush()
        fresh.upsert_many(range(1500, 4500), vectors[1500:4500])
        fresh.flush()
        assert recall(db, queries, **options) >= recall(fresh, queries, **options) - 0.01


def test_groups_of_equal_vectors_hide_no_record(kind: str) -> None:
    groups = np.repeat(np.eye(16, dtype=np.float32), 250, axis=0)
    with open_database(kind) as db:
        db.upsert_many(range(len(groups)), groups)
        db.flush()
        for number in range(16):
            options = {"ef": 30} if kind == "hnsw" else {}
            hits = db.search(groups[250 * number], 10, **options)
            assert [hit.id for hit in hits] == list(range(250 * number, 250 * number + 10))
