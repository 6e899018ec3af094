"""Durable writes against the fsync that they cannot avoid."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator

import numpy as np
from data import Data
from measure import Figure, pairs, seconds

from iqdb_core import Iqdb

DIM = 384


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    vectors = np.load(data.wordnet_npy, mmap_mode="r")[:20_000].copy()
    path = data.work / "writes.iqdb"
    log = data.work / "writes.iqdb.wal"
    for old in (path, log):
        old.unlink(missing_ok=True)
    bare = os.open(data.work / "bare.log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o644)
    body = bytes(DIM * 4 + 64)
    counter = iter(range(10**9))
    count = 50

    db = Iqdb.open(path, dim=DIM, metric="cosine")

    def one_by_one() -> None:
        for _ in range(count):
            number = next(counter)
            db.upsert(number, vectors[number % 20_000])

    def append_and_fsync() -> None:
        for _ in range(count):
            os.write(bare, body)
            os.fsync(bare)

    yield pairs(one_by_one, append_and_fsync, runs=21, warmup=2).figure(
        "upsert one record x 50, fsync always, against append + fsync", "<= 1.3", at_most=1.3
    )
    db.close(compact=False)
    os.close(bare)
    for old in (path, log, data.work / "bare.log"):
        old.unlink(missing_ok=True)

    metadata = [
        {"pos": "noun", "lexfile": row % 45, "n_words": row % 7, "weight": row / 3} for row in range(1000)
    ]
    rates = []
    with Iqdb.open(path, dim=DIM, metric="cosine") as db:
        for batch in range(19):  # 19,000 rows: below the threshold of a compaction of its own accord
            ids = np.arange(batch * 1000, batch * 1000 + 1000, dtype=np.uint64)
            part = vectors[batch * 1000 : batch * 1000 + 1000]
            start = time.perf_counter()
            db.upsert_many(ids, part, metadata)
            rates.append(1000 / (time.perf_counter() - start))
        db.close(compact=False)
    rates.sort()
    middle = statistics.median(rates)
    yield Figure(
        "upsert_many, 1,000 x 384 with 4 metadata values, fsync always (records/s in place of a ratio)",
        seconds(1000 / middle),
        "-",
        middle,
        rates[4],
        rates[-5],
        ">= 100,000/s",
        middle >= 100_000,
    )
    for old in (path, log):
        old.unlink(missing_ok=True)
