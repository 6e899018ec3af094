"""Appending to the write-ahead log, format 2. Only the holder of the database's lock does."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, Never

from iqdb_core._kernels import crc32c, encode_frame
from iqdb_core.errors import (
    BatchTooLargeError,
    ClosedError,
    FileIOError,
    PersistError,
    PoisonedError,
)
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    FRAME_CRC_OFFSET,
    FRAME_DELETE,
    FRAME_FOLD,
    FRAME_UPSERT,
    LOG_HEADER_BYTES,
    MAX_FRAME_BYTES,
    encode_log_header,
    new_frame_header,
    padded,
)
from iqdb_core.storage.log_contents import LogContents, read_log
from iqdb_core.storage.log_scan import LogScan, new_log_header
from iqdb_core.storage.single_record import single_upsert_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.config import FsyncPolicy
    from iqdb_core.records import Ids, MetadataColumns
    from iqdb_core.storage.frames import Part
    from iqdb_core.types import MetadataValue, VectorId

_U32 = struct.Struct("<I")
_REWRITTEN_BYTES = 1 << 20
# An `fsync` that has no new length to record costs about two thirds of one that has. So the log grows by
# steps, and frames are written over zeros. For a large frame that gains little, and every byte is written
# twice; a handle that writes once gains nothing.
_FIRST_ROOM_BYTES = 64 << 10
_MOST_ROOM_BYTES = 1 << 20
_SMALL_FRAME_BYTES = 64 << 10
_ROOM_ALIGNMENT = 4096


class LogWriter:
    """Appends frames. Safe to use from several threads; one frame is written at a time.

    After a failed write or sync the log is cut back to where it ended before, and the handle is
    poisoned: it accepts nothing more until the database is opened again.

    Attributes:
        path: the log's path.
        size: where the log's frames end, in bytes. The file may be longer: see `_make_room`.
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
        self._file_bytes = scan.valid_bytes
        self._room_bytes = 0
        self._makes_room = policy.kind == "always"
        self._has_room = False
        self._process = os.getpid()

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
        header = new_log_header(database_id, identity, dim)
        # Not even for a moment may others open what they could not open before.
        file = files.create(path, 0o666 if like is None else 0o600)
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

        Cuts off a torn tail and room. Unless the policy is never, everything in the log is durable when this
        returns: a writer that was killed may have left frames in the system's memory only, and the
        next frame vouches for them. What was not settled is written once more: after an `fsync` that
        failed the system takes for written what is not, and the next `fsync` would not write it.

        Raises:
            FileIOError: the system refused.
        """
        assert contents.exists
        assert not contents.stale
        assert not contents.torn_creation
        file = files.open_write(contents.path)
        try:
            cut = contents.torn_bytes or contents.room_bytes
            if cut:
                files.truncate(file, contents.valid_bytes)
            if policy.kind != "never":
                scan = contents.scan
                for offset in range(scan.settled_bytes, scan.valid_bytes, _REWRITTEN_BYTES):
                    size = min(_REWRITTEN_BYTES, scan.valid_bytes - offset)
                    files.write(file, files.read(file, size, offset), offset)
            if cut or policy.kind != "never":
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
        return self._append(FRAME_UPSERT, 1, single_upsert_parts(record_id, vector, metadata))

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
            if self._closed or self._poison is not None:
                self._refuse()
            if self._settled_bytes < self.size:
                self._sync_all()

    def close(self, *, cut: bool = True) -> None:
        """Sync what the policy promises, and close the file. A second call does nothing.

        Args:
            cut: cut off the room behind the frames, which is in nobody's way but takes space. What
                fails here leaves it there.

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
            # A child process that was forked has this handle, too, and does not know how far the log has
            # got since.
            if cut and self._has_room and self._poison is None and os.getpid() == self._process:
                with contextlib.suppress(FileIOError):
                    self._files.truncate(self._file, self.size)
        timer = self._timer
        if timer is not None and timer is not threading.current_thread():
            timer.join()
        self._files.close(self._file)
        if error is not None:
            raise error

    def leave_to_parent(self) -> None:
        """Close the file without a sync or a cut: called in a forked child, where the timer is no more."""
        self._closed = True
        with contextlib.suppress(FileIOError):
            self._files.close(self._file)

    def _append(self, type_: int, n_records: int, parts: Sequence[Part], *, sync: bool = False) -> int:
        body_bytes = sum(map(len, parts))
        if body_bytes > MAX_FRAME_BYTES:
            raise BatchTooLargeError(body_bytes, MAX_FRAME_BYTES)
        with self._lock:
            if self._closed or self._poison is not None:
                self._refuse()
            sync = sync or self._kind == "always"
            # Who never syncs vouches for everything: after a power cut an error is better than
            # records lost in silence (log format, section 2).
            settled = self.size if self._kind == "never" else self._settled_bytes
            number = self.n_frames + 1
            header = new_frame_header(body_bytes, number, settled, self._last_crc, type_, n_records)
            frame = encode_frame(header, parts, self._seed)
            end = self.size + len(frame)
            try:
                self._files.write(self._file, frame, self.size)
                if end > self._file_bytes:
                    self._file_bytes = end
                    if self._makes_room and len(frame) <= _SMALL_FRAME_BYTES and type_ != FRAME_FOLD:
                        self._make_room()
                if sync:
                    self._files.sync_data(self._file)
            except BaseException as error:
                self._take_back(error)
                raise
            self.size = end
            self.n_frames = number
            self._last_crc = _U32.unpack_from(frame, FRAME_CRC_OFFSET)[0]
            if sync:
                self._settled_bytes = self.size
            elif self._kind == "periodic":
                self._start_timer(first=self._settled_bytes == self.size - len(frame))
            return self.size

    def _make_room(self) -> None:
        """Write zeros behind the frame just written, so that the next ones leave the log's length alone.

        Twice as many each time, up to a limit. Whatever goes wrong with it, for example on a full disk,
        is no failure of the frame; it is not tried again.
        """
        room, self._room_bytes = (
            self._room_bytes,
            min(max(2 * self._room_bytes, _FIRST_ROOM_BYTES), _MOST_ROOM_BYTES),
        )
        if not room:
            return
        end = self._file_bytes
        stop = padded(end + room, _ROOM_ALIGNMENT)
        self._has_room = True
        try:
            self._files.write(self._file, bytes(stop - end), end)
        except FileIOError:
            self._makes_room = False
        else:
            self._file_bytes = stop

    def _take_back(self, cause: BaseException) -> None:
        """Cut off a frame that was not acknowledged, so that it cannot come back as if it had been.

        A failed write or sync poisons the handle: after it nobody knows which of the pages that the
        system holds are on the disk. Any other exception (an interrupt) does so only if the cut fails.

        Raises:
            FileIOError: the cut failed as well; its message says that the record may come back.
        """
        if isinstance(cause, FileIOError):
            self._poison = str(cause)
        self._file_bytes = self.size
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

    def _refuse(self) -> Never:
        """Say why nothing more is accepted."""
        if self._closed:
            raise ClosedError(self.path)
        self._untold = None
        raise PoisonedError(self.path, self._poison or "")


def _lost_unless_synced(error: FileIOError) -> str:
    return f"{error}; what was written since the sync before may be lost in a power cut"


__all__ = ["LogContents", "LogWriter", "read_log"]
