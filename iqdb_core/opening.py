"""Finding, creating, locking and opening databases: everything that leads to a `Store`.

One writer, any number of readers. A writer holds the exclusive lock of the snapshot file and, having
it, makes sure that the path still names that file. A reader takes no lock and writes nothing: it opens
the snapshot, reads the log that belongs to it, and begins anew when the path names another file by then.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any, Literal

from iqdb_core.errors import (
    ConfigConflictError,
    DamagedError,
    DatabaseExistsError,
    DatabaseNotFoundError,
    FileIOError,
    LegacyFormatError,
    UnsupportedVersionError,
)
from iqdb_core.lock_wait import check_lock_wait, when_unlocked
from iqdb_core.log_link import log_path
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.store import Store
from iqdb_core.threads import resolve_threads

if TYPE_CHECKING:
    from iqdb_core.config import CacheConfig, FsyncPolicy, IqdbConfig

# How often a reader begins anew because the writer has just folded, and how often it reads a log
# again that looked damaged because the writer was just truncating it.
_MOVED_ATTEMPTS = 100
_DAMAGED_ATTEMPTS = 3


class HandleSettings:
    """The settings of one handle, which no file stores."""

    __slots__ = ("auto_compact", "cache", "fsync", "threads")

    def __init__(
        self,
        fsync: FsyncPolicy | str = "always",
        threads: int | None = None,
        auto_compact: int | Literal["auto"] | None = "auto",
        cache: CacheConfig | None = None,
    ) -> None:
        self.threads = resolve_threads(threads)
        if fsync != "always" or auto_compact != "auto" or cache is not None:
            # Other values than the defaults are checked by the one class that knows the rules.
            from iqdb_core.config import FsyncPolicy, IqdbConfig

            checked = IqdbConfig(
                dim=1, fsync=FsyncPolicy.parse(fsync), auto_compact=auto_compact, cache=cache
            )
            fsync, auto_compact = checked.fsync, checked.auto_compact
        self.fsync = fsync
        self.auto_compact = auto_compact
        self.cache = cache

    @classmethod
    def of(cls, config: IqdbConfig) -> HandleSettings:
        """Return the handle settings that a configuration has."""
        return cls(config.fsync, config.threads, config.auto_compact, config.cache)

    def arguments(self) -> dict[str, Any]:
        """Return them as arguments of `Store`."""
        return {name: getattr(self, name) for name in self.__slots__}


# --- Opening what is there ----------------------------------------------------------------------


def open_for_writing(
    path: str | os.PathLike[str],
    settings: HandleSettings,
    files: FileSystem = OS_FILES,
    *,
    lock_wait: float = 0,
) -> Store:
    """Lock and open an existing database; `lock_wait` is the time to wait for the lock, in seconds.

    Raises:
        DatabaseNotFoundError: there is none.
        InvalidParameterError: `lock_wait` is no time.
        LegacyFormatError: it is one of iqdb 1.x.
        LockedError: another handle has it open for writing.
        DamagedError, UnsupportedVersionError, UnsupportedFeatureError, NotADatabaseError: a leaf
            says what is wrong with it.
    """
    real = files.resolve(path)
    check_lock_wait(lock_wait)
    file = when_unlocked(lambda: _lock(real, path, files), lock_wait)
    try:
        snapshot = Snapshot.open(real, files, file=file)
        snapshot.check_writable()
        files.sweep_temporaries(real)
        store = Store(snapshot, files=files, lock_file=file, **settings.arguments())
        _attach_log(store)
    except UnsupportedVersionError as error:
        files.release(file)
        from iqdb_core.legacy import is_legacy

        if is_legacy(error):
            raise LegacyFormatError(path, error.found) from error
        raise
    except BaseException:
        files.release(file)
        raise
    return store


def _lock(real: str, path: str | os.PathLike[str], files: FileSystem) -> OpenFile:
    """Open and lock the file that the path names, at a moment when it does name it."""
    for _ in range(_MOVED_ATTEMPTS):
        try:
            file = files.open_write(real)
        except FileIOError as error:
            from iqdb_core.storage.database_file import refuse_missing

            refuse_missing(error, real, path, files)
            raise
        try:
            files.lock(file)
            if _is_at(files, file, real):
                return file
            # A compaction put a new file in place between the two calls.
            files.unlock(file)
        except BaseException:
            files.close(file)
            raise
        files.close(file)
    raise FileIOError(real, "lock", OSError(errno.EBUSY, "the file is being replaced all the time"))


def _is_at(files: FileSystem, file: OpenFile, path: str) -> bool:
    there = files.status_at(path)
    mine = files.status(file)
    return there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _attach_log(store: Store) -> None:
    """Read the log of a store that is being opened for writing; remove one that is folded in."""
    path = log_path(store.path)
    contents = None
    if store.files.exists(path):
        from iqdb_core.storage.wal import read_log

        snapshot = store.view().base.snapshot
        contents = read_log(path, snapshot.database_id, snapshot.identity, snapshot.dim, store.files)
        with contents:
            if contents.n_frames and not contents.stale:
                store.replay(contents)
        if contents.stale:
            # The process that folded the log may have died before its rename was durable.
            store.files.sync_directory(store.path)
            store.files.unlink(path)
            store.files.sync_directory(store.path)
            contents = None
    store.attach_log(contents)


def open_for_reading(
    path: str | os.PathLike[str], settings: HandleSettings, files: FileSystem = OS_FILES
) -> Store:
    """Open an existing database without a lock, as it is at this moment; also one of iqdb 1.x.

    Raises:
        DatabaseNotFoundError: there is none.
        DamagedError, UnsupportedVersionError, UnsupportedFeatureError, NotADatabaseError: a leaf
            says what is wrong with it.
    """
    real = files.resolve(path)
    damaged = 0
    for attempt in range(_MOVED_ATTEMPTS):
        try:
            file = files.open_read(real)
        except FileIOError as error:
            from iqdb_core.storage.database_file import refuse_missing

            refuse_missing(error, real, path, files)
            raise
        try:
            store = _read(file, real, settings, files)
            if store is not None:
                return store
        except DamagedError:
            if _is_at(files, file, real):
                damaged += 1
                if damaged >= _DAMAGED_ATTEMPTS:
                    raise
        finally:
            files.close(file)
        if attempt > 1:
            time.sleep(0.001)
    raise FileIOError(real, "read", OSError(errno.EBUSY, "the file is being replaced all the time"))


def _read(file: OpenFile, real: str, settings: HandleSettings, files: FileSystem) -> Store | None:
    """Read snapshot and log; None when the path names another file by then."""
    status = log_status(files, real)
    try:
        snapshot = Snapshot.open(real, files, file=file)
    except UnsupportedVersionError as error:
        from iqdb_core.legacy import is_legacy

        if not is_legacy(error):
            raise
        from iqdb_core.legacy_opening import legacy_store

        store = legacy_store(file, settings, files)
        store.log_status = status
        return store if _is_at(files, file, real) else None
    store = Store(snapshot, files=files, read_only=True, **settings.arguments())
    path = log_path(real)
    store.log_status = status
    if store.log_status is not None:
        from iqdb_core.storage.wal import read_log

        with read_log(path, snapshot.database_id, snapshot.identity, snapshot.dim, files) as contents:
            if contents.n_frames and not contents.stale:
                store.replay(contents)
            if contents.torn_bytes or contents.room_bytes:
                store.log_end = contents.valid_bytes
    return store if _is_at(files, file, real) else None


def log_status(files: FileSystem, path: str) -> tuple[int, int, int, int] | None:
    """Return what tells one state of a database's log from another, or None when there is no log."""
    status = files.status_at(log_path(path))
    if status is None:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


# --- Creating -----------------------------------------------------------------------------------


def create(path: str | os.PathLike[str], config: IqdbConfig, files: FileSystem = OS_FILES) -> Store:
    """Create an empty database at a path where nothing is, and open it for writing.

    Raises:
        DatabaseExistsError: something stands at the path.
        SnapshotMissingError: a log is there without its snapshot.
        FileIOError: the system refused, for example because the directory does not exist.
    """
    from iqdb_core.new_snapshot import NewSnapshot

    real = check_free(path, files)
    with NewSnapshot(real, files) as new:
        write_empty(new, config)
        return install_new(new, real, HandleSettings.of(config), files)


def check_free(path: str | os.PathLike[str], files: FileSystem) -> str:
    """Return the real path of a database to be created; see `create` for what is refused."""
    from iqdb_core.storage.database_file import refuse_orphaned_log

    real = files.resolve(path)
    if files.exists(real):
        raise DatabaseExistsError(path)
    refuse_orphaned_log(real, files)
    return real


def write_empty(new: Any, config: IqdbConfig) -> None:
    """Write a snapshot without records."""
    from iqdb_core.storage.snapshot_writer import SnapshotWriter

    check_buildable(config)
    with SnapshotWriter(new.sink, config.stored_dict(), database_id(config), new.files) as writer:
        writer.finish(sync=True)


def install_new(new: Any, real: str, settings: HandleSettings, files: FileSystem) -> Store:
    """Give a finished, durable new database its name and open it; its file is locked already."""
    snapshot = new.open(real)
    files.install_new(new.file.path, real)
    new.installed(real)
    try:
        files.sync_directory(real)
        store = Store(snapshot, files=files, lock_file=new.file, **settings.arguments())
        store.attach_log(None)
    except BaseException:
        files.close(new.file)
        raise
    return store


def check_buildable(config: IqdbConfig) -> None:
    """Refuse an index kind that this release cannot build."""
    from iqdb_core.index import index_class

    index_class(config.index.kind)


def database_id(config: IqdbConfig) -> bytes:
    """Return the id for a new database."""
    return os.urandom(16) if config.database_id is None else config.database_id


def open_in_memory(config: IqdbConfig, files: FileSystem = OS_FILES) -> Store:
    """Return a database that lives in memory and ends with its handle."""
    from iqdb_core.new_snapshot import NewSnapshot

    with NewSnapshot(None, files) as new:
        write_empty(new, config)
        return Store(new.open(""), files=files, **HandleSettings.of(config).arguments())


def open_or_create(
    path: str | os.PathLike[str],
    config: IqdbConfig,
    *,
    check_index: bool,
    lock_wait: float = 0,
    files: FileSystem = OS_FILES,
) -> Store:
    """Open a database, or create it when nothing is at the path.

    Raises:
        ConfigConflictError: it exists and contradicts the configuration.
    """
    settings = HandleSettings.of(config)
    try:
        store = open_for_writing(path, settings, files, lock_wait=lock_wait)
    except DatabaseNotFoundError:
        try:
            return create(path, config, files)
        except DatabaseExistsError:
            # Somebody else was faster. What they made is opened as if it had been there before.
            store = open_for_writing(path, settings, files, lock_wait=lock_wait)
    try:
        check_conflicts(store, config, check_index=check_index)
    except BaseException:
        store.close()
        raise
    return store


# --- Contradictions -----------------------------------------------------------------------------

_FIXED = "it cannot change; open the file with its own value, or create another database"
_INDEX_HINT = "open it without one; optimize changes the index of a database"
_COMPRESSION_HINT = "compact the database with the new compression to change it"


def check_conflicts(store: Store, config: IqdbConfig, *, check_index: bool) -> None:
    """Refuse a configuration that contradicts the file.

    The file's compression is not contradicted by the default, and provenance only by the keys that
    the request names.
    """
    stored = store.config
    where = store.path

    def conflict(field: str, requested: object, found: object, hint: str) -> ConfigConflictError:
        return ConfigConflictError(field, requested, found, where=where, hint=hint)

    if config.dim != stored.dim:
        raise conflict("dim", config.dim, stored.dim, _FIXED)
    if config.metric is not stored.metric:
        raise conflict("metric", config.metric.value, stored.metric.value, _FIXED)
    if check_index and config.index != stored.index:
        raise conflict("index", config.index.to_dict(), stored.index.to_dict(), _INDEX_HINT)
    requested, found = str(config.compression), str(stored.compression)
    if requested not in ("none", found):
        raise conflict("compression", requested, found, _COMPRESSION_HINT)
    for key, value in config.provenance.items():
        if stored.provenance.get(key) != value:
            raise conflict(f"provenance {key!r}", value, stored.provenance.get(key), _FIXED)
    if config.database_id not in (None, stored.database_id):
        assert stored.database_id is not None
        assert config.database_id is not None
        raise conflict("database_id", config.database_id.hex(), stored.database_id.hex(), _FIXED)


def _has_next_frame(store: Store, files: FileSystem) -> bool:
    """Say whether a frame stands by now where the last reading of the log found none but room for one.

    A frame written there leaves the file's length as it is, and its time too, as long as the system's
    clock has not ticked since.
    """
    if store.log_end is None:
        return False
    from iqdb_core._kernels import crc32c
    from iqdb_core.storage.log_scan import LogBytes, whole_frame

    try:
        file = files.open_read(log_path(store.path))
    except FileIOError:
        return True  # it was there a moment ago: opening anew says what has become of it
    try:
        status = files.status(file)
        assert store.log_status is not None
        if (status.st_dev, status.st_ino) != store.log_status[:2] or status.st_size < store.log_end:
            return True  # the log was folded in meanwhile, and this is another one
        log = LogBytes(file, files, status.st_size, window_bytes=1)
        seed = crc32c(store.view().base.snapshot.database_id)
        return whole_frame(log, store.log_end, seed) is not None
    finally:
        files.close(file)


def refreshed(store: Store) -> Store | None:
    """Return a read-only store of what is on disk now, or None when that is what `store` has."""
    files = store.files
    snapshot = store.view().base.snapshot
    there = files.status_at(store.path)
    same = there is not None and (there.st_dev, there.st_ino) == snapshot.inode
    if same and log_status(files, store.path) == store.log_status and not _has_next_frame(store, files):
        return None
    settings = HandleSettings(store.fsync, store.threads, store.auto_compact)
    return open_for_reading(store.path, settings, files)
