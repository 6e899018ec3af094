"""Inverted lists against faiss: training with two threads, and queries a second at equal recall with one.

Vectors are those of the words, scaled to length 1 and compared as euclidean. Queries are asked one a call.
Each library is swept over its probes, and speeds are compared at the recall that is asked for, interpolated
between the neighbours on its curve. Rounds alternate between the libraries.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import faiss
import numpy as np
from data import Data
from measure import Figure, pairs

from iqdb_core import Iqdb, IqdbConfig, IvfConfig, _kernels

K = 10
CLUSTERS = 1360
SAMPLE = 65_536
QUERIES = 500
REFINE = 10
RECALL = 0.95
ROUNDS = 5
ITERATIONS = 10
PROBES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
Ask = Callable[[int], np.ndarray]


def train_ours(vectors: np.ndarray, clusters: int) -> Callable[[], None]:
    """Encoding included, which the lists need anyway."""

    def run() -> None:
        n, dim = vectors.shape
        model = np.array(_kernels.train_codes(vectors, 2))
        codes = np.empty((n, -(-dim // 32) * 32), np.uint8)
        lengths, norms = np.empty(n, np.int32), np.empty(n, np.float32)
        _kernels.encode_codes(model, vectors, codes, lengths, norms, threads=2)
        centroids = np.empty((clusters, dim), np.float32)
        _kernels.train_clusters(model, codes, 2, ITERATIONS, 1, centroids, 2)

    return run


def train_faiss(vectors: np.ndarray, clusters: int) -> Callable[[], None]:
    """The same sample and the same number of iterations."""

    def run() -> None:
        faiss.omp_set_num_threads(2)
        kmeans = faiss.Kmeans(vectors.shape[1], clusters, niter=ITERATIONS, max_points_per_centroid=1 << 30)
        kmeans.train(vectors)

    return run


def ours(vectors: np.ndarray, queries: np.ndarray, clusters: int, refine: int = 0) -> Ask:
    """A database in memory, asked through Python."""
    index = IvfConfig(n_clusters=clusters, use_pq=refine > 0, pq_refine_factor=refine)
    config = IqdbConfig(dim=vectors.shape[1], metric="euclidean", index=index, threads=1)
    db = Iqdb.open_in_memory_with(config)
    db.upsert_many(np.arange(len(vectors), dtype=np.uint64), vectors)
    db.flush()
    return lambda probes: np.array(
        [[hit.id for hit in db.search(query, K, n_probes=probes)] for query in queries]
    )


def theirs(index: faiss.Index, base: faiss.Index, vectors: np.ndarray, queries: np.ndarray) -> Ask:
    """A faiss index; `base` is the one that has the lists."""
    faiss.omp_set_num_threads(2)
    index.train(vectors)
    index.add(vectors)
    faiss.omp_set_num_threads(1)

    def ask(probes: int) -> np.ndarray:
        base.nprobe = probes
        return np.concatenate([index.search(queries[i : i + 1], K)[1] for i in range(len(queries))])

    return ask


def speed_at(points: list[tuple[float, float]], recall: float) -> float:
    """Queries a second at a recall, between the two settings around it; 0 when it is never reached."""
    points = sorted(points)
    for (low, slow), (high, fast) in pairwise(points):
        if low <= recall <= high and high > low:
            return slow + (fast - slow) * (recall - low) / (high - low)
    return 0.0


def curve(ask: Ask, truth: np.ndarray) -> list[tuple[float, float]]:
    """Recall and queries a second at every number of probes."""
    points = []
    for probes in PROBES:
        start = time.perf_counter()
        found = ask(probes)
        taken = time.perf_counter() - start
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)])
        points.append((float(recall), len(truth) / taken))
    return points


def compared(what: str, sides: tuple[Ask, Ask], truth: np.ndarray) -> Figure:
    """One row: both swept in turn, and the median of the ratios at the recall."""
    rates = []
    for _ in range(ROUNDS):
        rates.append([speed_at(curve(ask, truth), RECALL) for ask in sides])
        if not all(rates[-1]):
            raise SystemExit(f"{what}: a side does not reach recall {RECALL}")
    mine, other = (statistics.median(column) for column in zip(*rates, strict=True))
    ratios = sorted(a / b for a, b in rates)
    ratio = statistics.median(ratios)
    return Figure(
        what, f"{mine:,.0f}/s", f"{other:,.0f}/s", ratio, ratios[1], ratios[-2], ">= 1 times", ratio >= 1.0
    )


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    vectors, queries = (np.load(path).astype(np.float32) for path in (data.wordnet_npy, data.queries))
    vectors = np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    queries = queries[:QUERIES] / np.linalg.norm(queries[:QUERIES], axis=1, keepdims=True)
    n, dim = vectors.shape
    sample = np.ascontiguousarray(vectors[:: max(1, n // SAMPLE)][:SAMPLE])
    yield pairs(train_ours(sample, CLUSTERS), train_faiss(sample, CLUSTERS), runs=3).figure(
        f"ivf training, {len(sample):,} x {dim}, {CLUSTERS:,} lists, 2 threads, against faiss.Kmeans",
        ">= 1 times the speed",
        at_least=1.0,
    )
    truth = faiss.knn(queries, vectors, K)[1]
    ask_ours = partial(ours, vectors, queries, CLUSTERS)
    ask_theirs = partial(theirs, vectors=vectors, queries=queries)
    flat = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, CLUSTERS)
    fast = faiss.IndexIVFPQFastScan(faiss.IndexFlatL2(dim), dim, CLUSTERS, dim // 4, 4)
    refined = faiss.IndexRefineFlat(fast)
    refined.k_factor = REFINE
    name = f"queries/s at recall {RECALL}, wordnet {n:,} x {dim}, {CLUSTERS:,} lists"
    yield compared(f"ivf, {name}, against faiss IVFFlat", (ask_ours(), ask_theirs(flat, flat)), truth)
    yield compared(
        f"ivf-pq, {name}, refine {REFINE}, against faiss IVFPQFastScan + refine",
        (ask_ours(refine=REFINE), ask_theirs(refined, fast)),
        truth,
    )
