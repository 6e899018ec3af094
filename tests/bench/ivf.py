"""Inverted lists against faiss: training with two threads, and queries a second at equal recall with one.

    python tests/bench/ivf.py --vectors wordnet.npy --queries wordnet-queries.npy [--clusters 1360]

Queries are asked one a call. Each library is swept over its probes, and speeds are compared at the recall
that is asked for, interpolated between the neighbours on its curve. Rounds alternate between the libraries.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np

from iqdb_core import Iqdb, IqdbConfig, IvfConfig, _kernels

K = 10
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
    config = IqdbConfig(dim=vectors.shape[1], metric="euclidean", index=index, threads=2)
    db = Iqdb.open_in_memory_with(config)
    start = time.perf_counter()
    db.upsert_many(np.arange(len(vectors), dtype=np.uint64), vectors)
    db.flush()
    print(f"  built in {time.perf_counter() - start:.1f} s", flush=True)
    return lambda probes: np.array(
        [[hit.id for hit in db.search(query, K, n_probes=probes)] for query in queries]
    )


def theirs(index: faiss.Index, base: faiss.Index, vectors: np.ndarray, queries: np.ndarray) -> Ask:
    """A faiss index; `base` is the one that has the lists."""
    faiss.omp_set_num_threads(2)
    start = time.perf_counter()
    index.train(vectors)
    index.add(vectors)
    print(f"  built in {time.perf_counter() - start:.1f} s", flush=True)
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


def main() -> None:
    """Parse the arguments, run, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=Path, required=True, help=".npy, f32[n][dim]; scaled to length 1")
    parser.add_argument("--queries", type=Path, required=True, help=".npy, f32[q][dim]")
    parser.add_argument("--clusters", type=int, default=1360)
    parser.add_argument("--sample", type=int, default=65_536, help="vectors that training is timed on")
    parser.add_argument("--rows", type=int, default=0, help="use so many vectors only")
    parser.add_argument("--n-queries", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--refine", type=int, default=10, help="candidates a hit that are scored by vectors")
    parser.add_argument("--recall", type=float, default=0.95)
    options = parser.parse_args()
    vectors, queries = (np.load(path).astype(np.float32) for path in (options.vectors, options.queries))
    if options.rows:
        vectors = vectors[:: max(1, len(vectors) // options.rows)][: options.rows]
    vectors = np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    queries = queries[: options.n_queries] / np.linalg.norm(
        queries[: options.n_queries], axis=1, keepdims=True
    )
    n, dim = vectors.shape

    sample = np.ascontiguousarray(vectors[:: max(1, n // options.sample)][: options.sample])
    sides = (train_ours(sample, options.clusters), train_faiss(sample, options.clusters))
    seconds: list[list[float]] = []
    for _ in range(min(3, options.rounds)):
        seconds.append([])
        for side in sides:
            start = time.perf_counter()
            side()
            seconds[-1].append(time.perf_counter() - start)
    ratio = statistics.median(b / a for a, b in seconds)
    medians = [statistics.median(column) for column in zip(*seconds, strict=True)]
    print(
        f"training {len(sample)} x {dim}, {options.clusters} lists: ours {medians[0]:.2f} s, "
        f"faiss {medians[1]:.2f} s, {ratio:.2f} times as fast",
        flush=True,
    )

    truth = faiss.knn(queries, vectors, K)[1]
    flat = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, options.clusters)
    fast = faiss.IndexIVFPQFastScan(faiss.IndexFlatL2(dim), dim, options.clusters, dim // 4, 4)
    refined = faiss.IndexRefineFlat(fast)
    refined.k_factor = options.refine
    asks: dict[str, Ask] = {}
    for name, make in (
        ("iqdb ivf", lambda: ours(vectors, queries, options.clusters)),
        ("iqdb ivf-pq", lambda: ours(vectors, queries, options.clusters, options.refine)),
        ("faiss IVFFlat", lambda: theirs(flat, flat, vectors, queries)),
        ("faiss IVFPQFastScan + refine", lambda: theirs(refined, fast, vectors, queries)),
    ):
        print(name)
        asks[name] = make()
    points: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in asks}
    for _ in range(options.rounds):
        for name, ask in asks.items():
            curve = []
            for probes in PROBES:
                start = time.perf_counter()
                found = ask(probes)
                taken = time.perf_counter() - start
                recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)])
                curve.append((float(recall), len(queries) / taken))
            points[name].append(curve)
    for name, curves in points.items():
        row = "  ".join(
            f"{p}: {curves[0][i][0]:.4f} {statistics.median(c[i][1] for c in curves):,.0f}/s"
            for i, p in enumerate(PROBES)
        )
        print(f"{name}: {row}")
    for name, curves in points.items():
        speeds = [speed_at(curve, options.recall) for curve in curves]
        print(f"{name} at recall {options.recall}: {statistics.median(speeds):,.0f} q/s")
        for other, their_curves in points.items():
            rates = [speed_at(curve, options.recall) for curve in their_curves]
            if other != name and all(rates):
                ratio = statistics.median(a / b for a, b in zip(speeds, rates, strict=True))
                print(f"  {ratio:.2f} times {other}")


if __name__ == "__main__":
    main()
