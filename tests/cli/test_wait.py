"""`--wait SECONDS` of the commands that write, against a real process that holds the lock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from iqdb_core import AsyncIqdb, InvalidParameterError, Iqdb, IqdbConfig, IvfConfig, LockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = """
import sys
from iqdb_core import Iqdb
db = Iqdb.open_existing(sys.argv[1])
db.upsert(99, [0.0, 9.0])
print("held", flush=True)
sys.stdin.read(1)
db.close()  # a compaction: the file that others have opened is not the one that stands there then
"""
RECORD = b'{"id": 7, "vector": [1, 2]}\n'
COMMANDS = [
    pytest.param(["upsert"], RECORD, id="upsert"),
    pytest.param(["import", "-", "--input-format", "jsonl"], RECORD, id="import"),
    pytest.param(["delete", "1"], b"", id="delete"),
    pytest.param(["compact"], b"", id="compact"),
    pytest.param(["optimize", "--index", "hnsw"], b"", id="optimize"),
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "notes.iqdb"
    with Iqdb.open(path, dim=2) as db:
        db.upsert_many([1, 2, 3], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    return path


@contextlib.contextmanager
def held(database: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Hold the lock in another process until a byte is written to it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            with contextlib.suppress(BrokenPipeError):
                holder.communicate(b"x", timeout=60)
    assert holder.returncode == 0


def let_go(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    holder.stdin.write(b"x")
    holder.stdin.flush()


def arguments(command: list[str], database: Path, *more: str) -> list[str]:
    return [command[0], str(database), *command[1:], *more]


@pytest.mark.parametrize(("command", "stdin"), COMMANDS)
def test_a_second_writer_is_refused_at_once_or_gets_its_turn(
    iqdb: Any, database: Path, command: list[str], stdin: bytes
) -> None:
    with held(database) as holder:
        refused = iqdb(*arguments(command, database), stdin=stdin)
        assert refused.status == 5
        assert "another process has it open for writing; try again" in refused.stderr

        late = iqdb(*arguments(command, database, "--wait", "0.25"), stdin=stdin)
        assert late.status == 5
        assert "still has it open for writing after 0.25 s of waiting; try again" in late.stderr

        threading.Timer(0.2, let_go, [holder]).start()
        done = iqdb(*arguments(command, database, "--wait", "60"), stdin=stdin)
        assert (done.status, "waiting" in done.stderr) == (0, False)
    with Iqdb.open_existing(database, read_only=True) as db:
        assert 99 in db
        assert (7 in db, 1 in db) == (bool(stdin), command[0] != "delete")


def test_saving_what_recall_has_found_waits_too(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "notes.iqdb"
    config = IqdbConfig(dim=2, metric="euclidean", index=IvfConfig(n_clusters=2, n_probes=1))
    with Iqdb.create(path, config) as db:
        db.upsert_many(range(20), [[i, 1] for i in range(20)])
    save = ["recall", path, "--target", "0.5", "--save", "--k", "2"]
    with held(path) as holder:
        refused = iqdb(*save)
        assert refused.status == 5
        assert "another process has it open for writing; try again" in refused.stderr
        threading.Timer(0.2, let_go, [holder]).start()
        assert iqdb(*save, "--wait", "60").status == 0


def test_ctrl_c_ends_the_waiting(iqdb: Any, database: Path) -> None:
    with held(database):
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
        assert iqdb("compact", database, "--wait", "600").status == 130


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon", ""])
def test_what_is_no_time_to_wait_is_a_wrong_use(iqdb: Any, database: Path, seconds: str) -> None:
    outcome = iqdb("compact", database, "--wait", seconds)
    assert outcome.status == 2
    assert "--wait" in outcome.stderr


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", None, True])
def test_a_handle_refuses_what_is_no_time(database: Path, seconds: Any) -> None:
    config = IqdbConfig(dim=2)
    for call in (
        lambda: Iqdb.open(database, 2, lock_wait=seconds),
        lambda: Iqdb.open_with(database, config, lock_wait=seconds),
        lambda: Iqdb.open_existing(database, lock_wait=seconds),
        lambda: Iqdb.open_existing(database, read_only=True, lock_wait=seconds),
    ):
        with pytest.raises(InvalidParameterError, match="lock_wait"):
            call()


def test_handles_wait_for_each_other(database: Path) -> None:
    first = Iqdb.open_existing(database)
    with pytest.raises(LockedError) as caught:
        Iqdb.open(database, 2, lock_wait=0.05)
    assert caught.value.waited_seconds == 0.05
    with pytest.raises(LockedError) as caught:
        Iqdb.open_existing(database)
    assert caught.value.waited_seconds == 0
    threading.Timer(0.1, first.close).start()
    second = asyncio.run(AsyncIqdb.open_existing(database, lock_wait=60))
    threading.Timer(0.1, second._db.close).start()
    with Iqdb.open_with(database, IqdbConfig(dim=2), lock_wait=60) as third:
        assert len(third) == 3
