"""Reader processes beside a writer process: what each read shows is a state that was acknowledged.

The writer goes through versions of a database, one call each, and compacts again and again. Before a
call it publishes the number of the version that begins, after it the number that is acknowledged, in
memory that the processes share. A reader notes what was acknowledged, reads everything, by a new handle or
by `refresh`, and notes what has begun by then: the contents must be those of one version from the first
number to the second, records in their order.
"""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any

import numpy as np
import planting

from iqdb_core import Iqdb

_SLOTS = 23
_STEP = 7
_DIM = 16
_COMPACT_EVERY = 11
# The shared numbers.
_BEGUN, _ACKED, _COMPACTIONS, _STOP = range(4)

State = dict[int, int]


@dataclass
class ObservationTally:
    """What was seen.

    Attributes:
        observations: reads of everything.
        anomalies: reads that showed what was never, or no longer, or not yet to be seen.
        refreshes: observations by a handle that was brought up to date rather than opened.
        versions: what the writer had acknowledged at the end.
        compactions: how often it compacted.
        distinct: different versions that readers saw, at least.
    """

    observations: int = 0
    anomalies: int = 0
    refreshes: int = 0
    versions: int = 0
    compactions: int = 0
    distinct: int = 0


def _slot(version: int) -> int:
    return version * _STEP % _SLOTS


def _changes(version: int) -> tuple[list[int], bool]:
    """Return the ids that a version changes, and whether it removes them."""
    if version % 5 == 4:
        return [_slot(version - 2), _slot(version)], True
    count = 1 if version % 5 else 6
    return [(_slot(version) + i) % _SLOTS for i in range(count)], False


def apply(state: State, version: int) -> None:
    """Make the next version of a state; a record is the number of the version that wrote it."""
    ids, remove = _changes(version)
    for id_ in ids:
        if remove:
            state.pop(id_, None)
        else:
            state[id_] = version


def _vector(id_: int, version: int) -> Any:
    return np.full(_DIM, version * _SLOTS + id_, np.float32)


def _write(path: str, shared: Any) -> None:
    planting.of_parent()
    db = Iqdb.open_existing(path, auto_compact=None, threads=1)
    version = 0
    while not shared[_STOP]:
        version += 1
        ids, remove = _changes(version)
        shared[_BEGUN] = version
        if remove:
            db.delete_many(ids)
        elif len(ids) == 1:
            db.upsert(ids[0], _vector(ids[0], version), {"version": version})
        else:
            vectors = np.stack([_vector(id_, version) for id_ in ids])
            db.upsert_many(ids, vectors, [{"version": version}] * len(ids))
        shared[_ACKED] = version
        if version % _COMPACT_EVERY == 0:
            db.compact()
            shared[_COMPACTIONS] += 1
    db.close(compact=False)


def contents(db: Iqdb) -> list[tuple[int, int]]:
    """Return ids and versions, in order; a record that is not whole has the version -1."""
    found = []
    for batch in db.batches():
        mappings = [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
        for id_, vector, mapping in zip(batch.ids.to_list(), batch.vectors, mappings, strict=True):
            version = -1 if mapping is None else mapping["version"]
            whole = isinstance(id_, int) and bool((vector == _vector(id_, version)).all())
            found.append((id_, version if whole else -1))
    return found


class Observer:
    """One reader, and its model of what the writer does."""

    def __init__(self, path: str, shared: Any, seed: int) -> None:
        self.tally = ObservationTally()
        self._path = path
        self._shared = shared
        self._rng = random.Random(seed)
        self._state: State = {}
        self._version = 0
        self._last = -1
        self._db: Iqdb | None = None

    def observe(self) -> str | None:
        """Read everything once; return what was wrong with it."""
        acked = self._shared[_ACKED]
        if self._db is not None and self._rng.random() < 0.7:
            self._db.refresh()
            self.tally.refreshes += 1
        else:
            if self._db is not None:
                self._db.close()
            self._db = Iqdb.open_existing(self._path, read_only=True, threads=1)
        found = contents(self._db)
        begun = self._shared[_BEGUN]
        self.tally.observations += 1
        return self.judge(found, acked, begun)

    def judge(self, found: list[tuple[int, int]], acked: int, begun: int) -> str | None:
        """Compare what was read with the versions that it may have shown; return what is wrong."""
        while self._version < acked:
            self._version += 1
            apply(self._state, self._version)
        state = dict(self._state)
        for version in range(acked, begun + 1):
            if version > acked:
                apply(state, version)
            if found == list(state.items()):
                self.tally.distinct += version != self._last
                self._last = version
                return None
        self.tally.anomalies += 1
        return f"none of the versions {acked} to {begun}: {found}"

    def close(self) -> None:
        """Close the handle."""
        if self._db is not None:
            self._db.close()


def _read(path: str, shared: Any, seed: int, results: Any) -> None:
    planting.of_parent()
    observer = Observer(path, shared, seed)
    problems: list[str] = []
    try:
        while not shared[_STOP]:
            problem = observer.observe()
            if problem is not None:
                problems.append(problem)
        observer.close()
    except Exception as error:  # noqa: BLE001 - whatever a read raises is an anomaly, and is told
        observer.tally.anomalies += 1
        problems.append(repr(error))
    results.put((observer.tally, problems[:3]))


def run(seed: int, *, seconds: float, readers: int = 3) -> ObservationTally:
    """Let one writer and some readers work for a while.

    Raises:
        AssertionError: a reader saw what it must not; the message says what.
    """
    context = get_context("spawn")
    shared = RawArray("Q", 4)
    results = context.Queue()
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "a.iqdb")
        Iqdb.open(path, dim=_DIM).close()
        writer = context.Process(target=_write, args=(path, shared))
        observers = [
            context.Process(target=_read, args=(path, shared, seed * 100 + number, results))
            for number in range(readers)
        ]
        for process in (writer, *observers):
            process.start()
        while shared[_ACKED] == 0 and writer.is_alive():  # the processes are still importing
            time.sleep(0.01)
        time.sleep(seconds)
        shared[_STOP] = 1
        found = [results.get(timeout=120) for _ in observers]
        for process in (writer, *observers):
            process.join(120)
        assert writer.exitcode == 0, f"the writer ended with {writer.exitcode}"
    total = ObservationTally(versions=shared[_ACKED], compactions=shared[_COMPACTIONS])
    for tally, _ in found:
        total.observations += tally.observations
        total.anomalies += tally.anomalies
        total.refreshes += tally.refreshes
        total.distinct = max(total.distinct, tally.distinct)
    problems = [problem for _, some in found for problem in some]
    assert not problems, f"{total.anomalies} anomalies of {total.observations}: {problems[0]}"
    return total
