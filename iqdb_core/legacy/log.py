"""The reader of the log of formats 1 and 2: which frames are whole, and what is behind them.

A frame is length, CRC-32 and body; nothing numbers it or ties it to the one before. So a frame that is bad
can be the torn end of the last write, which was never acknowledged, or damage with acknowledged records
behind it. Whether anything behind it is a whole frame decides between the two.
"""

from __future__ import annotations

import re
import zlib
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from iqdb_core.errors import LegacyDamagedError, LogDamagedError, UnsupportedVersionError
from iqdb_core.legacy import layout
from iqdb_core.legacy.values import MalformedError, cut_off, id_end, metadata_end

if TYPE_CHECKING:
    from iqdb_core.legacy.values import Buffer

_HEAD_BYTES = layout.FRAME_HEAD.size
_START_BYTES = layout.LOG_HEADER.size
# What a body begins with: the op, and the kind of the id.
_BODY_START = re.compile(
    b"(?=["
    + bytes([layout.OP_UPSERT, layout.OP_DELETE])
    + b"]["
    + bytes([layout.ID_INT, layout.ID_BYTES])
    + b"])"
)
# Looking for frames behind a bad one stops after this much work; whatever is there is damage then.
_MOST_CANDIDATES = 4 << 20
_MOST_HASHED_BYTES = 256 << 20


class Stretch(NamedTuple):
    """Bytes that are no frame: from `start` to `stop`; `reason` says what is wrong where they begin."""

    start: int
    stop: int
    reason: str


@dataclass(slots=True)
class LogScan:
    """What a log holds.

    Attributes:
        path: the log.
        size: its length in bytes.
        has_header: whether it is long enough to have one; the header is right then.
        bodies: where the bodies of the whole frames begin and end, two numbers a frame.
        damage: stretches that are no frames with frames behind them.
        torn: what is behind the last frame, None when it is the end.
        undecided: whether the search for frames was given up, so that more may be behind `torn`.
        malformed: of the frames whose checksum is right, those that mean nothing: number and reason.
        unreadable: why nothing of the file can be used, None when it can.
    """

    path: str
    size: int
    has_header: bool = False
    bodies: array[int] = field(default_factory=lambda: array("Q"))
    damage: list[Stretch] = field(default_factory=list)
    torn: Stretch | None = None
    undecided: bool = False
    malformed: list[tuple[int, str]] = field(default_factory=list)
    unreadable: LegacyDamagedError | UnsupportedVersionError | None = None

    @property
    def n_frames(self) -> int:
        """The number of whole frames."""
        return len(self.bodies) // 2

    @property
    def frame_bytes(self) -> int:
        """What the whole frames take in the file."""
        return sum(self.bodies[1::2]) - sum(self.bodies[::2]) + _HEAD_BYTES * self.n_frames

    def frame_start(self, number: int) -> int:
        """Return where a frame begins in the file."""
        return self.bodies[2 * number] - _HEAD_BYTES

    def frames_before(self, offset: int) -> int:
        """Return how many frames end at or before `offset`."""
        return bisect_right(range(self.n_frames), offset, key=lambda number: self.bodies[2 * number + 1])

    def problem(self) -> LegacyDamagedError | LogDamagedError | UnsupportedVersionError | None:
        """Return the first reason for which the log must not be believed, None when there is none."""
        if self.unreadable is not None:
            return self.unreadable
        first: tuple[int, int, str] | None = None
        if self.malformed:
            number, reason = self.malformed[0]
            first = self.frame_start(number), number, reason
        stretches = [*self.damage, *([self.torn] if self.undecided and self.torn else [])]
        if stretches and (first is None or stretches[0].start < first[0]):
            start, _, reason = stretches[0]
            first = start, self.frames_before(start), f"{reason}, and whole frames are behind it"
        return None if first is None else LogDamagedError(self.path, first[1], first[0], first[2])


def scan_log(data: Buffer, path: str, dim: int) -> LogScan:
    """Find all frames of a log, however damaged it is.

    Args:
        data: the whole file.
        path: names it in errors.
        dim: components that the vectors must have.
    """
    scan = LogScan(path, len(data))
    if len(data) < _START_BYTES or not any(data):
        _scan_stub(scan, data)
        return scan
    magic, version = layout.LOG_HEADER.unpack_from(data)
    if magic != layout.LOG_MAGIC:
        hint = "move the log away to open the snapshot without it"
        scan.unreadable = LegacyDamagedError(
            path, "log magic", 0, expected=repr(layout.LOG_MAGIC), found=repr(magic), hint=hint
        )
        return scan
    if version != layout.LOG_VERSION:
        supported = f"{layout.LOG_VERSION} beside a snapshot of iqdb 1.x"
        scan.unreadable = UnsupportedVersionError(path, version, supported, what="log")
        return scan
    scan.has_header = True
    at = _START_BYTES
    search = _Search(data, dim)
    while at < len(data):
        reason = _bad_frame(data, at)
        if reason is None:
            at = _add_frame(scan, data, at, dim)
            continue
        behind = search.next_frame(at + 1)
        stretch = Stretch(at, len(data) if behind is None else behind, reason)
        if behind is None:
            scan.torn, scan.undecided = stretch, search.given_up
            break
        scan.damage.append(stretch)
        at = behind
    return scan


def _scan_stub(scan: LogScan, data: Buffer) -> None:
    """Judge a file that is too short for a header, or all zeros: its creation did not come to an end."""
    if not len(data):
        return
    header = layout.LOG_HEADER.pack(layout.LOG_MAGIC, layout.LOG_VERSION)
    if any(data) and header[: len(data)] != bytes(data):
        scan.unreadable = LegacyDamagedError(
            scan.path,
            "log header",
            0,
            expected=repr(header),
            found=repr(bytes(data)),
            hint="move the log away to open the snapshot without it",
        )
        return
    scan.torn = Stretch(0, len(data), "the header was never written to its end")


def _bad_frame(data: Buffer, at: int) -> str | None:
    """Return what is wrong with the frame at `at`, None when its length and checksum are right."""
    if len(data) - at < _HEAD_BYTES:
        return f"{len(data) - at} bytes are no frame"
    size, crc = layout.FRAME_HEAD.unpack_from(data, at)
    start = at + _HEAD_BYTES
    if size > len(data) - start:
        return f"the body has {size} bytes and {len(data) - start} are there"
    # Zeros would pass as a frame without a body: the CRC-32 of nothing is 0.
    if size < layout.MIN_BODY_BYTES:
        return f"a body of {size} bytes holds no record"
    found = zlib.crc32(data[start : start + size])
    return None if found == crc else f"CRC-32 {found:08x}, expected {crc:08x}"


def _add_frame(scan: LogScan, data: Buffer, at: int, dim: int) -> int:
    size: int = layout.FRAME_HEAD.unpack_from(data, at)[0]
    start = at + _HEAD_BYTES
    number = scan.n_frames
    scan.bodies.extend((start, start + size))
    if size > layout.MAX_BODY_BYTES:
        most = f"{size} bytes, more than the {layout.MAX_BODY_BYTES} that the format allows"
        scan.malformed.append((number, most))
        return start + size
    try:
        check_body(memoryview(data)[start : start + size], dim)
    except MalformedError as error:
        scan.malformed.append((number, f"its checksum is right, but {error}"))
    return start + size


def check_body(body: memoryview, dim: int) -> None:
    """Check the fields of a body as far as they lead from one to the next.

    Raises:
        MalformedError: they do not, or something follows.
    """
    end = len(body)
    if end < 1 or body[0] not in (layout.OP_UPSERT, layout.OP_DELETE):
        raise MalformedError(0, "op", body[0] if end else "missing", "1 (upsert) or 2 (delete)")
    at = id_end(body, 1, end, length_bytes=8)
    if body[0] == layout.OP_UPSERT:
        if at + 4 > end:
            raise cut_off(at, "vector")
        found = layout.U32.unpack_from(body, at)[0]
        if found != dim:
            said = f"{dim}, the dimension of the snapshot"
            raise MalformedError(at, "length of the vector", found, said)
        at = metadata_end(body, at + 4 + 4 * dim, end)
    if at != end:
        raise MalformedError(at, "record", f"followed by {end - at} more bytes", "the end of the frame")


class _Search:
    """Looks for frames behind a bad one, within a bounded amount of work for the whole file."""

    def __init__(self, data: Buffer, dim: int) -> None:
        self._data = memoryview(data)
        self._dim = dim
        self._candidates = _MOST_CANDIDATES
        self._bytes = _MOST_HASHED_BYTES
        self.given_up = False

    def next_frame(self, start: int) -> int | None:
        """Return where the next whole frame begins at or behind `start`, None when none is found."""
        data = self._data
        for match in _BODY_START.finditer(data, start + _HEAD_BYTES):
            body = match.start()
            size, crc = layout.FRAME_HEAD.unpack_from(data, body - _HEAD_BYTES)
            if not layout.MIN_BODY_BYTES <= size <= len(data) - body:
                continue
            self._candidates -= 1
            if self._candidates < 0 or self._bytes < 0:
                self.given_up = True
                return None
            self._bytes -= size
            # Only what 1.x can have written counts, so that chance does not make damage of a torn tail.
            try:
                check_body(data[body : body + size], self._dim)
            except MalformedError:
                continue
            if zlib.crc32(data[body : body + size]) == crc:
                return body - _HEAD_BYTES
        return None
