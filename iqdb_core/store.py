"""`Store`: the state behind a handle, and the only code that changes it.

Two locks order everything. `write_lock` is held by one writer for as long as its operation takes, disk
included. The publication lock is held for moments: to lease the current view, to give a lease back, and to
apply an acknowledged write to the delta and publish the view after it. Searches hold no lock while they
work; they see the view that they leased, which never changes.

The life of a write: everything is checked and looked up, one frame goes to the log, the log is synced
as the policy says, the delta takes the records, the call returns. Nothing after the log can fail for a
reason that the data gives.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Literal

from iqdb_core.errors import BatchTooLargeError, ClosedError, PersistError, PoisonedError, ReadOnlyError
from iqdb_core.index import index_class
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.types import IndexKind
from iqdb_core.view import Base, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iqdb_core.cache import ResultCache
    from iqdb_core.config import CacheConfig, FsyncPolicy, IqdbConfig
    from iqdb_core.delta import Delta
    from iqdb_core.errors import ChecksumError
    from iqdb_core.legacy_opening import LegacyFacts
    from iqdb_core.log_link import LogLink
    from iqdb_core.records import RecordBatch
    from iqdb_core.storage.section import Blocks, Section
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.storage.wal import LogContents
    from iqdb_core.types import MetadataValue, VectorId

MEMORY_PATH = "<memory>"
_MIN_AUTO_FOLD = 20_000
_AUTO_FOLD_SHARE = 8


class Store:
    """One open database: its view, its delta, its log and its locks."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        files: FileSystem = OS_FILES,
        lock_file: OpenFile | None = None,
        read_only: bool = False,
        fsync: FsyncPolicy | str = "always",
        threads: int = 1,
        auto_compact: int | Literal["auto"] | None = "auto",
        cache: CacheConfig | None = None,
    ) -> None:
        self.path = snapshot.path
        self.dim = snapshot.dim
        self.in_memory = lock_file is None and not read_only
        self.files = files
        self.read_only = read_only
        self.fsync = fsync
        self.threads = threads
        self.auto_compact = auto_compact
        self.write_lock = threading.RLock()
        self.lock_file = lock_file
        self._of_another_process = False
        self.log: LogLink | None = None
        self.log_status: tuple[int, int, int, int] | None = None
        self.log_end: int | None = None
        self.auto_fold_error: str | None = None
        self.legacy: LegacyFacts | None = None
        self._publication = threading.Lock()
        self._poison: str | None = None
        self._fold_at = self._auto_limit(snapshot.n_rows)
        self._delta: Delta | None = None
        self.cache: ResultCache | None = None
        if cache is not None:
            from iqdb_core.cache import ResultCache

            self.cache = ResultCache(cache)
        _STORES.add(self)
        self._view: View | None = None
        self._show(View(open_base(snapshot), None, snapshot.n_rows, None))

    # --- Reading --------------------------------------------------------------------------------

    def view(self) -> View:
        """Return the current view without a lease, for facts that do not change under a writer.

        Raises:
            ClosedError: the handle was closed.
        """
        view = self._view
        if view is None:
            raise ClosedError(self.path)
        return view

    def lease(self) -> View:
        """Return the current view and keep its bitmaps from changing until `release`."""
        with self._publication:
            view = self._view
            if view is not None:
                view.leases += 1
                return view
        raise ClosedError(self.path)

    def release(self, view: View) -> None:
        """Give a lease back."""
        with self._publication:
            view.leases -= 1

    def locate(self, record_id: VectorId) -> tuple[View, int, bool]:
        """Return a view, the row of a record in it (-1: absent), and whether that is in the delta."""
        with self._publication:
            view = self._view
            if view is None:
                raise ClosedError(self.path)
            if self._delta is not None:
                row = self._delta.find(record_id)
                if row >= 0:
                    return view, row, True
            view.leases += 1
        try:
            row = view.base.lookup.find(record_id)
            live = view.live
            if row >= 0 and live is not None and not live[row >> 3] >> (row & 7) & 1:
                row = -1
        finally:
            self.release(view)
        return view, row, False

    @property
    def config(self) -> IqdbConfig:
        """The configuration: what the file says, and this handle's own settings."""
        from iqdb_core.config import FsyncPolicy
        from iqdb_core.stored_config import stored_config

        snapshot = self.view().base.snapshot
        return stored_config(
            snapshot,
            fsync=FsyncPolicy.parse(self.fsync),
            threads=self.threads,
            auto_compact=self.auto_compact,
            database_id=snapshot.database_id,
            cache=None if self.cache is None else self.cache.config,
        )

    # --- Writing --------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Refuse to go on when nothing may be written.

        Raises:
            ClosedError, ReadOnlyError, PoisonedError: the reason.
        """
        if self._view is None:
            raise ClosedError(self.path)
        if self._of_another_process:
            reason = "opened by the process that this one was forked from; open the database again"
            raise ReadOnlyError(self.path, reason)
        if self.read_only:
            raise ReadOnlyError(self.path)
        if self._poison is not None:
            raise PoisonedError(self.path, self._poison)

    def poison(self, cause: BaseException | str) -> None:
        """Accept no more writes: what is on disk is no longer known for sure."""
        if self._poison is None:
            self._poison = str(cause) or type(cause).__name__

    @property
    def poisoned(self) -> bool:
        """Whether an earlier write failed."""
        return self._poison is not None

    def upsert(self, batch: RecordBatch) -> None:
        """Log and apply records that are valid and have distinct ids."""
        with self.write_lock:
            self.check_writable()
            if not len(batch):
                return
            base_rows = self.view().base.snapshot.find_many(batch.ids)
            delta = self._ready_delta()
            delta.reserve(len(batch))
            with _Logged(self):
                if self.log is not None:
                    self.log.append_upsert(batch.ids, batch.vectors, batch.metadata)
                with self._publication:
                    self._pin(delta)
                    delta.upsert(batch, base_rows)
                    self._publish()
            if delta.weight >= self._fold_at:
                self._fold_now()

    def upsert_one(
        self, record_id: VectorId, vector: bytes, metadata: dict[str, MetadataValue] | None
    ) -> None:
        """Log and apply one valid record; `vector` is its float32 components."""
        # Behind a sync this runs with cold caches and each call counts: so there are few of them.
        with self.write_lock:
            view = self._view
            if view is None or self.read_only or self._poison is not None:
                self.check_writable()
            assert view is not None
            delta = self._delta
            if delta is None:
                delta = self._ready_delta()
            # A record of the delta has hidden the snapshot's with the same id, if there is one.
            base_row = -1
            if delta.n_base_rows and delta.find(record_id) < 0:
                base_row = view.base.lookup.find(record_id)
            delta.reserve(1)
            log = self.log
            n_frames = 0 if log is None else log.n_frames
            try:
                if log is not None:
                    log.append_single_upsert(record_id, vector, metadata)
                with self._publication:
                    if view.leases:
                        delta.pin()
                    delta.upsert_one(record_id, vector, metadata, base_row)
                    self._publish()
            except BaseException as error:
                self.judge_failure(error, n_frames)
                raise
            if delta.weight >= self._fold_at:
                self._fold_now()

    def delete(self, ids: Sequence[VectorId]) -> int:
        """Log and apply the removal of those of distinct valid ids that are there; return how many."""
        from iqdb_core.records import Ids

        with self.write_lock:
            self.check_writable()
            base_rows = self.view().base.snapshot.find_many(Ids.from_list(ids))
            delta = self._ready_delta()
            present = delta.present(ids, base_rows)
            if not present:
                return 0
            found = [ids[index] for index in present]
            with _Logged(self):
                if self.log is not None:
                    self.log.append_delete(Ids.from_list(found))
                with self._publication:
                    self._pin(delta)
                    delta.delete(found, base_rows[present])
                    self._publish()
            if delta.weight >= self._fold_at:
                self._fold_now()
            return len(found)

    def replay(self, contents: LogContents) -> None:
        """Apply the frames of a log. Called before the store is shared."""
        from iqdb_core.sources import distinct
        from iqdb_core.storage.frames import UpsertFrame

        snapshot = self.view().base.snapshot
        delta = self._ready_delta()
        for frame in contents.frames():
            if isinstance(frame, UpsertFrame):
                batch = distinct(frame.batch)
                delta.upsert(batch, snapshot.find_many(batch.ids))
            else:
                delta.delete(frame.ids.to_list(), snapshot.find_many(frame.ids))
        self._publish()

    def attach_log(self, contents: LogContents | None) -> None:
        """Log from now on beside the present snapshot; `contents` is what the log there holds, if any."""
        from iqdb_core.config import FsyncPolicy
        from iqdb_core.log_link import LogLink

        assert self.lock_file is not None
        policy = FsyncPolicy.parse(self.fsync)
        self.log = LogLink(self.view().base.snapshot, self.lock_file, self.files, policy, contents)

    def _ready_delta(self) -> Delta:
        delta = self._delta
        if delta is None:
            from iqdb_core.delta import Delta

            snapshot = self.view().base.snapshot
            delta = self._delta = Delta(snapshot.n_rows, snapshot.dim)
        return delta

    def _pin(self, delta: Delta) -> None:
        view = self._view
        assert view is not None
        if view.leases:
            delta.pin()

    def _publish(self) -> None:
        view = self._view
        delta = self._delta
        assert view is not None
        assert delta is not None
        base_live = delta.base_live
        hidden = base_live.n_zeros
        live = base_live.bits if hidden else None
        view = self._view = View(view.base, live, delta.n_base_rows - hidden, delta.view())
        if self.cache is not None:
            self.cache.renew(view)

    def _show(self, view: View | None) -> None:
        """Let everything that begins from now on see `view`. Called under the publication lock."""
        self._view = view
        if self.cache is not None:
            self.cache.renew(view)

    def take_cache(self, other: Store) -> None:
        """Go on with the cache of a store that this one takes the place of."""
        cache, other.cache = other.cache, None
        if cache is not None:
            with self._publication:
                self.cache = cache
                cache.renew(self._view)

    def judge_failure(self, error: BaseException, n_frames: int) -> None:
        """Poison the store unless log and delta still agree; `n_frames` were in the log before."""
        if isinstance(error, BatchTooLargeError):
            return
        log = self.log
        if isinstance(error, PersistError):
            # A log that could not even be made leaves nothing behind; everything else is unsure.
            if log is None or log.open:
                self.poison(error)
        elif log is None or log.n_frames != n_frames:
            # Interrupted between log and delta.
            self.poison(error)

    # --- Folding --------------------------------------------------------------------------------

    @property
    def delta_weight(self) -> int:
        """Rows of the delta and hidden rows of the snapshot."""
        return 0 if self._delta is None else self._delta.weight

    def _auto_limit(self, n_rows: int) -> int:
        """Return the weight of the delta at which the store folds by itself."""
        limit = self.auto_compact
        if limit is None:
            return sys.maxsize
        return max(_MIN_AUTO_FOLD, n_rows // _AUTO_FOLD_SHARE) if limit == "auto" else limit

    def _fold_now(self) -> None:
        from iqdb_core.fold import fold

        try:
            fold(self)
        except PersistError as error:
            # The write that came before is acknowledged and durable whatever becomes of the fold, so
            # its caller gets no error. Folding is tried again when the delta has doubled.
            self.auto_fold_error = str(error)
            self._fold_at = 2 * self.delta_weight
            import warnings

            warnings.warn(f"automatic compaction failed: {error}", RuntimeWarning, stacklevel=4)
        else:
            self.auto_fold_error = None

    def install(self, snapshot: Snapshot, lock_file: OpenFile | None) -> None:
        """Go on with a new snapshot that holds everything. Searches at work finish on the old one."""
        base = open_base(snapshot)
        with self._publication:
            self._delta = None
            self._show(View(base, None, snapshot.n_rows, None))
        self._fold_at = self._auto_limit(snapshot.n_rows)
        old, self.lock_file = self.lock_file, lock_file
        if lock_file is not None:
            self.attach_log(None)
        if old is not None:
            self.files.release(old)

    # --- Closing --------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._view is None

    def close(self) -> None:
        """Sync and close the log and give the lock back. Views that are still leased stay valid."""
        with self.write_lock:
            log, self.log = self.log, None
            lock_file, self.lock_file = self.lock_file, None
            with self._publication:
                self._show(None)
                self._delta = None
            try:
                if log is not None:
                    log.close()
            finally:
                if lock_file is not None:
                    self.files.release(lock_file)

    def leave_to_parent(self) -> None:
        """Give up writing, and what could wait for threads that are no more: called in a forked child.

        The lock and the log are those of the process that opened them. Were this one to write, to compact
        or to give the lock back, either would lose what the other has acknowledged. Its own database in
        memory it goes on with.
        """
        self.write_lock = threading.RLock()
        self._publication = threading.Lock()
        self.cache = None
        lock_file, self.lock_file = self.lock_file, None
        log, self.log = self.log, None
        if lock_file is None:
            return
        self.read_only = self._of_another_process = True
        # Closed, not unlocked: the lock belongs to the open file, which the parent has, too.
        with contextlib.suppress(PersistError):
            self.files.close(lock_file)
        if log is not None:
            log.leave_to_parent()

    def __del__(self) -> None:
        # A handle that was forgotten gives its lock back; the map of the file would keep it.
        with contextlib.suppress(Exception):
            if not self.closed:
                self.close()


_STORES: weakref.WeakSet[Store] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for store in list(_STORES):
        store.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


class _Logged:
    """What is in the block goes to the log and to the delta, or the store is poisoned."""

    __slots__ = ("_n_frames", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._n_frames = 0 if store.log is None else store.log.n_frames

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._store.judge_failure(error, self._n_frames)


class IndexArray:
    """A section of an index as the index sees it; see `index.protocol.StoredArray`."""

    __slots__ = ("_section",)

    def __init__(self, section: Section) -> None:
        self._section = section

    @property
    def buffer(self) -> memoryview:
        """The array, of which only what `blocks` verifies may be used."""
        return self._section.shaped(self._section.unverified())

    @property
    def blocks(self) -> Blocks:
        """What a kernel verifies blocks with."""
        return self._section.blocks()

    def verified(self) -> memoryview:
        """Return the array, all of it verified."""
        return self._section.array()

    def damaged(self, block: int) -> ChecksumError:
        """Return the error that reports a block whose checksum is wrong."""
        return self._section.damaged_block(block)


def open_base(snapshot: Snapshot) -> Base:
    """Return a snapshot together with its index."""

    def array(name: str) -> IndexArray | None:
        section = snapshot.sections.get(name)
        return None if section is None else IndexArray(section)

    settings = snapshot.config["index"]
    kind = index_class(IndexKind(settings["kind"]))
    return Base(snapshot, kind.open(settings, snapshot.metric, snapshot.n_rows, array))
