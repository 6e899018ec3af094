"""Speed of `verify` at each level, against reading the same file."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from figure import Row

from iqdb_core import HnswConfig, Iqdb, IqdbConfig, verify
from iqdb_core.records import Ids, RecordBatch
from iqdb_core.storage.verify_report import Level

if TYPE_CHECKING:
    from collections.abc import Callable

    from figure import Run

POSITION = 85
# Name, index, rows in the short form and in the long one, components.
FILES: list[tuple[str, dict[str, Any], int, int, int]] = [
    ("flat", {}, 200_000, 1_000_000, 128),
    ("hnsw", {"index": HnswConfig()}, 20_000, 100_000, 384),
]
READ_BYTES = 1 << 20


def rows(run: Run) -> list[Row]:
    """Verify a flat file and one with a graph, in turn with plain reads, and compare medians."""
    found = []
    for name, options, short, long, dim in FILES:
        n_rows = long if run.long else short
        with tempfile.TemporaryDirectory(prefix="iqdb-verify-") as folder:
            path = Path(folder) / "made.iqdb"
            _make(path, IqdbConfig(dim=dim, metric="euclidean", **options), n_rows, run.seed)
            found += [_row(path, f"{name}, {n_rows:,} x {dim}", level) for level in get_args(Level)]
    return found


def _make(path: Path, config: IqdbConfig, n_rows: int, seed: int) -> None:
    """Write rows around some thousand centres, so that neighbours differ from strangers."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1000, config.dim), np.float32)
    step = 50_000

    def batch(start: int) -> RecordBatch:
        ids = np.arange(start, min(start + step, n_rows), dtype=np.uint64)
        vectors = centres[rng.integers(len(centres), size=len(ids))]
        vectors += 0.5 * rng.standard_normal(vectors.shape, np.float32)
        return RecordBatch(Ids.from_u64(ids), vectors, None)

    Iqdb.create_from(path, config, map(batch, range(0, n_rows, step)))


def _row(path: Path, what: str, level: Level) -> Row:
    def check() -> None:
        report = verify(path, level=level)
        assert report.ok, report.findings

    times: dict[Callable[[], None], list[float]] = {check: [], lambda: _read(path): []}
    for _ in range(5):
        for action, taken in times.items():
            started = time.perf_counter()
            action()
            taken.append(time.perf_counter() - started)
    ours, read = (statistics.median(taken) for taken in times.values())
    size = path.stat().st_size
    return Row(
        f"verify --level {level}, {what}",
        f"{size / ours / 1e9:.2f} GB/s; reading the file {size / read / 1e9:.2f} GB/s",
    )


def _read(path: Path) -> None:
    """Copy every byte of the file once, as `cat` does."""
    room = memoryview(bytearray(READ_BYTES))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while os.readv(descriptor, [room]):
            pass
    finally:
        os.close(descriptor)
