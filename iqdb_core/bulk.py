"""Bulk loading: any number of records become part of a database at once, or none of them does.

Records stream past the log straight into a new snapshot, behind those that the database has; memory is
bounded by one batch (and, where ids do not ascend, the ids). Where ids occur twice, the file so written
is read once more to leave out what was replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from iqdb_core.batches import slab_rows, view_digest, view_sequence
from iqdb_core.digest import batch_digest, sequence_sum
from iqdb_core.errors import DuplicateIdError, InvalidParameterError
from iqdb_core.fold import append_view, replace
from iqdb_core.indexing import Origin, add_index
from iqdb_core.new_snapshot import NewSnapshot
from iqdb_core.opening import HandleSettings, check_buildable, check_free, database_id, install_new
from iqdb_core.reports import BulkReport
from iqdb_core.sources import checked_batch
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES
from iqdb_core.storage.snapshot_writer import SnapshotWriter
from iqdb_core.stored_config import stored_config

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from iqdb_core.config import IqdbConfig
    from iqdb_core.records import RecordBatch
    from iqdb_core.storage.files import FileSystem, OpenFile
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.storage.snapshot_writer import SnapshotSummary
    from iqdb_core.store import Store
    from iqdb_core.view import View

# A run of rows at least this long is copied as it is rather than taken row by row.
_LONG_RUN = 256
_SEQUENCE_ROWS = 1 << 16


class BulkLoad:
    """One bulk load: existing records, then batches, into a snapshot that is proved at the end."""

    def __init__(
        self,
        begin: Callable[[], AbstractContextManager[NewSnapshot]],
        config: Mapping[str, Any],
        database_id: bytes,
        *,
        on_duplicate: str = "last",
        threads: int = 1,
    ) -> None:
        """Prepare a load.

        Args:
            begin: gives a new file to write into, as often as one is needed.
            config: the stored configuration.
            database_id: the id of the database.
            on_duplicate: "last": of records with one id the last counts, at the place of the first;
                "error": the source must not have an id twice.
            threads: threads to use.
        """
        if on_duplicate not in ("last", "error"):
            raise InvalidParameterError("on_duplicate", on_duplicate, '"last" or "error"')
        self._begin = begin
        self._config = dict(config)
        self._database_id = database_id
        self._on_duplicate = on_duplicate
        self._threads = threads
        self._dim = int(config["dim"])
        self._sequence = 0

    def run(
        self,
        view: View | None,
        batches: Iterable[RecordBatch],
        progress: Callable[[int], object] | None,
        install: Callable[[NewSnapshot, SnapshotSummary], None],
    ) -> BulkReport:
        """Load everything and install the result; nothing is left behind when that fails."""
        n_old = 0 if view is None else view.n_records
        with self._begin() as new:
            with self._writer(new) as writer:
                expected, rewritten = None, ContentDigest()
                if view is not None and n_old:
                    append_view(writer, view)
                    rewritten = writer.hashed_digest
                    expected = view_digest(view, self._threads)
                    self._sequence = view_sequence(view)
                rows_read = self._append(writer, n_old, batches, progress)
                if expected is not None:
                    expected = expected.plus(writer.hashed_digest.minus(rewritten))
                summary = writer.finish(expected)
                new.check_rows(summary, n_old + rows_read)
                if summary.kept_rows is None:
                    origin = None if view is None else Origin.of_view(view).then(rows_read)
                    summary = add_index(writer, new, summary, self._config, origin, self._threads)
            if summary.kept_rows is None:
                new.prove(summary, summary.digest, self._sequence % 2**64, n_old + rows_read, self._threads)
                install(new, summary)
                return _report(rows_read, rows_read, 0, summary)
            return self._without_replaced(new, summary, view, n_old, rows_read, install)

    def _writer(self, new: NewSnapshot) -> SnapshotWriter:
        return SnapshotWriter(new.sink, self._config, self._database_id, new.files, threads=self._threads)

    def _append(
        self,
        writer: SnapshotWriter,
        n_old: int,
        batches: Iterable[RecordBatch],
        progress: Callable[[int], object] | None,
    ) -> int:
        """Append what the source gives and return how many records that was."""
        rows_read = 0
        for batch in batches:
            checked = checked_batch(batch, self._dim)
            first = n_old + rows_read
            self._sequence += sequence_sum(checked.ids, np.arange(first, first + len(checked)))
            writer.append(checked)
            rows_read += len(batch)
            if progress is not None:
                progress(rows_read)
        return rows_read

    def _without_replaced(
        self,
        new: NewSnapshot,
        summary: SnapshotSummary,
        view: View | None,
        n_old: int,
        rows_read: int,
        install: Callable[[NewSnapshot, SnapshotSummary], None],
    ) -> BulkReport:
        """Write the file again with every id once."""
        kept = summary.kept_rows
        assert kept is not None
        everything = new.open(new.path)
        dropped = _complement(kept, summary.n_rows)
        twice = dropped[dropped >= n_old]
        if len(twice) and self._on_duplicate == "error":
            row = int(twice[0])
            source_row = row - n_old
            raise DuplicateIdError(everything.id_at(row), where=f"record {source_row}", row=source_row)
        new.check_sequence(_sequence_of(everything, np.arange(summary.n_rows)), self._sequence % 2**64)
        step = slab_rows(self._dim)
        expected = summary.digest
        for start in range(0, len(dropped), step):
            batch = everything.take(dropped[start : start + step])
            expected = expected.minus(batch_digest(batch, threads=self._threads))
        with self._begin() as again:
            with self._writer(again) as writer:
                for run in _runs(kept, step):
                    if isinstance(run, tuple):
                        writer.append_rows(everything, *run)
                    else:
                        writer.append(everything.take(run))
                rewritten = writer.finish(expected)
                again.check_rows(rewritten, len(kept))
                origin = None if view is None else Origin.of_view(view).then(rows_read).take(kept)
                rewritten = add_index(writer, again, rewritten, self._config, origin, self._threads)
            again.prove(rewritten, expected, _sequence_of(everything, kept), len(kept), self._threads)
            install(again, rewritten)
        n_added = len(kept) - n_old
        replaced = int(np.count_nonzero(kept[:n_old] >= n_old))
        return _report(rows_read, n_added, replaced, rewritten)


def bulk_load(
    store: Store,
    batches: Iterable[RecordBatch],
    *,
    on_duplicate: Literal["last", "error"] = "last",
    progress: Callable[[int], object] | None = None,
) -> BulkReport:
    """Add records to an open database, all or none; see `Iqdb.bulk_load`."""
    with store.write_lock:
        store.check_writable()
        view = store.view()
        snapshot: Snapshot = view.base.snapshot
        stored_config(snapshot)
        path = None if store.in_memory else store.path
        load = BulkLoad(
            lambda: NewSnapshot(path, store.files, like=store.lock_file),
            snapshot.config,
            snapshot.database_id,
            on_duplicate=on_duplicate,
            threads=store.threads,
        )
        return load.run(view, batches, progress, lambda new, _: replace(store, new))


def _sequence_of(snapshot: Snapshot, rows: NDArray[np.int64]) -> int:
    """Return the `sequence_sum` of the ids of some rows of a snapshot, in the order given."""
    total = 0
    for start in range(0, len(rows), _SEQUENCE_ROWS):
        part = rows[start : start + _SEQUENCE_ROWS]
        low, high = int(part.min()), int(part.max()) + 1
        if high - low <= 4 * _SEQUENCE_ROWS:
            ids = snapshot.ids_slice(low, high).take(part - low)
        else:
            ids = snapshot.take(part).ids
        total += sequence_sum(ids, np.arange(start, start + len(part)))
    return total % 2**64


def _complement(kept: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    missing = np.ones(n_rows, np.bool_)
    missing[kept] = False
    return np.flatnonzero(missing)


def _runs(rows: NDArray[np.int64], step: int) -> Iterator[tuple[int, int] | NDArray[np.int64]]:
    """Yield long runs of consecutive rows as (start, stop), and what is between them in pieces."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = np.concatenate([[0], breaks])
    stops = np.concatenate([breaks, [len(rows)]])
    long = stops - starts >= _LONG_RUN
    done = 0
    for start, stop in zip(starts[long].tolist(), stops[long].tolist(), strict=True):
        for first in range(done, start, step):
            yield rows[first : min(first + step, start)]
        yield int(rows[start]), int(rows[stop - 1]) + 1
        done = stop
    for first in range(done, len(rows), step):
        yield rows[first : first + step]


def _report(rows_read: int, rows_added: int, rows_replaced: int, summary: SnapshotSummary) -> BulkReport:
    return BulkReport(rows_read, rows_added, rows_replaced, summary.n_rows, summary.digest.hex())


def create_from(
    path: str | os.PathLike[str],
    config: IqdbConfig,
    batches: Iterable[RecordBatch],
    *,
    on_duplicate: Literal["last", "error"] = "last",
    progress: Callable[[int], object] | None = None,
    files: FileSystem = OS_FILES,
    like: OpenFile | None = None,
) -> BulkReport:
    """Create a database from records, or leave nothing behind; see `Iqdb.create_from`.

    `like` is a file whose mode and owner the new one gets.
    """
    real = check_free(path, files)
    check_buildable(config)
    settings = HandleSettings.of(config)
    load = BulkLoad(
        lambda: NewSnapshot(real, files, like=like),
        config.stored_dict(),
        database_id(config),
        on_duplicate=on_duplicate,
        threads=settings.threads,
    )

    def install(new: NewSnapshot, _: SnapshotSummary) -> None:
        install_new(new, real, settings, files).close()

    return load.run(None, batches, progress, install)
