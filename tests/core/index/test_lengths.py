"""Graphs under the inner product, over vectors of different lengths (`kernels/graph_products.hpp`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core import HnswConfig, Iqdb, IqdbConfig, _kernels, verify

if TYPE_CHECKING:
    from pathlib import Path

N, DIM, M = 6000, 32, 8
DOT = 1
NO_NODE = 0xFFFFFFFF


def vectors(n: int, spread: float, seed: int = 0) -> np.ndarray:
    """Return vectors in twelve directions of the space, their lengths log-normal."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 12)) @ np.random.default_rng(5).standard_normal((12, DIM))
    rows += 0.1 * rng.standard_normal((n, DIM))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows * np.exp(spread * rng.standard_normal((n, 1))), np.float32)


class Graph:
    """The arrays of a graph; `by_lengths` says whether it may know lengths."""

    def __init__(self, rows: np.ndarray, *, by_lengths: bool, threads: int = 1) -> None:
        n, dim = rows.shape
        self.rows = rows
        self.model = np.array(_kernels.train_codes(rows, DOT), np.float64)
        self.codes = np.empty((n, dim), np.uint8)
        self.lengths = np.empty(n, np.int32)
        self.norms = np.empty(n, np.float32)
        _kernels.encode_codes(self.model, rows, self.codes, self.lengths, self.norms)
        self.links = np.empty((n, 2 * M), np.uint32)
        more: dict[str, Any] = {"model": self.model, "norms": self.norms} if by_lengths else {}
        fresh = np.arange(n, dtype=np.uint32)
        self.entries = np.array(
            _kernels.extend_graph(
                DOT, self.codes, self.lengths, self.links, fresh[:0], fresh, M, 60, 7, threads, **more
            ),
            np.uint32,
        )

    def recall(self, queries: np.ndarray, ef: int) -> float:
        """Return the share of the nearest ten that a walk finds."""
        stored = _kernels.StoredGraph(
            DOT, DIM, self.model, self.codes, self.lengths, self.links, self.entries, self.norms
        )
        found = np.empty((len(queries), 10), np.int64)
        distances = np.empty(found.shape)
        counts, visited = np.empty(len(queries), np.int64), np.empty((len(queries), 2), np.int64)
        stored.search(self.rows, queries, 10, ef, 20, found, distances, counts, visited)
        true = np.argsort(-(queries @ self.rows.T), axis=1)[:, :10]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("spread", [0.3, 0.7])
def test_walks_find_the_greatest_products_where_lengths_differ(spread: float) -> None:
    rows, queries = vectors(N, spread), vectors(200, spread, seed=1)

    by_directions = Graph(rows, by_lengths=False).recall(queries, 64)
    by_lengths = Graph(rows, by_lengths=True).recall(queries, 64)

    assert by_directions < 0.8  # what there is to cure
    assert by_lengths > 0.94


def test_a_graph_by_lengths_is_the_same_for_any_number_of_threads_and_has_no_faults() -> None:
    rows = vectors(3000, 0.5)
    graphs = [Graph(rows, by_lengths=True, threads=threads) for threads in (1, 2, 5)]

    for graph in graphs[1:]:
        np.testing.assert_array_equal(graph.links, graphs[0].links)
        np.testing.assert_array_equal(graph.entries, graphs[0].entries)
    counts, _, unreachable, _ = _kernels.check_graph(graphs[0].links, graphs[0].entries)
    assert not any(counts)
    assert unreachable == 0


@pytest.mark.parametrize(("n", "spread"), [(3000, 0.0), (1000, 0.5)], ids=["alike", "few"])
def test_rows_of_one_length_and_few_rows_are_linked_by_directions_alone(n: int, spread: float) -> None:
    rows = vectors(n, spread)

    np.testing.assert_array_equal(Graph(rows, by_lengths=True).links, Graph(rows, by_lengths=False).links)


def test_lengths_that_are_no_numbers_are_not_gone_by() -> None:
    rows = vectors(2000, 0.5)
    rows[7] *= np.float32(1e30)  # its length is beyond f32 in the unit of the others
    rows[8] = 0
    norms = np.linalg.norm(rows.astype(np.float64), axis=1).astype(np.float32)
    for worst in (np.nan, np.inf, -np.inf):
        graph = Graph(rows, by_lengths=False)
        expected = graph.links.copy()
        norms[3] = worst
        fresh = np.arange(2000, dtype=np.uint32)
        _kernels.extend_graph(
            DOT, graph.codes, graph.lengths, graph.links, fresh[:0], fresh, M, 60, 7, 2,
            model=graph.model, norms=norms,
        )  # fmt: skip
        np.testing.assert_array_equal(graph.links, expected)


def test_arguments_that_do_not_belong_together_are_refused() -> None:
    graph = Graph(vectors(50, 0.5), by_lengths=False)
    fresh = np.arange(50, dtype=np.uint32)

    def extend(metric: int = DOT, **more: Any) -> None:
        _kernels.extend_graph(
            metric, graph.codes, graph.lengths, graph.links, fresh[:0], fresh, M, 60, 7, 1, **more
        )

    with pytest.raises(ValueError, match="norms belong to a model"):
        extend(norms=graph.norms)
    with pytest.raises(ValueError, match="norms belong to a model"):
        extend(0, norms=graph.norms, model=graph.model)
    with pytest.raises(ValueError, match="must have 50 items"):
        extend(norms=graph.norms[:-1].copy(), model=graph.model)
    with pytest.raises(ValueError, match="another length than the model's"):
        extend(norms=graph.norms, model=np.concatenate([graph.model, graph.model]))


@pytest.mark.parametrize("scale", [5e-324, 1.7e308])
def test_a_model_out_of_bounds_is_survived(scale: float) -> None:
    graph = Graph(vectors(1500, 0.5), by_lengths=False)
    graph.model[1] = scale
    fresh = np.arange(1500, dtype=np.uint32)
    _kernels.extend_graph(
        DOT, graph.codes, graph.lengths, graph.links, fresh[:0], fresh, M, 60, 7, 2,
        model=graph.model, norms=graph.norms,
    )  # fmt: skip
    counts, _, _, _ = _kernels.check_graph(graph.links, graph.entries)
    assert not any(counts)


def test_compactions_keep_recall_where_lengths_differ(tmp_path: Path) -> None:
    rows, queries = vectors(4000, 0.5), vectors(100, 0.5, seed=1)
    config = IqdbConfig(dim=DIM, metric="dot", index=HnswConfig(m=M, ef_construction=60))
    with Iqdb.create(tmp_path / "a.iqdb", config) as db:
        db.upsert_many(range(3000), rows[:3000])
        db.flush()
        db.upsert_many(range(3000, 4000), rows[3000:])
        db.flush()
        db.delete_many(range(0, 4000, 5))
        db.flush()
        (point,) = (point for point in db.recall(queries, sweep=[64]).points if point.value == 64)
        assert point.recall_mean > 0.9
    assert verify(tmp_path / "a.iqdb").ok
