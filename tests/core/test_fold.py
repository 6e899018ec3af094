from __future__ import annotations

import errno
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    ChecksumError,
    ContentMismatchError,
    DamagedError,
    Error,
    FileIOError,
    Iqdb,
    IqdbConfig,
    LockedError,
    PersistError,
    PoisonedError,
)
from iqdb_core import batches as batches_module
from iqdb_core.storage.snapshot_writer import SnapshotWriter

DIM = 8


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def make(path: Path, n: int = 50, **settings: Any) -> None:
    with Iqdb.create(path, IqdbConfig(dim=DIM, metric="euclidean", database_id=bytes(16), **settings)) as db:
        db.upsert_many(range(n), np.arange(n * DIM).reshape(n, DIM), [{"n": i} for i in range(n)])


def change(db: Iqdb) -> None:
    db.delete([3, 4])
    db.upsert(5, [5] * DIM, {"new": True})
    db.upsert("text", [6] * DIM)


def contents(path: Path) -> list[Any]:
    with Iqdb.open_existing(path, read_only=True) as db:
        return [(i, db.vector_bytes(i), db.metadata(i)) for i in db.ids()]


def test_compaction_leaves_one_file_with_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    with Iqdb.open_existing(path) as db:
        change(db)
        before = contents(path)
        log_bytes = db.info()["log_bytes"]  # the file may have room behind it
        assert 64 < log_bytes <= (tmp_path / "a.iqdb.wal").stat().st_size
        report = db.compact()
        assert contents(path) == before
        assert names_in(tmp_path) == ["a.iqdb"]
        assert (report.changed, report.n_rows, report.rows_folded, report.rows_removed) == (True, 49, 2, 3)
        assert report.log_bytes == log_bytes
        assert report.bytes_after == path.stat().st_size
        assert report.to_dict()["digest"] == report.digest == db.info()["snapshot_digest"]
        # The handle goes on: writes reach the new file's log, and a second compaction folds them.
        db.upsert("more", [7] * DIM)
        assert contents(path)[:-1] == before
        db.flush()
        assert contents(path)[:-1] == before
    assert names_in(tmp_path) == ["a.iqdb"]


def test_a_compaction_with_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    status = path.stat()
    with Iqdb.open_existing(path) as db:
        report = db.compact()
        assert not report.changed
        assert report.n_rows == 50
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_the_snapshot_does_not_depend_on_the_history(tmp_path: Path) -> None:
    rows = np.arange(60 * DIM).reshape(60, DIM)
    make(tmp_path / "a.iqdb", 60)
    with Iqdb.create(
        tmp_path / "b.iqdb", IqdbConfig(dim=DIM, metric="euclidean", database_id=bytes(16))
    ) as db:
        db.upsert_many(range(20), rows[:20] + 1, [{"old": "x"}] * 20)
        db.compact()
        db.upsert_many([100, 101], rows[:2])
        db.upsert_many(range(40), rows[:40], [{"n": i} for i in range(40)])
        db.delete([100, 101])
        db.compact()
        for i in range(40, 60):
            db.upsert(i, rows[i], {"n": i})
    assert (tmp_path / "a.iqdb").read_bytes() == (tmp_path / "b.iqdb").read_bytes()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd:1", "zstd:19"])
def test_compaction_changes_the_compression_and_nothing_else(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.iqdb"
    make(path, 3000, compression="lz4")
    before = contents(path)
    with Iqdb.open_existing(path) as db:
        change(db)
        changed = contents(path)
        report = db.compact(compression=compression)
        assert report.changed
        assert str(db.config.compression) == compression
        assert contents(path) == changed != before
        assert db.search([6] * DIM, 1)[0].id == "text"
        assert not db.compact(compression=compression).changed
    fresh = tmp_path / "b.iqdb"
    make(fresh, 3000, compression=compression)
    with Iqdb.open_existing(fresh) as db:
        change(db)
    assert fresh.read_bytes() == path.read_bytes()


def test_compaction_of_many_rows_keeps_order_and_content(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    n = 40_000
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n, 4)).astype(np.float32)
    metadata = [None if i % 11 == 0 else {"n": i, "s": f"s{i % 100}"} for i in range(n)]
    with Iqdb.create(path, IqdbConfig(dim=4, auto_compact=None)) as db:
        db.upsert_many(range(n), vectors, metadata)
    with Iqdb.open_existing(path, auto_compact=None) as db:
        replaced = rng.choice(n, 300, replace=False)
        vectors[replaced] += 1
        db.upsert_many(replaced, vectors[replaced], [{"r": int(i)} for i in replaced])
        for i in replaced:
            metadata[i] = {"r": int(i)}
        gone = np.concatenate([np.arange(16_384, 16_384 * 2), rng.choice(16_384, 50, replace=False)])
        db.delete(gone.tolist())
        kept = np.setdiff1d(np.arange(n), gone)
        db.compact()
        assert list(db.ids()) == kept.tolist()
        batches = list(db.batches())
        np.testing.assert_array_equal(np.concatenate([b.vectors for b in batches]), vectors[kept])
        found = [m for b in batches for m in (b.metadata.to_dicts() if b.metadata else [None] * len(b))]
        assert found == [metadata[i] for i in kept]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444 | stat.S_IWUSR])
def test_legacy_15_the_mode_of_the_file_is_kept_and_the_log_has_it_too(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    path.chmod(mode)
    with Iqdb.open_existing(path) as db:
        change(db)
        assert stat.S_IMODE((tmp_path / "a.iqdb.wal").stat().st_mode) == mode
        db.compact()
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    path, link = tmp_path / "real" / "a.iqdb", tmp_path / "link.iqdb"
    make(path)
    link.symlink_to(path)
    with Iqdb.open_existing(link) as db:
        with pytest.raises(LockedError):
            Iqdb.open_existing(path)
        change(db)
        assert names_in(tmp_path / "real") == ["a.iqdb", "a.iqdb.wal"]
    assert link.is_symlink()
    assert names_in(tmp_path / "real") == ["a.iqdb"]
    assert names_in(tmp_path) == ["link.iqdb", "real"]
    assert len(contents(link)) == 49


def test_temporary_files_of_a_crashed_writer_are_swept_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    program = f"""
import os
from iqdb_core.storage.files import OS_FILES
OS_FILES.create_temporary({str(path)!r})
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    (tmp_path / ".b.iqdb.tmp-00000000").touch()
    (tmp_path / ".a.iqdb.tmp-notes").touch()
    assert len(names_in(tmp_path)) == 4
    Iqdb.open_existing(path, read_only=True).close()
    assert len(names_in(tmp_path)) == 4
    Iqdb.open_existing(path).close(compact=False)
    assert names_in(tmp_path) == [".a.iqdb.tmp-notes", ".b.iqdb.tmp-00000000", "a.iqdb"]


def test_a_second_name_that_a_crashed_creation_left_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    (tmp_path / ".a.iqdb.tmp-0123abcd").hardlink_to(path)
    Iqdb.open_existing(path).close(compact=False)
    assert names_in(tmp_path) == ["a.iqdb"]
    assert len(contents(path)) == 50


# --- Proof --------------------------------------------------------------------------------------


def damage_rows(monkeypatch: pytest.MonkeyPatch, alter: Any) -> None:
    """Let the writer of snapshots alter what it is given."""
    original = SnapshotWriter.append

    def append(self: SnapshotWriter, batch: Any) -> None:
        original(self, alter(batch))

    monkeypatch.setattr(SnapshotWriter, "append", append)


@pytest.mark.parametrize(
    "alter",
    [
        lambda batch: batch.slice(0, len(batch) - 1),
        lambda batch: batch.take(np.append(np.arange(len(batch) - 1), 0)),
        lambda batch: type(batch)(batch.ids, batch.vectors * np.float32(1.0001), batch.metadata),
        lambda batch: type(batch)(batch.ids, batch.vectors, None),
    ],
    ids=["drops a record", "doubles a record", "alters vectors", "loses metadata"],
)
def test_a_fold_that_would_lose_something_is_caught_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alter: Any
) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    with Iqdb.open_existing(path) as db:
        change(db)
        image, log = path.read_bytes(), (tmp_path / "a.iqdb.wal").read_bytes()
        before = contents(path)
        with monkeypatch.context() as patch:
            damage_rows(patch, alter)
            with pytest.raises(DamagedError):
                db.compact()
        assert names_in(tmp_path) == ["a.iqdb", "a.iqdb.wal"]
        assert (path.read_bytes(), (tmp_path / "a.iqdb.wal").read_bytes()) == (image, log)
        # The handle is as good as before, and the next compaction works.
        db.upsert("more", [8] * DIM)
        db.compact()
        assert contents(path)[:-1] == before


def test_a_file_that_the_disk_alters_is_not_put_in_place(tmp_path: Path, failing_files: Any) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    with Iqdb.open_existing(path, files=failing_files) as db:
        change(db)
        original = failing_files.write

        def write(file: Any, data: Any, offset: int) -> None:
            altered = bytearray(data)
            if offset == 4096 and ".tmp-" in file.path:
                altered[100] ^= 1
            original(file, altered, offset)

        failing_files.write = write
        with pytest.raises(ChecksumError):
            db.compact()
        del failing_files.write
        assert names_in(tmp_path) == ["a.iqdb", "a.iqdb.wal"]
    assert len(contents(path)) == 49


def test_a_wrong_digest_of_the_old_state_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    with Iqdb.open_existing(path) as db:
        change(db)
        monkeypatch.setattr(
            batches_module, "batch_digest", lambda *_, **__: type(db._store.view().base.snapshot.digest)()
        )
        with pytest.raises(ContentMismatchError) as caught:
            db.compact()
        assert caught.value.expected != caught.value.found
        monkeypatch.undo()


def test_damage_in_the_old_snapshot_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    make(path, 3000)
    image = bytearray(path.read_bytes())
    image[4096 + 4 * DIM * 1500] ^= 1
    path.write_bytes(image)
    with pytest.raises(ChecksumError), Iqdb.open_existing(path) as db:  # noqa: PT012 - also raised at close
        db.upsert("new", [1] * DIM)
        with pytest.raises(ChecksumError):
            db.compact()
    assert names_in(tmp_path) == ["a.iqdb", "a.iqdb.wal"]
    with Iqdb.open_existing(path, read_only=True) as db:
        assert len(db) == 3001
        assert db.get("new") is not None


# --- Failures -----------------------------------------------------------------------------------


def folding_calls(tmp_path: Path, files: Any) -> list[str]:
    path = tmp_path / "count.iqdb"
    make(path)
    with Iqdb.open_existing(path, files=files) as db:
        change(db)
        files.calls.clear()
        db.compact()
        calls = list(files.calls)
    path.unlink()
    return calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, KeyboardInterrupt], ids=str)
def test_whatever_fails_during_a_compaction_no_record_is_lost_and_nothing_is_left_behind(
    tmp_path: Path, failing_files: Any, after: bool, error: Any
) -> None:
    calls = folding_calls(tmp_path, failing_files)
    points = [(name, calls[:i].count(name)) for i, name in enumerate(calls)]
    assert len(points) > 15
    expected = None
    for number, (name, skip) in enumerate(points):
        path = tmp_path / f"{number}.iqdb"
        make(path)
        db = Iqdb.open_existing(path, files=failing_files)
        change(db)
        before = contents(path)
        expected = expected or before
        assert before == expected
        failing_files.arm(name, skip, after=after, error=error)
        with pytest.raises((PersistError, KeyboardInterrupt)):
            db.compact()
        failing_files.fail = None
        # The handle still answers, whatever it thinks of writing.
        assert len(db.search([0] * DIM, 100)) == 49
        acknowledged = 49
        try:
            db.upsert("later", [9] * DIM)
            acknowledged = 50
        except PoisonedError:
            pass
        db.close(compact=False)
        # A reader, then a writer after the crash, find every record.
        for _ in range(2):
            found = contents(path)
            assert found[:49] == expected
            assert len(found) == acknowledged
            with Iqdb.open_existing(path) as again:
                assert len(again) == acknowledged
        leftovers = [entry for entry in names_in(tmp_path) if str(number) in entry]
        assert leftovers == [f"{number}.iqdb"], (name, skip, leftovers)


@pytest.mark.parametrize("name", ["write", "sync_data"])
def test_legacy_7_and_8_a_failed_write_poisons_the_handle_and_does_not_come_back(
    tmp_path: Path, failing_files: Any, name: str
) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    db = Iqdb.open_existing(path, files=failing_files)
    db.upsert("first", [1] * DIM)
    failing_files.arm(name, error=errno.ENOSPC)
    with pytest.raises(FileIOError) as caught:
        db.upsert("failed", [1] * DIM)
    assert caught.value.errno == errno.ENOSPC
    assert "failed" not in db
    # The space comes back, but the handle has lost its word.
    for write in (lambda: db.upsert("later", [1] * DIM), lambda: db.delete(0), db.compact):
        with pytest.raises(PoisonedError, match="acknowledged records are safe"):
            write()
    assert len(db) == 51
    db.close()
    with Iqdb.open_existing(path) as again:
        assert "first" in again
        assert "failed" not in again
        again.upsert("later", [1] * DIM)
    assert len(contents(path)) == 52


def test_a_log_that_cannot_be_made_leaves_the_handle_as_it_was(tmp_path: Path, failing_files: Any) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    with Iqdb.open_existing(path, files=failing_files) as db:
        failing_files.arm("create", error=errno.EACCES)
        with pytest.raises(FileIOError):
            db.upsert("failed", [1] * DIM)
        assert names_in(tmp_path) == ["a.iqdb"]
        db.upsert("later", [1] * DIM)
    assert len(contents(path)) == 51


def test_legacy_18_the_directory_is_synced_after_the_log_is_made_and_before_the_write_is_acknowledged(
    tmp_path: Path, failing_files: Any
) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    with Iqdb.open_existing(path, files=failing_files) as db:
        failing_files.calls.clear()
        db.upsert(1, [1] * DIM)
        calls = failing_files.calls
        assert calls.index("create") < calls.index("sync_directory") < len(calls)
        assert calls[-2:] == ["write", "sync_data"]


def test_the_new_snapshot_is_durable_before_its_name_and_its_name_before_the_log_goes(
    tmp_path: Path, failing_files: Any
) -> None:
    calls = folding_calls(tmp_path, failing_files)
    rename = calls.index("rename")
    assert "sync" in calls[:rename]
    assert calls[rename - 2 : rename] == ["write", "sync_data"]  # the fold frame
    behind = [name for name in calls[rename + 1 :] if name in ("sync_directory", "unlink")]
    assert behind == ["sync_directory", "unlink", "sync_directory"]


def test_legacy_4_a_crash_between_rename_and_removal_of_the_log_replays_nothing_twice(
    tmp_path: Path, failing_files: Any
) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    make(path)
    db = Iqdb.open_existing(path, files=failing_files)
    db.upsert("x", [1] * DIM)
    db.delete("x")
    db.delete(7)
    failing_files.arm("unlink")
    with pytest.raises(FileIOError):
        db.compact()
    with pytest.raises(PoisonedError):
        db.upsert(7, [1] * DIM)
    db.close()
    assert log.exists()
    before = contents(path)
    assert len(before) == 49
    with Iqdb.open_existing(path) as again:
        assert not log.exists()
        again.upsert(7, [1] * DIM)
    assert [i for i, _, _ in contents(path)] == [*(i for i, _, _ in before), 7]


def test_legacy_21_snapshot_and_log_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    old = path.read_bytes()
    with Iqdb.open_existing(path) as db:
        db.upsert("x", [1] * DIM)
        db.compact()
        db.upsert("y", [1] * DIM)
        db.close(compact=False)
    path.write_bytes(old)
    with pytest.raises(DamagedError, match="extends snapshot"):
        Iqdb.open_existing(path)


# --- By itself ----------------------------------------------------------------------------------


def test_a_handle_folds_by_itself_at_the_threshold(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.create(path, IqdbConfig(dim=DIM, auto_compact=10)) as db:
        for i in range(9):
            db.upsert(i, [1] * DIM)
        assert db.info()["delta_rows"] == 9
        db.upsert(9, [1] * DIM)
        assert db.info()["delta_rows"] == 0
        assert names_in(tmp_path) == ["a.iqdb"]
        assert db.delete(range(5)) == 5
        assert db.delete(range(5, 10)) == 5
        assert (db.info()["snapshot_rows"], len(db)) == (0, 0)


def test_an_automatic_fold_that_fails_warns_and_the_write_counts(tmp_path: Path, failing_files: Any) -> None:
    path = tmp_path / "a.iqdb"
    make(path)
    db = Iqdb.open_existing(path, files=failing_files, auto_compact=2)
    db.upsert("a", [1] * DIM)
    failing_files.arm("create", error=errno.ENOSPC)
    with pytest.warns(RuntimeWarning, match="automatic compaction failed"):
        db.upsert("b", [1] * DIM)
    assert "b" in db
    assert "this failure was asked for" in db.info()["auto_compact_error"]
    # Folding is not tried again with every write, but when the delta has doubled.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        db.upsert("c", [1] * DIM)
    assert db.info()["delta_rows"] == 3
    db.upsert("d", [1] * DIM)
    assert db.info()["delta_rows"] == 0
    assert db.info()["auto_compact_error"] is None
    db.close()
    assert len(contents(path)) == 54


def test_auto_compact_none_never_folds(tmp_path: Path) -> None:
    with Iqdb.create(tmp_path / "a.iqdb", IqdbConfig(dim=1, auto_compact=None)) as db:
        db.upsert_many(range(25_000), np.zeros((25_000, 1)))
        assert db.info()["delta_rows"] == 25_000


def test_errors_of_a_fold_are_all_of_ours() -> None:
    assert issubclass(ContentMismatchError, Error)
