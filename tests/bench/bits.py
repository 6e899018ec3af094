"""Hamming over two-valued vectors: exact and by a graph, against faiss's binary indexes, usearch and NumPy.

The rows are embeddings of words and clustered ones, each component 1 where it is above its mean. The others
are given their bits packed beforehand; iqdb is given f32 like any other vectors, and finds them by itself.
Distances have many ties, so that recall is the share of hits as near as the k-th nearest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import faiss
import numpy as np
from approximate import EF_CONSTRUCTION, EFS, ROUNDS, THREADS, K, Library, M
from data import Data
from measure import Figure, pairs, seconds
from startup import batches, database
from usearch.index import Index as UsearchIndex

from iqdb_core import DistanceMetric, HnswConfig, Iqdb, IqdbConfig


def packed(rows: np.ndarray) -> np.ndarray:
    """The bits of rows of 0 and 1, a byte for eight."""
    return np.packbits(rows != 0, axis=1, bitorder="little")


def two_valued(vectors: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and queries as 0 and 1 in f32: whether a component is above the rows' mean."""
    mean = vectors.mean(axis=0)
    return (vectors > mean).astype(np.float32), (queries > mean).astype(np.float32)


def exactly(name: str, data: Data, rows: np.ndarray, queries: np.ndarray) -> Iterator[Figure]:
    """A busy handle, which has made bits in memory; see `index.flat.BusyScan`."""
    path = database(data.work / f"{name.split(maxsplit=1)[0]}-bits.iqdb", rows, "hamming")
    bits, asked = packed(rows), packed(queries)
    flat = faiss.IndexBinaryFlat(rows.shape[1])
    flat.add(bits)
    words, asked_words = bits.view(np.uint64), asked.view(np.uint64)

    def numpy_hamming() -> None:
        distances = np.bitwise_count(words ^ asked_words[7]).sum(axis=1, dtype=np.uint32)
        np.argpartition(distances, K)[:K]

    with Iqdb.open_existing(path, read_only=True) as db:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            db.search(queries[0], K)
            times.append(time.perf_counter() - start)
        note = "its first five queries: " + ", ".join(map(seconds, times))
        distances = db.search_arrays(queries, K)[1]
        assert np.array_equal(distances, flat.search(asked, K)[0])
        # faiss's threads go on spinning for a while after a call, and would take a core from what comes next.
        settle = partial(time.sleep, 0.02)
        single = partial(db.search, queries[7], K)
        yield pairs(single, numpy_hamming, runs=31, before=settle).figure(
            f"exact hamming, two values, single query, {name}, against NumPy over packed bits",
            ">= 10 times the speed",
            at_least=10.0,
            note=note,
        )
        yield pairs(single, lambda: flat.search(asked[7:8], K), runs=31, before=settle).figure(
            f"exact hamming, two values, single query, {name}, against faiss IndexBinaryFlat",
            ">= 1 times the speed",
            at_least=1.0,
        )
        for count in (50, len(queries)):
            yield pairs(
                partial(db.search_arrays, queries[:count], K),
                partial(flat.search, asked[:count], K),
                runs=7,
                before=settle,
            ).figure(
                f"exact hamming, two values, batch of {count:,}, {name}, against faiss IndexBinaryFlat",
                ">= 2 times the speed",
                at_least=2.0,
            )


Asked = tuple[Library, Callable[[int, int], Any]]


def graphs(data: Data, rows: np.ndarray, queries: np.ndarray) -> Iterator[Asked]:
    """iqdb first, then the others, with what gives the distances of a query's hits at an ef."""
    bits, asked = packed(rows), packed(queries)
    path = data.work / "wordnet-bits-hnsw.iqdb"
    path.unlink(missing_ok=True)
    config = IqdbConfig(
        dim=rows.shape[1],
        metric=DistanceMetric.HAMMING,
        index=HnswConfig(m=M, ef_construction=EF_CONSTRUCTION),
        threads=THREADS,
    )
    start = time.perf_counter()
    Iqdb.create_from(path, config, batches(rows))
    taken = time.perf_counter() - start
    db = Iqdb.open_existing(path, read_only=True)
    yield (
        Library("iqdb", taken, path.stat().st_size - rows.nbytes, _unused),
        lambda i, ef: [hit.distance for hit in db.search(queries[i], K, ef=ef)],
    )

    start = time.perf_counter()
    binary = faiss.IndexBinaryHNSW(rows.shape[1], M)
    binary.hnsw.efConstruction = EF_CONSTRUCTION
    binary.add(bits)
    taken = time.perf_counter() - start

    def ask_faiss(i: int, ef: int) -> Any:
        binary.hnsw.efSearch = ef
        return binary.search(asked[i : i + 1], K)[0][0]

    yield Library("faiss IndexBinaryHNSW", taken, 0, _unused), ask_faiss

    start = time.perf_counter()
    usearch = UsearchIndex(
        ndim=rows.shape[1],
        metric="hamming",
        dtype="b1",
        connectivity=M,
        expansion_add=EF_CONSTRUCTION,
    )
    usearch.add(np.arange(len(rows)), bits, threads=THREADS)
    taken = time.perf_counter() - start

    def ask_usearch(i: int, ef: int) -> Any:
        usearch.expansion_search = ef
        return usearch.search(asked[i], K, threads=1).distances

    yield Library("usearch b1", taken, 0, _unused), ask_usearch


def _unused(_queries: np.ndarray, _ef: int) -> np.ndarray:
    raise NotImplementedError  # recall here goes by distances, not by ids


def by_graph(data: Data, rows: np.ndarray, queries: np.ndarray) -> Iterator[Figure]:
    """One thread, one query a call, at equal recall."""
    flat = faiss.IndexBinaryFlat(rows.shape[1])
    flat.add(packed(rows))
    farthest = flat.search(packed(queries), K)[0][:, -1]
    libraries = list(graphs(data, rows, queries))
    faiss.omp_set_num_threads(1)
    for turn in range(ROUNDS):
        for library, ask in libraries:
            for step, ef in enumerate(EFS):
                start = time.perf_counter()
                found = [ask(i, ef) for i in range(len(queries))]
                rate = len(queries) / (time.perf_counter() - start)
                if turn == 0:
                    near = [np.mean(np.asarray(d) <= most) for d, most in zip(found, farthest, strict=True)]
                    library.recalls.append(float(np.mean(near)))
                    library.rates.append([])
                library.rates[step].append(rate)
    faiss.omp_set_num_threads(THREADS)
    iqdb, *others = [library for library, _ in libraries]
    for recall in (0.95, 0.99):
        mine = iqdb.rate_at(recall)
        for other in others:
            theirs = other.rate_at(recall)
            ratio = mine / theirs if theirs else float("inf")
            yield Figure(
                f"hnsw hamming, two values, wordnet, recall {recall}, against {other.name}",
                f"{mine:,.0f} queries/s",
                f"{theirs:,.0f} queries/s",
                ratio,
                ratio,
                ratio,
                ">= 1 times the speed",
                ratio >= 1.0,
                f"recalls from {min(other.recalls):.3f} to {max(other.recalls):.3f}" if not theirs else "",
            )
    fastest = min(others, key=lambda library: library.build_seconds)
    yield Figure(
        f"hnsw hamming, two values, wordnet, build with {THREADS} threads, against {fastest.name}",
        seconds(iqdb.build_seconds),
        seconds(fastest.build_seconds),
        iqdb.build_seconds / fastest.build_seconds,
        iqdb.build_seconds / fastest.build_seconds,
        iqdb.build_seconds / fastest.build_seconds,
        "<= 1 times the time",
        iqdb.build_seconds <= fastest.build_seconds,
        f"written to disk, verified; median rate at ef {EFS[0]}: {statistics.median(iqdb.rates[0]):,.0f}/s, "
        f"recall {iqdb.recalls[0]:.3f}; {iqdb.extra_bytes / len(rows):.0f} bytes a row beyond the vectors",
    )


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    faiss.omp_set_num_threads(THREADS)
    wordnet = two_valued(np.load(data.wordnet_npy), np.load(data.queries)[:1000].astype(np.float32))
    yield from exactly("wordnet 115,659 x 384", data, *wordnet)
    yield from by_graph(data, *wordnet)
    synthetic = np.load(data.synthetic_npy)
    near = synthetic[::1000] + np.float32(0.1)
    yield from exactly("synthetic 1,000,000 x 128", data, *two_valued(synthetic, near))
