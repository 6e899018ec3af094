"""A writer or a kernel that loses, doubles or alters something is caught before the rename.

Each case lets one part of the code that compacts or imports do one wrong thing to one record. Compaction
or import must refuse, and the database must be as it was, byte for byte.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sabotage

from iqdb_core import DamagedError, Iqdb
from iqdb_core.storage.files import FileSystem

SEED = 3


@pytest.mark.parametrize(("name", "operation"), sabotage.PAIRS)
def test_it_is_caught_before_the_rename_and_nothing_is_changed(
    name: str, operation: str, tmp_path: Path
) -> None:
    results = set()
    for compression in ("none", "lz4") if "chunk" in name else ("none",):
        folder = tmp_path / compression
        folder.mkdir()
        results.add(sabotage.attempt(name, operation, compression, folder))
    assert results <= {"caught", "not met"} | ({"harmless"} if name in sabotage.HARMLESS else set())


def test_every_case_happens_somewhere_and_is_caught_there(tmp_path: Path) -> None:
    def is_caught(name: str, operation: str) -> bool:
        folder = tmp_path / f"{name} {operation}"
        folder.mkdir()
        return sabotage.attempt(name, operation, "lz4", folder) == "caught"

    for name in sabotage.CASES:
        assert any(is_caught(name, operation) for operation in ("recompress", "bulk")), name
    for name in sabotage.INDEX_CASES:
        assert any(is_caught(name, operation) for operation in ("compact ivf", "import hnsw")), name


@pytest.mark.parametrize("operation", sabotage.OPERATIONS + sabotage.INDEX_OPERATIONS)
def test_without_sabotage_it_works(operation: str, tmp_path: Path) -> None:
    assert sabotage.attempt(None, operation, "none", tmp_path) == "harmless"


class OneBit(FileSystem):
    """Flips one bit of one of the first writes to a new file."""

    def __init__(self, write: int, place: float, bit: int) -> None:
        self._left = write
        self._place = place
        self._bit = bit

    def write(self, file: Any, data: Any, offset: int) -> None:
        if ".tmp-" in file.path:
            self._left -= 1
            if self._left == 0:
                data = bytearray(data)
                data[int(self._place * len(data))] ^= 1 << self._bit
        super().write(file, data, offset)


def test_any_bit_that_changes_on_its_way_to_the_disk_is_caught_or_not_needed(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    path = tmp_path / "a.iqdb"
    sabotage.make(path, "none")
    with Iqdb.open_existing(path, read_only=True) as db:
        expected = sabotage.state(db)
    caught = 0
    for _ in range(40):
        files = OneBit(rng.randint(1, 9), rng.random(), rng.randrange(8))
        db = Iqdb.open_existing(path, threads=1, files=files)
        db.upsert(10_000, [1.0] * sabotage.DIM)
        db.delete(10_000)
        try:
            db.compact(compression=rng.choice(["zstd:1", "none", "lz4"]))
        except DamagedError:
            caught += 1
        db.close(compact=False)
        with Iqdb.open_existing(path, read_only=True) as db:
            assert sabotage.state(db) == expected
        assert {entry.name for entry in tmp_path.iterdir()} <= {"a.iqdb", "a.iqdb.wal"}
    assert caught > 10
