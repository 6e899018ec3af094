"""System calls that fail: every call of a workload, in every way, and what must be true afterwards.

The calls are those that `storage/files.py` makes: a stand-in for its `os`, `fcntl` and `mmap` counts them
and lets the n-th fail, once or from then on for good. So everything above the system itself is the real
thing, on real files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import mmap
import os
import random
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from crashes import MAY_BE_THERE
from recorder import Trace
from workloads import HNSW, IVF, PQ, Work, batch_of, contents, state_of

from iqdb_core import DatabaseNotFoundError, Error, FlatConfig, Iqdb, PersistError, PoisonedError
from iqdb_core.storage import files as files_module
from iqdb_core.storage.files import FileSystem
from iqdb_core.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OS_CALLS = (
    "open",
    "close",
    "pread",
    "preadv",
    "pwrite",
    "ftruncate",
    "fsync",
    "rename",
    "link",
    "unlink",
    "fstat",
    "stat",
    "listdir",
    "fchmod",
    "fchown",
)
# These have happened when they report an error; a close always gives the descriptor back.
_MAY_HAVE_HAPPENED = frozenset({"fsync", "fdatasync", "rename", "link", "unlink", "ftruncate", "pwrite"})
# A disk that is read-only from some moment on: whatever would change a file fails.
ANY_CHANGE = "any change"
_CHANGES = frozenset({"pwrite", "ftruncate", "fsync", "fdatasync", "rename", "link", "unlink", "fchmod"})
_SYNCS = frozenset({"fsync", "fdatasync"})


class Fault(NamedTuple):
    """What goes wrong: the `skip`-th call of a kind, in which way, once or for good, before or after it."""

    kind: str
    skip: int
    error: int | str
    for_good: bool = False
    after: bool = False

    def __str__(self) -> str:
        name = self.error if isinstance(self.error, str) else errno.errorcode[self.error]
        return f"{self.kind} {self.skip} {name}{' for good' * self.for_good}{' after it' * self.after}"


class FaultyCalls:
    """Stands in for `os`, `fcntl` and `mmap` in the file layer.

    Attributes:
        counts: calls so far, by kind.
        fault: what is to fail; None: nothing does.
        struck: how many calls have failed.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self.counts: dict[str, int] = {}
        self.fault = fault
        self.struck = 0

    def call(self, kind: str, function: Callable[..., Any], arguments: tuple[Any, ...], named: Any) -> Any:
        """Make a system call, or let it fail."""
        fault = self.fault
        kinds = (kind, ANY_CHANGE) if kind in _CHANGES else (kind,)
        for each in kinds:
            self.counts[each] = self.counts.get(each, 0) + 1
        number = -1 if fault is None else self.counts.get(fault.kind, 0) - 1
        if (
            fault is None
            or fault.kind not in kinds
            or number < fault.skip
            or (number > fault.skip and not fault.for_good)
        ):
            return function(*arguments, **named)
        self.struck += 1
        if fault.error == "short":
            descriptor, data, offset = arguments
            if self.struck == 1:
                return os.pwrite(descriptor, memoryview(data)[: max(1, len(data) // 2)], offset)
            if not fault.for_good:
                return function(*arguments, **named)
            raise OSError(errno.ENOSPC, "this failure was asked for")
        if kind == "close" or fault.after:
            result = function(*arguments, **named)
            if kind == "open":
                os.close(result)
        raise OSError(fault.error, "this failure was asked for")

    @contextlib.contextmanager
    def installed(self) -> Iterator[FaultyCalls]:
        """Put the stand-in in place for the block."""
        kept = {name: getattr(files_module, name) for name in ("os", "fcntl", "mmap", "_FDATASYNC")}
        files_module.os = _Module(os, self, OS_CALLS)  # type: ignore[attr-defined]
        files_module.fcntl = _Module(fcntl, self, ("flock",))  # type: ignore[attr-defined]
        files_module.mmap = _Module(mmap, self, ("mmap",))  # type: ignore[attr-defined]
        files_module._FDATASYNC = lambda fd: self.call("fdatasync", kept["_FDATASYNC"], (fd,), {})
        try:
            yield self
        finally:
            for name, value in kept.items():
                setattr(files_module, name, value)


class _Module:
    def __init__(self, module: Any, calls: FaultyCalls, names: tuple[str, ...]) -> None:
        self._module = module
        self._calls = calls
        self._names = names

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if name not in self._names:
            return value
        return lambda *arguments, **named: self._calls.call(name, value, arguments, named)


def workload(work: Work) -> None:
    """Every kind of write, each behind another, in two sessions."""
    work.create()
    work.upsert(1, {"a": 1})
    work.upsert_many([2, "three"], [None, {"b": "text"}])
    work.delete(1)
    work.compact()
    work.upsert(4)
    work.compact("lz4")
    work.upsert(5)
    work.bulk(batch_of([6, 2], [70, 71], [None, {"c": 1}]))
    work.upsert(7)
    work.close()
    work.open()
    work.upsert(8)
    work.close(compact=True)


def indexed(work: Work) -> None:
    """Indexes that are built, extended, tuned and exchanged, in two sessions."""
    work.create(index=HNSW)
    work.upsert_many(list(range(8)), [{"n": i} if i % 2 else None for i in range(8)])
    work.compact()
    work.tune(ef=9)
    work.upsert(8)
    work.optimize(IVF)
    work.delete(1)
    work.compact("zstd:1")
    work.upsert(9)
    work.optimize(PQ, sample=2)
    work.upsert(10)
    work.bulk(batch_of([11, 2], [70, 71], [None, {"c": 1}]))
    work.optimize(FlatConfig())
    work.upsert(12)
    work.optimize(HNSW)
    work.close()
    work.open()
    work.upsert(13)
    work.tune(ef=5)
    work.close(compact=True)


def imported(work: Work) -> None:
    """An import that builds an index, with an id that occurs twice, and folds that come by themselves."""
    work.auto_compact = 3
    work.create_from(
        batch_of([*range(7), "x"], list(range(50, 58)), [{"n": 1}, *[None] * 7]),
        batch_of([2], [70], [None]),
        index=IVF,
    )
    work.open()
    for i in range(4):
        work.upsert(100 + i)
    work.delete(1, 2, 3)
    work.close()


def plain(work: Work) -> None:
    """A plain array that becomes a database, and a write after it."""
    work.create_plain(5, [80, 81, 82, 83])
    work.open()
    work.upsert(6)
    work.close()


WORKLOADS = {"records": workload, "indexed": indexed, "imported": imported, "plain": plain}


def scratch() -> Path:
    """Return a new folder, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="iqdb-trust-", dir=memory if os.access(memory, os.W_OK) else None))


def count_calls(name: str = "records") -> dict[str, int]:
    """Return how many calls of each kind a workload makes."""
    folder = scratch()
    try:
        with FaultyCalls().installed() as calls:
            WORKLOADS[name](Work(FileSystem(), str(folder / "a.iqdb"), trace=Trace()))
        return calls.counts
    finally:
        shutil.rmtree(folder)


def all_faults(counts: dict[str, int]) -> list[Fault]:
    """Return every way in which every call can fail."""
    faults = []
    for kind, count in sorted(counts.items()):
        ways: list[tuple[int | str, bool, bool]] = [
            (error, for_good, False)
            for error in (errno.EIO, errno.ENOSPC, errno.EINTR)
            for for_good in (False, True)
        ]
        if kind == ANY_CHANGE:
            ways = [(error, True, False) for error in (errno.EIO, errno.EROFS)]
        if kind == "pwrite":
            ways += [("short", False, False), ("short", True, False)]
        if kind in _MAY_HAVE_HAPPENED:
            ways += [(errno.EIO, False, True), (errno.EIO, True, True)]
        faults += [Fault(kind, skip, *way) for skip in range(count) for way in ways]
    return faults


@dataclass
class FaultTally:
    """What was tried: fault points, of how many; how often the handle was poisoned, or went on."""

    points: int = 0
    of: int = 0
    poisoned: int = 0
    went_on: int = 0
    unnoticed: int = 0

    def plus(self, other: FaultTally) -> FaultTally:
        """Return the sum of two tallies."""
        mine, theirs = vars(self), vars(other)
        return FaultTally(**{name: mine[name] + theirs[name] for name in mine})


def descriptors(folder: Path) -> list[str]:
    """Return what this process has open below a folder."""
    found = []
    for entry in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:  # noqa: PTH112, PTH208
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")  # noqa: PTH115
            if target.startswith(str(folder)):
                found.append(target)
    return found


def try_fault(fault: Fault, tally: FaultTally, name: str = "records") -> None:
    """Run a workload with one fault and check everything that must be true after it."""
    folder = scratch()
    try:
        _try_fault(fault, folder, tally, name)
    except Exception as error:
        error.add_note(f"workload {name}, fault: {fault}")
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try_fault(fault: Fault, folder: Path, tally: FaultTally, name: str) -> None:
    path = str(folder / "a.iqdb")
    work = Work(FileSystem(), path, trace=Trace())
    tally.points += 1
    error: Exception | None = None
    with FaultyCalls(fault).installed() as calls:
        try:
            with warnings.catch_warnings(record=True) as told:
                # A fold that comes by itself and fails costs nothing but itself, and says so.
                warnings.simplefilter("always", RuntimeWarning)
                WORKLOADS[name](work)
        except Error as raised:
            error = raised
        assert calls.struck, "the fault was never met"
        assert error or told or fault.kind not in _SYNCS, "a sync failed, and nobody was told"
        # The space comes back: nothing fails any more.
        calls.fault = None
        if error is None:
            # A short write is finished by the next one, and some calls are only for good measure.
            tally.unnoticed += 1
            acceptable = [work.versions[-1]]
        else:
            assert isinstance(error, PersistError), f"{error!r} is no error of the disk"
            acceptable = _go_on(work, error, tally, fault)
    db = work.db
    del db
    work.db = None  # type: ignore[assignment]
    said = "" if error is None else str(error)
    context = str(error)
    error = None
    gc.collect()
    assert not descriptors(folder), f"left open: {descriptors(folder)}; after {context}"
    if not fault.for_good and acceptable[-1] is not None:
        left = {entry.name for entry in folder.iterdir()} - {"a.iqdb", "a.iqdb.wal"}
        if fault.kind != "unlink":
            assert not left, f"left behind: {left}; after {context}"
    _check_reopened(path, acceptable, folder, said)


def _go_on(work: Work, error: Exception, tally: FaultTally, fault: Fault) -> list[Any]:
    """Use the handle after the failure and return what may be found when the database is opened again."""
    newest = len(work.versions) - 1
    unacknowledged = work.versions[work.acked : newest + 1]
    db = work.db
    if db is None or db._store.closed:
        # A creation or an opening that failed, or a closing, which acknowledges nothing new.
        return unacknowledged
    seen = state_of(db)
    assert seen in unacknowledged, f"the handle shows {seen}, which is neither before nor after the write"
    acceptable = [seen]
    if MAY_BE_THERE in str(error):
        acceptable = unacknowledged
    try:
        db.upsert("later", [1.0, 2.0, 3.0])
    except PoisonedError:
        tally.poisoned += 1
        assert "later" not in db
        writes = (
            lambda: db.delete(4),
            db.compact,
            lambda: db.upsert_many([9], [[1, 2, 3]]),
            lambda: db.optimize(IVF),
            lambda: db.bulk_load([batch_of([9], [1], [None])]),
        )
        for write in writes:
            assert _is_refused(write), "a poisoned handle wrote"
    else:
        # What was not synced may be gone with the next power cut, and nobody knows which part of it.
        assert fault.kind != "fdatasync", "a frame was not synced, and the handle goes on"
        tally.went_on += 1
        acceptable = [version.plus(*contents(db)[-1:]) for version in acceptable]
    db.close(compact=False)
    return acceptable


def _is_refused(write: Callable[[], object]) -> bool:
    try:
        write()
    except PoisonedError:
        return True
    return False


def _check_reopened(path: str, acceptable: list[Any], folder: Path, said: str) -> None:
    found = None
    for read_only in (True, False):
        try:
            db = Iqdb.open_existing(path, read_only=read_only, threads=1)
        except DatabaseNotFoundError:
            assert None in acceptable, f"the database is gone; after {said}"
            return
        seen = state_of(db)
        assert seen in acceptable, f"found {seen}\nexpected one of {acceptable}\nafter {said}"
        assert read_only or seen == found
        found = seen
        if not read_only:
            left = {entry.name for entry in folder.iterdir()} - {"a.iqdb", "a.iqdb.wal"}
            assert not left, f"not swept: {left}"
            db.upsert("at last", [1.0, 2.0, 3.0])
        db.close()
        report = verify(path, threads=1)
        assert report.ok, report.findings
    assert {entry.name for entry in folder.iterdir()} == {"a.iqdb"}
    with Iqdb.open_existing(path, read_only=True) as db:
        assert contents(db)[:-1] == found.records
        assert "at last" in db


def run(
    *,
    seed: int = 0,
    share: int = 1,
    part: tuple[int, int] = (0, 1),
    names: tuple[str, ...] = tuple(WORKLOADS),
) -> FaultTally:
    """Try faults.

    Args:
        seed: of the sample.
        share: try one way in `share` (drawn anew for every call); 1 tries all.
        part: (i, n): only every n-th fault, from the i-th on.
        names: the workloads.
    """
    faults = [(name, fault) for name in names for fault in all_faults(count_calls(name))]
    tally = FaultTally(of=len(faults) if part[0] == 0 else 0)
    if share > 1:
        rng = random.Random(seed)
        faults = rng.sample(faults, len(faults) // share)
    for name, fault in faults[part[0] :: part[1]]:
        try_fault(fault, tally, name)
    return tally
