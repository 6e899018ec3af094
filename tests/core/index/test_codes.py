"""Exact search by codes, as the index kinds use it: the same hits, whatever becomes of the codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core import DistanceMetric, FlatConfig, HnswConfig, Iqdb, IqdbConfig, IvfConfig
from iqdb_core.errors import ChecksumError
from iqdb_core.index import codes, flat, memory_codes
from iqdb_core.index.codes import CodedScan
from iqdb_core.index.hnsw import HnswIndex
from iqdb_core.index.topk import TopK
from iqdb_core.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N, DIM = 3_000, 20


def clustered() -> np.ndarray:
    generator = np.random.default_rng(5)
    centres = generator.standard_normal((30, DIM))
    noise = 0.3 * generator.standard_normal((N, DIM))
    return (centres[generator.integers(0, 30, N)] + noise).astype(np.float32)


def hits(db: Iqdb, queries: np.ndarray, **options: Any) -> list[list[tuple[Any, float]]]:
    return [[(hit.id, hit.distance) for hit in found] for found in db.search_batch(queries, 12, **options)]


def written(path: Path, metric: str, index: Any) -> Iqdb:
    db = Iqdb.open_with(path, IqdbConfig(dim=DIM, metric=DistanceMetric.parse(metric), index=index))
    db.upsert_many(range(N), clustered(), [{"part": i % 3} for i in range(N)])
    db.flush()
    return db


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each search that went by codes."""
    calls: list[int] = []
    original: Callable[..., tuple[int, int]] = codes.search_codes

    def search_codes(*arguments: Any) -> tuple[int, int]:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(codes, "search_codes", search_codes)
    monkeypatch.setattr(memory_codes, "search_codes", search_codes)
    return calls


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "manhattan", "hamming"])
def test_exact_search_of_a_graph_finds_what_a_flat_index_finds(
    metric: str, tmp_path: Path, counted: list[int]
) -> None:
    queries = clustered()[:25] + np.float32(0.01)
    flat = written(tmp_path / "flat.iqdb", metric, FlatConfig())
    graph = written(tmp_path / "graph.iqdb", metric, HnswConfig(m=4, ef_construction=20))
    with flat, graph:
        for options in ({}, {"filter": "part = 1"}, {"max_distance": 0.5}):
            assert hits(graph, queries, exact=True, **options) == hits(flat, queries, **options)
    assert bool(counted) == (metric in {"cosine", "dot", "euclidean"})


BUSY: dict[str, Any] = {
    "flat": FlatConfig(),
    "ivf": IvfConfig(n_clusters=8),
    "ivf-pq": IvfConfig(n_clusters=8, use_pq=True),
}


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        (kind, metric)
        for kind in BUSY
        for metric in ("cosine", "dot", "euclidean", "manhattan")
        if (kind, metric) != ("ivf-pq", "cosine")  # there is no such index
    ],
)
def test_an_index_that_is_scanned_often_makes_codes_and_finds_the_same(
    kind: str, metric: str, tmp_path: Path, counted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat, "_PAYS_FROM", 25)
    monkeypatch.setattr(memory_codes, "_LEAST_ROWS", 10)
    queries = clustered()[:25] + np.float32(0.01)
    with written(tmp_path / "busy.iqdb", metric, BUSY[kind]) as db:
        first = hits(db, queries, exact=True)
        assert not counted
        assert hits(db, queries, exact=True) == first  # the first scans cost enough, so these make codes
        assert bool(counted) == (metric != "manhattan")
        filtered = hits(db, queries, exact=True, filter="part = 1")
        one = hits(db, queries[:1], exact=True, filter="part = 1")
        assert [found[:1] for found in one] == [filtered[0][:1]]
        assert all(row % 3 == 1 for found in filtered for row, _ in found)


def two_valued(n: int) -> np.ndarray:
    """Rows of -1 and 1, but for a component that is 0 everywhere and one that is one of two zeros."""
    generator = np.random.default_rng(7)
    rows = np.where(generator.random((n, DIM)) < 0.5, -1, 1).astype(np.float32)
    rows[:, 3] = 0
    rows[:, 4] = np.copysign(np.float32(0), rows[:, 4])
    return rows


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_two_valued_vectors_that_are_scanned_often_are_compared_by_bits(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_bits: list[bool] = []
    original = memory_codes.search_bits

    def search_bits(*arguments: Any) -> tuple[int, int]:
        by_bits.append(True)
        return original(*arguments)

    monkeypatch.setattr(memory_codes, "search_bits", search_bits)
    monkeypatch.setattr(memory_codes, "_LEAST_ROWS", 10)
    queries = two_valued(40)[20:]
    queries[1, 3] = 5  # what no row has there
    queries[2:5, 0] = 3
    queries[5] = clustered()[0]
    parts = [{"part": i % 3} for i in range(N)]
    with Iqdb.open_in_memory_with(IqdbConfig(dim=DIM, metric=DistanceMetric.HAMMING, index=BUSY[kind])) as db:
        db.upsert_many(range(N), two_valued(N), parts)
        db.flush()
        options: list[dict[str, Any]] = [{}, {"filter": "part = 1"}, {"max_distance": 4}]
        plain = [hits(db, queries, exact=True, **given) for given in options]
        assert not by_bits
        hits(db, queries, exact=True)
        plain_ones = [hits(db, queries[i : i + 1], exact=True) for i in range(3)]
        assert by_bits
        by_bits.clear()
        for i in range(3):
            assert plain_ones[i] == [plain[0][i]]
        assert [hits(db, queries, exact=True, **given) for given in options] == plain
        assert len(by_bits) == len(options)

        # Rows that were not folded in are compared beside them, and may have a third value.
        changed = two_valued(N)
        changed[17], changed[2500] = queries[2], queries[5]
        db.upsert_many([17, 2500], changed[[17, 2500]], [parts[17], parts[2500]])
        before = [hits(db, queries, exact=True, **given) for given in options]
        assert before[0][2][0] == (17, 0.0)
        assert before[0][5][0] == (2500, 0.0)
        db.flush()
        by_bits.clear()
        for _ in range(3):  # a third value is there, so that there are no bits any more
            assert [hits(db, queries, exact=True, **given) for given in options] == before
        assert not by_bits


class Array:
    """A stored array, whole or damaged."""

    def __init__(self, array: np.ndarray, *, damaged: bool) -> None:
        self.buffer = memoryview(array)
        blocks = -(-array.nbytes // 4096)
        self.blocks = (np.zeros(blocks, np.uint32), np.full(blocks, not damaged, np.uint8), 0)

    def verified(self) -> memoryview:
        if not self.blocks[1].all():
            raise ChecksumError("x.iqdb", "index", 0)
        return self.buffer

    def damaged(self, block: int) -> Exception:
        raise AssertionError(block)


@pytest.mark.parametrize("bad", ["hnsw.model", "hnsw.codes", "hnsw.bounds", None])
@pytest.mark.parametrize("how", ["damaged", "missing", "misshapen"])
def test_codes_that_cannot_be_used_never_stand_in_the_way(bad: str | None, how: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.iqdb"
    written(path, "euclidean", HnswConfig(m=4, ef_construction=20)).close()
    snapshot = Snapshot.open(path)
    queries = clustered()[:3]

    def reader(name: str) -> Any:
        if name == bad and how == "missing":
            return None
        array = np.array(snapshot.array(name))
        if name == bad and how == "misshapen":
            array = array[:-1].copy()
        return Array(array, damaged=name == bad and how == "damaged")

    found, wanted = TopK(3, 5), TopK(3, 5)
    index = HnswIndex.open({"ef_search": 10, "filter_widen": 4}, DistanceMetric.EUCLIDEAN.tag, N, reader)
    plain = HnswIndex.open(
        {"ef_search": 10, "filter_widen": 4}, DistanceMetric.EUCLIDEAN.tag, N, lambda _: None
    )
    for one, out in ((index, found), (plain, wanted)):
        assert (
            one.search(
                snapshot.vectors(),
                queries,
                out,
                mask=None,
                max_distance=np.inf,
                exact=True,
                parameters={},
                threads=1,
            )
            == -1
        )
    assert (found.rows, found.distances) == (wanted.rows, wanted.distances)
    assert (found.plan.scored > 0) == (bad is None)
    snapshot.close()


def test_a_small_scan_does_not_open_codes() -> None:
    def reader(name: str) -> Any:
        raise AssertionError(name)

    assert not CodedScan(DistanceMetric.COSINE.tag, N, reader, "hnsw").pays(10, 1)
