"""Approximate search against hnswlib, faiss and usearch: one thread, one query a call, at equal recall.

Every library builds with m = 16 and ef_construction = 200 on two threads, then answers the same queries at
a sweep of ef. Speed at a recall is read off the line between the two settings that enclose it, on a
logarithmic scale of speed. Sweeps go round the libraries in turn, and the median of the rounds counts.

The peers' indexes are kept between runs with the seconds that building them took. An index without such a
file was built somewhere else: it is searched, and no time is quoted for it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
EFS = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
ROUNDS = 5
THREADS = 2


@dataclass
class Library:
    """One library's index over the rows: how to ask it, and what was measured."""

    name: str
    build_seconds: float | None  # None: not measured here
    extra_bytes: int
    ask: Callable[[np.ndarray, int], np.ndarray]
    recalls: list[float] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)

    def rate_at(self, recall: float, round_number: int | None = None) -> float:
        """Queries a second at a recall, by all rounds or one; 0 where the sweep does not reach it."""
        points = sorted(
            (r, statistics.median(rates) if round_number is None else rates[round_number])
            for r, rates in zip(self.recalls, self.rates, strict=True)
        )
        best = 0.0
        for (r1, q1), (r2, q2) in pairwise(points):
            if r1 <= recall <= r2 and r1 < r2:
                share = (recall - r1) / (r2 - r1)
                best = max(best, math.exp(math.log(q1) + share * (math.log(q2) - math.log(q1))))
        if points and points[0][0] >= recall:
            best = max(best, points[0][1])
        return best


def database(
    work: Path, name: str, rows: np.ndarray, metric: str, *, reuse: bool
) -> tuple[Path, float | None]:
    """A database of kind hnsw, and the seconds that building it took; None when an earlier one is reused."""
    path = work / f"{name}-hnsw.iqdb"
    if reuse and path.exists():
        return path, None
    path.unlink(missing_ok=True)
    config = IqdbConfig(
        dim=rows.shape[1],
        metric=DistanceMetric.parse(metric),
        index=HnswConfig(m=M, ef_construction=EF_CONSTRUCTION),
        threads=THREADS,
    )
    start = time.perf_counter()
    Iqdb.create_from(path, config, batches(rows))
    return path, time.perf_counter() - start


def ours(work: Path, name: str, rows: np.ndarray, metric: str, *, reuse: bool) -> Library:
    """The database, opened."""
    path, taken = database(work, name, rows, metric, reuse=reuse)
    db = Iqdb.open_existing(path, read_only=True)

    def ask(queries: np.ndarray, ef: int) -> np.ndarray:
        return np.array([[hit.id for hit in db.search(query, K, ef=ef)] for query in queries])

    return Library("iqdb", taken, path.stat().st_size - rows.nbytes, ask)


def peers(name: str, rows: np.ndarray, metric: str, work: Path) -> Iterator[Library]:
    """The libraries that people pick today, each at its fair settings.

    Their indexes are kept in `work`, since they take minutes.
    """
    n, dim = rows.shape
    cosine = metric == "cosine"
    unit = np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True)) if cosine else rows

    def built(file: str, build: Callable[[], Callable[[str], object]]) -> tuple[Path, float | None]:
        return _built(work / file, build)

    def build_hnswlib() -> Callable[[str], object]:
        graph = hnswlib.Index("cosine" if cosine else "l2", dim)
        graph.init_index(n, M=M, ef_construction=EF_CONSTRUCTION)
        graph.set_num_threads(THREADS)
        graph.add_items(rows)
        return graph.save_index

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

        def build_faiss(variant: str = variant) -> Callable[[str], object]:
            faiss.omp_set_num_threads(THREADS)
            if variant == "HNSW":
                index = faiss.IndexHNSWFlat(dim, M, kind)
            else:
                index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, M, kind)
            index.hnsw.efConstruction = EF_CONSTRUCTION
            if variant != "HNSW":
                index.train(unit)
            index.add(unit)
            return lambda target: faiss.write_index(index, target)

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

    def build_usearch() -> Callable[[str], object]:
        index = usearch_index()
        index.add(np.arange(n), rows, threads=THREADS)
        return index.save

    path, taken = built(f"{name}.usearch", build_usearch)
    other = usearch_index()
    other.load(str(path))

    def ask_usearch(queries: np.ndarray, ef: int) -> np.ndarray:
        other.expansion_search = ef
        return np.array([other.search(query, K).keys for query in queries])

    yield Library("usearch", taken, 0, ask_usearch)


def _built(path: Path, build: Callable[[], Callable[[str], object]]) -> tuple[Path, float | None]:
    """Return the path of a peer's index and the seconds that building it took, now or in an earlier run.

    `build` returns what saves the index. The index gets its name when it is whole, and its time after that:
    what a killed run leaves behind is not taken for either.
    """
    kept = path.with_name(path.name + ".seconds")
    if not path.exists():
        kept.unlink(missing_ok=True)
        start = time.perf_counter()
        save = build()
        taken = time.perf_counter() - start
        part = path.with_name(path.name + ".part")
        save(str(part))
        part.replace(path)
        kept.write_text(f"{taken}\n")
    return path, float(kept.read_text()) if kept.exists() else None


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
    name: str, rows: np.ndarray, queries: np.ndarray, metric: str, data: Data, reach: float
) -> Iterator[Figure]:
    """The rows of the table for one data set."""
    mine = ours(data.work, name, rows, metric, reuse=data.reuse)
    with Iqdb.open_existing(data.work / f"{name}-hnsw.iqdb", read_only=True) as db:
        truth = db.search_arrays(queries, K, exact=True)[0]
    others = list(peers(name, rows, metric, data.work))
    sweep([mine, *others], queries, truth)
    for library in [mine, *others]:
        taken = "not timed" if library.build_seconds is None else f"{library.build_seconds:.1f} s"
        print("  ", library.name, f"build {taken}", end=": ")
        print(
            ", ".join(
                f"{r:.3f}/{statistics.median(q):.0f}"
                for r, q in zip(library.recalls, library.rates, strict=True)
            )
        )
    for recall in (0.95, 0.99):
        yield _speed(name, mine, others, recall, reach)
    yield from _building(name, mine, others)
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


def _speed(name: str, mine: Library, others: list[Library], recall: float, reach: float) -> Figure:
    """The median of the rounds' ratios to the library that is the fastest over all of them."""
    best = max(others, key=lambda library: library.rate_at(recall))
    rounds = sorted(
        mine.rate_at(recall, number) / best.rate_at(recall, number) for number in range(len(mine.rates[0]))
    )
    ratio = statistics.median(rounds)
    quarter = (len(rounds) - 1) // 4
    return Figure(
        f"hnsw queries/s at recall {recall}, {name}, against the fastest",
        f"{mine.rate_at(recall):.0f}/s",
        f"{best.rate_at(recall):.0f}/s",
        ratio,
        rounds[quarter],
        rounds[len(rounds) - 1 - quarter],
        f">= {reach} times",
        ratio >= reach,
        best.name,
    )


def _building(name: str, mine: Library, others: list[Library]) -> Iterator[Figure]:
    """The seconds of the build, where this run took them and there is a peer's time beside them."""
    timed = [(library.build_seconds, library) for library in others if library.build_seconds is not None]
    if mine.build_seconds is None or not timed:
        return
    taken, fastest = min(timed, key=lambda pair: pair[0])
    ratio = mine.build_seconds / taken
    note = f"{fastest.name}; recall at ef 64: {mine.recalls[EFS.index(64)]:.4f} against " + ", ".join(
        f"{library.name} {library.recalls[EFS.index(64)]:.4f}" for library in others
    )
    untimed = [library.name for library in others if library.build_seconds is None]
    if untimed:
        note += f"; not timed: {', '.join(untimed)}"
    yield Figure(
        f"hnsw build, {name}, 2 threads (import, index and fsync), against the fastest",
        seconds(mine.build_seconds),
        seconds(taken),
        ratio,
        ratio,
        ratio,
        "<= 0.5",
        ratio <= 0.5,
        note,
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
    yield from compared("wordnet", wordnet, queries, "cosine", data, reach=2.0)


def million() -> np.ndarray:
    """The rows of `approximate-1m` and of `cold`."""
    return clustered(1_000_000, seed=11)


def figures_1m(data: Data) -> Iterator[Figure]:
    """The rows of the group `approximate-1m`: clustered rows, and queries that are not among them."""
    yield from compared("clustered", million(), clustered(1_000, seed=12), "euclidean", data, reach=1.5)


def figures_own(data: Data) -> Iterator[Figure]:
    """The rows of the group `approximate-own`: vectors of the caller, a thousand held out as queries."""
    if data.vectors is None:
        return
    vectors = np.ascontiguousarray(np.load(data.vectors), dtype=np.float32)
    held = np.zeros(len(vectors), bool)
    held[np.arange(1_000) * len(vectors) // 1_000] = True
    name = data.vectors.stem
    yield from compared(name, vectors[~held], vectors[held], data.metric, data, reach=1.5)
