"""Processes that are killed while they write, and a supervisor that remembers what they were promised.

A worker (kill_worker.py) says through a pipe what it is about to write and what was acknowledged, and
kills itself at a chosen file operation, or is killed by the supervisor at a random moment. A killed process
loses nothing that it has written, under any policy: what was acknowledged is there, and of the write under
way all or nothing. A command that writes another file (kill_outputs.py) leaves it absent or complete, and
what it read untouched; the same command run again leaves nothing else behind.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from faults import scratch  # noqa: E402
from kill_outputs import OUTPUTS, check_output, prepare  # noqa: E402
from kill_worker import ACTIONS, DIM, INDEXES, POLICIES  # noqa: E402
from workloads import HNSW, IVF  # noqa: E402

from iqdb_core import DatabaseNotFoundError, FlatConfig, Iqdb, IqdbConfig  # noqa: E402
from iqdb_core.verification import verify  # noqa: E402

CREATIONS = ("create", "import new")


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
            [sys.executable, str(Path(HERE) / "kill_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def created(self) -> bool:
        """Whether there is a database."""
        return self._state is not None

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
        if action in CREATIONS:
            # What a killed creation leaves stays for the next one, which removes it.
            self._remove(keep=".tmp-")
        elif self._state is None or action in ("recall", "repair"):
            # What recall tunes is an index that has something to tune, and repair leaves it out.
            self._create("ivf" if action in ("recall", "repair") else self._rng.choice(list(INDEXES)))
        ids = sorted(self._rng.sample(range(60), self._rng.randint(6, 24)))
        if action in OUTPUTS or action in ("delete", "compact", "recompress", "optimize", "recall"):
            # So that there is something to delete, and a log to fold.
            self._upsert(ids[:8])
            ids = ids[:8]
        before = prepare(action, self._path) if action in OUTPUTS else {}
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
            self._check_untouched(before)
            if action in CREATIONS and not killed:
                # Before a writer sweeps: a creation removes what killed ones have left.
                self._check_folder(finished=True)
            self._check(messages, killed=killed)
            if action in OUTPUTS:
                self._check_outputs(order, before, killed=killed)
            self._check_folder(finished=not killed)
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
        self._state = found

    def _check_outputs(self, order: dict[str, Any], before: dict[str, bytes], *, killed: bool) -> None:
        """The command's own files are absent or complete, and complete when it is run again."""
        action = order["action"]
        there = check_output(action, self._folder, self._state or {})
        assert there or killed, "nothing was written"
        if killed:
            # The next run finds what the killed one left, and leaves nothing but what it is for.
            OUTPUTS[action].clear(self._folder)
            again, messages = self._watch(order | {"point": 0}, None)
            assert not again
            assert "done" in messages[-1], messages
            assert check_output(action, self._folder, self._state or {})
        OUTPUTS[action].clear(self._folder)
        sources = {name: data for name, data in before.items() if not name.startswith("a.iqdb")}
        self._check_untouched(sources)
        for name in sources:
            (self._folder / name).unlink()

    def _check_untouched(self, before: dict[str, bytes]) -> None:
        """What a command only reads is as it was."""
        for name, data in before.items():
            assert (self._folder / name).read_bytes() == data, f"{name} was changed"

    def _check_folder(self, *, finished: bool) -> None:
        """Nothing stays that nobody would remove: the next writer sweeps, or the next creation."""
        if self._state is None and not finished:
            return
        left = {entry.name for entry in self._folder.iterdir()}
        left -= {"a.iqdb", "a.iqdb.wal", "pipe", "source.jsonl"}
        assert not left, f"left behind: {left}"

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

    def _remove(self, *, keep: str = "?") -> None:
        for entry in self._folder.iterdir():
            if entry != self._pipe and keep not in entry.name:
                entry.unlink()
        self._state = None


def chosen_points(supervisor: Supervisor, action: str, limit: int, rng: random.Random) -> None:
    """Kill an action at its file operations, one after the other: all, or `limit` of them."""
    point = 1
    step = 1 if limit > 40 else rng.randint(1, 3)
    for _ in range(limit):
        if not supervisor.run(action, point=point):
            return
        if action in CREATIONS and not supervisor.created:
            # The next one removes what this one has left.
            supervisor.run(action)
        point += step


def run(seed: int, *, random_kills: int, points: int, actions: Sequence[str] = tuple(ACTIONS)) -> KillTally:
    """Kill workers at chosen points of every action, and at random moments of random ones."""
    rng = random.Random(seed)
    with Supervisor(seed) as supervisor:
        for action in actions:
            chosen_points(supervisor, action, points, rng)
        for _ in range(random_kills):
            supervisor.run(rng.choice(actions), delay_seconds=rng.random() * 0.09)
        return supervisor.tally
