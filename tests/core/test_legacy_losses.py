from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from iqdb_core import (
    BatchTooLargeError,
    ChecksumError,
    DatabaseExistsError,
    DimensionMismatchError,
    FsyncPolicy,
    InvalidIdError,
    InvalidMetadataError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    LogDamagedError,
    LogMismatchError,
    SnapshotMissingError,
    TruncatedError,
)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_legacy_6_nothing_is_logged_before_it_is_validated(tmp_path: Path) -> None:
    with Iqdb.open(tmp_path / "a.iqdb", 2) as db:
        db.upsert(1, [1, 2])
        before = (tmp_path / "a.iqdb.wal").read_bytes()
        for record in [(1, [1]), (1, [1, math.inf]), (-1, [1, 2]), (b"", [1, 2]), (1, [1, 2], {"a": 2**63})]:
            with pytest.raises(
                (InvalidVectorError, DimensionMismatchError, InvalidIdError, InvalidMetadataError)
            ):
                db.upsert(*record)
        assert (tmp_path / "a.iqdb.wal").read_bytes() == before


def test_legacy_22_an_empty_byte_id_is_refused_at_the_door() -> None:
    with Iqdb.open_in_memory(1) as db:
        for call in (
            lambda: db.upsert(b"", [1]),
            lambda: db.upsert_many([b""], [[1]]),
            lambda: db.delete(b""),
            lambda: db.get(b""),
        ):
            with pytest.raises(InvalidIdError, match="empty"):
                call()


def test_legacy_9_a_batch_that_does_not_fit_into_a_frame_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    text = "x" * (16 * 2**20)
    with Iqdb.open(path, 1) as db:
        db.upsert(1, [1])
        with pytest.raises(BatchTooLargeError):
            db.upsert_many(range(17), [[1]] * 17, [{"a": text}] * 17)
        db.upsert(2, [1], {"a": text})
        db.close(compact=False)
    with Iqdb.open_existing(path) as db:
        assert list(db.ids()) == [1, 2]


def written(path: Path, count: int) -> bytes:
    """Make a database with `count` logged records and return its log."""
    with Iqdb.open(path, 2, "euclidean") as db:
        for i in range(count):
            db.upsert(i, [i, i])
        db.close(compact=False)
    return (path.parent / (path.name + ".wal")).read_bytes()


def ids_of(path: Path) -> list[Any]:
    with Iqdb.open_existing(path, read_only=True) as db:
        return list(db.ids())


def test_legacy_1_records_written_after_a_torn_tail_are_kept(tmp_path: Path) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    whole = written(path, 5)
    for cut in range(1, 40, 7):
        log.write_bytes(whole[:-cut])
        assert ids_of(path) == [0, 1, 2, 3]
        with Iqdb.open(path, 2, "euclidean") as db:
            db.upsert(100, [1, 1])
            db.close(compact=False)
        assert ids_of(path) == [0, 1, 2, 3, 100]
        with Iqdb.open(path, 2, "euclidean") as db:
            db.delete(100)
            db.close(compact=False)


def test_legacy_2_a_log_shorter_than_its_header_is_made_anew(tmp_path: Path) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    whole = written(path, 1)
    for size in (0, 1, 11, 63):
        log.write_bytes(b"" if size == 0 else whole[:size] if size < 8 else bytes(size))
        assert ids_of(path) == []
        with Iqdb.open(path, 2, "euclidean") as db:
            db.upsert(100, [1, 1])
            db.close(compact=False)
        assert ids_of(path) == [100]


@pytest.mark.parametrize("count", [8, 16, 32, 40, 4096])
def test_legacy_3_zero_bytes_at_the_tail_are_no_frame(tmp_path: Path, count: int) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    log_bytes = written(path, 3)
    log.write_bytes(log_bytes + bytes(count))
    assert ids_of(path) == [0, 1, 2]
    with Iqdb.open(path, 2, "euclidean") as db:
        db.upsert(100, [1, 1])
        db.close(compact=False)
    assert ids_of(path) == [0, 1, 2, 100]


def test_legacy_5_another_databases_log_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "a.iqdb", tmp_path / "b.iqdb"
    written(path, 2)
    (tmp_path / "a.iqdb.wal").write_bytes(written(other, 3))
    for read_only in (True, False):
        with pytest.raises(LogMismatchError):
            Iqdb.open_existing(path, read_only=read_only)


def test_legacy_11_a_flipped_bit_before_valid_frames_is_reported(tmp_path: Path) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    damaged = bytearray(written(path, 100))
    damaged[64 + 50] ^= 1
    log.write_bytes(damaged)
    for read_only in (True, False):
        with pytest.raises(LogDamagedError) as caught:
            Iqdb.open_existing(path, read_only=read_only)
        assert caught.value.frame == 0
    assert log.read_bytes() == damaged


def test_legacy_12_a_bare_file_name_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Iqdb.open("a.iqdb", 1) as db:
        db.upsert(1, [1])
        db.compact()
        monkeypatch.chdir("/")
        db.upsert(2, [1])
    assert ids_of(tmp_path / "a.iqdb") == [1, 2]
    assert names_in(tmp_path) == ["a.iqdb"]


def test_legacy_13_creating_never_destroys(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    written(path, 2)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    with pytest.raises(DatabaseExistsError):
        Iqdb.create(path, IqdbConfig(dim=2))
    with pytest.raises(DatabaseExistsError):
        Iqdb.create_from(path, IqdbConfig(dim=2), [])
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_legacy_14_no_way_to_open_ignores_a_log_that_holds_records(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    written(path, 2)
    for handle in (
        lambda: Iqdb.open_existing(path, read_only=True),
        lambda: Iqdb.open_existing(path, fsync=FsyncPolicy.NEVER),
        lambda: Iqdb.open(path, 2, "euclidean"),
        lambda: Iqdb.open_with(path, IqdbConfig(dim=2, metric="euclidean")),
    ):
        db = handle()
        assert len(db) == 2
        db.close(compact=False)


def test_legacy_16_trailing_and_missing_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    whole = path.read_bytes()
    for image in (whole + b"\0", whole[:-1], whole[:5000]):
        path.write_bytes(image)
        with pytest.raises(TruncatedError):
            Iqdb.open_existing(path, read_only=True)


def test_legacy_20_a_flipped_bit_in_the_header_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    damaged = bytearray(path.read_bytes())
    damaged[88] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ChecksumError):
        Iqdb.open_existing(path, read_only=True)


def test_legacy_23_a_missing_snapshot_is_no_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    log = written(path, 2)
    path.unlink()
    for handle in (
        lambda: Iqdb.open(path, 2, "euclidean"),
        lambda: Iqdb.create(path, IqdbConfig(dim=2)),
        lambda: Iqdb.open_existing(path),
        lambda: Iqdb.open_existing(path, read_only=True),
        lambda: Iqdb.create_from(path, IqdbConfig(dim=2), []),
    ):
        with pytest.raises(SnapshotMissingError, match=r"a\.iqdb\.wal"):
            handle()
    assert (tmp_path / "a.iqdb.wal").read_bytes() == log
