"""Processes that are killed while they write, and a supervisor that remembers what they were promised.

A server process has everything imported and forks a worker for each run, so that a kill costs
milliseconds. A worker does a command through the same code as the command line or Python would, says
through a pipe what it is about to write and what was acknowledged, and kills itself at a chosen file
operation, or is killed by the supervisor at a random moment. A killed process loses nothing that it
has written, under any policy: what was acknowledged is there, and of the write under way all or nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from faults import scratch  # noqa: E402
from workloads import HNSW, IVF  # noqa: E402

from iqdb_core import DatabaseNotFoundError, FlatConfig, Iqdb, IqdbConfig  # noqa: E402
from iqdb_core.verification import verify  # noqa: E402

DIM = 3
EXPORTED = "out.jsonl"
ACTIONS = (
    "create",
    "import",
    "import new",
    "upsert",
    "delete",
    "compact",
    "recompress",
    "optimize",
    "recall",
    "export",
    "bulk",
    "single",
    "batch",
)
INDEXES = {
    "flat": [],
    "hnsw": ["--m", "4", "--ef-construction", "8"],
    "ivf": ["--n-clusters", "4", "--n-probes", "1"],
}
POLICIES = ("always", "periodic:0.002", "never")
OPERATIONS = (
    "create",
    "write",
    "truncate",
    "sync",
    "sync_data",
    "sync_directory",
    "rename",
    "link",
    "unlink",
    "copy_permissions",
)


@dataclass
class KillTally:
    """What was tried: runs, how many of them ended by a kill, acknowledged writes, and those lost."""

    runs: int = 0
    kills: int = 0
    chosen: int = 0
    acknowledged: int = 0
    lost: int = 0

    def plus(self, other: KillTally) -> KillTally:
        """Return the sum of two tallies."""
        mine, theirs = vars(self), vars(other)
        return KillTally(**{name: mine[name] + theirs[name] for name in mine})


# --- In the server and its workers --------------------------------------------------------------


def _records(ids: list[int], value: int) -> list[str]:
    return [json.dumps({"id": i, "vector": [i, value, 1], "metadata": {"v": value}}) for i in ids]


def _arm(point: int) -> None:
    """Let this process kill itself at its n-th changing file operation, before or after it."""
    from iqdb_cli.output import Output
    from iqdb_core.storage.files import FileSystem

    left = [point]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def operation(*arguments: Any, **named: Any) -> Any:
            count()
            result = original(*arguments, **named)
            count()
            return result

        setattr(owner, name, operation)

    for name in OPERATIONS:
        wrap(FileSystem, name)
    # What an export writes is no part of a database.
    wrap(Output, "_drain")
    wrap(os, "replace")


def _index(value: int) -> list[str]:
    kind = list(INDEXES)[value % len(INDEXES)]
    return ["--index", kind, *INDEXES[kind]]


def _command(*arguments: str) -> None:
    from iqdb_cli.__main__ import main

    sys.argv = ["iqdb", *arguments]
    status = main()
    if status:
        raise RuntimeError(f"{arguments} ended with {status}")


def _work(order: dict[str, Any], tell: Any) -> None:
    """Do one action; `tell` what is about to be written (a dict, id -> value or None) and acknowledged."""
    from workloads import batch_of

    path, folder, action = order["path"], Path(order["path"]).parent, order["action"]
    ids, value = order["ids"], order["value"]
    change = {str(i): value for i in ids}
    if action in ("import", "upsert"):
        source = folder / "source.jsonl"
        source.write_text("\n".join(_records(ids, value)) + "\n")
        tell({"begin": change})
        _command(action, path, str(source))
        tell({"ack": True})
    elif action == "import new":
        source = folder / "source.jsonl"
        source.write_text("\n".join(_records(ids, value)) + "\n")
        tell({"begin": change})
        _command("import", path, str(source), "--metric", "euclidean", *_index(value))
        tell({"ack": True})
    elif action == "create":
        tell({"begin": {}})
        _command("create", path, "--dim", str(DIM), "--metric", "euclidean", *_index(value))
        tell({"ack": True})
    elif action == "optimize":
        tell({"begin": {}})
        _command("optimize", path, *_index(value), "--sample", "3")
        tell({"ack": True})
    elif action == "recall":
        tell({"begin": {}})
        _command("recall", path, "--target", "0.2", "--save", "--k", "2", "--sample", "4")
        tell({"ack": True})
    elif action == "export":
        tell({"begin": {}})
        _command("export", path, "-o", str(folder / EXPORTED), "--force")
        tell({"ack": True})
    elif action == "delete":
        tell({"begin": dict.fromkeys(change)})
        _command("delete", path, *map(str, ids))
        tell({"ack": True})
    elif action in ("compact", "recompress"):
        tell({"begin": {}})
        compression = (
            ["--compression", ("none", "lz4", "zstd:1")[value % 3]] if action == "recompress" else []
        )
        _command("compact", path, *compression)
        tell({"ack": True})
    else:
        db = Iqdb.open_existing(path, fsync=order["policy"], threads=1, auto_compact=order["auto_compact"])
        if action == "bulk":
            tell({"begin": change})
            batch = batch_of(ids, [0] * len(ids), [{"v": value}] * len(ids))
            batch.vectors[:] = [[i, value, 1] for i in ids]
            db.bulk_load([batch])
            tell({"ack": True})
        elif action == "batch":
            for start in range(0, len(ids), 4):
                some = ids[start : start + 4]
                tell({"begin": {str(i): value for i in some}})
                db.upsert_many(some, [[i, value, 1] for i in some], [{"v": value}] * len(some))
                tell({"ack": True})
        else:
            for n, i in enumerate(ids):
                if n % 5 == 4:
                    tell({"begin": {str(ids[n - 1]): None}})
                    db.delete(ids[n - 1])
                    tell({"ack": True})
                tell({"begin": {str(i): value}})
                db.upsert(i, [i, value, 1], {"v": value})
                tell({"ack": True})
        db.close(compact=order["compact_at_close"])
    tell({"done": True})


def _run_worker(order: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    channel = os.open(order["pipe"], os.O_WRONLY)

    def tell(message: dict[str, Any]) -> None:
        os.write(channel, json.dumps(message).encode() + b"\n")

    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    tell({"pid": os.getpid()})
    if order["point"]:
        _arm(order["point"])
    try:
        _work(order, tell)
    except BaseException as error:  # noqa: BLE001 - the supervisor wants to know about anything
        tell({"error": f"{type(error).__name__}: {error}"})
    os._exit(0)


def serve() -> None:
    """Fork a worker for every line of standard input; say how it ended."""
    import numpy as np

    import iqdb_cli.app
    import iqdb_cli.commands.compact
    import iqdb_cli.commands.create
    import iqdb_cli.commands.delete
    import iqdb_cli.commands.export
    import iqdb_cli.commands.import_
    import iqdb_cli.commands.optimize
    import iqdb_cli.commands.recall
    import iqdb_cli.commands.upsert  # noqa: F401
    import iqdb_core.bulk
    import iqdb_core.fold  # noqa: F401

    assert np is not None
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run_worker(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


# --- The supervisor -----------------------------------------------------------------------------


class LostError(AssertionError):
    """Something that was acknowledged is not there, or something else is."""


class Supervisor:
    """Sends workers to one database after another and kills them.

    Attributes:
        tally: what was tried.
    """

    def __init__(self, seed: int) -> None:
        self.tally = KillTally()
        self._seed = seed
        self._rng = random.Random(seed)
        self._folder = scratch()
        self._path = self._folder / "a.iqdb"
        self._pipe = self._folder / "pipe"
        os.mkfifo(self._pipe)
        self._state: dict[int, int] | None = None
        self._value = 0
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def close(self) -> None:
        """End the server and remove everything."""
        self._server.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, action: str, *, point: int = 0, delay_seconds: float | None = None) -> bool:
        """Do one action and check afterwards; say whether the worker was killed.

        Args:
            action: one of ACTIONS.
            point: the file operation (twice the number, and one more for "after it") of the kill; 0: none.
            delay_seconds: kill from outside after this time.
        """
        self._value += 1
        if action in ("create", "import new"):
            self._remove()
        elif self._state is None or action == "recall":
            # What recall tunes is an index that has something to tune.
            self._create("ivf" if action == "recall" else self._rng.choice(list(INDEXES)))
        ids = sorted(self._rng.sample(range(60), self._rng.randint(6, 24)))
        if action in ("delete", "compact", "recompress", "optimize", "recall", "export"):
            # So that there is something to delete, and a log to fold.
            self._upsert(ids[:8])
            ids = ids[:8]
        order = {
            "path": str(self._path),
            "pipe": str(self._pipe),
            "action": action,
            "ids": ids,
            "value": self._value,
            "policy": self._rng.choice(POLICIES),
            "auto_compact": self._rng.choice([None, 10]),
            "compact_at_close": self._rng.random() < 0.3,
            "point": point,
        }
        killed, messages = self._watch(order, delay_seconds)
        self.tally.runs += 1
        self.tally.kills += killed
        self.tally.chosen += killed and bool(point)
        try:
            self._check(messages, killed=killed)
        except Exception as error:
            self.tally.lost += 1
            raise LostError(
                f"{error}\nseed {self._seed}, run {self.tally.runs}, {order}, "
                f"delay {delay_seconds}, messages {messages[-4:]}"
            ) from error
        return bool(killed)

    def _watch(self, order: dict[str, Any], delay_seconds: float | None) -> tuple[bool, list[dict[str, Any]]]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        channel = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)
        # So that reading goes on when a worker ends, until the server has said so.
        keep = os.open(self._pipe, os.O_WRONLY)
        try:
            self._server.stdin.write(json.dumps(order) + "\n")
            self._server.stdin.flush()
            data, pid, killed_at = b"", 0, None
            while True:
                timeout = None if killed_at is None else max(0.0, killed_at - time.monotonic())
                ready, _, _ = select.select([channel, self._server.stdout], [], [], timeout)
                if channel in ready:
                    data += os.read(channel, 1 << 16)
                    if not pid and b"\n" in data:
                        pid = json.loads(data[: data.index(b"\n")])["pid"]
                        if delay_seconds is not None:
                            killed_at = time.monotonic() + delay_seconds
                if killed_at is not None and time.monotonic() >= killed_at:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    killed_at = None
                if self._server.stdout in ready:
                    status = int(self._server.stdout.readline())
                    break
            with contextlib.suppress(BlockingIOError):
                while more := os.read(channel, 1 << 16):
                    data += more
        finally:
            os.close(channel)
            os.close(keep)
        return status == -signal.SIGKILL, [json.loads(line) for line in data.splitlines()]

    def _check(self, messages: list[dict[str, Any]], *, killed: bool) -> None:
        errors = [message["error"] for message in messages if "error" in message]
        assert not errors, errors
        assert killed or "done" in messages[-1], "the worker ended by itself"
        before = self._state
        after: dict[int, int] | None = None
        for message in messages:
            if "begin" in message:
                after = dict(before or {})
                for key, value in message["begin"].items():
                    if value is None:
                        after.pop(int(key), None)
                    else:
                        after[int(key)] = value
            elif "ack" in message:
                self.tally.acknowledged += 1
                before, after = after, None
        allowed = [before] if after is None else [before, after]
        found = self._read(read_only=True)
        assert found in allowed, f"found {found}\nexpected one of {allowed}"
        if found is not None:
            # The next writer sees the same, sweeps, and goes on.
            assert self._read(read_only=False) == found
            assert found == self._read(read_only=True)
            report = verify(self._path, threads=1)
            assert report.ok, report.findings
            self._check_exported(found)
            left = {entry.name for entry in self._folder.iterdir()}
            left -= {"a.iqdb", "a.iqdb.wal", "pipe", "source.jsonl", EXPORTED}
            assert not left, f"left behind: {left}"
        self._state = found

    def _check_exported(self, found: dict[int, int]) -> None:
        """The file of an export is there when all of it is written; nobody but its user removes the rest."""
        for entry in self._folder.glob(f".{EXPORTED}.*.tmp"):
            entry.unlink()
        target = self._folder / EXPORTED
        if target.exists():
            records = [json.loads(line) for line in target.read_text().splitlines()]
            assert {record["id"]: record["vector"][1] for record in records} == found, "half an export"
            target.unlink()

    def _read(self, *, read_only: bool) -> dict[int, int] | None:
        try:
            db = Iqdb.open_existing(self._path, read_only=read_only, threads=1)
        except DatabaseNotFoundError:
            return None
        found: dict[int, int] = {}
        for batch in db.batches():
            dicts = batch.metadata.to_dicts() if batch.metadata is not None else [None] * len(batch)
            for i, vector, metadata in zip(batch.ids.to_list(), batch.vectors.tolist(), dicts, strict=True):
                assert isinstance(i, int)
                assert vector == [i, vector[1], 1]
                assert metadata == {"v": vector[1]}, (vector, metadata)
                found[i] = int(vector[1])
        db.close(compact=False)
        return found

    def _create(self, kind: str = "flat") -> None:
        self._remove()
        index = {"flat": FlatConfig(), "hnsw": HNSW, "ivf": IVF}[kind]
        Iqdb.create(self._path, IqdbConfig(dim=DIM, metric="euclidean", index=index, threads=1)).close()
        self._state = {}

    def _upsert(self, ids: list[int]) -> None:
        db = Iqdb.open_existing(self._path, threads=1)
        value = self._value
        db.upsert_many(ids, [[i, value, 1] for i in ids], [{"v": value}] * len(ids))
        db.close(compact=False)
        self._state = {**(self._state or {}), **dict.fromkeys(ids, value)}

    def _remove(self) -> None:
        for entry in self._folder.iterdir():
            if entry != self._pipe:
                entry.unlink()
        self._state = None


def chosen_points(supervisor: Supervisor, action: str, limit: int, rng: random.Random) -> None:
    """Kill an action at its file operations, one after the other: all, or `limit` of them."""
    point = 1
    step = 1 if limit > 40 else rng.randint(1, 3)
    for _ in range(limit):
        if not supervisor.run(action, point=point):
            return
        point += step


def run(seed: int, *, random_kills: int, points: int, actions: tuple[str, ...] = ACTIONS) -> KillTally:
    """Kill workers at chosen points of every action, and at random moments of random ones."""
    rng = random.Random(seed)
    with Supervisor(seed) as supervisor:
        for action in actions:
            chosen_points(supervisor, action, points, rng)
        for _ in range(random_kills):
            supervisor.run(rng.choice(actions), delay_seconds=rng.random() * 0.09)
        return supervisor.tally


if __name__ == "__main__":
    serve()
