"""Trying crash states: recovery, what is found, writing on, and recovering again."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from crash_states import Crashes, CrashState
from recorder import EMPTY, FailingMemory, Image, MemoryFiles
from workloads import Contents, State, Work, packed, state_of, vector_of

from iqdb_core import DatabaseNotFoundError, IndexKind, Iqdb, IqdbConfig, PersistError, opening
from iqdb_core.errors import LogDamagedError
from iqdb_core.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PATH = "/disk/a.iqdb"
LOG = PATH + ".wal"
NEW_SEED = 9999
MAY_BE_THERE = "may be there when the database is opened again"
"""What an error says of a write that failed and could not be taken back."""


@dataclass
class Tally:
    """What was tried."""

    moments: int = 0
    states: int = 0
    distinct: int = 0
    double: int = 0
    refused: int = 0
    violations: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return the sum of two tallies."""
        mine, theirs = vars(self), vars(other)
        return Tally(**{name: mine[name] + theirs[name] for name in mine})


class ViolationError(AssertionError):
    """A crash state from which something was lost, or in which something appeared."""


def recorded(workload: Callable[[Work], None], policy: str, files: Any = None, path: str = PATH) -> Work:
    """Run a workload to its end and return it with its trace."""
    work = Work(MemoryFiles() if files is None else files, path, policy)
    workload(work)
    return work


def crash_states(
    work: Work, policy: str, rng: random.Random, *, every_byte: bool = True, every: int = 1
) -> Crashes:
    """Return the crash states of a finished workload."""
    return Crashes(work.trace, policy=policy, log_name=LOG, rng=rng, every_byte=every_byte, every=every)


def sampled(states: list[CrashState], limit: int | None, rng: random.Random) -> list[CrashState]:
    """Keep every state of a whole write; of torn ones as many as fit, drawn evenly."""
    if limit is None or len(states) <= limit:
        return states
    plain = [state for state in states if not state.torn]
    torn = [state for state in states if state.torn]
    if len(plain) > limit:
        plain = [state for state in plain if state.lossless] + rng.sample(plain, limit // 2)
    return plain + rng.sample(torn, min(len(torn), max(limit - len(plain), limit // 4)))


class Checker:
    """Tries crash states of one history.

    Attributes:
        tally: what was tried so far.
    """

    def __init__(self, versions: Sequence[Contents], policy: str, new_id: str = "after the crash") -> None:
        self.versions = versions
        self.policy = policy
        self.new_id = new_id
        self.tally = Tally()
        self._verified: set[bytes] = set()

    def check(self, state: CrashState, *, fold: bool = False) -> MemoryFiles | None:
        """Recover from a state, verify, write on, recover again.

        Args:
            state: the disk.
            fold: compact at the end, too.

        Returns:
            The file layer with the trace of recovery and writing, for a crash in the middle of it;
            None when there was nothing to recover.
        """
        self.tally.states += 1
        try:
            return self._check(state, fold=fold)
        except Exception as error:
            names = {name: len(state.image.files[n][0]) for name, n in state.image.names.items()}
            raise ViolationError(
                f"{error}\npolicy {self.policy}, versions {state.floor}..{state.ceiling}, "
                f"lossless {state.lossless}, on disk: {names}"
            ) from error

    def check_all(self, states: Iterable[CrashState]) -> None:
        """Check one after the other."""
        for state in states:
            self.check(state)

    def _check(self, state: CrashState, *, fold: bool) -> MemoryFiles | None:
        files = MemoryFiles(state.image)
        try:
            found = _read(files)
        except LogDamagedError:
            # Log format, sections 2 and 9: who never syncs prefers an error to records lost in silence. That
            # is so of frames alone: a fold is synced by every policy.
            if self.policy != "never" or state.lossless:
                raise
            self.tally.refused += 1
            return None
        assert not files.trace, "a reader changed the disk"
        allowed = [self.versions[i] for i in range(state.floor, state.ceiling + 1)]
        if found not in allowed:
            raise ViolationError(f"found {found}\nexpected one of {allowed}")
        if found is None:
            return self._create_again(files)
        self._verify(files)
        files.trace.begin(0)
        db = Iqdb.open_existing(PATH, files=files, threads=1, auto_compact=None)
        assert state_of(db) == found, "a writer sees something else than a reader"
        left = set(files.image().names) - {PATH, LOG}
        assert not left, f"left behind: {left}"
        files.trace.ack(0)
        files.trace.begin(1)
        db.upsert(self.new_id, vector_of(NEW_SEED), {"new": True})
        files.trace.ack(1)
        db.close(compact=False)
        assert not files.n_open, "a file stayed open"
        after = found.plus((self.new_id, packed(NEW_SEED), {"new": True}))
        # The record was acknowledged: it is there if the power goes now, whatever was not synced.
        crashes = Crashes(files.trace, state.image, log_name=LOG, rng=random.Random(0), every_byte=False)
        for image in crashes.final_extremes():
            again = MemoryFiles(image)
            kept = _read(again)
            assert kept == after, f"written after recovery, then lost: {kept} instead of {after}"
        if fold:
            db = Iqdb.open_existing(PATH, files=files, threads=1)
            db.close()
            assert set(files.image().names) == {PATH}
            assert _read(files) == after
        return files

    def _verify(self, files: MemoryFiles) -> None:
        """Check all of a snapshot that was not seen before, its index too."""
        content = files.image().content(PATH)
        assert content is not None
        if content not in self._verified:
            self._verified.add(content)
            report = verify(PATH, files=files, threads=1)
            assert report.ok, report.findings
            assert not report.index.get("unreachable_nodes"), "the graph has lost a node"

    def _create_again(self, files: MemoryFiles) -> None:
        config = IqdbConfig(dim=2, threads=1)
        Iqdb(opening.create(PATH, config, files)).close()
        Iqdb.open_existing(PATH, files=files).close()
        assert set(files.image().names) == {PATH}

    def check_double(self, state: CrashState, rng: random.Random, limit: int) -> None:
        """Crash again in the middle of recovery, at every moment and in every way, or a sample of them."""
        files = self.check(state)
        if files is None:
            return
        found = _read(MemoryFiles(state.image))
        assert found is not None
        versions = [found, found.plus((self.new_id, packed(NEW_SEED), {"new": True}))]
        crashes = Crashes(files.trace, state.image, log_name=LOG, rng=rng)
        inner = Checker(versions, "always", "after the second crash")
        for again in sampled(crashes.states(), limit, rng):
            inner.check(again)
        self.tally.double += inner.tally.states


def _read(files: MemoryFiles) -> Contents:
    try:
        db = Iqdb.open_existing(PATH, read_only=True, files=files, threads=1)
    except DatabaseNotFoundError:
        return None
    try:
        found = state_of(db)
        _check_index(db, found)
        return found
    finally:
        db.close()


def _check_index(db: Iqdb, found: State) -> None:
    """A search that goes through the whole index finds what exact search finds."""
    count = len(found.records)
    if db.config.index.kind is IndexKind.FLAT or not count:
        return
    everything = {"ef": count} if db.config.index.kind is IndexKind.HNSW else {"n_probes": count}
    query = np.frombuffer(found.records[count // 2][1], np.float32)
    hits = [(hit.id, hit.distance) for hit in db.search(query, count, **everything)]
    exact = [(hit.id, hit.distance) for hit in db.search(query, count, exact=True)]
    assert hits == exact, f"the index finds {hits}\nexact search {exact}"


def run(
    workload: Callable[[Work], None],
    policy: str,
    seed: int,
    *,
    limit: int | None = None,
    double_limit: int = 0,
    part: tuple[int, int] = (0, 1),
    every: int = 1,
) -> Tally:
    """Try the crash states of one workload.

    Args:
        workload: what is done.
        policy: when it is synced.
        seed: of the samples.
        limit: the most states to try, about; None for all.
        double_limit: how many states also get a crash during their recovery.
        part: (i, n): only every n-th state, from the i-th on.
        every: only the states of one moment in so many.
    """
    rng = random.Random(seed)
    work = recorded(workload, policy)
    # What stays pending for long has very many torn states; a sample of them needs no single bytes.
    every_byte = limit is None or policy != "never"
    crashes = crash_states(work, policy, rng, every_byte=every_byte, every=every)
    states = crashes.states()
    chosen = sampled(states, limit, rng)
    doubles = set(rng.sample(range(len(chosen)), min(double_limit, len(chosen))))
    checker = Checker(work.versions, policy)
    checker.tally.moments = crashes.moments if part[0] == 0 else 0
    checker.tally.distinct = len(states) if part[0] == 0 else 0
    for index in range(part[0], len(chosen), part[1]):
        state = chosen[index]
        try:
            if index in doubles:
                checker.check_double(state, random.Random(seed * 1_000_003 + index), 40)
            else:
                checker.check(state, fold=index % 16 == 0)
        except ViolationError as error:
            error.add_note(f"workload {workload.__name__}, policy {policy}, seed {seed}, state {index}")
            raise
    return checker.tally


def run_failed(kind: str, skip: int, policy: str, seed: int, *, limit: int) -> Tally | None:
    """Let one call fail while frames are written, go on with a new handle, then cut the power.

    Returns:
        What was tried; None when there are fewer calls of that kind.
    """
    rng = random.Random(seed)
    files = FailingMemory(kind, skip)
    work = Work(files, PATH, policy)
    fail, files.fail = files.fail, None
    work.create()
    work.upsert("first")
    files.fail = fail
    for round_ in range(3):
        try:
            work.upsert_many([f"{round_} a", f"{round_} b"])
            work.upsert(f"{round_} c")
            work.sync()
            work.delete(f"{round_} a")
            if round_ == 1:
                work.compact()
            work.upsert(f"{round_} d")
            work.sync()
        except PersistError as error:
            if policy == "always" and MAY_BE_THERE not in str(error):
                # From now on nothing may bring it back, not even a power cut.
                work.trace.refuse(work.acked)
            _go_on(work)
    work.abandon()
    if files.fail is not None:
        return None
    crashes = crash_states(work, policy, rng, every_byte=False)
    checker = Checker(work.versions, policy)
    checker.check_all(sampled(crashes.states(), limit, rng))
    return checker.tally


def _go_on(work: Work) -> None:
    """Open the database anew, as a user would after an error, and take what is there for true."""
    with contextlib.suppress(PersistError):
        work.abandon()
    work._open()
    found = state_of(work.db)
    assert found in work.versions[work.acked :], "the failed write was done by half"
    work.versions.append(found)
    work.trace.begin(len(work.versions) - 1)
    work.upsert("after the failure")


__all__ = ["EMPTY", "Checker", "Image", "Tally", "ViolationError", "run"]
