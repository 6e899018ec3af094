"""Verification of the log: header, frames, their chain, and that it belongs to the snapshot."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from iqdb_core._kernels import crc32c
from iqdb_core.errors import (
    FileIOError,
    LogDamagedError,
    LogMismatchError,
    NotADatabaseError,
    UnsupportedVersionError,
)
from iqdb_core.storage.layout import (
    FRAME_ALIGNMENT,
    FRAME_HEADER_BYTES,
    LOG_HEADER_BYTES,
    LOG_SUFFIX,
    Header,
)
from iqdb_core.storage.log_scan import LogBytes, LogScan, markers, scan_log, walk_frames, whole_frame
from iqdb_core.storage.verify_report import Finding

if TYPE_CHECKING:
    from iqdb_core.storage.verify import Verifier

_NOT_OPENED = "the database cannot be opened with this log; without it the snapshot can"
_WINDOW_BYTES = 1 << 20


def verify_log(verifier: Verifier, header: Header) -> None:
    """Add to the verifier's report what is wrong with the log beside the snapshot, if there is one."""
    path = verifier.path + LOG_SUFFIX
    files, report = verifier.files, verifier.report
    try:
        file = files.open_read(path)
    except FileIOError as error:
        if error.errno == errno.ENOENT:
            return
        raise
    except NotADatabaseError as error:
        report.findings.append(Finding(path, "log", 0, 0, error.reason, _NOT_OPENED))
        return
    try:
        # A writer may cut off a failed append while the log is read, so damage is looked at twice
        # (log format, section 6).
        if not _scan(verifier, LogBytes(file, files, files.status(file).st_size), header, last=False):
            _scan(verifier, LogBytes(file, files, files.status(file).st_size), header, last=True)
        size = files.status(file).st_size
        report.checked_bytes += size
        report.file_bytes += size
    finally:
        files.close(file)


def _scan(verifier: Verifier, log: LogBytes, header: Header, *, last: bool) -> bool:
    """Walk through the frames and report; False when this should be done once more instead."""
    findings = verifier.report.findings
    try:
        scan = scan_log(log, header.database_id, header.identity, header.dim)
    except UnsupportedVersionError as error:
        findings.append(Finding(log.path, "log header", 8, 4, error.message, _NOT_OPENED))
    except (LogDamagedError, LogMismatchError) as error:
        if _replaced(verifier):
            verifier.report.notes.append(
                "the snapshot was replaced while it was verified; the log there now belongs to the new one"
            )
        elif not last:
            return False
        elif isinstance(error, LogMismatchError):
            place = (16, LOG_HEADER_BYTES - 16)
            findings.append(Finding(log.path, "log header", *place, error.reason, _NOT_OPENED))
        else:
            _damage(verifier, log, header, error)
    else:
        _judge(verifier, log, header, scan)
    return True


def _replaced(verifier: Verifier) -> bool:
    """Say whether the path names another file by now."""
    there = verifier.files.status_at(verifier.path)
    mine = verifier.files.status(verifier.file)
    return there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)


def _damage(verifier: Verifier, log: LogBytes, header: Header, error: LogDamagedError) -> None:
    """Report a damaged frame and how many whole ones stand behind it."""
    seed = crc32c(header.database_id)
    behind = 0
    end = max(error.offset_bytes, LOG_HEADER_BYTES - FRAME_ALIGNMENT) + FRAME_ALIGNMENT
    next_whole = log.size
    budget = 2 * log.size + _WINDOW_BYTES
    for offset in markers(log, end):
        if offset < end:
            continue  # within a whole frame
        size = FRAME_HEADER_BYTES + int.from_bytes(log.read(offset + 4, 4), "little")
        budget -= min(size, log.size - offset)
        if budget < 0:
            break  # made to be expensive: no log that was ever written gets here
        if whole_frame(log, offset, seed) is not None:
            behind += 1
            next_whole = min(next_whole, offset)
            end = offset + size
    report = verifier.report
    report.log_frames = error.frame
    part = f"frame {error.frame}" if error.offset_bytes else "log header"
    before = f"frames 0 to {error.frame - 1} are whole" if error.frame else "no frame is whole before it"
    effect = f"{_NOT_OPENED}; {before}, and {behind} behind it"
    length = next_whole - error.offset_bytes
    report.findings.append(
        Finding(log.path, part, error.offset_bytes, length, f"damaged ({error.reason})", effect)
    )


def _judge(verifier: Verifier, log: LogBytes, header: Header, scan: LogScan) -> None:
    """Say what a log without damage means for its snapshot, and decode its frames."""
    report = verifier.report
    report.log_frames = scan.n_frames
    if scan.header is None:
        report.notes.append(f"the log's creation was cut off ({log.size} bytes); it holds nothing")
        return
    if scan.torn_bytes:
        report.notes.append(
            f"the log ends in a torn tail of {scan.torn_bytes} bytes at byte {scan.valid_bytes}: writes "
            "that were not acknowledged as durable; readers ignore it, and the next writer cuts it off"
        )
    if scan.folded_into == header.identity:
        report.notes.append("the log is stale: this snapshot holds all of it; the next writer removes it")
        return
    if scan.header.snapshot_identity != header.identity:
        if _replaced(verifier):
            return
        problem = (
            f"it extends snapshot {scan.header.snapshot_identity:016x}, this one is {header.identity:016x}"
        )
        report.findings.append(Finding(log.path, "log header", 32, 8, problem, _NOT_OPENED))
        return
    if report.level != "checksums":
        _decode(verifier, log, scan)
    if not any(finding.path == log.path for finding in report.findings):
        report.whole.append("log")


def _decode(verifier: Verifier, log: LogBytes, scan: LogScan) -> None:
    from iqdb_core.storage.frames import FrameError, decode_body

    assert scan.header is not None
    for frame in walk_frames(log, scan.header, stop=scan.valid_bytes):
        header = frame.header
        try:
            decode_body(header.type, header.n_records, frame.body, scan.header.dim, log.path)
        except FrameError as error:
            length = FRAME_HEADER_BYTES + header.body_bytes
            verifier.report.findings.append(
                Finding(log.path, f"frame {frame.number}", frame.offset, length, str(error), _NOT_OPENED)
            )
