"""The log of a damaged database: every whole frame of it that belongs to the snapshot, in the right order.

Whole frames behind a damaged one are applied too. They hold records as they were acknowledged later than
anything that is missing; what the missing frames did to records that no later frame names is not known, and
the report says so.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from iqdb_core._kernels import crc32c
from iqdb_core.errors import FileIOError, NotADatabaseError
from iqdb_core.salvage.report import Loss
from iqdb_core.storage.frames import DeleteFrame, FoldFrame, FrameError, UpsertFrame, decode_body
from iqdb_core.storage.layout import (
    FRAME_ALIGNMENT,
    FRAME_FOLD,
    FRAME_HEADER_BYTES,
    LOG_HEADER_BYTES,
    LOG_HEADER_CRC_OFFSET,
    LOG_MAGIC,
    LOG_SUFFIX,
    LOG_VERSION,
    FrameHeader,
    LogHeader,
    ReservedError,
    decode_log_header,
)
from iqdb_core.storage.log_scan import LogBytes, markers, new_log_header, whole_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqdb_core.records import RecordBatch
    from iqdb_core.salvage.layout import Layout
    from iqdb_core.storage.files import FileSystem, OpenFile
    from iqdb_core.types import VectorId

_BUDGET_BYTES = 1 << 20


class _Frame(NamedTuple):
    offset: int
    header: FrameHeader

    @property
    def end(self) -> int:
        return self.offset + FRAME_HEADER_BYTES + self.header.body_bytes


class LogChanges:
    """What the log does to the records of the snapshot, all frames together.

    Attributes:
        final: for every id that a frame names the batch and row of its record in the end, or None when it is
            deleted in the end; in the order in which they are appended where they are new.
        moved: ids of these that were deleted before, so that their records stand at the end.
        n_frames: frames that were applied.
        frames_lost: frames that were not.
        losses: what could not be applied, and why.
        notes: what is normal but worth knowing.
        database_id: the log's, if its header is whole; for a snapshot that has lost its own.
    """

    def __init__(self) -> None:
        self.final: dict[VectorId, tuple[RecordBatch, int] | None] = {}
        self.moved: set[VectorId] = set()
        self.n_frames = 0
        self.frames_lost = 0
        self.losses: list[Loss] = []
        self.notes: list[str] = []
        self.database_id: bytes | None = None

    def upsert(self, batch: RecordBatch) -> None:
        """Take note of an upsert."""
        for row, record_id in enumerate(batch.ids.to_list()):
            if record_id in self.final and self.final[record_id] is None:
                del self.final[record_id]
                self.moved.add(record_id)
            self.final[record_id] = batch, row

    def delete(self, ids: list[VectorId]) -> None:
        """Take note of deletions."""
        for record_id in ids:
            self.final[record_id] = None


def recover_log(layout: Layout, path: str, files: FileSystem) -> LogChanges:
    """Read the log beside a snapshot, as far as it can be read. Nothing is changed.

    Raises:
        FileIOError: the system refused to read.
    """
    changes = LogChanges()
    log_path = path + LOG_SUFFIX
    try:
        file = files.open_read(log_path)
    except FileIOError as error:
        if error.errno == errno.ENOENT:
            return changes
        raise
    except NotADatabaseError as error:
        changes.losses.append(Loss("log", log_path, error.reason))
        return changes
    try:
        _Recovery(layout, file, files, changes).run()
    finally:
        files.close(file)
    return changes


class _Recovery:
    def __init__(self, layout: Layout, file: OpenFile, files: FileSystem, changes: LogChanges) -> None:
        self._layout = layout
        self._log = LogBytes(file, files, files.status(file).st_size)
        self._changes = changes
        self._gaps: list[tuple[int, int]] = []
        self._budget = 0

    def run(self) -> None:
        log, changes = self._log, self._changes
        if log.size < LOG_HEADER_BYTES:
            changes.notes.append(f"the log's creation was cut off ({log.size} bytes); it held nothing")
            return
        header = self._header()
        refused = None if header is None else self._refused(header)
        if refused:
            self._not_applied(refused)
            return
        frames = list(self._whole_frames())
        if not frames and not self._gaps:
            if header is None and any(log.read(0, LOG_HEADER_BYTES)):
                self._not_applied("its header is damaged, and it has no whole frame")
            return
        if frames and frames[-1].header.type == FRAME_FOLD and self._is_ours(self._folded_into(frames[-1])):
            changes.notes.append("the log is stale: the snapshot holds all of it")
            return
        if header is not None:
            if not self._is_ours(header.snapshot_identity):
                self._not_applied(
                    f"it extends snapshot {header.snapshot_identity:016x} of the database, not this one"
                )
                return
            previous = header.header_crc
        else:
            expected = self._expected_header_crc()
            first = frames[0] if frames else None
            if first is None or expected is None or first.header.sequence != 1:
                self._not_applied("its header is damaged, and nothing else says which snapshot it extends")
                return
            if first.header.previous_crc != expected:
                self._not_applied("its header is damaged, and its frames extend another snapshot")
                return
            changes.notes.append("the log's header is damaged; its first frame says that it belongs here")
            previous = expected
        self._apply(self._in_order(frames, previous))

    # --- Whose log it is ----------------------------------------------------------------------------

    def _header(self) -> LogHeader | None:
        data = bytes(self._log.read(0, LOG_HEADER_BYTES))
        if crc32c(data[:LOG_HEADER_CRC_OFFSET]) != int.from_bytes(data[LOG_HEADER_CRC_OFFSET:], "little"):
            return None
        try:
            return decode_log_header(data)
        except ReservedError:
            return None

    def _refused(self, header: LogHeader) -> str | None:
        if header.magic != LOG_MAGIC or header.version != LOG_VERSION:
            return f"it is no log of format {LOG_VERSION}"
        if crc32c(header.database_id) != self._layout.seed:
            return f"it belongs to database {header.database_id.hex()}, not to this one"
        self._changes.database_id = header.database_id
        if header.dim != self._layout.header.dim:
            return f"it is for dimension {header.dim}, not {self._layout.header.dim}"
        return None

    def _is_ours(self, identity: int) -> bool:
        header = self._layout.header
        if self._layout.header_proved:
            return identity == header.identity
        return identity >> 32 == header.section_table_crc

    def _expected_header_crc(self) -> int | None:
        layout = self._layout
        if not layout.header_proved or layout.database_id is None:
            return None
        header = layout.header
        return new_log_header(layout.database_id, header.identity, header.dim).header_crc

    def _folded_into(self, frame: _Frame) -> int:
        return int.from_bytes(self._log.read(frame.offset + FRAME_HEADER_BYTES, 8), "little")

    def _not_applied(self, reason: str) -> None:
        self._changes.losses.append(Loss("log", self._log.path, reason, ranges=[(0, self._log.size)]))
        self._changes.frames_lost = sum(1 for _ in self._whole_frames())

    # --- Frames -------------------------------------------------------------------------------------

    def _whole_frames(self) -> Iterator[_Frame]:
        """Yield every whole frame where it stands, and take note of what is between them."""
        log, seed = self._log, self._layout.seed
        self._gaps = []
        at = LOG_HEADER_BYTES
        self._budget = 2 * log.size + _BUDGET_BYTES
        while at < log.size:
            found = whole_frame(log, at, seed)
            if found is not None:
                frame = _Frame(at, found[0])
                yield frame
                at = frame.end
                continue
            following = self._settled_behind(at)
            if following is None and self._budget < 0:
                reason = "what is there cannot be told from frames"
                self._changes.losses.append(Loss("frames", log.path, reason, ranges=[(at, log.size)]))
                return
            if following is None:
                self._changes.notes.append(
                    f"the log ends in a torn tail of {log.size - at} bytes at byte {at}, that no reader uses:"
                    " it was not acknowledged as durable, or cannot be told from what was not"
                )
                return
            self._gaps.append((at, following))
            at = following

    def _settled_behind(self, gap: int) -> int | None:
        """Return where the first whole frame behind a gap is, if one of them says that the gap was durable.

        If none does, nothing from the gap on had been promised, and a reader drops all of it.
        """
        log = self._log
        first = None
        end = gap
        for offset in markers(log, gap + FRAME_ALIGNMENT):
            if offset < end:
                continue  # within a whole frame
            size = FRAME_HEADER_BYTES + int.from_bytes(log.read(offset + 4, 4), "little")
            self._budget -= min(size, log.size - offset)
            if self._budget < 0:
                return None  # made to be expensive: no log that was ever written gets here
            found = whole_frame(log, offset, self._layout.seed)
            if found is None:
                continue
            first = offset if first is None else first
            if found[0].settled_bytes > gap:
                return first
            end = offset + size
        return None

    def _in_order(self, frames: list[_Frame], previous: int) -> list[_Frame]:
        """Return the frames in the order in which they were written, and report what is missing."""
        by_sequence: dict[int, list[_Frame]] = {}
        for frame in frames:
            same = by_sequence.setdefault(frame.header.sequence, [])
            if all(other.header.frame_crc != frame.header.frame_crc for other in same):
                same.append(frame)
        chosen: list[_Frame] = []
        last = 0
        for sequence in sorted(by_sequence):
            candidates = by_sequence[sequence]
            if sequence == last + 1:
                chained = [frame for frame in candidates if frame.header.previous_crc == previous]
                if not chained:
                    self._stray(candidates)
                    continue
                candidates = chained
            elif sequence == 0:
                self._stray(candidates)
                continue
            if sequence > last + 1:
                self._missing(last, sequence - 1)
            frame = candidates[-1]
            chosen.append(frame)
            last, previous = sequence, frame.header.frame_crc
        return chosen

    def _stray(self, frames: list[_Frame]) -> None:
        """Report frames that follow none of the others."""
        for frame in frames:
            place = [(frame.offset, frame.end)]
            number = max(0, frame.header.sequence - 1)
            reason = "it does not follow the frame before it"
            self._changes.losses.append(Loss("frames", self._log.path, reason, number, 1, ranges=place))
            self._changes.frames_lost += 1

    def _missing(self, first: int, stop: int) -> None:
        """Report that the frames first..stop (from 0) are not there."""
        self._changes.frames_lost += stop - first
        reason = "damaged or gone"
        self._changes.losses.append(
            Loss("frames", self._log.path, reason, first, stop - first, ranges=list(self._gaps))
        )

    def _apply(self, frames: list[_Frame]) -> None:
        changes, seed = self._changes, self._layout.seed
        behind = 0
        for frame in frames:
            number = frame.header.sequence - 1
            found = whole_frame(self._log, frame.offset, seed)
            assert found is not None, "the lock keeps writers away"
            header, dim = found[0], self._layout.header.dim
            try:
                decoded = decode_body(header.type, header.n_records, found[1], dim, self._log.path)
            except FrameError as error:
                place = [(frame.offset, frame.end)]
                changes.losses.append(Loss("frames", self._log.path, str(error), number, 1, ranges=place))
                changes.frames_lost += 1
                continue
            changes.n_frames += 1
            behind += bool(changes.frames_lost)
            if isinstance(decoded, UpsertFrame):
                changes.upsert(decoded.batch)
            elif isinstance(decoded, DeleteFrame):
                changes.delete(decoded.ids.to_list())
            else:
                assert isinstance(decoded, FoldFrame)
        if behind:
            changes.notes.append(
                f"{behind} whole frames behind missing ones were applied; records that they do not name are "
                "as the frames before left them: some may be older than what was acknowledged, or deleted"
            )
