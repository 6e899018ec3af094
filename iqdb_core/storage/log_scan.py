"""Finding the frames of a log, and telling a torn tail from damage (log format, section 5).

Nothing here decodes a body, so nothing needs NumPy. Memory is bounded by one frame or 32 MiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from iqdb_core._kernels import crc32c
from iqdb_core.errors import LogDamagedError, LogMismatchError, UnsupportedVersionError
from iqdb_core.storage.layout import (
    FRAME_ALIGNMENT,
    FRAME_CRC_OFFSET,
    FRAME_FOLD,
    FRAME_HEADER_BYTES,
    FRAME_MARKER,
    FRAME_TYPES,
    LOG_HEADER_BYTES,
    LOG_HEADER_CRC_OFFSET,
    LOG_MAGIC,
    LOG_VERSION,
    MAX_FRAME_BYTES,
    FrameHeader,
    LogHeader,
    ReservedError,
    decode_frame_header,
    decode_log_header,
    encode_log_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqdb_core.storage.files import FileSystem, OpenFile

_WINDOW_BYTES = 1 << 20
_BUDGET_BYTES = 1 << 20
# A log up to this size is read once; a larger one a second time when its frames are replayed.
_KEPT_BYTES = 32 << 20
_KEPT_FRAMES = 50_000


class FoundFrame(NamedTuple):
    """A whole frame: its number from 0, its place, its header and its body."""

    number: int
    offset: int
    header: FrameHeader
    body: memoryview


class LogScan(NamedTuple):
    """What a log holds.

    Attributes:
        header: None when the log's creation was torn; then there are no frames.
        n_frames: the number of whole frames.
        valid_bytes: where the last of them ends; 0 when the creation was torn.
        torn_bytes: what follows, up to the last byte that is not zero, and is dropped.
        last_crc: what the next frame names as previous_crc.
        folded_into: the snapshot identity that the last frame names, if that is a fold frame.
        settled_bytes: the log was on stable storage up to here before the last frame was written.
        frames: all frames, verified, of a log that is small enough to keep; otherwise None.
        room_bytes: the zeros at the end: room that a writer has made for frames to come.
    """

    header: LogHeader | None
    n_frames: int
    valid_bytes: int
    torn_bytes: int
    last_crc: int
    folded_into: int | None
    settled_bytes: int = LOG_HEADER_BYTES
    frames: list[FoundFrame] | None = None
    room_bytes: int = 0


class LogBytes:
    """The first `size` bytes of a log, read in windows. More may be appended to the file meanwhile."""

    def __init__(
        self, file: OpenFile, files: FileSystem, size: int, *, window_bytes: int | None = None
    ) -> None:
        self.path = file.path
        self.size = size
        self._file = file
        self._files = files
        self._window = memoryview(b"")
        self._window_bytes = _WINDOW_BYTES if window_bytes is None else window_bytes
        self._offset = 0

    def forget(self) -> None:
        """Read what follows from the file again, not from the window that was read before."""
        self._window = memoryview(b"")

    def read(self, offset: int, size: int) -> memoryview:
        """Return `size` bytes at `offset`, fewer where the log ends."""
        size = max(0, min(size, self.size - offset))
        start = offset - self._offset
        if start < 0 or start + size > len(self._window):
            want = min(max(size, self._window_bytes), self.size - offset)
            self._window = memoryview(self._files.read(self._file, want, offset))
            self._offset = offset
            start = 0
        return self._window[start : start + size]


def walk_frames(log: LogBytes, header: LogHeader, *, stop: int | None = None) -> Iterator[FoundFrame]:
    """Yield the whole frames in their order, up to a torn tail or to `stop`.

    Raises:
        LogDamagedError: a frame is bad and this is no torn tail.
    """
    seed = crc32c(header.database_id)
    stop = log.size if stop is None else stop
    offset, number, previous = LOG_HEADER_BYTES, 0, header.header_crc
    while offset < stop:
        frame = whole_frame(log, offset, seed)
        if frame is None:
            reason = _reason_not_torn(log, offset, number + 1, seed)
            # A writer at work puts frames where zeros were. It ends one before it begins the next, so if
            # it has put one here, and others behind it, since this place was read, it is there by now.
            if reason or any(log.read(offset, FRAME_HEADER_BYTES)):
                log.forget()
                frame = whole_frame(log, offset, seed)
        if frame is None:
            if reason:
                raise LogDamagedError(log.path, number, offset, reason)
            return
        found, body = frame
        if found.sequence != number + 1:
            raise LogDamagedError(
                log.path, number, offset, f"sequence {found.sequence}, expected {number + 1}"
            )
        if found.settled_bytes > offset:
            raise LogDamagedError(
                log.path, number, offset, f"it was written behind byte {found.settled_bytes}, not here"
            )
        if found.previous_crc != previous:
            raise LogDamagedError(
                log.path,
                number,
                offset,
                f"it follows a frame with CRC-32C {found.previous_crc:08x}, not {previous:08x}",
            )
        yield FoundFrame(number, offset, found, body)
        previous = found.frame_crc
        number += 1
        offset += FRAME_HEADER_BYTES + found.body_bytes


def new_log_header(database_id: bytes, identity: int, dim: int) -> LogHeader:
    """Return the header of a new log of a snapshot."""
    header = LogHeader(LOG_MAGIC, LOG_VERSION, LOG_HEADER_BYTES, database_id, identity, dim, 0)
    return header._replace(header_crc=crc32c(encode_log_header(header)[:LOG_HEADER_CRC_OFFSET]))


def scan_log(log: LogBytes, database_id: bytes, identity: int, dim: int) -> LogScan:
    """Walk through the whole log of a snapshot, verify every frame, and say what there is.

    Raises:
        UnsupportedVersionError: a log of another format version.
        LogMismatchError: a log of another database.
        LogDamagedError: a bad header or frame that no crash explains.
    """
    header = _read_header(log, encode_log_header(new_log_header(database_id, identity, dim)), database_id)
    if header is None:
        return LogScan(None, 0, 0, log.size, 0, None)
    if header.database_id != database_id:
        raise LogMismatchError(
            log.path,
            f"this log belongs to database {header.database_id.hex()}, not {database_id.hex()}",
        )
    if header.dim != dim:
        raise LogMismatchError(log.path, f"this log is for dimension {header.dim}, not {dim}")
    last: FoundFrame | None = None
    kept: list[FoundFrame] | None = [] if log.size <= _KEPT_BYTES else None
    for frame in walk_frames(log, header):
        last = frame
        if kept is not None:
            kept.append(frame)
            if len(kept) > _KEPT_FRAMES:
                kept = None
    if last is None:
        end = LOG_HEADER_BYTES
        torn = _torn_bytes(log, end)
        room = log.size - end - torn
        return LogScan(header, 0, end, torn, header.header_crc, None, frames=kept, room_bytes=room)
    end = last.offset + FRAME_HEADER_BYTES + last.header.body_bytes
    torn = _torn_bytes(log, end)
    folded_into = None
    if last.header.type == FRAME_FOLD:
        folded_into = int.from_bytes(last.body[:8], "little")
    crc = last.header.frame_crc
    settled = last.header.settled_bytes
    room = log.size - end - torn
    return LogScan(header, last.number + 1, end, torn, crc, folded_into, settled, kept, room)


def _torn_bytes(log: LogBytes, start: int) -> int:
    """Return how many bytes from `start` on there are up to the last that is not zero."""
    torn = 0
    for base in range(start, log.size, _WINDOW_BYTES):
        window = bytes(log.read(base, _WINDOW_BYTES))
        if window != bytes(len(window)):
            torn = base - start + len(window.rstrip(b"\0"))
    return torn


def _read_header(log: LogBytes, expected: bytes, database_id: bytes) -> LogHeader | None:
    """Return the header; None when its creation was torn. `expected` is a new log's."""
    data = bytes(log.read(0, LOG_HEADER_BYTES))
    version = int.from_bytes(data[8:12], "little")
    if data[:8] == LOG_MAGIC and len(data) >= 12 and version not in {0, LOG_VERSION}:
        raise UnsupportedVersionError(log.path, version, str(LOG_VERSION), what="log")
    if len(data) < LOG_HEADER_BYTES:
        return None
    found = crc32c(data[:LOG_HEADER_CRC_OFFSET])
    stored = int.from_bytes(data[LOG_HEADER_CRC_OFFSET:], "little")
    if found != stored:
        # Nothing is behind it, and what differs from the header that was being written is not there yet.
        if log.size == LOG_HEADER_BYTES and all(
            byte in {0, right} for byte, right in zip(data, expected, strict=True)
        ):
            return None
        if (
            not any(data)
            and _reason_not_torn(log, LOG_HEADER_BYTES - FRAME_ALIGNMENT, 0, crc32c(database_id)) is None
        ):
            return None
        raise LogDamagedError(log.path, 0, 0, f"header: CRC-32C {found:08x}, expected {stored:08x}")
    try:
        header = decode_log_header(data)
    except ReservedError as error:
        raise LogDamagedError(log.path, 0, 0, f"{error} is not zero") from error
    if (header.magic, header.version, header.header_bytes) != (LOG_MAGIC, LOG_VERSION, LOG_HEADER_BYTES):
        raise LogDamagedError(log.path, 0, 0, "header: wrong magic, version or header_bytes")
    return header


def _plausible_header(log: LogBytes, offset: int) -> FrameHeader | None:
    """Return the header of what may be a frame at `offset`, before its checksum is computed."""
    data = bytes(log.read(offset, FRAME_HEADER_BYTES))
    if len(data) < FRAME_HEADER_BYTES or data[:4] != FRAME_MARKER:
        return None
    try:
        header = decode_frame_header(data)
    except ReservedError:
        return None
    if (
        header.type not in FRAME_TYPES
        or header.body_bytes % FRAME_ALIGNMENT
        or header.body_bytes > MAX_FRAME_BYTES
        or header.body_bytes > log.size - offset - FRAME_HEADER_BYTES
        or header.settled_bytes < LOG_HEADER_BYTES
    ):
        return None
    return header


def whole_frame(log: LogBytes, offset: int, seed: int) -> tuple[FrameHeader, memoryview] | None:
    """Return header and body of the whole frame at `offset`; None when there is none.

    `seed` is the CRC-32C of the database id.
    """
    header = _plausible_header(log, offset)
    if header is None:
        return None
    frame = log.read(offset, FRAME_HEADER_BYTES + header.body_bytes)
    body = frame[FRAME_HEADER_BYTES:]
    if len(body) < header.body_bytes:
        return None  # the file became shorter while it was read
    if crc32c(body, crc32c(frame[:FRAME_CRC_OFFSET], seed)) != header.frame_crc:
        return None
    return header, body


def markers(log: LogBytes, start: int) -> Iterator[int]:
    """Yield where from `start` on a frame may begin."""
    for base in range(start, log.size, _WINDOW_BYTES):
        window = bytes(log.read(base, _WINDOW_BYTES))
        place = window.find(FRAME_MARKER)
        while place >= 0:
            # Windows begin at multiples of 8, as frames do, so no marker is cut in two.
            if place % FRAME_ALIGNMENT == 0:
                yield base + place
            place = window.find(FRAME_MARKER, place + 1)


def _reason_not_torn(log: LogBytes, offset: int, sequence: int, seed: int) -> str | None:
    """Return why the bytes from `offset` on, no whole frame, are damage; None for a torn tail.

    They are damage when a later frame of this log says that it was settled beyond `offset`: then the
    bytes here had been on stable storage and have changed.
    """
    budget = 2 * log.size + _BUDGET_BYTES
    base = offset + FRAME_ALIGNMENT
    while base < log.size:
        window = bytes(log.read(base, _WINDOW_BYTES))
        place = window.find(FRAME_MARKER)
        while place >= 0:
            header = None if place % FRAME_ALIGNMENT else _plausible_header(log, base + place)
            if header is not None and header.sequence > sequence and header.settled_bytes > offset:
                budget -= FRAME_HEADER_BYTES + header.body_bytes
                if budget < 0:
                    return "what follows cannot be told from frames"
                if whole_frame(log, base + place, seed) is not None:
                    return f"a whole frame stands behind it at byte {base + place}"
            place = window.find(FRAME_MARKER, place + 1)
        # Windows begin at multiples of 8, as frames do, so no marker is cut in two.
        base += _WINDOW_BYTES
    return None
