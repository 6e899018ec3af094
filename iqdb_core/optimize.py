"""Building the index anew, or another one, and measuring what that gained."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from iqdb_core.config import FlatConfig
from iqdb_core.errors import DamagedError
from iqdb_core.fold import fold
from iqdb_core.index import index_class
from iqdb_core.recall import Measurement, sample_queries
from iqdb_core.reports import OptimizeReport
from iqdb_core.storage.layout import FLAG_DERIVED

if TYPE_CHECKING:
    from iqdb_core.config import IndexConfig
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.store import Store
    from iqdb_core.view import View

_K = 10


def optimize(store: Store, index: IndexConfig | None, *, threads: int, sample: int) -> OptimizeReport:
    """Build the index of a store anew; see `Iqdb.optimize`."""
    with store.write_lock:
        store.check_writable()
        present = store.config
        wanted = present if index is None else present.replace(index=index)
        index_class(wanted.index.kind)
        view = store.view()
        kind = wanted.index.kind.value
        if isinstance(wanted.index, FlatConfig) and isinstance(present.index, FlatConfig):
            return _unchanged(view, f"the index kind {kind} has nothing to rebuild")
        sampled = _Sample(view, sample, threads)
        recall_before = sampled.recall(view)
        log_bytes = 0 if store.log is None else store.log.size_bytes()
        before = view.base.snapshot
        started = time.perf_counter()
        fold(store, index=wanted.index.to_dict(), rebuild=True, threads=threads)
        seconds = time.perf_counter() - started
        new = store.view()
        after = new.base.snapshot
        old_kind = present.index.kind.value
        reason = f"the index {kind} was built anew" if kind == old_kind else f"the index was {old_kind}"
        if kind == old_kind and wanted.index != present.index:
            reason += " with other settings"
        return OptimizeReport(
            index=kind,
            changed=True,
            reason=reason,
            n_rows=after.n_rows,
            bytes_before=before.header.file_bytes + log_bytes,
            bytes_after=after.header.file_bytes,
            index_bytes_before=_index_bytes(before),
            index_bytes_after=_index_bytes(after),
            seconds=seconds,
            recall_before=recall_before,
            recall_after=sampled.recall(new),
            n_sampled=len(sampled),
        )


class _Sample:
    """Stored records whose exact neighbours are known."""

    def __init__(self, view: View, count: int, threads: int) -> None:
        self._measurement = None
        self._n_queries = 0
        if count and view.n_records > 1:
            queries = sample_queries(view, count)
            self._n_queries = len(queries)
            self._measurement = Measurement(view, queries, _K, None, threads)

    def __len__(self) -> int:
        return self._n_queries

    def recall(self, view: View) -> float | None:
        """Return the mean recall of a view's index; None where it is exact or cannot be used."""
        if self._measurement is None or not view.base.index.parameters:
            return None
        try:
            return float(self._measurement.recalls(view, {}).mean())
        except DamagedError:
            # The records were read in full when the exact neighbours were found: it is the index.
            return None


def _index_bytes(snapshot: Snapshot) -> int:
    entries = (section.entry for section in snapshot.sections.values())
    return sum(entry.stored_bytes for entry in entries if entry.flags & FLAG_DERIVED)


def _unchanged(view: View, reason: str) -> OptimizeReport:
    snapshot = view.base.snapshot
    file_bytes, index_bytes = snapshot.header.file_bytes, _index_bytes(snapshot)
    return OptimizeReport(
        index=view.base.index.kind.value,
        changed=False,
        reason=reason,
        n_rows=view.n_records,
        bytes_before=file_bytes,
        bytes_after=file_bytes,
        index_bytes_before=index_bytes,
        index_bytes_after=index_bytes,
        seconds=0.0,
        recall_before=None,
        recall_after=None,
        n_sampled=0,
    )
