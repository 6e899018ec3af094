"""Exact search against faiss-cpu and NumPy, two threads, and the cost of the Python layer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from data import Data
from measure import Figure, pairs, seconds
from startup import database

from iqdb_core import Iqdb, _kernels

K = 10
KNN = {"dot": faiss.METRIC_INNER_PRODUCT, "euclidean": faiss.METRIC_L2, "manhattan": faiss.METRIC_L1}


def agree(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The share of rows both name: faiss computes in f32, so near ties may differ."""
    return float(
        np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)])
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """The rows, scaled to length 1: what makes an inner product a cosine."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def against_knn(
    name: str, metric: str, path: Path, vectors: np.ndarray, queries: np.ndarray
) -> Iterator[Figure]:
    """One database of kind flat: the first batch of a handle, then what a busy handle does.

    A busy handle has made codes in memory, which the second batch waits for; see `index.flat.BusyScan`.
    """
    kind = KNN.get(metric, faiss.METRIC_INNER_PRODUCT)
    # Scaling the rows is done beforehand, and not counted.
    rows, asked = (unit(vectors), unit(queries)) if metric == "cosine" else (vectors, queries)

    def theirs(count: int) -> np.ndarray:
        found: np.ndarray = faiss.knn(asked[:count], rows, K, metric=kind)[1]
        return found

    with Iqdb.open_existing(path, read_only=True) as warm:
        warm.search(queries[0], K)  # verifies the blocks, and brings the file into memory

    def first() -> None:
        with Iqdb.open_existing(path, read_only=True) as db:
            db.search_arrays(queries, K)

    yield pairs(first, partial(theirs, len(queries)), runs=3).figure(
        f"exact batch of 1,000, {metric}, {name}, first call of a handle, against faiss.knn",
        ">= 1 times the speed",
        at_least=1.0,
    )
    with Iqdb.open_existing(path, read_only=True) as db:
        start = time.perf_counter()
        db.search_arrays(queries, K)
        db.search_arrays(queries, K)
        taken = time.perf_counter() - start
        share = agree(db.search_arrays(queries, K)[0], theirs(len(queries)))
        yield pairs(partial(db.search_arrays, queries, K), partial(theirs, len(queries)), runs=3).figure(
            f"exact batch of 1,000, {metric}, {name}, busy handle, against faiss.knn",
            ">= 2 times the speed",
            at_least=2.0,
            note=f"same hits {share:.4f}; its first two calls, codes included: {seconds(taken)}",
        )
        yield pairs(lambda: db.search(queries[7], K), partial(theirs, 1), runs=15).figure(
            f"exact single query, {metric}, {name}, busy handle, against faiss.knn",
            ">= 2 times the speed",
            at_least=2.0,
        )


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    faiss.omp_set_num_threads(2)
    wordnet = np.load(data.wordnet_npy)
    synthetic = np.load(data.synthetic_npy)
    wordnet_queries = np.ascontiguousarray(np.load(data.queries)[:1000])
    synthetic_queries = synthetic[::1000] + np.float32(0.1)
    for name, vectors, queries in (
        ("wordnet 115,659 x 384", wordnet, wordnet_queries),
        ("synthetic 1,000,000 x 128", synthetic, synthetic_queries),
    ):
        for metric in ("cosine", "dot", "euclidean"):
            path = database(data.work / f"{name.split()[0]}-{metric}.iqdb", vectors, metric)
            yield from against_knn(name, metric, path, vectors, queries)

    few = wordnet_queries[:50]
    path = database(data.work / "wordnet-manhattan.iqdb", wordnet, "manhattan")
    with Iqdb.open_existing(path, read_only=True) as db:
        ours = partial(db.search_arrays, few, K)
        theirs = partial(faiss.knn, few, wordnet, K, metric=KNN["manhattan"])
        share = agree(ours()[0], theirs()[1])
        yield pairs(ours, theirs, runs=5).figure(
            "exact manhattan, batch of 50, wordnet, against faiss METRIC_L1",
            ">= 4 times the speed",
            at_least=4.0,
            note=f"same hits {share:.4f}",
        )

    path = database(data.work / "wordnet-hamming.iqdb", wordnet, "hamming")
    bits = wordnet.view(np.uint32)

    def numpy_hamming() -> None:
        for query in few[:5].view(np.uint32):
            np.argpartition((bits != query).sum(axis=1), K)[:K]

    with Iqdb.open_existing(path, read_only=True) as db:
        yield pairs(partial(db.search_arrays, few[:5], K), numpy_hamming, runs=5).figure(
            "exact hamming, 5 queries, wordnet, against NumPy", ">= 10 times the speed", at_least=10.0
        )
    yield overhead()


def overhead() -> Figure:
    """`search` at k = 10 beyond the kernel it calls, on so few rows that the rest is what is measured."""
    generator = np.random.default_rng(5)
    vectors = generator.standard_normal((1000, 128), dtype=np.float32)
    query = vectors[0].copy()
    db = Iqdb.open_in_memory(dim=128, metric="euclidean")
    db.upsert_many(np.arange(1000, dtype=np.uint64), vectors)
    db.flush()
    rows = np.empty((1, K), np.int64)
    distances = np.empty((1, K), np.float64)
    counts = np.empty(1, np.int64)
    queries = query.reshape(1, -1)

    def whole() -> None:
        for _ in range(1000):
            db.search(query, K)

    def kernel() -> None:
        for _ in range(1000):
            _kernels.search_flat(vectors, queries, 2, K, rows, distances, counts)

    measured = pairs(whole, kernel, runs=21)
    beyond = sorted((a - b) / 1000 for a, b in zip(measured.ours, measured.other, strict=True))
    middle = statistics.median(beyond)
    quarter = len(beyond) // 4
    return Figure(
        "Python overhead of `search`, k = 10, beyond the kernel (microseconds in place of a ratio)",
        seconds(statistics.median(measured.ours) / 1000),
        seconds(statistics.median(measured.other) / 1000),
        middle * 1e6,
        beyond[quarter] * 1e6,
        beyond[-1 - quarter] * 1e6,
        "<= 25 us",
        middle <= 25e-6,
        f"clock {time.get_clock_info('perf_counter').resolution:.0e} s",
    )
