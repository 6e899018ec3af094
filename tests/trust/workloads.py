"""What the trust tests do to a database, and an independent account of what must be in it then.

A workload is a function of a `Work`. Every write goes through `Work.write` with the same change to a dict,
so the records of each version are known without asking the database.
"""

from __future__ import annotations

import contextlib
import errno
import json
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from iqdb_core import (
    FlatConfig,
    FsyncPolicy,
    HnswConfig,
    IndexKind,
    Iqdb,
    IqdbConfig,
    IvfConfig,
    opening,
)
from iqdb_core.bulk import create_from
from iqdb_core.errors import FileIOError
from iqdb_core.plain_load import create_from_plain
from iqdb_core.records import Ids, MetadataColumns, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqdb_core import CacheConfig
    from iqdb_core.config import IndexConfig
    from iqdb_core.storage.files import FileSystem

DIM = 3
DATABASE_ID = bytes(range(16))
MODE = 0o640

Record = tuple[Any, bytes, Any]


class State(NamedTuple):
    """What a database holds: its records in their order, and the settings of its index as text."""

    records: list[Record]
    index: str

    def plus(self, *records: Record) -> Self:
        """Return the state with records added at the end."""
        return self._replace(records=[*self.records, *records])


Contents = State | None
"""The state of a version; None: there is no database."""


def contents(db: Iqdb) -> list[Record]:
    """Return all records of a handle in their order."""
    found: list[Record] = []
    for batch in db.batches():
        vectors = np.ascontiguousarray(batch.vectors, np.float32)
        dicts = batch.metadata.to_dicts() if batch.metadata is not None else [None] * len(batch)
        found += zip(batch.ids.to_list(), map(bytes, vectors), dicts, strict=True)
    return found


def settings_of(index: IndexConfig) -> str:
    """Return the settings of an index as a text to compare."""
    return json.dumps(index.to_dict(), sort_keys=True)


def state_of(db: Iqdb) -> State:
    """Return what a handle shows."""
    return State(contents(db), settings_of(db.config.index))


def vector_of(seed: int) -> list[float]:
    """Return a vector that tells one write from another."""
    return [float(seed), seed / 8, -1.0 - seed]


def packed(seed: int) -> bytes:
    """Return the bytes of that vector."""
    return np.array(vector_of(seed), np.float32).tobytes()


def batch_of(ids: list[Any], seeds: list[int], metadata: list[Any]) -> RecordBatch:
    """Return records for a bulk load."""
    columns = MetadataColumns.from_dicts(metadata) if any(m is not None for m in metadata) else None
    return RecordBatch(
        Ids.from_list(ids),
        np.array([vector_of(seed) for seed in seeds], np.float32).reshape(-1, DIM),
        columns,
    )


class PlainSource:
    """The vectors of seeds, as a plain array to be loaded."""

    def __init__(self, seeds: list[int]) -> None:
        self.n_rows, self.dim = len(seeds), DIM
        self._bytes = b"".join(packed(seed) for seed in seeds)

    def read_into(self, buffer: memoryview, row: int) -> None:
        """Fill `buffer` with the vectors from `row` on."""
        start = row * 4 * DIM
        buffer[:] = self._bytes[start : start + len(buffer)]

    def where(self, row: int) -> str:
        """Return how messages name a row."""
        return f"row {row}"


class Work:
    """One database under work, its versions, and the marks in the trace.

    Attributes:
        versions: the records of each version; version 0 is "there is no database".
        acked: the last version whose write returned.
        cache: settings of the result cache of the handles; None: they have none.
        auto_compact: rows of the delta at which the handles fold by themselves; None: they do not.
        db: the open handle.
    """

    def __init__(self, files: FileSystem, path: str, policy: str = "always", trace: Any = None) -> None:
        self.files = files
        self.path = path
        self.policy = policy
        self.trace = files.trace if trace is None else trace  # type: ignore[attr-defined]
        self.versions: list[Contents] = [None]
        self.acked = 0
        self.auto_compact: int | None = None
        self.cache: CacheConfig | None = None
        self.db: Iqdb = None  # type: ignore[assignment]
        self._seed = 0

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a handle."""
        # The timer never comes: `sync` does what it would do, at moments that the workload chooses.
        policy = FsyncPolicy.periodic(86_400) if self.policy == "periodic" else FsyncPolicy(self.policy)
        settings = {"fsync": policy, "threads": 1, "auto_compact": self.auto_compact}
        return settings if self.cache is None else {**settings, "cache": self.cache}

    @property
    def now(self) -> dict[Any, tuple[bytes, Any]]:
        """The newest version as a dict, to be changed."""
        last = self.versions[-1]
        return {} if last is None else {i: (vector, metadata) for i, vector, metadata in last.records}

    def step(
        self,
        change: dict[Any, tuple[bytes, Any]] | None,
        call: Callable[[], Any],
        *,
        durable: bool = False,
        index: IndexConfig | None = None,
    ) -> Any:
        """Make a call that leads to `change`, or that changes no record (None), between two marks.

        Args:
            change: the records afterwards.
            call: makes the call.
            durable: it is on the disk when it returns, whatever the policy.
            index: the settings of the index afterwards; None: those before.
        """
        last = self.versions[-1]
        if change is not None or index is not None:
            records = self.now if change is None else change
            settings = settings_of(index) if index is not None else last.index if last is not None else ""
            listed = [(i, vector, metadata) for i, (vector, metadata) in records.items()]
            self.versions.append(State(listed, settings))
        version = len(self.versions) - 1
        self.trace.begin(version)
        result = call()
        self.acked = version
        self.trace.ack(version, durable=durable)
        return result

    def create_in_memory(self, **settings: Any) -> None:
        """Create a database that has no file."""
        config = IqdbConfig(dim=DIM, metric="euclidean", **{**self.settings, **settings})
        self.db = self.step({}, lambda: Iqdb.open_in_memory_with(config), index=config.index)

    def create(self, **settings: Any) -> None:
        """Create the database and keep it open."""
        config = IqdbConfig(
            dim=DIM, metric="euclidean", database_id=DATABASE_ID, **{**self.settings, **settings}
        )
        create = self.step(
            {}, lambda: opening.create(self.path, config, self.files), durable=True, index=config.index
        )
        self.db = Iqdb(create)

    def create_from(self, *batches: RecordBatch, **settings: Any) -> None:
        """Create the database from records, all or nothing."""
        config = IqdbConfig(
            dim=DIM, metric="euclidean", database_id=DATABASE_ID, **{**self.settings, **settings}
        )
        self.step(
            self._loaded(batches),
            lambda: create_from(self.path, config, batches, files=self.files),
            durable=True,
            index=config.index,
        )

    def create_plain(self, first_id: int, seeds: list[int]) -> None:
        """Create the database from a plain array of vectors, all or nothing."""
        config = IqdbConfig(dim=DIM, metric="euclidean", database_id=DATABASE_ID, **self.settings)
        ids = list(range(first_id, first_id + len(seeds)))
        self.step(
            self._loaded((batch_of(ids, seeds, [None] * len(ids)),)),
            lambda: create_from_plain(
                self.path, config, PlainSource(seeds), first_id=first_id, files=self.files
            ),
            durable=True,
            index=config.index,
        )

    def open(self) -> None:
        """Open the database for writing."""
        self.step(None, self._open)

    def _open(self) -> None:
        self.db = Iqdb.open_existing(self.path, files=self.files, **self.settings)

    def upsert(self, record_id: Any, metadata: Any = None) -> None:
        """Store one record."""
        self._seed += 1
        change = self.now
        change[record_id] = packed(self._seed), metadata
        self.step(change, lambda: self.db.upsert(record_id, vector_of(self._seed), metadata))

    def upsert_many(self, ids: list[Any], metadata: list[Any] | None = None) -> None:
        """Store records in one batch."""
        change = self.now
        seeds = []
        for i, record_id in enumerate(ids):
            self._seed += 1
            seeds.append(self._seed)
            change[record_id] = packed(self._seed), None if metadata is None else metadata[i]
        self.step(change, lambda: self.db.upsert_many(ids, [vector_of(seed) for seed in seeds], metadata))

    def delete(self, *ids: Any) -> None:
        """Remove records in one batch."""
        change = {i: record for i, record in self.now.items() if i not in ids}
        self.step(change, lambda: self.db.delete(list(ids)))

    def bulk(self, *batches: RecordBatch) -> None:
        """Load records past the log."""
        self.step(self._loaded(batches), lambda: self.db.bulk_load(batches), durable=True)

    def _loaded(self, batches: tuple[RecordBatch, ...]) -> dict[Any, tuple[bytes, Any]]:
        change = self.now
        for batch in batches:
            dicts = batch.metadata.to_dicts() if batch.metadata is not None else [None] * len(batch)
            for i, vector, metadata in zip(batch.ids.to_list(), batch.vectors, dicts, strict=True):
                change[i] = vector.tobytes(), metadata
        return change

    def compact(self, compression: str | None = None) -> None:
        """Fold, perhaps with another compression."""
        self.step(None, lambda: self.db.compact(compression=compression), durable=True)

    def optimize(self, index: IndexConfig | None, sample: int = 0) -> None:
        """Build the index anew, or another one; without any index there is nothing to do."""
        flat = IndexKind.FLAT
        rewrites = self.db.config.index.kind is not flat or (index is not None and index.kind is not flat)
        self.step(None, lambda: self.db.optimize(index, sample=sample), durable=rewrites, index=index)

    def tune(self, **values: int) -> None:
        """Store what searches use by default, as `iqdb recall --save` does."""
        names = {"ef": "ef_search", "n_probes": "n_probes"}
        index = self.db.config.index.replace(**{names[name]: value for name, value in values.items()})
        self.step(None, lambda: self.db.set_search_defaults(**values), durable=True, index=index)

    def sync(self) -> None:
        """Sync the log, as the timer of the periodic policy does. What was acknowledged is durable then."""
        log = self.db._store.log
        if log is not None and log._writer is not None:
            log._writer.sync()
        self.trace.ack(self.acked, durable=True)

    def close(self, *, compact: bool = False) -> None:
        """Close the handle."""
        durable = compact or self.policy != "never"
        self.step(None, lambda: self.db.close(compact=compact), durable=durable)

    def kill(self) -> None:
        """End as a killed process does: nothing is synced, nor cut off, and the system keeps what it has."""
        log = self.db._store.log
        if log is not None and log._writer is not None:
            log._writer._kind = "never"
            log._writer._has_room = False
        self.abandon()

    def abandon(self) -> None:
        """Let go of everything whatever state it is in; nothing is synced or written."""
        db, self.db = self.db, None  # type: ignore[assignment]
        if db is not None:
            db.close(compact=False)


def life(work: Work) -> None:
    """Several generations: writes of all kinds, folds, another compression, a bulk load, a reopening."""
    work.create()
    work.upsert(1, {"a": 1})
    work.upsert_many([2, 3, "four", b"five"], [{"a": 2}, None, {"b": "text"}, {}])
    work.delete(2)
    if work.policy == "periodic":
        work.sync()
    work.upsert(1)
    work.compact()
    work.upsert(6, {"a": 6.5})
    work.delete(3, "four")
    work.compact("lz4")
    work.upsert(3)
    work.close()
    work.open()
    work.upsert_many([7, 8])
    if work.policy == "periodic":
        work.sync()
    work.upsert(9)
    work.bulk(
        batch_of([10, 11, 7], [100, 101, 102], [None, {"c": True}, None]),
        batch_of([10], [103], [{"c": None}]),
    )
    work.upsert(12)
    work.close(compact=True)


def imported(work: Work) -> None:
    """An import that creates the database, with an id that occurs twice, and a few writes."""
    work.create_from(
        batch_of([1, 2, "x"], [50, 51, 52], [None, {"n": 1}, {"n": 2}]),
        batch_of([2, 5], [53, 54], [None, {"n": 3}]),
        compression="zstd:3",
    )
    work.open()
    work.upsert(1)
    work.delete("x")
    work.bulk(batch_of([20, 21], [60, 61], [None, None]))
    work.bulk(batch_of([22], [62], [None]))
    work.close()


def plain(work: Work) -> None:
    """An import of a plain array that creates the database, and what follows it."""
    work.create_plain(3, [70, 71, 72])
    work.open()
    work.upsert(4, {"n": 1})
    work.delete(3)
    work.compact()
    work.upsert(9)
    work.close()


def many_frames(work: Work) -> None:
    """A log of many frames, in several sectors, written by three handles one after the other."""
    work.create()
    for session in range(3):
        for i in range(6):
            work.upsert(100 * session + i, {"session": session})
            if work.policy == "periodic" and i % 3 == 1:
                work.sync()
        work.delete(100 * session)
        work.close()
        work.open()
    work.upsert_many(list(range(1000, 1060)))
    work.upsert("last")
    work.close()


def alike(work: Work) -> None:
    """Frames of one length, that of what is written after a crash: then one fits into the hole of another."""
    work.create()
    for i in range(6):
        work.upsert(f"before crash {i:02}", {"new": False})
        if i == 1:
            work.sync()
    work.close()


def nothing_kept(work: Work) -> None:
    """Writes that cancel each other, so that one snapshot equals an earlier one byte for byte."""
    work.create()
    work.upsert(1)
    work.delete(1)
    work.compact()
    work.upsert(1)
    work.compact()
    work.delete(1)
    work.compact()
    work.upsert(2)
    work.close()


def left_stale(work: Work) -> None:
    """Folds that end before they have removed their log, each at another step; then a load past the log."""
    work.create()
    work.upsert(1)
    _cut_short(work, "sync_directory")
    work.upsert(2)
    _cut_short(work, "unlink")
    work.bulk(batch_of([3], [60], [None]))
    work.upsert(4)
    work.close()


def loaded_twice(work: Work) -> None:
    """A load past the log that folds one, and another that finds none and replaces a record."""
    work.create()
    work.upsert(1)
    work.bulk(batch_of([2], [60], [None]))
    work.bulk(batch_of([3, 1], [61, 62], [None, None]))
    work.upsert(4)
    work.close()


def _cut_short(work: Work, name: str) -> None:
    """Begin a fold whose first call of this kind fails and does nothing, and open the database anew."""
    original = getattr(work.files, name)

    def refuse(path: str) -> None:
        if ".tmp-" in path:
            original(path)
            return
        raise FileIOError(path, name, OSError(errno.EIO, "this failure was asked for"))

    setattr(work.files, name, refuse)
    with contextlib.suppress(FileIOError):
        work.compact()
    setattr(work.files, name, original)
    work.abandon()
    work.open()


def killed(work: Work) -> None:
    """Processes that are killed with frames that the system alone holds; the next one goes on with them."""
    work.create()
    work.upsert(1)
    work.upsert_many([2, 3])
    work.kill()
    work.open()
    work.upsert(4)
    work.delete(2)
    work.kill()
    work.open()
    work.upsert(5)
    work.sync()
    work.upsert(6)
    work.close()


HNSW = HnswConfig(m=2, ef_construction=4, ef_search=3)
IVF = IvfConfig(n_clusters=3, n_probes=1)
PQ = IvfConfig(n_clusters=2, n_probes=1, use_pq=True, pq_subvectors=3)


def _indexed(work: Work, index: IndexConfig, others: list[IndexConfig], **tuned: int) -> None:
    """Build an index, extend it, mend it, tune it, and exchange it for others and back."""
    work.create(index=index)
    work.upsert_many(list(range(12)), [{"n": i} if i % 3 else None for i in range(12)])
    work.compact()
    work.upsert_many([3, 12])
    work.delete(0, 7)
    if work.policy == "periodic":
        work.sync()
    work.compact()
    work.upsert(13, {"n": 13})
    work.tune(**tuned)
    for other in others:
        work.upsert(f"before {other.kind.value}")
        work.optimize(other)
    work.delete(5)
    work.optimize(index, sample=3)
    work.upsert(14)
    work.optimize(None)
    work.bulk(batch_of([20, 21, 3], [200, 201, 202], [None, {"c": True}, None]))
    work.close()
    work.open()
    work.upsert(15)
    work.close(compact=True)


def hnsw(work: Work) -> None:
    """The life of a database with a graph."""
    _indexed(work, HNSW, [FlatConfig()], ef=9)


def ivf(work: Work) -> None:
    """The life of a database with lists."""
    _indexed(work, IVF, [HNSW, FlatConfig()], n_probes=2)


def ivf_pq(work: Work) -> None:
    """The life of a database with lists of codes."""
    _indexed(work, PQ, [IVF], n_probes=2)


def _imported_with(work: Work, index: IndexConfig) -> None:
    """An import that builds an index, with an id that occurs twice, and folds that come by themselves."""
    work.auto_compact = 3
    ids: list[Any] = [*range(9), "x"]
    work.create_from(
        batch_of(ids, list(range(50, 60)), [None] * 10), batch_of([2], [70], [None]), index=index
    )
    work.open()
    for i in range(5):
        work.upsert(100 + i)
    work.delete(1, 2, 3, 4)
    work.upsert_many([200, 201, 202, 203])
    work.close()


def hnsw_imported(work: Work) -> None:
    """An import that builds a graph."""
    _imported_with(work, HNSW)


def ivf_pq_imported(work: Work) -> None:
    """An import that builds lists of codes."""
    _imported_with(work, PQ)


def timer(work: Work) -> None:
    """The timer of the periodic policy syncs while the next record is written."""
    work.create(fsync=FsyncPolicy.periodic(0.001))
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        if threading.current_thread().name == "iqdb-fsync":
            arrived.set()
            assert go_on.wait(20)

    work.files.on_sync = hold  # type: ignore[attr-defined]
    for i in range(3):
        work.upsert(2 * i)
        assert arrived.wait(20), "the timer does not sync"
        arrived.clear()
        # This one is behind the sync that is at work.
        work.upsert(2 * i + 1)
        go_on.set()
        assert arrived.wait(20), "the timer does not sync"
        go_on.clear()
        arrived.clear()
        go_on.set()
        while work.db._store.log._writer._timer is not None:  # type: ignore[union-attr]
            threading.Event().wait(0.001)
        # It ends when nothing is left to sync.
        work.trace.ack(work.acked, durable=True)
        go_on.clear()
    work.files.on_sync = None  # type: ignore[attr-defined]
    work.close()
