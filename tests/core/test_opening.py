from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    ChecksumError,
    ConfigConflictError,
    DatabaseExistsError,
    DatabaseNotFoundError,
    DistanceMetric,
    FileIOError,
    HnswConfig,
    IndexKind,
    InvalidConfigError,
    InvalidMetadataError,
    Iqdb,
    IqdbConfig,
    NotADatabaseError,
)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_open_creates_and_then_opens_the_same_database(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, 3, "dot") as db:
        assert (db.dim, db.metric, len(db), db.is_empty) == (3, DistanceMetric.DOT, 0, True)
        db.upsert(1, [1, 2, 3], {"a": 1})
    with Iqdb.open(path, 3, DistanceMetric.DOT) as db:
        assert len(db) == 1
        assert not db.is_empty
        assert db.path == str(path)
        assert not db.read_only
        vector, metadata = db.get(1) or (None, None)
        assert vector is not None
        assert vector.dtype == np.float32
        assert vector.tolist() == [1, 2, 3]
        assert metadata == {"a": 1}
    assert names_in(tmp_path) == ["a.iqdb"]


@pytest.mark.parametrize(("dim", "metric", "field"), [(4, "dot", "dim"), (3, "cosine", "metric")])
def test_a_contradicting_open_is_refused_and_says_what_the_file_has(
    tmp_path: Path, dim: int, metric: str, field: str
) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 3, "dot").close()
    with pytest.raises(ConfigConflictError) as caught:
        Iqdb.open(path, dim, metric)
    assert caught.value.field == field
    assert caught.value.hint
    # The refused handle has let go of the lock.
    Iqdb.open(path, 3, "dot").close()


def test_reopening_with_another_index_configuration_is_a_conflict_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 3).close()
    with pytest.raises(ConfigConflictError, match="index") as caught:
        Iqdb.open_with(path, IqdbConfig(dim=3, index=HnswConfig()))
    assert "optimize" in caught.value.hint


def test_provenance_compression_and_id_of_the_file_are_not_contradicted_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    made = IqdbConfig(dim=3, compression="lz4", provenance={"model": "x"}, database_id=bytes(16))
    Iqdb.open_with(path, made).close()
    for settings in ({"provenance": {"model": "y"}}, {"compression": "zstd"}, {"database_id": b"\1" * 16}):
        with pytest.raises(ConfigConflictError):
            Iqdb.open_with(path, IqdbConfig(dim=3, **settings))
    with Iqdb.open_with(path, IqdbConfig(dim=3, provenance={"model": "x"})) as db:
        assert db.config.compression == made.compression
        assert db.config.provenance == {"model": "x"}
        assert db.config.database_id == bytes(16)


def test_create_refuses_whatever_stands_at_the_path_and_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    path.write_bytes(b"mine")
    with pytest.raises(DatabaseExistsError):
        Iqdb.create(path, IqdbConfig(dim=3))
    with pytest.raises(NotADatabaseError):
        Iqdb.open(path, 3)
    assert path.read_bytes() == b"mine"
    assert names_in(tmp_path) == ["a.iqdb"]


def test_a_database_of_the_same_records_configuration_and_id_is_the_same_file(
    tmp_path: Path, some_records: Any
) -> None:
    ids, vectors, metadata = some_records(100)
    images = []
    for name, batch, threads in (("a", 100, 1), ("b", 7, 2)):
        config = IqdbConfig(dim=6, database_id=bytes(16), compression="zstd:3", threads=threads)
        with Iqdb.create(tmp_path / name, config) as db:
            for start in range(0, 100, batch):
                stop = start + batch
                db.upsert_many(ids[start:stop], vectors[start:stop], metadata[start:stop])
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]


def test_opening_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(DatabaseNotFoundError):
            Iqdb.open_existing(tmp_path / "a.iqdb", read_only=read_only)
        with pytest.raises(NotADatabaseError, match="directory"):
            Iqdb.open_existing(tmp_path, read_only=read_only)
    assert names_in(tmp_path) == []


def test_creating_in_a_directory_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileIOError, match="there is no folder"):
        Iqdb.open(tmp_path / "no" / "a.iqdb", 3)


def test_an_index_kind_that_cannot_be_built_is_refused_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iqdb_core.index.SUPPORTED_INDEX_KINDS", (IndexKind.FLAT,))
    with pytest.raises(InvalidConfigError, match="hnsw"):
        Iqdb.create(tmp_path / "a.iqdb", IqdbConfig(dim=3, index=HnswConfig()))
    assert names_in(tmp_path) == []


def test_a_fifo_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.iqdb")
    for read_only in (False, True):
        with pytest.raises(NotADatabaseError, match="FIFO"):
            Iqdb.open_existing(tmp_path / "a.iqdb", read_only=read_only)


def test_a_damaged_vector_is_reported_by_the_search_that_needs_it_and_by_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, 512, "euclidean") as db:
        db.upsert_many(range(10), np.eye(10, 512), [{"n": i} for i in range(10)])
    damaged = bytearray(path.read_bytes())
    damaged[4096 + 2048 * 5] ^= 1
    path.write_bytes(damaged)
    with Iqdb.open_existing(path, read_only=True) as db:
        with pytest.raises(ChecksumError, match="vectors"):
            db.search(np.zeros(512), 3)
        with pytest.raises(ChecksumError):
            db.search_arrays(np.zeros((1, 512)), 3)
        with pytest.raises(ChecksumError):
            db.get(5)
        assert len(db.search(np.zeros(512), 3, filter="n < 3")) == 3
        assert db.get(0) is not None
        assert db.metadata(5) == {"n": 5}


@pytest.mark.parametrize("settings", [{"threads": 0}, {"fsync": "sometimes"}, {"auto_compact": 0}], ids=str)
def test_wrong_settings_of_a_handle_are_refused_and_leave_no_lock(tmp_path: Path, settings: Any) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 3).close()
    for read_only in (False, True):
        with pytest.raises(InvalidConfigError):
            Iqdb.open_existing(path, read_only=read_only, **settings)
    Iqdb.open_existing(path).close()


def test_an_empty_path_and_a_cache_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileIOError, match="the path is empty"):
        Iqdb.open_existing("")
    Iqdb.open(tmp_path / "a.iqdb", dim=2).close()
    with pytest.raises(InvalidConfigError, match="cache is 5, expected CacheConfig or None"):
        Iqdb.open_existing(tmp_path / "a.iqdb", cache=5)  # type: ignore[arg-type]


def test_metadata_of_another_number_than_ids_is_told_without_a_key() -> None:
    with (
        Iqdb.open_in_memory(2) as db,
        pytest.raises(InvalidMetadataError, match=r"^metadata: 1 mappings for 2 ids$"),
    ):
        db.upsert_many([1, 2], [[1, 2], [1, 3]], [{}])
