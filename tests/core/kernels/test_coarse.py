"""Coarse codes: the upper half of codes, which walks read in place of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

COSINE, DOT, EUCLIDEAN, MANHATTAN = range(4)
N, DIM, K = 2000, 200, 10


class Coded(NamedTuple):
    model: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray
    norms: np.ndarray
    coarse: np.ndarray
    coarse_lengths: np.ndarray


@pytest.fixture(autouse=True)
def _restore_variant() -> Iterator[None]:
    before = _kernels.variant()
    yield
    _kernels.set_variant(before)


def coarsened(codes: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    n, stride = codes.shape
    coarse = np.empty((n, -(-stride // 64) * 32), np.uint8)
    lengths = np.empty(n, np.int32)
    _kernels.coarsen_codes(codes, coarse, lengths, threads)
    return coarse, lengths


def vectors_of(n: int, seed: int) -> np.ndarray:
    shape = np.random.default_rng(1)
    centres = shape.standard_normal((20, DIM))
    generator = np.random.default_rng(seed)
    noise = 0.6 * generator.standard_normal((n, DIM))
    return (centres[generator.integers(0, 20, n)] + noise).astype(np.float32)


def coded(vectors: np.ndarray, metric: int) -> Coded:
    n, dim = vectors.shape
    model = np.array(_kernels.train_codes(vectors, metric))
    codes = np.empty((n, -(-dim // 32) * 32), np.uint8)
    lengths, norms = np.empty(n, np.int32), np.empty(n, np.float32)
    _kernels.encode_codes(model, vectors, codes, lengths, norms)
    return Coded(model, codes, lengths, norms, *coarsened(codes))


def linked(made: Coded, metric: int, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    links = np.empty((len(made.codes), 16), np.uint32)
    rows = np.arange(len(made.codes), dtype=np.uint32)
    entries = _kernels.extend_graph(
        metric,
        made.codes,
        made.lengths,
        links,
        np.empty(0, np.uint32),
        rows,
        8,
        60,
        7,
        threads,
        made.coarse,
        made.coarse_lengths,
    )
    return links, np.array(entries, np.uint32)


def graph(
    made: Coded, metric: int, links: np.ndarray, entries: np.ndarray, **coarse: object
) -> _kernels.StoredGraph:
    norms = made.norms if metric == DOT else None
    arguments = {"coarse": made.coarse, "coarse_lengths": made.coarse_lengths, **coarse}
    return _kernels.StoredGraph(
        metric, DIM, made.model, made.codes, made.lengths, links, entries, norms, **arguments
    )


def search(
    opened: _kernels.StoredGraph, vectors: np.ndarray, queries: np.ndarray
) -> tuple[tuple[int, int], np.ndarray, np.ndarray]:
    rows, distances = np.empty((len(queries), K), np.int64), np.empty((len(queries), K))
    counts, visited = np.empty(len(queries), np.int64), np.empty((len(queries), 2), np.int64)
    damage = opened.search(vectors, queries, K, 64, 2 * K, rows, distances, counts, visited)
    return damage, rows, distances


def nearest(vectors: np.ndarray, queries: np.ndarray, metric: int) -> tuple[np.ndarray, np.ndarray]:
    rows, distances = np.empty((len(queries), K), np.int64), np.empty((len(queries), K))
    _kernels.search_flat(vectors, queries, metric, K, rows, distances, np.empty(len(queries), np.int64))
    return rows, distances


def share(found: np.ndarray, true: np.ndarray) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), true.tolist(), strict=True)])
    )


@pytest.mark.parametrize("stride", [32, 64, 96, 224, 384])
@pytest.mark.parametrize("threads", [1, 2])
def test_coarse_codes_are_the_upper_halves_in_their_places(stride: int, threads: int) -> None:
    codes = np.random.default_rng(stride).integers(0, 128, (5000, stride)).astype(np.uint8)
    coarse, lengths = coarsened(codes, threads)
    upper = np.zeros((len(codes), 2 * coarse.shape[1]), np.uint8)
    upper[:, :stride] = codes >> 3
    groups = upper.reshape(len(codes), -1, 2, 32)
    assert np.array_equal(coarse, (groups[:, :, 0] | groups[:, :, 1] << 4).reshape(len(codes), -1))
    assert np.array_equal(lengths, np.sum((8 * (codes >> 3).astype(np.int32) + 4) ** 2, axis=1))


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
def test_graphs_and_hits_are_the_same_on_every_cpu_and_with_any_number_of_threads(metric: int) -> None:
    vectors, queries = vectors_of(N, 2), vectors_of(50, 3)
    made = coded(vectors, metric)
    links, entries = linked(made, metric)
    _, rows, distances = search(graph(made, metric, links, entries), vectors, queries)
    for variant in _kernels.variants():
        _kernels.set_variant(variant)
        again, again_entries = linked(made, metric, threads=2)
        assert np.array_equal(again, links)
        assert np.array_equal(again_entries, entries)
        damage, other_rows, other_distances = search(graph(made, metric, links, entries), vectors, queries)
        assert damage == (0, 0)
        assert np.array_equal(other_rows, rows)
        assert np.array_equal(other_distances, distances)


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
def test_walks_by_coarse_codes_find_the_nearest_and_say_their_true_distances(metric: int) -> None:
    vectors, queries = vectors_of(N, 2), vectors_of(100, 3)
    made = coded(vectors, metric)
    links, entries = linked(made, metric)
    true_rows, true_distances = nearest(vectors, queries, metric)
    _, rows, distances = search(graph(made, metric, links, entries), vectors, queries)
    assert share(rows, true_rows) > 0.97
    same = rows == true_rows
    assert np.array_equal(distances[same], true_distances[same])


def test_walks_read_the_coarse_codes() -> None:
    vectors, queries = vectors_of(N, 2), vectors_of(100, 3)
    made = coded(vectors, EUCLIDEAN)
    links, entries = linked(made, EUCLIDEAN)
    true_rows, _ = nearest(vectors, queries, EUCLIDEAN)
    order = np.random.default_rng(4).permutation(N)
    others = {"coarse": made.coarse[order], "coarse_lengths": made.coarse_lengths[order]}
    damage, rows, _ = search(graph(made, EUCLIDEAN, links, entries, **others), vectors, queries)
    assert damage == (0, 0)
    assert share(rows, true_rows) < 0.5


def test_a_damaged_block_of_coarse_codes_is_reported() -> None:
    vectors = vectors_of(N, 2)
    made = coded(vectors, COSINE)
    links, entries = linked(made, COSINE)
    blocks = -(-made.coarse.nbytes // 4096)
    verified = np.ones(blocks, np.uint8)
    bad = int(entries[0]) * made.coarse.shape[1] // 4096
    verified[bad] = 0
    table = (np.zeros(blocks, np.uint32), verified, 0)
    damage, _, _ = search(graph(made, COSINE, links, entries, coarse_blocks=table), vectors, vectors[:1])
    assert damage == (4, bad)


@pytest.mark.parametrize("wrong", ["coarse", "coarse_lengths"])
def test_arrays_of_a_wrong_size_are_refused(wrong: str) -> None:
    made = coded(vectors_of(100, 2), COSINE)
    links, entries = linked(made, COSINE)
    with pytest.raises(ValueError, match=f"{wrong} must have"):
        graph(made, COSINE, links, entries, **{wrong: getattr(made, wrong)[:-1]})
    with pytest.raises(ValueError, match="coarse_lengths are needed"):
        graph(made, COSINE, links, entries, coarse_lengths=None)
