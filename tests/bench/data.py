"""The data sets of the benchmark, made once in a work folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROWS = 1_000_000
DIM = 128


@dataclass(frozen=True)
class Data:
    """Where everything is."""

    work: Path
    parquet: Path
    queries: Path
    wordnet_npy: Path
    one_query: Path
    synthetic_npy: Path
    jsonl: Path
    reuse: bool = False  # search databases of an earlier run, and quote no time for them
    vectors: Path | None = None  # vectors of the caller, f32[n][dim]
    metric: str = "euclidean"  # of these


def clustered(rows: int, dim: int, *, seed: int, centres: int = 1000) -> np.ndarray:
    """Rows around random centres: the shape of embeddings without their licence."""
    generator = np.random.default_rng(seed)
    middle = generator.standard_normal((centres, dim), dtype=np.float32)
    out = np.empty((rows, dim), dtype=np.float32)
    for start in range(0, rows, 100_000):
        stop = min(start + 100_000, rows)
        which = generator.integers(0, centres, stop - start)
        noise = generator.standard_normal((stop - start, dim), dtype=np.float32)
        out[start:stop] = middle[which] + np.float32(0.5) * noise
    return out


def parquet_vectors(path: Path) -> np.ndarray:
    """The vector column as f32[n][dim]."""
    column = pq.read_table(path, columns=["vector"]).column(0).combine_chunks()
    dim = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat.reshape(-1, dim), dtype=np.float32)


def prepare(work: Path, parquet: Path, queries: Path, *, jsonl_rows: int = 20_000) -> Data:
    """Make what is not there yet; everything is derived from the two given files and fixed seeds."""
    work.mkdir(parents=True, exist_ok=True)
    data = Data(
        work,
        parquet,
        queries,
        work / "wordnet.npy",
        work / "one-query.npy",
        work / "synthetic.npy",
        work / "wordnet.jsonl",
    )
    if not data.wordnet_npy.exists():
        np.save(data.wordnet_npy, parquet_vectors(parquet))
    if not data.one_query.exists():
        np.save(data.one_query, np.load(queries)[0])
    if not data.synthetic_npy.exists():
        np.save(data.synthetic_npy, clustered(ROWS, DIM, seed=1))
    if not data.jsonl.exists():
        table = pq.read_table(parquet).slice(0, jsonl_rows)
        vectors = np.load(data.wordnet_npy, mmap_mode="r")
        keys = [name for name in table.column_names if name != "vector"]
        with data.jsonl.open("w", encoding="utf-8") as out:
            for row, fields in enumerate(table.select(keys).to_pylist()):
                # Shortest decimals of an f32, as every JSON writer of embeddings prints them.
                vector = [float(str(x)) for x in vectors[row]]
                out.write(json.dumps({**fields, "embedding": vector}, ensure_ascii=False) + "\n")
    return data
