"""`repair`: a damaged database into a new file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from iqdb_core.bulk import BulkLoad
from iqdb_core.config import Compression, FlatConfig, HnswConfig, IqdbConfig, IvfConfig
from iqdb_core.digest import batch_digest
from iqdb_core.errors import (
    DatabaseExistsError,
    NotRepairableError,
)
from iqdb_core.new_snapshot import NewSnapshot
from iqdb_core.opening import HandleSettings, check_free, install_new
from iqdb_core.records import Ids, RecordBatch
from iqdb_core.salvage.layout import find_layout
from iqdb_core.salvage.log import recover_log
from iqdb_core.salvage.records import SalvagedRecords
from iqdb_core.salvage.report import Loss, RepairReport
from iqdb_core.storage.database_file import open_database_file
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES
from iqdb_core.storage.layout import CODEC_NAMES, INDEX_KIND_TAGS, LOG_SUFFIX, VECTORS
from iqdb_core.threads import resolve_threads
from iqdb_core.types import DistanceMetric
from iqdb_core.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from numpy.typing import NDArray

    from iqdb_core.salvage.layout import Layout
    from iqdb_core.salvage.log import LogChanges
    from iqdb_core.salvage.records import Slab
    from iqdb_core.storage.files import FileSystem
    from iqdb_core.storage.snapshot_writer import SnapshotSummary
    from iqdb_core.types import MetadataValue, VectorId

    WithoutId: TypeAlias = Callable[[int, NDArray[np.float32], dict[str, MetadataValue] | None], object]

_INDEX_CONFIGS = {"flat": FlatConfig, "hnsw": HnswConfig, "ivf": IvfConfig}


def repair(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    without_id: WithoutId | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
    files: FileSystem = OS_FILES,
) -> RepairReport:
    """Write everything that can be read of a database into a new file.

    The new file holds the snapshot's records and what the log says of them, in their order, with a new index,
    under the same database id. A record is kept when its vector and its id are proved; without its metadata
    when only these are lost. The new file is verified at level "records" before it gets its name.

    Args:
        path: the damaged snapshot; its log stands beside it. Both are only read.
        output: the new file; nothing may be there.
        without_id: called with row, vector (f32[dim]) and metadata of every record whose id is lost; its
            metadata are None too where these are lost.
        threads: threads to use; None is `IQDB_NUM_THREADS` or all cores.
        progress: called now and then with the rows done and to do.
        files: the file layer.

    Raises:
        DatabaseExistsError: something is at `output`, or it is a part of the damaged database.
        DatabaseNotFoundError, NotADatabaseError, UnsupportedVersionError, UnsupportedFeatureError: there is
            nothing at `path` that this could repair.
        LockedError: another handle is writing to it.
        NotRepairableError: nothing of it can be kept, nor given to `without_id`.
        FileIOError: the system refused; nothing is left at `output`.
    """
    real = files.resolve(path)
    if files.resolve(output) in {real, real + LOG_SUFFIX}:
        raise DatabaseExistsError(output)
    target = check_free(output, files)
    file = open_database_file(path, real, files)
    try:
        # Nobody should write to what is being read. The lock is no change of the file.
        files.lock(file)
        layout = find_layout(file, files)
        report = RepairReport(file.path, target, layout.header.n_rows, notes=list(layout.notes))
        changes = recover_log(layout, real, files)
        records = SalvagedRecords(layout, file, files)
        work = _Repair(report, layout, records, changes, without_id, progress)
        work.write(target, files, resolve_threads(threads))
        return report
    finally:
        files.release(file)


class _Runs:
    """Rows of one kind of loss, gathered into runs."""

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        self.reason = reason
        self._losses: list[Loss] = []

    def add(self, path: str, row: int, record_id: VectorId | None) -> None:
        if self._losses and self._losses[-1].first + self._losses[-1].count == row:
            self._losses[-1].count += 1
        else:
            self._losses.append(Loss(self.what, path, self.reason, row, 1))  # type: ignore[arg-type]
        self._losses[-1].ids.append(record_id)

    def finish(self, records: SalvagedRecords) -> list[Loss]:
        for loss in self._losses:
            loss.ranges = records.damage(self.what, loss.first, loss.first + loss.count)
        return self._losses


class _Repair:
    def __init__(
        self,
        report: RepairReport,
        layout: Layout,
        records: SalvagedRecords,
        changes: LogChanges,
        without_id: WithoutId | None,
        progress: Callable[[int, int], object] | None,
    ) -> None:
        self._report = report
        self._layout = layout
        self._records = records
        self._changes = changes
        self._without_id = without_id
        self._progress = progress
        self._digest = ContentDigest()
        self._all_read = True
        self._placed: set[VectorId] = set()
        self._touched = _touched(changes)
        self._lost = _Runs("records", "the vector is in damaged bytes, or no vector")
        self._nameless = _Runs("ids", "the id is in damaged bytes, or no id; the vector is whole")
        self._bare = _Runs("metadata", "the metadata are in damaged bytes, or none that can be read")

    def write(self, target: str, files: FileSystem, threads: int) -> None:
        """Write the new file, verify it and give it its name; then complete the report."""
        report, layout = self._report, self._layout
        config = self._config()
        database_id = layout.database_id or self._changes.database_id
        if database_id is None:
            database_id = os.urandom(16)
            report.notes.append("the database id is lost; the new file has a new one")
        load = BulkLoad(
            lambda: NewSnapshot(target, files), config.stored_dict(), database_id, threads=threads
        )

        def install(new: NewSnapshot, summary: SnapshotSummary) -> None:
            self._conclude(summary)
            assert new.file is not None
            checked = verify(new.file.path, level="records", threads=threads, files=files)
            if not checked.ok:
                raise NotRepairableError(target, f"the new file is not whole: {checked.findings[0].problem}")
            install_new(new, target, HandleSettings.of(config), files).close()

        done = load.run(None, self._batches(), None, install)
        assert done.n_rows == report.n_records

    def _conclude(self, summary: SnapshotSummary) -> None:
        """Complete the report, before the new file gets its name."""
        report, layout, changes = self._report, self._layout, self._changes
        report.n_records = summary.n_rows
        report.content_digest = summary.digest.hex()
        report.ids_restored = self._records.ids_restored
        report.log_frames = changes.n_frames
        report.frames_lost = changes.frames_lost
        expected = ContentDigest.from_bytes(layout.header.content_digest)
        report.proved = self._all_read and layout.header_proved and self._digest == expected
        if layout.trusted and not report.proved:
            raise NotRepairableError(
                report.path,
                "its block checksums are gone, and what was read without them has another content digest "
                "than the header says; which records are whole cannot be known",
            )
        losses = [
            *self._lost.finish(self._records),
            *self._nameless.finish(self._records),
            *self._bare.finish(self._records),
            *changes.losses,
        ]
        handed_out = self._without_id is not None and report.rows_without_ids
        if not report.n_records and losses and not handed_out:
            raise NotRepairableError(report.path, "no record of it can be kept")
        if self._all_read and layout.header_proved and not report.proved:
            reason = (
                f"what was read has the content digest {self._digest.hex()}, the header says {expected.hex()}"
            )
            losses.append(Loss("digest", report.path, reason))
        if layout.config is None:
            reason = (
                "the configuration is damaged: settings of the index are the defaults, provenance is empty"
            )
            losses.append(Loss("settings", report.path, reason))
        doubled = self._written - summary.n_rows
        if doubled:
            report.rows_doubled += doubled
            report.rows_kept -= doubled
            losses.append(Loss("doubles", report.path, "other records have their ids", count=doubled))
        report.losses = losses
        report.notes += changes.notes
        if report.ids_restored:
            report.notes.append(
                f"{report.ids_restored} ids in damaged bytes follow from the ids around them, which ascend"
            )
        damaged = sorted(name for name in self._records.damaged if name != VECTORS)
        if damaged and not losses:
            report.notes.append(f"damage in {', '.join(damaged)} cost nothing")
        if report.proved:
            report.notes.append("all records of the snapshot were read: they have the digest of its header")

    def _config(self) -> IqdbConfig:
        layout = self._layout
        if layout.config is not None:
            return layout.config
        header = layout.header
        kinds = {tag: name for name, tag in INDEX_KIND_TAGS.items()}
        codec = CODEC_NAMES[layout.entries[VECTORS].codec]
        return IqdbConfig(
            dim=header.dim,
            metric=DistanceMetric.from_tag(header.metric),
            index=_INDEX_CONFIGS[kinds[header.index_kind]](),
            compression=Compression.parse("zstd:3" if codec == "zstd" else codec),
        )

    # --- Records ------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[RecordBatch]:
        self._written = 0
        for slab in self._records.slabs():
            batch = self._slab(slab)
            self._written += len(batch)
            if len(batch):
                yield batch
            if self._progress is not None:
                self._progress(slab.first + len(slab), self._records.n_rows)
        for batch in self._appended():
            self._written += len(batch)
            yield batch

    def _slab(self, slab: Slab) -> RecordBatch:
        """Return the records of a slab that are kept, as the log leaves them."""
        report = self._report
        if slab.whole:
            batch = RecordBatch(slab.ids, slab.vectors, slab.metadata)
            self._digest = self._digest.plus(batch_digest(batch))
            if not self._touches(slab.ids):
                report.rows_kept += len(slab)
                return batch
        else:
            self._all_read = False
        kept: list[int] = []
        replaced: list[tuple[int, RecordBatch, int]] = []
        final, moved = self._changes.final, self._changes.moved
        ids = slab.ids.to_list()
        for row in range(len(slab)):
            number = slab.first + row
            has_vector = bool(slab.has_vector[row])
            if not slab.has_id[row]:
                self._without(slab, row, has_vector=has_vector)
                continue
            record_id = ids[row]
            if record_id in final:
                change = final[record_id]
                if record_id in self._placed:
                    report.rows_doubled += 1
                elif change is None or record_id in moved:
                    report.rows_deleted += 1
                else:
                    report.rows_replaced += 1
                    self._placed.add(record_id)
                    replaced.append((row, *change))
            elif not has_vector:
                report.rows_lost += 1
                self._lost.add(report.path, number, record_id)
            else:
                report.rows_kept += 1
                kept.append(row)
                if not slab.has_metadata[row]:
                    report.rows_without_metadata += 1
                    self._bare.add(report.path, number, record_id)
        return self._joined(slab, kept, replaced)

    def _without(self, slab: Slab, row: int, *, has_vector: bool) -> None:
        """Account for a row whose id is lost."""
        report = self._report
        if not has_vector:
            report.rows_lost += 1
            self._lost.add(report.path, slab.first + row, None)
            return
        report.rows_without_ids += 1
        self._nameless.add(report.path, slab.first + row, None)
        if self._without_id is not None:
            known = bool(slab.has_metadata[row]) and slab.metadata is not None
            metadata = slab.metadata.row(row) if known and slab.metadata is not None else None
            self._without_id(slab.first + row, slab.vectors[row], metadata)

    @staticmethod
    def _joined(slab: Slab, kept: list[int], replaced: list[tuple[int, RecordBatch, int]]) -> RecordBatch:
        rows = np.array(kept, np.int64)
        metadata = None if slab.metadata is None else slab.metadata.take(rows)
        stored = RecordBatch(slab.ids.take(rows), slab.vectors[rows], metadata)
        if not replaced:
            return stored
        parts = [stored, *(batch.slice(at, at + 1) for _, batch, at in replaced)]
        order = np.argsort(np.array(kept + [row for row, _, _ in replaced]), kind="stable")
        return RecordBatch.concat(parts).take(order)

    def _appended(self) -> Iterator[RecordBatch]:
        """Yield the records of the log whose ids no row had."""
        waiting: list[RecordBatch] = []
        for record_id, change in self._changes.final.items():
            if change is None or record_id in self._placed:
                continue
            batch, row = change
            waiting.append(batch.slice(row, row + 1))
            if len(waiting) >= 1024:
                yield RecordBatch.concat(waiting)
                waiting = []
        if waiting:
            yield RecordBatch.concat(waiting)

    def _touches(self, ids: Ids) -> bool:
        """Whether the log has anything to say of these ids."""
        if not self._changes.final:
            return False
        if ids.u64 is not None:
            return bool(np.isin(ids.u64, self._touched).any())
        return not self._changes.final.keys().isdisjoint(ids.to_list())


def _touched(changes: LogChanges) -> NDArray[np.uint64]:
    return np.array([item for item in changes.final if isinstance(item, int)], np.uint64)
