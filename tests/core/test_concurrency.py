from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import ClosedError, FsyncPolicy, Iqdb, IqdbConfig, LockedError
from iqdb_core.storage.files import FileSystem, OpenFile

DIM = 4


def run(program: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


HOLD = """
import sys
from iqdb_core import Iqdb
db = Iqdb.open_existing(sys.argv[1] if len(sys.argv) > 1 else {path!r})
db.upsert("held", [1] * {dim})
print("ready", flush=True)
sys.stdin.readline()
"""


def test_legacy_10_a_second_writer_is_refused_at_once_in_this_process_and_in_another(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, DIM).close()
    holder = run(HOLD.format(path=str(path), dim=DIM))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    for attempt in (lambda: Iqdb.open_existing(path), lambda: Iqdb.open(path, DIM)):
        with pytest.raises(LockedError):
            attempt()
    with Iqdb.open_existing(path, read_only=True) as reader:
        assert list(reader.ids()) == ["held"]
    # The system gives the lock back when the process ends, however it ends, and nothing is lost.
    holder.kill()
    holder.communicate()
    with Iqdb.open_existing(path) as db:
        assert list(db.ids()) == ["held"]
        with pytest.raises(LockedError):
            Iqdb.open_existing(path)


def test_a_compaction_keeps_the_lock_on_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, DIM) as db:
        for i in range(3):
            db.upsert(i, [1] * DIM)
            db.compact()
            with pytest.raises(LockedError):
                Iqdb.open_existing(path)
    Iqdb.open_existing(path).close()


def test_a_writer_that_opened_a_file_just_before_it_was_replaced_locks_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, DIM) as db:
        db.upsert("old", [1] * DIM)

    class Overtaken(FileSystem):
        """Another writer compacts, and is done, between the opening of the file and its lock."""

        overtaken = False

        def lock(self, file: OpenFile) -> None:
            if not self.overtaken:
                self.overtaken = True
                with Iqdb.open_existing(path) as other:
                    other.upsert("of the other", [2] * DIM)
            super().lock(file)

    with Iqdb.open_existing(path, files=Overtaken()) as db:
        assert list(db.ids()) == ["old", "of the other"]
        with pytest.raises(LockedError):
            Iqdb.open_existing(path)
        db.upsert("mine", [3] * DIM)
    with Iqdb.open_existing(path, read_only=True) as db:
        assert list(db.ids()) == ["old", "of the other", "mine"]


def test_a_reader_that_is_overtaken_by_a_compaction_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, DIM) as db:
        db.upsert("in the log", [1] * DIM)

        class Overtaken(FileSystem):
            """The writer compacts between the reading of the snapshot and that of the log."""

            overtaken = False

            def open_read(self, path: str) -> OpenFile:
                if path.endswith(".wal") and not self.overtaken:
                    self.overtaken = True
                    db.compact()
                return super().open_read(path)

        files = Overtaken()
        with Iqdb.open_existing(path, read_only=True, files=files) as reader:
            assert files.overtaken
            assert list(reader.ids()) == ["in the log"]


def test_readers_in_other_processes_always_find_an_acknowledged_state(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.create(path, IqdbConfig(dim=1)).close()
    program = f"""
from iqdb_core import Iqdb
newest = -1
for _ in range(60):
    with Iqdb.open_existing({str(path)!r}, read_only=True) as db:
        ids = sorted(db.ids())
        # The writer adds 0, 1, 2 ... and after each removes the third before it.
        last = ids[-1] if ids else -1
        assert ids in (list(range(max(0, last - 2), last + 1)), list(range(max(0, last - 3), last + 1))), ids
        assert not ids or ids[-1] >= newest, (ids, newest)
        newest = ids[-1] if ids else newest
        assert all(db.get(i)[0].tolist() == [i] for i in ids)
print("done")
"""
    readers = [run(program) for _ in range(2)]
    try:
        with Iqdb.open_existing(path, fsync="never") as db:
            i = 0
            while any(reader.poll() is None for reader in readers):
                db.upsert(i, [i])
                if i >= 3:
                    db.delete(i - 3)
                if i % 7 == 0:
                    db.compact()
                i += 1
    finally:
        results = [reader.communicate()[0] for reader in readers]
    assert results == ["done\n", "done\n"]


def test_searches_in_threads_see_one_consistent_state_while_a_writer_writes(tmp_path: Path) -> None:
    # Every batch sets all records to the same value, so any mixture of two states is seen at once.
    n = 200
    stop = threading.Event()
    with Iqdb.create(
        tmp_path / "a.iqdb", IqdbConfig(dim=1, metric="euclidean", fsync="never", threads=1)
    ) as db:
        db.upsert_many(range(n), np.zeros((n, 1)), [{"v": 0}] * n)

        def read() -> int:
            seen, last = 0, -1.0
            while not stop.is_set():
                hits = db.search([0], n)
                values = {hit.distance for hit in hits}
                assert len(hits) == n
                assert len(values) == 1, values
                value = values.pop()
                assert value >= last
                assert {(hit.metadata or {})["v"] for hit in hits} == {value}
                last = value
                ids = [i for batch in db.batches() for i in batch.ids.to_list()]
                assert ids == list(range(n))
                assert len(db.search([0], n, filter=f"v >= {int(value)}")) == n
                seen += 1
            return seen

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            try:
                for value in range(1, 60):
                    db.upsert_many(range(n), np.full((n, 1), value), [{"v": value}] * n)
                    if value % 5 == 0:
                        db.compact()
            finally:
                stop.set()
            assert all(reader.result() > 0 for reader in readers)


def test_many_threads_may_write_through_one_handle(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.create(path, IqdbConfig(dim=1, fsync="never", auto_compact=50)) as db:

        def write(worker: int) -> None:
            for i in range(100):
                db.upsert(f"{worker}-{i}", [worker])
                if i % 10 == 9:
                    assert db.delete(f"{worker}-{i}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert len(db) == 360
    with Iqdb.open_existing(path, read_only=True) as db:
        assert len(set(db.ids())) == 360


def test_closing_while_searches_run_lets_them_finish(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    rows = np.random.default_rng(0).standard_normal((20_000, 32)).astype(np.float32)
    with Iqdb.create(path, IqdbConfig(dim=32, metric="euclidean", auto_compact=None)) as db:
        db.upsert_many(range(20_000), rows)
    for _ in range(5):
        db = Iqdb.open_existing(path)
        started = threading.Barrier(4)

        def read(db: Iqdb = db, started: threading.Barrier = started) -> int:
            started.wait()
            count = 0
            while True:
                try:
                    hits = db.search(rows[7], 3)
                except ClosedError:
                    return count
                assert hits[0].id == 7
                assert hits[0].metadata is None
                count += 1

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read) for _ in range(3)]
            started.wait()
            time.sleep(0.02)
            db.close()
            for reader in readers:
                reader.result()


def test_legacy_19_the_periodic_policy_syncs_though_no_write_follows(
    tmp_path: Path, failing_files: Any
) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.create(path, IqdbConfig(dim=1)).close()
    with Iqdb.open_existing(path, fsync=FsyncPolicy.periodic(0.05), files=failing_files) as db:
        db.upsert(1, [1])
        assert "sync_data" not in failing_files.calls
        deadline = time.monotonic() + 30
        while "sync_data" not in failing_files.calls:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_failed_periodic_sync_poisons_the_handle(tmp_path: Path, failing_files: Any) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.create(path, IqdbConfig(dim=1)).close()
    from iqdb_core import PersistError

    db = Iqdb.open_existing(path, fsync=FsyncPolicy.periodic(0.01), files=failing_files)
    db.upsert(1, [1])
    failing_files.arm("sync_data")
    deadline = time.monotonic() + 30
    while failing_files.fail is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(PersistError, match="may be lost in a power cut"):
        db.upsert(2, [2])
    assert len(db) == 1
    db.close()


@pytest.mark.parametrize("policy", [FsyncPolicy.ALWAYS, FsyncPolicy.periodic(60), FsyncPolicy.NEVER], ids=str)
def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path, policy: FsyncPolicy) -> None:
    path = tmp_path / "a.iqdb"
    program = f"""
import os, sys
from iqdb_core import Iqdb, IqdbConfig
db = Iqdb.create({str(path)!r}, IqdbConfig(dim=1, fsync={str(policy)!r}))
for i in range(50):
    db.upsert(i, [i])
    if i == 30:
        db.compact()
os.kill(os.getpid(), 9)
"""
    run(program).communicate()
    with Iqdb.open_existing(path) as db:
        assert list(db.ids()) == list(range(50))
