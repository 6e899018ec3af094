"""Counts and settings of an open database as plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqdb_core.store import Store


def info(store: Store) -> dict[str, Any]:
    """Return what `Iqdb.info` promises."""
    view = store.view()
    snapshot = view.base.snapshot
    delta = view.delta
    header = snapshot.header
    log = store.log
    legacy = store.legacy
    return {
        "path": store.path,
        "read_only": store.read_only,
        "format_version": header.version if legacy is None else legacy.version,
        "database_id": snapshot.database_id.hex(),
        "snapshot_identity": f"{snapshot.identity:016x}",
        "config": snapshot.config,
        "n_records": view.n_records,
        "snapshot_rows": snapshot.n_rows,
        "snapshot_rows_hidden": snapshot.n_rows - view.n_base,
        "delta_rows": 0 if delta is None else delta.n_rows,
        "delta_records": 0 if delta is None else delta.n_live,
        "snapshot_bytes": header.file_bytes if legacy is None else legacy.file_bytes,
        "log_bytes": log.size_bytes() if log is not None else _read_only_log_bytes(store),
        "snapshot_digest": snapshot.digest.hex(),
        "threads": store.threads,
        "auto_compact_error": store.auto_fold_error,
        "notes": [] if legacy is None else list(legacy.notes),
    }


def metadata_keys(store: Store) -> list[str]:
    """Return what `Iqdb.metadata_keys` promises."""
    view = store.lease()
    try:
        keys: set[str] = set()
        snapshot = view.base.snapshot
        if snapshot.has_metadata:
            for _, _, group in snapshot.groups():
                keys.update(column.key for column in group.columns)
        if view.delta is not None:
            keys.update(view.delta.metadata.columns().keys)
        return sorted(keys)
    finally:
        store.release(view)


def _read_only_log_bytes(store: Store) -> int:
    return 0 if store.log_status is None else store.log_status[2]
