"""A database of iqdb 1.x as it is at one moment: snapshot and log as one sequence of records.

Records come in the order in which 1.x has them in memory after it has replayed the log, which is the order
in which it would write them: a replaced record keeps its place, and the last one takes the place of a
deleted one. Vectors and metadata are decoded when a batch is asked for, so memory is bounded by the
payload where that is compressed, the log, and a few bytes a record.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core import _kernels
from iqdb_core.config import IqdbConfig, index_config_from_dict
from iqdb_core.errors import (
    ConfigError,
    InvalidIdError,
    InvalidMetadataError,
    LegacyDamagedError,
    NotRepresentableError,
    VectorIndexError,
)
from iqdb_core.legacy import layout
from iqdb_core.legacy.log import LogScan, scan_log
from iqdb_core.legacy.snapshot import LegacySnapshot
from iqdb_core.legacy.values import MalformedError, decode_id, decode_metadata, id_end
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import LOG_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqdb_core.types import DistanceMetric, MetadataValue, VectorId

_BATCH_ROWS = 16_384
_BATCH_BYTES = 32 << 20
MAX_LOG_BYTES = 8 << 30
"""A longer log is not read: it has to be in memory as a whole."""

# What format 3 allows of each setting; 1.x takes any number.
_RANGES: dict[str, tuple[int, int]] = {
    "m": (2, 512),
    "ef_construction": (1, 65_536),
    "ef_search": (1, 65_536),
    "filter_widen": (1, 1_024),
    "n_clusters": (1, 2**24),
    "n_probes": (1, 2**24),
    "training_sample_size": (1, 2**32 - 1),
    "pq_refine_factor": (0, 65_536),
}


class LegacyDatabase:
    """An opened database of iqdb 1.x. Nothing is written, locked or truncated.

    Attributes:
        path: the snapshot.
        lost: what of a damaged log could not be read, a sentence each; only after salvaging.
        snapshot: its snapshot.
        scan: what its log holds; None when there is none.
        order: for each record where it is: the start of a snapshot's row, or -1 minus the start of a body
            in the log. None when the records are the snapshot's rows as they stand.
    """

    def __init__(self, snapshot: LegacySnapshot, scan: LogScan | None, log: bytes) -> None:
        """Put both together. Use `open`."""
        self.path = snapshot.path
        self.snapshot = snapshot
        self.scan = scan
        self.lost: list[str] = []
        self._log = memoryview(log)
        self.upserts = self.deletes = 0
        self.order: array[int] | None = None
        if scan is not None and scan.n_frames:
            self.order = self._replayed(scan)

    @classmethod
    def open(cls, file: OpenFile, files: FileSystem = OS_FILES, *, salvage: bool = False) -> LegacyDatabase:
        """Read snapshot and log. Whether the path still names `file` afterwards is for the caller to see.

        Args:
            file: the snapshot, open for reading; it is not needed any more when this returns.
            files: the file layer.
            salvage: also read a damaged log, as far as its frames are whole; `scan` says what is not.

        Raises:
            NotADatabaseError, LegacyDamagedError: the snapshot is no whole one of these formats.
            LogDamagedError, LegacyDamagedError, UnsupportedVersionError: the log is damaged.
            NotRepresentableError: there is something in it that this release cannot hold.
            FileIOError: the system refused.
        """
        size = files.status(file).st_size
        image = memoryview(files.map_read(file, size) if size else b"")
        snapshot = LegacySnapshot(image, file.path)
        scan, log = read_log(file.path + LOG_SUFFIX, snapshot.dim, files)
        if scan is not None:
            problem = scan.problem()
            if problem is not None and not salvage:
                raise problem
        database = cls(snapshot, None if scan is None else readable(scan), log)
        if scan is not None:
            database.lost = _losses(scan)
        return database

    @property
    def n_records(self) -> int:
        """The number of records, with the log applied."""
        return self.snapshot.n_rows if self.order is None else len(self.order)

    @property
    def metric(self) -> DistanceMetric:
        """The distance."""
        return layout.METRICS[self.snapshot.metric]

    @property
    def log_bytes(self) -> int:
        """The length of the log; 0 without one."""
        return 0 if self.scan is None else self.scan.size

    @property
    def torn_bytes(self) -> int:
        """How many bytes at the end of the log are an unfinished write."""
        torn = None if self.scan is None else self.scan.torn
        return 0 if torn is None else torn.stop - torn.start

    def notes(self) -> list[str]:
        """Return what is worth knowing about the records: what was left out, and what cannot be known."""
        notes = list(self.lost)
        if self.torn_bytes and self.scan is not None and self.scan.has_header:
            assert self.scan.torn is not None
            notes.append(
                f"the last {self.torn_bytes} bytes of the log are no whole frame ({self.scan.torn.reason}) "
                "and were left out, as an unfinished write is"
            )
        return notes

    # --- Configuration --------------------------------------------------------------------------

    def config(self) -> tuple[IqdbConfig, list[str]]:
        """Return the configuration for format 3, and a sentence for each setting that is not as it was.

        Raises:
            NotRepresentableError: index and metric do not go together here.
        """
        settings = dict(self.snapshot.index)
        notes = []
        for name, (low, high) in _RANGES.items():
            value = settings.get(name)
            if value is not None and not low <= value <= high:
                settings[name] = min(max(value, low), high)
                allowed = f"format 3 holds {low} to {high}"
                notes.append(f"index setting {name} is {value} and becomes {settings[name]}: {allowed}")
        dim = self.snapshot.dim
        parts = settings.get("pq_subvectors")
        if parts is not None and not (1 <= parts <= dim and dim % parts == 0):
            settings["pq_subvectors"] = None
            notes.append(
                f"index setting pq_subvectors is {parts} and is left to be chosen: it does not divide {dim}"
            )
        try:
            index = index_config_from_dict(settings)
            config = IqdbConfig(dim=dim, metric=self.metric, index=index)
        except (ConfigError, VectorIndexError) as error:
            raise NotRepresentableError(
                self.path, "index configuration", settings, "one that goes with its metric", hint=str(error)
            ) from error
        return config, notes

    # --- Records --------------------------------------------------------------------------------

    def batches(self, batch_rows: int = _BATCH_ROWS) -> Iterator[RecordBatch]:
        """Yield all records in order, every one of them checked.

        Raises:
            LegacyDamagedError: a record breaks the rules of its format, or an id is there twice.
            NotRepresentableError: a record is beyond what this release can hold.
        """
        self._check_distinct()
        step = max(1, min(batch_rows, _BATCH_BYTES // (4 * self.snapshot.dim)))
        for start in range(0, self.n_records, step):
            stop = min(start + step, self.n_records)
            if self.order is None and self.snapshot.plain:
                yield self._plain_batch(start, stop)
            else:
                yield self._batch(start, stop)

    def _plain_batch(self, start: int, stop: int) -> RecordBatch:
        rows = self.snapshot.plain_rows()[start:stop]
        # Copies even where they are contiguous: nothing in a row is aligned.
        vectors = np.array(rows["vector"], np.float32, order="C")
        self._check_finite(vectors, start)
        return RecordBatch(Ids.from_u64(np.array(rows["id"], np.uint64)), vectors, None, start)

    def _batch(self, start: int, stop: int) -> RecordBatch:
        ids: list[VectorId] = []
        vectors = bytearray()
        metadata: list[dict[str, MetadataValue] | None] = []
        width = 4 * self.snapshot.dim
        for number in range(start, stop):
            place = self._place(number)
            data, at, length_bytes = self._record(place)
            try:
                end = id_end(data, at, len(data), length_bytes=length_bytes)
                ids.append(decode_id(data, at, end, length_bytes=length_bytes))
                # In the log the length of the vector stands in front of it.
                end += 4 if place < 0 else 0
                vectors += data[end : end + width]
                metadata.append(decode_metadata(data, end + width))
            except MalformedError as error:
                raise self._damaged(place, error) from None
        matrix = np.frombuffer(vectors, np.dtype("<f4")).reshape(stop - start, -1).astype("f4", copy=False)
        self._check_finite(matrix, start)
        any_metadata = any(item is not None for item in metadata)
        try:
            columns = MetadataColumns.from_dicts(metadata) if any_metadata else None
            return RecordBatch(Ids.from_list(ids), matrix, columns, start)
        except (InvalidIdError, InvalidMetadataError) as error:
            raise NotRepresentableError(
                self.path, f"of records {start} to {stop - 1}, one", "too large for format 3", str(error)
            ) from error

    def _check_finite(self, vectors: Any, start: int) -> None:
        bad = _kernels.check_finite(vectors)
        if bad >= 0:
            row, component = divmod(bad, self.snapshot.dim)
            place = self._place(start + row)
            data, at, length_bytes = self._record(place)
            at = id_end(data, at, len(data), length_bytes=length_bytes) + 4 * component
            at += 4 if place < 0 else 0
            found = MalformedError(
                at, f"component {component} of a vector", vectors[row, component], "finite"
            )
            raise self._damaged(place, found)

    def _place(self, number: int) -> int:
        return self.snapshot.row_start(number) if self.order is None else self.order[number]

    def _record(self, place: int) -> tuple[memoryview, int, int]:
        """Return where the id of a record begins, and how wide the length of a bytes id is there."""
        if place >= 0:
            return self.snapshot.payload, place, 4
        return self._log, -place, 8

    def _id_at(self, place: int) -> VectorId:
        data, at, length_bytes = self._record(place)
        end = id_end(data, at, len(data), length_bytes=length_bytes)
        return decode_id(data, at, end, length_bytes=length_bytes)

    def _damaged(self, place: int, error: MalformedError) -> LegacyDamagedError:
        if place >= 0:
            return self.snapshot.damaged(error)
        assert self.scan is not None
        return LegacyDamagedError(
            self.scan.path, error.part, error.offset, expected=error.expected, found=error.found
        )

    def _check_distinct(self) -> None:
        """Refuse an id that two rows of the snapshot have: 1.x never writes that, and refuses it too."""
        snapshot = self.snapshot
        if snapshot.plain:
            ids = snapshot.plain_rows()["id"]
        else:
            found = [self._id_at(snapshot.row_start(row)) for row in range(snapshot.n_rows)]
            texts = [value for value in found if isinstance(value, bytes)]
            if len(set(texts)) < len(texts):
                raise self._repeated()
            ids = np.array([value for value in found if isinstance(value, int)], np.uint64)
        if len(np.unique(ids)) < len(ids):
            raise self._repeated()

    def _repeated(self) -> LegacyDamagedError:
        snapshot = self.snapshot
        seen: set[VectorId] = set()
        for row in range(snapshot.n_rows):
            value = self._id_at(snapshot.row_start(row))
            if value in seen:
                error = MalformedError(
                    snapshot.row_start(row), "id", repr(value), "one that no other row has"
                )
                return snapshot.damaged(error)
            seen.add(value)
        raise AssertionError

    # --- Replay ---------------------------------------------------------------------------------

    def _replayed(self, scan: LogScan) -> array[int]:
        """Return the order of the records after all frames; see the module's docstring."""
        log = self._log
        frames: list[tuple[int, VectorId]] = []
        for number in range(scan.n_frames):
            start, stop = scan.bodies[2 * number], scan.bodies[2 * number + 1]
            end = id_end(log, start + 1, stop, length_bytes=8)
            frames.append((start, decode_id(log, start + 1, end, length_bytes=8)))
        touched = {record_id for _, record_id in frames}
        snapshot = self.snapshot
        order = array("q", map(snapshot.row_start, range(snapshot.n_rows)))
        at: dict[VectorId, int] = {}
        for row, place in enumerate(order):
            record_id = self._id_at(place)
            if record_id in touched:
                at[record_id] = row
        for start, record_id in frames:
            row = at.get(record_id, -1)
            if log[start] == layout.OP_UPSERT:
                self.upserts += 1
                # The id begins behind the op, so that its place is never 0.
                if row >= 0:
                    order[row] = -(start + 1)
                else:
                    at[record_id] = len(order)
                    order.append(-(start + 1))
                continue
            self.deletes += 1
            if row < 0:
                continue
            del at[record_id]
            last = order.pop()
            if row < len(order):
                order[row] = last
                moved = self._id_at(last)
                if moved in touched:
                    at[moved] = row
        return order


def read_log(path: str, dim: int, files: FileSystem) -> tuple[LogScan | None, bytes]:
    """Read and scan a log; None when there is none.

    1.x shortens its log in place, so it is read and not mapped.

    Raises:
        NotRepresentableError: it is too long to be held in memory.
        FileIOError: the system refused.
    """
    if not files.exists(path):
        return None, b""
    file = files.open_read(path)
    try:
        size = files.status(file).st_size
        if size > MAX_LOG_BYTES:
            most = f"at most {MAX_LOG_BYTES}, which is read into memory"
            raise NotRepresentableError(path, "length of the log", size, most)
        data = files.read(file, size, 0)
    finally:
        files.close(file)
    return scan_log(data, path, dim), data


def _losses(scan: LogScan) -> list[str]:
    """Return what of a log cannot be read, a sentence each."""
    lost = [
        f"{stop - start} bytes of the log from byte {start} on are no frame and were lost ({reason})"
        for start, stop, reason in scan.damage
    ]
    for number, reason in scan.malformed:
        place = scan.frame_start(number)
        lost.append(f"frame {number} of the log, at byte {place}, was left out ({reason})")
    if scan.unreadable is not None:
        lost.append(f"all {scan.size} bytes of the log were left out ({scan.unreadable.message})")
    return lost


def readable(scan: LogScan) -> LogScan:
    """Return a scan of the frames that mean something."""
    bad = {number for number, _ in scan.malformed}
    if scan.unreadable is not None or not bad:
        return scan
    bodies = array("Q")
    for number in range(scan.n_frames):
        if number not in bad:
            bodies.extend(scan.bodies[2 * number : 2 * number + 2])
    return LogScan(scan.path, scan.size, scan.has_header, bodies, scan.damage, scan.torn, scan.undecided)
