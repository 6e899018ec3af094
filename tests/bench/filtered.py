"""Filtered search against faiss HNSW with IDSelectorBitmap: one thread, one query a call, recall 0.99.

faiss is handed a bitmap that is ready. iqdb is asked with the filter as an expression, and the whole call
counts: once with one expression for all queries, so that the first call makes the mask and the others find
it, and once with another expression for every query ("fresh"), which is the cost of the mask each time.
Each side is taken at the first setting of a sweep that reaches the recall. faiss may also do without its
graph and scan the rows that the bitmap lets through (IndexFlat with the same selector), which is its best for
small shares; those lines say "flat".
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from data import Data
from measure import Figure

from iqdb_core import DistanceMetric, HnswConfig, Ids, Iqdb, IqdbConfig, MetadataColumns, RecordBatch

K = 10
MARKS = 1000
SHARES = (0.001, 0.01, 0.1, 0.5)
OUR_EFS = (12, 16, 24, 32, 48, 64, 96, 128)
THEIR_EFS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
RECALL = 0.99
QUERIES = 200
FRESH_QUERIES = 100
ROUNDS = 5
BATCH = 16_384

Ask = Callable[[], list[list[int]]]


@dataclass
class Best:
    """The fastest setting of one side that reaches the recall."""

    ask: Ask
    setting: str
    recall: float


def marks_of(n_rows: int) -> np.ndarray:
    """A number from 0 to 999 for each row; they have nothing to do with the vectors."""
    return np.random.default_rng(3).integers(0, MARKS, n_rows)


def marked(rows: np.ndarray) -> Iterator[RecordBatch]:
    """Rows with their numbers as metadata."""
    marks = marks_of(len(rows))
    for start in range(0, len(rows), BATCH):
        part = np.ascontiguousarray(rows[start : start + BATCH])
        ids = Ids.from_u64(np.arange(start, start + len(part), dtype=np.uint64))
        dicts = [{"mark": mark} for mark in marks[start : start + len(part)].tolist()]
        yield RecordBatch(ids, part, MetadataColumns.from_dicts(dicts), start)


def faiss_graph(path: Path, unit: np.ndarray) -> faiss.IndexHNSWFlat:
    """The graph, built once and kept in the work folder."""
    if not path.exists():
        graph = faiss.IndexHNSWFlat(unit.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = 200
        faiss.omp_set_num_threads(2)
        graph.add(unit)
        faiss.write_index(graph, str(path))
    return faiss.read_index(str(path))


def recall_of(found: list[list[int]], truth: list[set[int]]) -> float:
    """The mean share of the nearest neighbours that was found."""
    return float(np.mean([len(t & set(f)) / len(t) for t, f in zip(truth, found, strict=True)]))


def seconds_of(ask: Ask) -> float:
    """How long one round takes."""
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start


def best(settings: list[tuple[str, Ask]], truth: list[set[int]]) -> Best | None:
    """The fastest setting that reaches the recall; they are in order of recall, and of cost."""
    for setting, ask in settings:
        recall = recall_of(ask(), truth)
        if recall >= RECALL:
            return Best(ask, setting, recall)
    return None


def compared(what: str, ours: Best, theirs: Best, reach: float) -> Figure:
    """One row: both in turn, and the median of the ratios."""
    n_ours, n_theirs = len(ours.ask()), len(theirs.ask())
    mine, other = [], []
    for _ in range(ROUNDS):
        mine.append(n_ours / seconds_of(ours.ask))
        other.append(n_theirs / seconds_of(theirs.ask))
    ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
    ratio = statistics.median(ratios)
    return Figure(
        what,
        f"{statistics.median(mine):,.0f}/s",
        f"{statistics.median(other):,.0f}/s",
        ratio,
        ratios[1],
        ratios[-2],
        f">= {reach:.0f} times",
        ratio >= reach,
        f"recall {ours.recall:.3f} at {ours.setting}, faiss {theirs.recall:.3f} at {theirs.setting}",
    )


def fresh(share: float, n_queries: int) -> list[str]:
    """A condition for each query, no two alike, that keeps the share asked for."""
    width = max(1, round(share * MARKS))
    # Marks are integers, so a fraction changes the expression and not what it means.
    return [
        f"mark >= {i % (MARKS - width)} and mark < {i % (MARKS - width) + width - (i + 1) / 4096}"
        for i in range(n_queries)
    ]


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    rows = np.load(data.wordnet_npy)
    queries = np.ascontiguousarray(np.load(data.queries)[:QUERIES])
    path = data.work / "wordnet-marked.iqdb"
    if not path.exists():
        config = IqdbConfig(dim=rows.shape[1], metric=DistanceMetric.COSINE, index=HnswConfig())
        Iqdb.create_from(path, config, marked(rows))
    marks = marks_of(len(rows))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    graph = faiss_graph(data.work / "wordnet-filtered.faiss", unit)
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(unit)
    faiss.omp_set_num_threads(1)
    unit_queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    with Iqdb.open_existing(path, read_only=True, threads=1) as db:
        for share in SHARES:
            limit = int(share * MARKS)
            condition = f"mark < {limit}"
            truth = [
                {int(i) for i in row} for row in db.search_arrays(queries, K, filter=condition, exact=True)[0]
            ]
            selector = faiss.IDSelectorBitmap(np.packbits(marks < limit, bitorder="little"))

            def ask_faiss(ef: int, selector: faiss.IDSelector = selector) -> list[list[int]]:
                parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
                return [graph.search(q[None, :], K, params=parameters)[1][0].tolist() for q in unit_queries]

            def ask_flat(selector: faiss.IDSelector = selector) -> list[list[int]]:
                parameters = faiss.SearchParameters(sel=selector)
                return [flat.search(q[None, :], K, params=parameters)[1][0].tolist() for q in unit_queries]

            def ask_iqdb(ef: int, condition: str = condition) -> list[list[int]]:
                return [[hit.id for hit in db.search(q, K, filter=condition, ef=ef)] for q in queries]

            def ask_fresh(ef: int, share: float = share) -> list[list[int]]:
                asked = zip(queries, fresh(share, FRESH_QUERIES), strict=False)
                return [[hit.id for hit in db.search(q, K, filter=c, ef=ef)] for q, c in asked]

            ours = best([(f"ef {ef}", lambda ef=ef: ask_iqdb(ef)) for ef in OUR_EFS], truth)
            theirs = best([(f"ef {ef}", lambda ef=ef: ask_faiss(ef)) for ef in THEIR_EFS], truth)
            scan = Best(ask_flat, "flat", recall_of(ask_flat(), truth))
            if ours is None:
                message = f"no setting reaches recall {RECALL} at {share:.1%}"
                raise SystemExit(message)
            ef = int(ours.setting.split()[1])
            new = Best(lambda ef=ef: ask_fresh(ef), ours.setting, ours.recall)
            name = f"filter keeps {share:.1%} of 115,659 x 384, queries/s at recall >= {RECALL}"
            reach = 5.0 if share == 0.01 else 1.0
            if theirs is not None:
                yield compared(f"{name}, against faiss HNSW + bitmap", ours, theirs, reach)
                yield compared(f"{name}, fresh filters, against faiss HNSW + bitmap", new, theirs, 1.0)
            yield compared(f"{name}, against faiss flat + bitmap", ours, scan, 1.0)
