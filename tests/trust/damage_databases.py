"""The small databases whose bytes are damaged: every index kind under every compression, and a log."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from iqdb_core import Compression, FlatConfig, HnswConfig, Iqdb, IqdbConfig, IvfConfig
from iqdb_core.config import FsyncPolicy, IndexConfig
from iqdb_core.storage import layout
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.wal import LogWriter, read_log

PATH = "damaged.iqdb"
LOG_PATH = f"{PATH}.wal"
DIM = 8
N_ROWS = 26

INDEXES: dict[str, IndexConfig] = {
    "flat": FlatConfig(),
    "hnsw": HnswConfig(m=3, ef_construction=20, ef_search=12),
    "ivf": IvfConfig(n_clusters=3, n_probes=2),
    "ivf-pq": IvfConfig(n_clusters=3, n_probes=2, use_pq=True, pq_subvectors=4),
}
COMPRESSIONS = ("none", "lz4", "zstd:3")
METRICS = {"flat": "euclidean", "hnsw": "cosine", "ivf": "dot", "ivf-pq": "euclidean"}
FILTER = "even = true or name = 'n3'"


@dataclass(frozen=True)
class Small:
    """One database as it was written.

    Attributes:
        name: what it shows.
        images: its files by their paths: the snapshot, and perhaps a log.
        ids: every id that it ever held.
        frame_ends: where the frames of the log end, its header first.
        states: what the database holds after each frame, computed without a log: id, vector, metadata.
    """

    name: str
    images: dict[str, bytes]
    ids: list[Any]
    frame_ends: tuple[int, ...] = ()
    states: tuple[list[tuple[Any, bytes, Any]], ...] = ()


def records(n: int, *, integers: bool) -> tuple[list[Any], Any, list[Any]]:
    """Return ids in no order, vectors that compress in part, and metadata of every type."""
    rng = np.random.default_rng(n)
    vectors = rng.integers(-3, 4, (n, DIM)).astype(np.float32)
    vectors[n // 2 :] += rng.random((n - n // 2, DIM), np.float32)
    order = rng.permutation(n)
    kinds = [lambda i: i * 7, lambda i: f"id {i}", lambda i: b"\0%d" % i]
    ids = [int(i) * 7 if integers else kinds[int(i) % 3](int(i)) for i in order]
    metadata = [
        None if i % 5 == 0 else {"n": i, "half": i / 2, "even": i % 2 == 0, "name": f"n{i % 7}", "none": None}
        for i in range(n)
    ]
    return ids, vectors, metadata


def config_of(index: str, compression: str) -> IqdbConfig:
    """Return the configuration; the database id is fixed, so that every run has the same bytes."""
    return IqdbConfig(
        dim=DIM,
        metric=METRICS[index],
        index=INDEXES[index],
        compression=Compression.parse(compression),
        database_id=f"{index} {compression}".encode().ljust(16, b"\xd6")[:16],
        threads=1,
        auto_compact=None,
    )


def has_integer_ids(index: str, compression: str) -> bool:
    """Say which databases show the other encoding of ids."""
    return compression == "none" and index != "hnsw"


def snapshot_image(index: str, compression: str) -> bytes:
    """Write a database into one file and return its bytes."""
    with tempfile.TemporaryDirectory(prefix="iqdb-damage-") as folder:
        path = Path(folder) / PATH
        with Iqdb.create(path, config_of(index, compression)) as db:
            db.upsert_many(*records(N_ROWS, integers=has_integer_ids(index, compression)))
        if index != "flat":
            with Iqdb.open_existing(path) as db:
                db.optimize()
        return path.read_bytes()


@cache
def small(index: str, compression: str) -> Small:
    """Return one of the databases without a log."""
    ids = records(N_ROWS, integers=has_integer_ids(index, compression))[0]
    return Small(f"{index}, {compression}", {PATH: snapshot_image(index, compression)}, ids)


@cache
def with_log() -> Small:
    """Return a database whose log has a frame of every kind, each synced before the next one."""
    ids, vectors, metadata = records(12, integers=False)
    last = ([*ids[9:], 4242], [*vectors[9:], vectors[0]], [*metadata[9:], {"last": True}])
    steps: list[Callable[[Iqdb], Any]] = [
        lambda db: db.upsert_many(ids[4:9], vectors[4:9] + 1, metadata[4:9]),
        lambda db: db.upsert(ids[9], vectors[9], metadata[9]),
        lambda db: db.delete_many([ids[0], ids[7]]),
        lambda db: None,  # the fold frame
        lambda db: db.upsert_many(*last),
    ]
    config = config_of("flat", "none")
    states, frame_ends = [], [layout.LOG_HEADER_BYTES]
    with Iqdb.open_in_memory_with(config) as model:
        model.upsert_many(ids[:6], vectors[:6], metadata[:6])
        states.append(contents(model))
        for step in steps:
            step(model)
            states.append(contents(model))
    with tempfile.TemporaryDirectory(prefix="iqdb-damage-") as folder:
        path = Path(folder) / PATH
        log = Path(f"{path}.wal")
        with Iqdb.create(path, config) as db:
            db.upsert_many(ids[:6], vectors[:6], metadata[:6])
        for number, step in enumerate(steps):
            if number == 3:
                _append_fold(path)
            else:
                db = Iqdb.open_existing(path, auto_compact=None)
                step(db)
                db.close(compact=False)
            frame_ends.append(log.stat().st_size)
        images = {PATH: path.read_bytes(), LOG_PATH: log.read_bytes()}
    return Small("log", images, [*ids, 4242], tuple(frame_ends), tuple(states))


def _append_fold(path: Path) -> None:
    """Leave what a compaction leaves that ended between its fold frame and its rename."""
    snapshot = Snapshot.open(path)
    with read_log(f"{path}.wal", snapshot.database_id, snapshot.identity, snapshot.dim) as log:
        writer = LogWriter.open_for_append(log, FsyncPolicy.parse("always"))
    writer.append_fold(snapshot.identity ^ 1)
    writer.close()


def contents(db: Iqdb) -> list[tuple[Any, bytes, Any]]:
    """Return all records in their order: id, bytes of the vector, metadata."""
    found = []
    for batch in db.batches():
        dicts = [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
        found += zip(batch.ids.to_list(), map(bytes, np.array(batch.vectors)), dicts, strict=True)
    return found
