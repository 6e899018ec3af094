"""Approximate search against hnswlib, faiss and usearch: one thread, one query a call, at equal recall.

Every library builds with m = 16 and ef_construction = 200 on two threads, then answers the same queries at
a sweep of ef. Speed at a recall is read off the line between the two settings that enclose it, on a
logarithmic scale of speed. Sweeps go round the libraries in turn, and the median of the rounds counts.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import faiss
import hnswlib
import numpy as np
from data import Data
from measure import Figure, seconds
from startup import batches
from usearch.index import Index as UsearchIndex

from iqdb_core import DistanceMetric, HnswConfig, Iqdb, IqdbConfig

K = 10
M = 16
EF_CONSTRUCTION = 200
EFS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
ROUNDS = 3
THREADS = 2


@dataclass
class Library:
    """One library's index over the rows: how to ask it, and what was measured."""

    name: str
    build_seconds: float
    extra_bytes: int
    ask: Callable[[np.ndarray, int], np.ndarray]
    recalls: list[float] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)

    def rate_at(self, recall: float) -> float:
        """Queries a second at a recall; 0 where the sweep does not reach it."""
        points = sorted(
            (r, statistics.median(rates)) for r, rates in zip(self.recalls, self.rates, strict=True)
        )
        best = 0.0
        for (r1, q1), (r2, q2) in pairwise(points):
            if r1 <= recall <= r2 and r1 < r2:
                share = (recall - r1) / (r2 - r1)
                best = max(best, math.exp(math.log(q1) + share * (math.log(q2) - math.log(q1))))
        if points and points[0][0] >= recall:
            best = max(best, points[0][1])
        return best


def ours(work: Path, name: str, rows: np.ndarray, metric: str) -> Library:
    """A database of kind hnsw."""
    path = work / f"{name}-hnsw.iqdb"
    path.unlink(missing_ok=True)
    config = IqdbConfig(
        dim=rows.shape[1],
        metric=DistanceMetric.parse(metric),
        index=HnswConfig(m=M, ef_construction=EF_CONSTRUCTION),
        threads=THREADS,
    )
    start = time.perf_counter()
    Iqdb.create_from(path, config, batches(rows))
    taken = time.perf_counter() - start
    db = Iqdb.open_existing(path, read_only=True)

    def ask(queries: np.ndarray, ef: int) -> np.ndarray:
        return np.array([db.search_arrays(query[None, :], K, ef=ef)[0][0] for query in queries])

    return Library("iqdb", taken, path.stat().st_size - rows.nbytes, ask)


def peers(rows: np.ndarray, metric: str) -> Iterator[Library]:
    """The libraries that people pick today, each at its fair settings."""
    n, dim = rows.shape
    unit = (
        np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        if metric == "cosine"
        else rows
    )
    cosine = metric == "cosine"

    start = time.perf_counter()
    graph = hnswlib.Index("cosine" if cosine else "l2", dim)
    graph.init_index(n, M=M, ef_construction=EF_CONSTRUCTION)
    graph.set_num_threads(THREADS)
    graph.add_items(rows)
    taken = time.perf_counter() - start
    graph.set_num_threads(1)

    def ask_hnswlib(queries: np.ndarray, ef: int) -> np.ndarray:
        graph.set_ef(ef)
        return np.array([graph.knn_query(query, K)[0][0] for query in queries])

    yield Library("hnswlib", taken, 0, ask_hnswlib)

    faiss.omp_set_num_threads(THREADS)
    kind = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
    for name in ("HNSW", "HNSW-SQ8"):
        start = time.perf_counter()
        if name == "HNSW":
            index = faiss.IndexHNSWFlat(dim, M, kind)
        else:
            index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, M, kind)
            index.train(unit)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.add(unit)
        taken = time.perf_counter() - start

        def ask_faiss(queries: np.ndarray, ef: int, index: faiss.Index = index) -> np.ndarray:
            faiss.omp_set_num_threads(1)
            if cosine:
                queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
            index.hnsw.efSearch = ef
            return np.array([index.search(query[None, :], K)[1][0] for query in queries])

        yield Library(f"faiss {name}", taken, 0, ask_faiss)

    start = time.perf_counter()
    other = UsearchIndex(
        ndim=dim,
        metric="cos" if cosine else "l2sq",
        dtype="f32",
        connectivity=M,
        expansion_add=EF_CONSTRUCTION,
    )
    other.add(np.arange(n), rows, threads=THREADS)
    taken = time.perf_counter() - start

    def ask_usearch(queries: np.ndarray, ef: int) -> np.ndarray:
        other.expansion_search = ef
        return np.array([other.search(query, K).keys for query in queries])

    yield Library("usearch", taken, 0, ask_usearch)


def sweep(libraries: list[Library], queries: np.ndarray, truth: np.ndarray) -> None:
    """Measure every library at every ef, in turn."""
    sets = [set(row) for row in truth.tolist()]
    for round_number in range(ROUNDS):
        for place, ef in enumerate(EFS):
            for library in libraries:
                start = time.perf_counter()
                found = library.ask(queries, ef)
                rate = len(queries) / (time.perf_counter() - start)
                if round_number == 0:
                    share = np.mean([len(a & set(b)) / K for a, b in zip(sets, found.tolist(), strict=True)])
                    library.recalls.append(float(share))
                    library.rates.append([])
                library.rates[place].append(rate)


def compared(
    name: str, rows: np.ndarray, queries: np.ndarray, metric: str, work: Path, reach: float
) -> Iterator[Figure]:
    """The rows of the table for one data set."""
    mine = ours(work, name, rows, metric)
    with Iqdb.open_existing(work / f"{name}-hnsw.iqdb", read_only=True) as db:
        truth = db.search_arrays(queries, K, exact=True)[0]
    others = list(peers(rows, metric))
    sweep([mine, *others], queries, truth)
    for library in [mine, *others]:
        print("  ", library.name, f"build {library.build_seconds:.1f} s", end=": ")
        print(
            ", ".join(
                f"{r:.3f}/{statistics.median(q):.0f}"
                for r, q in zip(library.recalls, library.rates, strict=True)
            )
        )
    for recall in (0.95, 0.99):
        best = max(others, key=lambda library: library.rate_at(recall))
        ratio = mine.rate_at(recall) / best.rate_at(recall)
        yield Figure(
            f"hnsw queries/s at recall {recall}, {name}, against the fastest",
            f"{mine.rate_at(recall):.0f}/s",
            f"{best.rate_at(recall):.0f}/s",
            ratio,
            ratio,
            ratio,
            f">= {reach} times",
            ratio >= reach,
            best.name,
        )
    fastest = min(others, key=lambda library: library.build_seconds)
    ratio = mine.build_seconds / fastest.build_seconds
    note = f"{fastest.name}; recall at ef 64: {mine.recalls[EFS.index(64)]:.4f} against " + ", ".join(
        f"{library.name} {library.recalls[EFS.index(64)]:.4f}" for library in others
    )
    yield Figure(
        f"hnsw build, {name}, 2 threads (import, index and fsync), against the fastest",
        seconds(mine.build_seconds),
        seconds(fastest.build_seconds),
        ratio,
        ratio,
        ratio,
        "<= 0.5",
        ratio <= 0.5,
        note,
    )
    share = mine.extra_bytes / rows.nbytes
    yield Figure(
        f"file bytes beyond the vectors, hnsw, {name} (share in place of a ratio)",
        f"{mine.extra_bytes / 1e6:.0f} MB",
        f"{rows.nbytes / 1e6:.0f} MB",
        share,
        share,
        share,
        "<= 0.6",
        share <= 0.6,
    )


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    wordnet = np.load(data.wordnet_npy)
    queries = np.ascontiguousarray(np.load(data.queries)[:1000])
    run = partial(compared, work=data.work)
    yield from run("wordnet", wordnet, queries, "cosine", reach=2.0)
    synthetic = np.load(data.synthetic_npy)
    generator = np.random.default_rng(11)
    near = synthetic[generator.integers(0, len(synthetic), 1000)]
    shifted = near + np.float32(0.25) * generator.standard_normal(near.shape, dtype=np.float32)
    yield from run("synthetic", synthetic, shifted, "euclidean", reach=1.5)
