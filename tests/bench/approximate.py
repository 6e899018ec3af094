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
from contextlib import contextmanager
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
        return np.array([[hit.id for hit in db.search(query, K, ef=ef)] for query in queries])

    return Library("iqdb", taken, path.stat().st_size - rows.nbytes, ask)


def peers(name: str, rows: np.ndarray, metric: str, work: Path) -> Iterator[Library]:
    """The libraries that people pick today, each at its fair settings.

    Their indexes are kept in `work` with the times that building them took, since they take minutes.
    """
    n, dim = rows.shape
    cosine = metric == "cosine"
    unit = np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True)) if cosine else rows
    built = partial(_built, work)

    def build_hnswlib(path: Path) -> None:
        graph = hnswlib.Index("cosine" if cosine else "l2", dim)
        graph.init_index(n, M=M, ef_construction=EF_CONSTRUCTION)
        graph.set_num_threads(THREADS)
        with _timed(path):
            graph.add_items(rows)
        graph.save_index(str(path))

    path, taken = built(f"{name}.hnswlib", build_hnswlib)
    graph = hnswlib.Index("cosine" if cosine else "l2", dim)
    graph.load_index(str(path))
    graph.set_num_threads(1)

    def ask_hnswlib(queries: np.ndarray, ef: int) -> np.ndarray:
        graph.set_ef(ef)
        return np.array([graph.knn_query(query, K)[0][0] for query in queries])

    yield Library("hnswlib", taken, 0, ask_hnswlib)

    kind = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
    for variant in ("HNSW-SQ8", "HNSW"):

        def build_faiss(path: Path, variant: str = variant) -> None:
            faiss.omp_set_num_threads(THREADS)
            if variant == "HNSW":
                index = faiss.IndexHNSWFlat(dim, M, kind)
            else:
                index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, M, kind)
            index.hnsw.efConstruction = EF_CONSTRUCTION
            with _timed(path):
                if variant != "HNSW":
                    index.train(unit)
                index.add(unit)
            faiss.write_index(index, str(path))

        path, taken = built(f"{name}.faiss-{variant}", build_faiss)
        index = faiss.read_index(str(path))

        def ask_faiss(queries: np.ndarray, ef: int, index: faiss.Index = index) -> np.ndarray:
            faiss.omp_set_num_threads(1)
            if cosine:
                queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
            index.hnsw.efSearch = ef
            return np.array([index.search(query[None, :], K)[1][0] for query in queries])

        yield Library(f"faiss {variant}", taken, 0, ask_faiss)

    def usearch_index() -> UsearchIndex:
        return UsearchIndex(
            ndim=dim,
            metric="cos" if cosine else "l2sq",
            dtype="f32",
            connectivity=M,
            expansion_add=EF_CONSTRUCTION,
        )

    def build_usearch(path: Path) -> None:
        index = usearch_index()
        with _timed(path):
            index.add(np.arange(n), rows, threads=THREADS)
        index.save(str(path))

    path, taken = built(f"{name}.usearch", build_usearch)
    other = usearch_index()
    other.load(str(path))

    def ask_usearch(queries: np.ndarray, ef: int) -> np.ndarray:
        other.expansion_search = ef
        return np.array([other.search(query, K).keys for query in queries])

    yield Library("usearch", taken, 0, ask_usearch)


def _built(work: Path, file: str, build: Callable[[Path], None]) -> tuple[Path, float]:
    """Return the path of a peer's index and the seconds that building it took, now or in an earlier run."""
    path = work / file
    if not _seconds_of(path).exists():
        build(path)
    return path, float(_seconds_of(path).read_text())


@contextmanager
def _timed(path: Path) -> Iterator[None]:
    """Keep beside an index the seconds that building it took."""
    start = time.perf_counter()
    yield
    _seconds_of(path).write_text(f"{time.perf_counter() - start}\n")


def _seconds_of(path: Path) -> Path:
    return path.with_name(path.name + ".seconds")


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
    others = list(peers(name, rows, metric, work))
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


def clustered(n: int, seed: int) -> np.ndarray:
    """Seeded rows that look like embeddings: 10,000 clusters of unequal size with a decaying spectrum."""
    dim, n_clusters = 128, 10_000
    shape = np.random.default_rng(7)  # the same clusters for every seed
    spectrum = (1.0 / np.sqrt(1.0 + np.arange(dim))).astype(np.float32)
    centres = shape.standard_normal((n_clusters, dim), dtype=np.float32) * spectrum
    widths = shape.uniform(0.4, 0.8, n_clusters).astype(np.float32)
    sizes = shape.pareto(2.0, n_clusters) + 1.0
    turn = np.linalg.qr(shape.standard_normal((dim, dim)))[0].astype(np.float32)
    generator = np.random.default_rng(seed)
    members = generator.choice(n_clusters, n, p=sizes / sizes.sum())
    rows = np.empty((n, dim), np.float32)
    for start in range(0, n, 65_536):
        part = members[start : start + 65_536]
        noise = generator.standard_normal((len(part), dim), dtype=np.float32) * spectrum
        rows[start : start + len(part)] = (centres[part] + widths[part, None] * noise) @ turn
    return rows


def figures(data: Data) -> Iterator[Figure]:
    """The rows of the group `approximate`."""
    wordnet = np.load(data.wordnet_npy)
    queries = np.ascontiguousarray(np.load(data.queries)[:1000])
    yield from compared("wordnet", wordnet, queries, "cosine", data.work, reach=2.0)


def figures_1m(data: Data) -> Iterator[Figure]:
    """The rows of the group `approximate-1m`: clustered rows, and queries that are not among them."""
    rows = clustered(1_000_000, seed=11)
    yield from compared("clustered", rows, clustered(1_000, seed=12), "euclidean", data.work, reach=1.5)
