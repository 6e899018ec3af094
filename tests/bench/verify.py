"""Verification against reading the file: `cat FILE > /dev/null`, which copies every byte once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from data import Data
from measure import Figure, pairs

from iqdb_core import FlatConfig, HnswConfig, Iqdb, IqdbConfig, IvfConfig, verify
from iqdb_core.records import Ids, RecordBatch

# What each level may take, as a multiple of reading. Beyond checksums the work goes by records, not by bytes:
# hashes, codes computed again, lookups, and for records lists, words and searches.
REACHES = {
    "flat": {"checksums": 2.0, "structure": 4.0, "records": 11.0},
    "hnsw": {"checksums": 2.0, "structure": 8.0, "records": 15.0},
    "ivf": {"checksums": 2.0, "structure": 9.0, "records": 25.0},
    "ivf-pq": {"checksums": 2.0, "structure": 6.0, "records": 40.0},
}


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    for what, name, vectors, metric, index in (
        ("flat, 1,000,000 x 128", "flat", data.synthetic_npy, "euclidean", FlatConfig()),
        ("wordnet hnsw, 115,659 x 384", "hnsw", data.wordnet_npy, "cosine", HnswConfig()),
        ("wordnet ivf, 115,659 x 384", "ivf", data.wordnet_npy, "cosine", IvfConfig()),
        ("wordnet ivf-pq, 115,659 x 384", "ivf-pq", data.wordnet_npy, "euclidean", IvfConfig(use_pq=True)),
    ):
        path = _made(data.work / f"verify-{name}.iqdb", vectors, metric, index)
        size = path.stat().st_size
        for level, reach in REACHES[name].items():
            runs = 9 if level != "records" else 5
            found = pairs(_checked(path, level), partial(_read, path), runs=runs)
            ours = size / sorted(found.ours)[len(found.ours) // 2] / 1e9
            cat = size / sorted(found.other)[len(found.other) // 2] / 1e9
            yield found.figure(
                f"verify --level {level}, {what}, against cat",
                f"<= {reach:g}",
                at_most=reach,
                note=f"{ours:.2f} GB/s, cat {cat:.2f} GB/s",
            )


def _made(path: Path, vectors: Path, metric: str, index: FlatConfig | HnswConfig | IvfConfig) -> Path:
    """Return a database of these vectors, made once."""
    if not path.exists():
        array = np.load(vectors, mmap_mode="r")
        config = IqdbConfig(dim=array.shape[1], metric=metric, index=index)
        step = 50_000
        batches = (
            RecordBatch(
                Ids.from_u64(np.arange(start, min(start + step, len(array)), dtype=np.uint64)),
                np.ascontiguousarray(array[start : start + step], np.float32),
                None,
            )
            for start in range(0, len(array), step)
        )
        Iqdb.create_from(path, config, batches)
    return path


def _checked(path: Path, level: Any) -> Callable[[], None]:
    def run() -> None:
        report = verify(path, level=level)
        assert report.ok, report.findings

    return run


def _read(path: Path) -> None:
    subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, check=True)
