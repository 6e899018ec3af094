from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    ClosedError,
    HnswConfig,
    IndexKind,
    InvalidConfigError,
    Iqdb,
    IqdbConfig,
)


def test_a_database_in_memory_touches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Iqdb.open_in_memory(2, "euclidean") as db:
        db.upsert_many(range(100), np.zeros((100, 2)))
        db.compact()
        db.upsert(100, [1, 1])
        db.flush()
        assert db.path == "<memory>"
        assert not db.read_only
        assert len(db) == 101
    assert list(tmp_path.iterdir()) == []


def test_two_databases_in_memory_are_two() -> None:
    with Iqdb.open_in_memory(2) as one, Iqdb.open_in_memory(2) as other:
        one.upsert(1, [1, 1])
        assert len(other) == 0
        assert one.info()["database_id"] != other.info()["database_id"]


def test_a_configuration_in_memory_is_kept_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = IqdbConfig(
        dim=2, metric="dot", compression="zstd:3", threads=1, auto_compact=7, database_id=bytes(16)
    )
    with Iqdb.open_in_memory_with(config) as db:
        assert db.config == config
    monkeypatch.setattr("iqdb_core.index.SUPPORTED_INDEX_KINDS", (IndexKind.FLAT,))
    with pytest.raises(InvalidConfigError):
        Iqdb.open_in_memory_with(IqdbConfig(dim=2, index=HnswConfig()))


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd:3"])
def test_folding_in_memory_keeps_what_a_file_would_keep(tmp_path: Path, compression: str) -> None:
    config = IqdbConfig(dim=3, metric="manhattan", compression=compression, database_id=bytes(16))
    vectors = np.arange(3000).reshape(1000, 3)
    handles = [Iqdb.open_in_memory_with(config), Iqdb.create(tmp_path / "a.iqdb", config)]
    found: list[Any] = []
    for db in handles:
        with db:
            db.upsert_many(range(1000), vectors, [{"n": i} for i in range(1000)])
            report = db.compact()
            db.delete(range(100))
            db.upsert("new", [1, 2, 3])
            second = db.compact()
            found.append((report.digest, second.digest, db.search([0, 0, 0], 5), list(db.ids())))
    assert found[0] == found[1]


def test_a_handle_in_memory_folds_by_itself() -> None:
    with Iqdb.open_in_memory_with(IqdbConfig(dim=1, auto_compact=10)) as db:
        for i in range(25):
            db.upsert(i, [i])
        assert db.info()["snapshot_rows"] == 20
        assert list(db.ids()) == list(range(25))


def test_hits_outlive_a_closed_database_in_memory() -> None:
    db = Iqdb.open_in_memory(1)
    db.upsert(1, [1], {"a": 1})
    db.compact()
    hits = db.search([1], 1)
    db.close()
    assert hits[0].metadata == {"a": 1}
    with pytest.raises(ClosedError):
        db.search([1], 1)
