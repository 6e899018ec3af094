"""Damage to files of many blocks, of which an answer touches a few: the guarantee holds for what it touched.

A fresh handle is asked one thing. Either that raises an error of iqdb's own or it is what the undamaged
file says; and what must have touched the damaged block does raise.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from damage import SilentChangeError, hits, record
from damage_databases import INDEXES, METRICS, PATH, contents
from memory_files import MemoryFiles

from iqdb_core import Compression, Iqdb, IqdbConfig
from iqdb_core.errors import PersistError
from iqdb_core.storage.layout import VECTORS
from iqdb_core.storage.snapshot import Snapshot

N_ROWS = 3000
DIM = 48
CASES = [(index, compression) for index in INDEXES for compression in ("none", "zstd:3")]


@dataclass
class LazyTally:
    """What was tried.

    Attributes:
        flips: bits flipped.
        answers: questions asked of damaged files.
        refused: of these, answered with an error, because they touched the damage.
        silent: answers that were neither an error nor right.
    """

    flips: int = 0
    answers: int = 0
    refused: int = 0
    silent: int = 0

    def plus(self, other: LazyTally) -> LazyTally:
        """Return the sum of two tallies."""
        return LazyTally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@cache
def image(index: str, compression: str) -> tuple[bytes, list[Any], Any]:
    """Return a database of some hundred blocks as bytes, its ids and its vectors."""
    rng = np.random.default_rng(7)
    vectors = rng.integers(-9, 10, (N_ROWS, DIM)).astype(np.float32)
    ids = [f"id {i * 31 % N_ROWS}" for i in range(N_ROWS)]
    metadata = [{"n": i, "name": f"n{i % 7}", "text": f"row {i}"} for i in range(N_ROWS)]
    config = IqdbConfig(
        dim=DIM,
        metric=METRICS[index],
        index=INDEXES[index],
        compression=Compression.parse(compression),
        auto_compact=None,
    )
    with tempfile.TemporaryDirectory(prefix="iqdb-damage-") as folder:
        path = Path(folder) / PATH
        with Iqdb.create(path, config) as db:
            db.upsert_many(ids, vectors, metadata)
        if index != "flat":
            with Iqdb.open_existing(path) as db:
                db.optimize()
        return path.read_bytes(), ids, vectors


def run(index: str, compression: str, seed: int, flips: int) -> LazyTally:
    """Flip bits all over a file, one at a time, and ask fresh handles."""
    data, ids, vectors = image(index, compression)
    rng = random.Random(seed)
    damaged = bytearray(data)
    files = MemoryFiles({PATH: damaged})
    whole = Iqdb.open_existing(PATH, read_only=True, files=MemoryFiles({PATH: bytearray(data)}), threads=1)
    sections = [s.entry for s in Snapshot.from_buffer(data).sections.values() if s.entry.stored_bytes]
    tally = LazyTally()
    for number in range(flips):
        # Every section as often as any other, however large it is.
        entry = sections[number % len(sections)]
        offset = entry.offset + rng.randrange(entry.stored_bytes)
        row = rng.randrange(N_ROWS)
        query = vectors[rng.randrange(N_ROWS)] + 0.25
        questions: list[Callable[[Iqdb], Any]] = [
            lambda db, row=row: record(db, ids[row]),
            lambda db, query=query: hits(db.search(query, 5)),
            lambda db, query=query: hits(db.search(query, 5, filter="n < 500")),
        ]
        if number % 4 == 0:
            questions.append(lambda db, query=query: hits(db.search(query, 5, exact=True)))
        if number % 4 == 1:
            # A block that was looked at says nothing of the others.
            questions.append(lambda db: (record(db, ids[0]), contents(db)))
        damaged[offset] ^= 1 << rng.randrange(8)
        tally.flips += 1
        for question in questions:
            _ask(
                files,
                whole,
                question,
                tally,
                f"{index}, {compression}: a bit of byte {offset} in {entry.name}",
            )
        if entry.name == VECTORS and compression == "none":
            touched = (offset - entry.offset) // (4 * DIM)
            _must_refuse(files, ids[touched], tally)
        damaged[offset] = data[offset]
    whole.close()
    return tally


def _ask(
    files: MemoryFiles, whole: Iqdb, question: Callable[[Iqdb], Any], tally: LazyTally, what: str
) -> None:
    tally.answers += 1
    try:
        with Iqdb.open_existing(PATH, read_only=True, files=files, threads=1) as db:
            found = question(db)
    except PersistError:
        tally.refused += 1
        return
    right = question(whole)
    if found != right:
        tally.silent += 1
        raise SilentChangeError(f"{what}: {found!r}, expected {right!r}")


def _must_refuse(files: MemoryFiles, id_: Any, tally: LazyTally) -> None:
    """A record whose own vector is damaged is never handed out."""
    tally.answers += 1
    with Iqdb.open_existing(PATH, read_only=True, files=files, threads=1) as db:
        try:
            db.get(id_)
        except PersistError:
            tally.refused += 1
            return
    tally.silent += 1
    raise SilentChangeError(f"the record {id_!r} was read from a damaged block")
