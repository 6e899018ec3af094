"""The write-ahead log, format 2: reading what it holds and appending to it.

Only the holder of the database's lock writes. A reader reads beside a writer, without a lock.
"""

from __future__ import annotations

import errno
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

from iqdb_core._kernels import crc32c
from iqdb_core.errors import (
    BatchTooLargeError,
    ClosedError,
    FileIOError,
    LogDamagedError,
    LogMismatchError,
    PersistError,
    PoisonedError,
)
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    FRAME_CRC_OFFSET,
    FRAME_DELETE,
    FRAME_FOLD,
    FRAME_MARKER,
    FRAME_UPSERT,
    LOG_HEADER_BYTES,
    LOG_HEADER_CRC_OFFSET,
    LOG_MAGIC,
    LOG_VERSION,
    MAX_FRAME_BYTES,
    FrameHeader,
    LogHeader,
    encode_frame_header,
    encode_log_header,
)
from iqdb_core.storage.log_scan import LogBytes, LogScan, scan_log, walk_frames

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.config import FsyncPolicy
    from iqdb_core.records import Ids, MetadataColumns
    from iqdb_core.storage.frames import DeleteFrame, Part, UpsertFrame
    from iqdb_core.types import MetadataValue, VectorId

_U32 = struct.Struct("<I")
_NO_LOG = LogScan(None, 0, 0, 0, 0, None)


class LogContents:
    """What was in a log when it was read. Close it when its frames have been replayed.

    Attributes:
        path: the log's path.
        exists: whether there is a log at all.
        stale: every frame is in the snapshot already; a writer removes the log.
        torn_creation: there is a file, but not even a header; a writer makes the log anew.
        n_frames: whole frames, fold frames among them.
        valid_bytes: where they end.
        torn_bytes: what follows, was never acknowledged and is ignored; a writer cuts it off.
    """

    def __init__(
        self,
        path: str,
        scan: LogScan,
        *,
        stale: bool = False,
        log: LogBytes | None,
        file: OpenFile | None,
        files: FileSystem,
    ) -> None:
        """Use `read_log`."""
        self.path = path
        self.scan = scan
        self.exists = file is not None
        self.stale = stale
        self.torn_creation = file is not None and scan.header is None
        self.n_frames = scan.n_frames
        self.valid_bytes = scan.valid_bytes
        self.torn_bytes = scan.torn_bytes
        self._log = log
        self._file = file
        self._files = files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def frames(self) -> Iterator[UpsertFrame | DeleteFrame]:
        """Yield what is to be applied to the snapshot, in order; nothing when the log is stale.

        Frames with one record each come as one. Memory is bounded by one frame or a few MiB. The arrays
        of a frame stay valid.

        Raises:
            LogDamagedError: a frame holds what may not be stored, though its checksum is right.
        """
        header = self.scan.header
        if self.stale or header is None or not self.n_frames:
            return
        from iqdb_core.storage.frames import FoldFrame, FrameError, SingleUpserts, decode_body

        assert self._log is not None
        done, end = 0, LOG_HEADER_BYTES
        singles = SingleUpserts(header.dim)
        kept = self.scan.frames
        frames = walk_frames(self._log, header, stop=self.valid_bytes) if kept is None else kept
        for found in frames:
            done, end = found.number + 1, found.offset
            kind, n_records = found.header.type, found.header.n_records
            if kind == FRAME_UPSERT and n_records == 1 and singles.add(found.body):
                if singles.full:
                    yield singles.take()
                continue
            try:
                frame = decode_body(kind, n_records, found.body, header.dim, self.path)
            except FrameError as error:
                raise LogDamagedError(self.path, found.number, found.offset, str(error)) from error
            if isinstance(frame, FoldFrame):
                continue
            if singles:
                yield singles.take()
            yield frame
        if done != self.n_frames:
            raise LogDamagedError(self.path, done, end, "the log changed while it was read")
        if singles:
            yield singles.take()

    def close(self) -> None:
        """Close the file. Frames that were yielded stay valid."""
        if self._file is not None:
            self._files.close(self._file)


def read_log(
    path: str, database_id: bytes, identity: int, dim: int, files: FileSystem = OS_FILES
) -> LogContents:
    """Read the log beside a snapshot and verify all of it.

    Args:
        path: the log, which need not exist.
        database_id: the snapshot's.
        identity: the snapshot's.
        dim: the snapshot's.
        files: the file layer.

    Raises:
        LogMismatchError: the log belongs to another database or to another snapshot of this one.
            A reader looks whether the snapshot was replaced meanwhile, and begins again if so.
        LogDamagedError: a frame is bad and this is no torn tail.
        UnsupportedVersionError: a log of another format version.
        FileIOError: the system refused.
    """
    try:
        return _read_log_once(path, database_id, identity, dim, files)
    except (LogDamagedError, LogMismatchError):
        # A writer beside us may have cut off a failed append, or made the log anew, while we read.
        return _read_log_once(path, database_id, identity, dim, files)


def _read_log_once(path: str, database_id: bytes, identity: int, dim: int, files: FileSystem) -> LogContents:
    try:
        file = files.open_read(path)
    except FileIOError as error:
        if error.errno == errno.ENOENT:
            return LogContents(path, _NO_LOG, log=None, file=None, files=files)
        raise
    try:
        log = LogBytes(file, files, files.status(file).st_size)
        scan = scan_log(log, database_id, dim)
        stale = scan.folded_into == identity
        if not stale:
            _check_identity(scan, identity, path)
    except BaseException:
        files.close(file)
        raise
    return LogContents(path, scan, stale=stale, log=log, file=file, files=files)


def _check_identity(scan: LogScan, identity: int, path: str) -> None:
    if scan.header is not None and scan.header.snapshot_identity != identity:
        raise LogMismatchError(
            path,
            f"this log extends snapshot {scan.header.snapshot_identity:016x} of the database, "
            f"the one beside it is {identity:016x}",
        )


class LogWriter:
    """Appends frames. Safe to use from several threads; one frame is written at a time.

    After a failed write or sync the log is cut back to where it ended before, and the handle is
    poisoned: it accepts nothing more until the database is opened again.

    Attributes:
        path: the log's path.
        size: the log's length in bytes.
        n_frames: the number of its frames.
    """

    def __init__(
        self, file: OpenFile, files: FileSystem, policy: FsyncPolicy, scan: LogScan, settled_bytes: int
    ) -> None:
        """Use `create` or `open_for_append`."""
        assert scan.header is not None
        self.path = file.path
        self.size = scan.valid_bytes
        self.n_frames = scan.n_frames
        self._file = file
        self._files = files
        self._kind = policy.kind
        self._period_seconds = policy.seconds
        self._seed = crc32c(scan.header.database_id)
        self._last_crc = scan.last_crc
        self._settled_bytes = settled_bytes
        self._lock = threading.Lock()
        self._poison: str | None = None
        self._untold: PersistError | None = None
        self._closed = False
        self._timer: threading.Thread | None = None
        self._unsynced_since = 0.0
        self._wake = threading.Event()

    @classmethod
    def create(
        cls,
        path: str,
        database_id: bytes,
        identity: int,
        dim: int,
        policy: FsyncPolicy,
        files: FileSystem = OS_FILES,
        *,
        like: os.stat_result | None = None,
    ) -> LogWriter:
        """Make a new log for a snapshot.

        Unless the policy is never, the log and its name are durable when this returns.

        Args:
            path: the log's path, where nothing may stand.
            database_id: the snapshot's.
            identity: the snapshot's.
            dim: the snapshot's.
            policy: when to sync.
            files: the file layer.
            like: the snapshot's status, whose mode and owner the log gets.

        Raises:
            FileIOError: the system refused; what was created is removed again.
        """
        header = LogHeader(LOG_MAGIC, LOG_VERSION, LOG_HEADER_BYTES, database_id, identity, dim, 0)
        header = header._replace(header_crc=crc32c(encode_log_header(header)[:LOG_HEADER_CRC_OFFSET]))
        file = files.create(path)
        try:
            if like is not None:
                files.copy_permissions(file, like)
            files.write(file, encode_log_header(header), 0)
            if policy.kind != "never":
                files.sync(file)
                files.sync_directory(path)
        except BaseException:
            files.close(file)
            files.unlink(path)
            raise
        scan = LogScan(header, 0, LOG_HEADER_BYTES, 0, header.header_crc, None)
        return cls(file, files, policy, scan, LOG_HEADER_BYTES)

    @classmethod
    def open_for_append(
        cls, contents: LogContents, policy: FsyncPolicy, files: FileSystem = OS_FILES
    ) -> LogWriter:
        """Go on with a log that was read, is not stale, and whose creation was not torn.

        Cuts off a torn tail. Unless the policy is never, everything in the log is durable when this
        returns: a writer that was killed may have left frames in the system's memory only, and the
        next frame vouches for them.

        Raises:
            FileIOError: the system refused.
        """
        assert contents.exists
        assert not contents.stale
        assert not contents.torn_creation
        file = files.open_write(contents.path)
        try:
            if contents.torn_bytes:
                files.truncate(file, contents.valid_bytes)
            if contents.torn_bytes or policy.kind != "never":
                files.sync(file)
        except BaseException:
            files.close(file)
            raise
        return cls(file, files, policy, contents.scan, contents.valid_bytes)

    def append_upsert(self, ids: Ids, vectors: NDArray[np.float32], metadata: MetadataColumns | None) -> int:
        """Append records, which must be valid, as one frame; return the log's length after it.

        Args:
            ids: n >= 1 ids; the last record of those with one id decides.
            vectors: f32[n, dim], finite.
            metadata: n mappings, or None when no record has one.

        Under `always` the records survive a power cut once this returns. After an error the log ends
        where it ended before, unless the error says otherwise.

        Raises:
            BatchTooLargeError: they do not fit into one frame; nothing was written.
            FileIOError: the system refused; the handle is poisoned.
            PoisonedError, ClosedError: the handle accepts nothing any more.
        """
        from iqdb_core.storage.frames import encode_upsert

        return self._append(FRAME_UPSERT, len(ids), encode_upsert(ids, vectors, metadata))

    def append_single_upsert(
        self, record_id: VectorId, vector: bytes, metadata: Mapping[str, MetadataValue] | None
    ) -> int:
        """Append one valid record as a frame; the same as `append_upsert` with one, for much less."""
        from iqdb_core.storage.single_record import encode_single_upsert

        return self._append(FRAME_UPSERT, 1, [encode_single_upsert(record_id, vector, metadata)])

    def append_delete(self, ids: Ids) -> int:
        """Append the removal of n >= 1 ids as one frame. See `append_upsert`."""
        from iqdb_core.storage.frames import encode_delete

        return self._append(FRAME_DELETE, len(ids), encode_delete(ids))

    def append_fold(self, identity: int) -> int:
        """Append that everything so far is in the snapshot `identity`, and sync under every policy."""
        from iqdb_core.storage.frames import encode_fold

        return self._append(FRAME_FOLD, 0, encode_fold(identity), sync=True)

    def sync(self) -> None:
        """Make everything that was appended durable, whatever the policy.

        Raises:
            FileIOError: the system refused; the handle is poisoned.
            PoisonedError, ClosedError: an earlier write failed, or the handle is closed.
        """
        with self._lock:
            self._check()
            if self._settled_bytes < self.size:
                self._sync_all()

    def close(self) -> None:
        """Sync what the policy promises, and close the file. A second call does nothing.

        Raises:
            FileIOError: the last sync failed, now or in the timer with nobody told yet.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._wake.set()
            error = self._untold
            if self._poison is None and self._kind == "periodic" and self._settled_bytes < self.size:
                try:
                    self._sync_all()
                except PersistError as failure:
                    error = failure
        timer = self._timer
        if timer is not None and timer is not threading.current_thread():
            timer.join()
        self._files.close(self._file)
        if error is not None:
            raise error

    def _append(self, type_: int, n_records: int, parts: list[Part], *, sync: bool = False) -> int:
        body_bytes = sum(map(len, parts))
        if body_bytes > MAX_FRAME_BYTES:
            raise BatchTooLargeError(body_bytes, MAX_FRAME_BYTES)
        with self._lock:
            self._check()
            sync = sync or self._kind == "always"
            # Who never syncs vouches for everything: after a power cut an error is better than
            # records lost in silence (log format, section 2).
            settled = self.size if self._kind == "never" else self._settled_bytes
            header = encode_frame_header(
                FrameHeader(
                    FRAME_MARKER, body_bytes, self.n_frames + 1, settled, self._last_crc, type_, n_records, 0
                )
            )[:FRAME_CRC_OFFSET]
            crc = crc32c(header, self._seed)
            for part in parts:
                crc = crc32c(part, crc)
            frame = b"".join([header, _U32.pack(crc), *parts])
            try:
                self._files.write(self._file, frame, self.size)
                if sync:
                    self._files.sync_data(self._file)
            except BaseException as error:
                self._take_back(error)
                raise
            self.size += len(frame)
            self.n_frames += 1
            self._last_crc = crc
            if sync:
                self._settled_bytes = self.size
            elif self._kind == "periodic":
                self._start_timer(first=self._settled_bytes == self.size - len(frame))
            return self.size

    def _take_back(self, cause: BaseException) -> None:
        """Cut off a frame that was not acknowledged, so that it cannot come back as if it had been.

        A failed write or sync poisons the handle: after it nobody knows which of the pages that the
        system holds are on the disk. Any other exception (an interrupt) does so only if the cut fails.

        Raises:
            FileIOError: the cut failed as well; its message says that the record may come back.
        """
        if isinstance(cause, FileIOError):
            self._poison = str(cause)
        try:
            self._files.truncate(self._file, self.size)
            if isinstance(cause, FileIOError) and self._kind != "never":
                self._files.sync(self._file)
        except FileIOError as error:
            doing = cause.operation if isinstance(cause, FileIOError) else "finish"
            failure = FileIOError(
                self.path,
                f"{doing}, nor take the record back: it may be there when the database is opened again",
                cause.__cause__ if isinstance(cause.__cause__, OSError) else OSError(str(error)),
            )
            self._poison = str(failure)
            raise failure from cause

    def _sync_all(self) -> None:
        """Sync under the lock; poison the handle when that fails."""
        try:
            self._files.sync_data(self._file)
        except FileIOError as error:
            self._poison = _lost_unless_synced(error)
            raise
        self._settled_bytes = self.size

    def _start_timer(self, *, first: bool) -> None:
        """See that the frame just written is synced in time. Called under the lock."""
        if first:
            self._unsynced_since = time.monotonic()
        if self._timer is None:
            # It ends by itself when nothing is left to sync.
            self._timer = threading.Thread(target=self._sync_later, name="iqdb-fsync", daemon=True)
            self._timer.start()

    def _sync_later(self) -> None:
        """Sync a period after the first write that is not synced: the timer of the periodic policy."""
        while True:
            due = self._unsynced_since + self._period_seconds
            self._wake.wait(max(0.0, due - time.monotonic()))
            with self._lock:
                size = self.size
                if self._closed or self._poison is not None or self._settled_bytes >= size:
                    self._timer = None
                    return
                # For what is written from here on; it may not be covered by this sync.
                self._unsynced_since = time.monotonic()
            try:
                # Outside the lock: appending goes on meanwhile.
                self._files.sync_data(self._file)
            except FileIOError as error:
                with self._lock:
                    self._timer = None
                    self._untold = error
                    self._poison = _lost_unless_synced(error)
                return
            with self._lock:
                self._settled_bytes = max(self._settled_bytes, size)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError(self.path)
        if self._poison is not None:
            self._untold = None
            raise PoisonedError(self.path, self._poison)


def _lost_unless_synced(error: FileIOError) -> str:
    return f"{error}; what was written since the sync before may be lost in a power cut"


__all__ = ["LogContents", "LogWriter", "read_log"]
