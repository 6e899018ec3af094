"""What a log holds, as the next handle reads it (log format 2, sections 4 to 6).

A reader reads beside a writer, without a lock, and changes nothing.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Self

from iqdb_core.errors import FileIOError, LogDamagedError, LogMismatchError
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import FRAME_UPSERT, LOG_HEADER_BYTES
from iqdb_core.storage.log_scan import LogBytes, LogScan, scan_log, walk_frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from iqdb_core.storage.frames import DeleteFrame, UpsertFrame

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
        room_bytes: zeros at the end, where a writer has made room for frames to come.
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
        self.room_bytes = scan.room_bytes
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
        scan = scan_log(log, database_id, identity, dim)
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
