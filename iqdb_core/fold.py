"""Compaction: the snapshot and everything written since become a new snapshot, proved before it counts.

The new file is written beside the old one, synced, read back through the file system and compared with a
content digest that was computed without it. Only then does it take the old one's place. At every moment
a crash leaves either the old snapshot with its log, or the new one with a log that names it and is
therefore known to be folded in.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from iqdb_core.batches import segments, view_digest, view_sequence
from iqdb_core.config import Compression
from iqdb_core.errors import FileIOError
from iqdb_core.indexing import Origin, add_index, built_alike
from iqdb_core.new_snapshot import NewSnapshot
from iqdb_core.records import RecordBatch
from iqdb_core.reports import FoldReport
from iqdb_core.storage.snapshot_writer import SnapshotWriter
from iqdb_core.stored_config import stored_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iqdb_core.log_link import LogLink
    from iqdb_core.storage.files import FileSystem, OpenFile
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.store import Store
    from iqdb_core.view import View


def append_view(writer: SnapshotWriter, view: View) -> None:
    """Write all records of a view, in insertion order."""
    snapshot = view.base.snapshot
    for segment in segments(view):
        if isinstance(segment, RecordBatch):
            writer.append(segment)
        else:
            writer.append_rows(snapshot, *segment)


def fold(
    store: Store,
    *,
    compression: Compression | str | None = None,
    index: Mapping[str, Any] | None = None,
    rebuild: bool = False,
    threads: int | None = None,
) -> FoldReport:
    """Write the store's records into a new snapshot, put it in place and remove the log.

    Args:
        store: an open, writable store.
        compression: compress the new snapshot in this way; None keeps the present one.
        index: the index configuration of the new snapshot, as a plain dict; None keeps the present one.
            The index is built anew, unless only settings change that a search reads and no build does.
        rebuild: build the index anew even where nothing has changed.
        threads: threads to use; None: those of the store.

    Raises:
        ContentMismatchError: the new file did not hold what it must; nothing was changed.
        DamagedError: a part of the old snapshot that is needed is damaged; nothing was changed.
        FileIOError: the system refused. Nothing was changed, or the new snapshot is in place and the
            handle accepts no more writes until it is opened again.
    """
    with store.write_lock:
        store.check_writable()
        view = store.view()
        old = view.base.snapshot
        config = dict(old.config)
        if compression is not None:
            config["compression"] = str(Compression.parse(compression))
        if index is not None:
            config["index"] = dict(index)
            rebuild = rebuild or not built_alike(config["index"], old.config["index"])
        threads = store.threads if threads is None else threads
        weight = store.delta_weight
        log_bytes = 0 if store.log is None else store.log.size_bytes()
        if weight == 0 and config == old.config and not rebuild:
            if store.log is not None:
                store.log.remove()
            return _report(old, old, view, log_bytes, changed=False)
        stored_config(old)
        path = None if store.in_memory else store.path
        with NewSnapshot(path, store.files, like=store.lock_file) as new:
            expected = view_digest(view, threads)
            sequence = view_sequence(view)
            with SnapshotWriter(new.sink, config, old.database_id, store.files, threads=threads) as writer:
                append_view(writer, view)
                summary = writer.finish(expected)
                new.check_rows(summary, view.n_records)
                if summary.kept_rows is None:
                    origin = None if rebuild else Origin.of_view(view)
                    summary = add_index(writer, new, summary, config, origin, threads)
            new.prove(summary, expected, sequence, view.n_records, threads)
            replace(store, new)
        return _report(old, store.view().base.snapshot, view, log_bytes, changed=True)


def replace(store: Store, new: NewSnapshot) -> None:
    """Put a proved snapshot in the place of the store's and remove the log that it makes stale."""
    snapshot = new.open(store.path)
    if new.file is None:
        store.install(snapshot, None)
        return
    files = store.files
    # The frame that names the new snapshot is durable before the rename: whoever finds the new
    # snapshot with the old log beside it knows that the log is folded in.
    assert store.log is not None
    log = store.log
    try:
        log.append_fold(snapshot.identity)
    except BaseException as error:
        store.poison(error)
        raise
    try:
        files.rename(new.file.path, store.path)
        new.installed(store.path)
        store.install(snapshot, new.file)
    except BaseException as error:
        # Also an interrupt between two of these lines: once the new file has the name, nothing may
        # be appended to the old one's log any more.
        moved = _stands_at(files, new.file, store.path)
        if moved is not False or not isinstance(error, FileIOError):
            store.poison(error)
        if moved and store.view().base.snapshot is not snapshot:
            new.installed(store.path)
            store.install(snapshot, new.file)
        _let_go(store, log)
        raise
    try:
        # Until the rename is durable the log must stay: a crash may still bring the old file back.
        files.sync_directory(store.path)
        log.remove()
    except BaseException as error:
        store.poison(error)
        _let_go(store, log)
        raise


def _let_go(store: Store, log: LogLink) -> None:
    """Close a log that is not the store's any more; its fold frame is durable, so nothing is lost."""
    if store.log is not log:
        with contextlib.suppress(FileIOError):
            log.close()


def _stands_at(files: FileSystem, file: OpenFile, path: str) -> bool | None:
    """Say whether a rename that reported an error took place all the same; None when unknown."""
    try:
        there = files.status_at(path)
        mine = files.status(file)
    except FileIOError:
        return None
    return there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _report(old: Snapshot, new: Snapshot, view: View, log_bytes: int, *, changed: bool) -> FoldReport:
    return FoldReport(
        changed=changed,
        n_rows=new.n_rows,
        rows_folded=0 if view.delta is None else view.delta.n_live,
        rows_removed=old.n_rows - view.n_base,
        bytes_before=old.header.file_bytes,
        bytes_after=new.header.file_bytes,
        log_bytes=log_bytes,
        digest=new.digest.hex(),
    )
