"""Whole processes and opening: what a user of the shell waits for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from data import Data
from measure import Figure, command, pairs

import iqdb_core
from iqdb_core import Iqdb, IqdbConfig
from iqdb_core.records import Ids, RecordBatch

IQDB = str(Path(sys.executable).parent / "iqdb")


def batches(vectors: np.ndarray, *, rows: int = 16_384) -> Iterator[RecordBatch]:
    """An array as record batches, ids by row number."""
    for start in range(0, len(vectors), rows):
        part = np.ascontiguousarray(vectors[start : start + rows], dtype=np.float32)
        ids = Ids.from_u64(np.arange(start, start + len(part), dtype=np.uint64))
        yield RecordBatch(ids=ids, vectors=part, metadata=None, first_row=start)


def database(path: Path, vectors: np.ndarray, metric: str) -> Path:
    """A database of the rows, made when it is not there."""
    if not path.exists():
        config = IqdbConfig(dim=vectors.shape[1], metric=iqdb_core.DistanceMetric.parse(metric))
        Iqdb.create_from(path, config, batches(vectors))
    return path


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    wordnet = database(data.work / "wordnet-cosine.iqdb", np.load(data.wordnet_npy, mmap_mode="r"), "cosine")
    search = command([IQDB, "search", str(wordnet), "--k", "10"], stdin=str(data.one_query))
    baseline = command([sys.executable, "-c", "import numpy, typer"])
    yield pairs(search, baseline, runs=41, warmup=3).figure(
        "`iqdb search`, 115,659 x 384, whole process, against `import numpy, typer`", "<= 1.25", at_most=1.25
    )

    million = database(
        data.work / "synthetic-euclidean.iqdb", np.load(data.synthetic_npy, mmap_mode="r"), "euclidean"
    )
    thousand = database(
        data.work / "thousand.iqdb", np.load(data.synthetic_npy, mmap_mode="r")[:1000], "euclidean"
    )

    def opened(path: Path) -> None:
        for _ in range(100):
            Iqdb.open_existing(path, read_only=True).close()

    yield pairs(lambda: opened(million), lambda: opened(thousand), runs=21).figure(
        "100 opens, 1,000,000 rows against 1,000", "<= 1.2", at_most=1.2
    )
