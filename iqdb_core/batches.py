"""The records of a view in insertion order, in batches: what a fold copies and an export reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from iqdb_core.bitmap import unpack
from iqdb_core.digest import batch_digest, sequence_sum
from iqdb_core.records import MetadataColumns, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from iqdb_core.filters import Filter
    from iqdb_core.storage.digest_value import ContentDigest
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.view import View

Segment: TypeAlias = "tuple[int, int] | RecordBatch"
"""Untouched rows start..stop of the snapshot, or records that a write came upon."""

_MAX_SLAB_ROWS = 16_384
_MAX_SLAB_BYTES = 32 << 20
_SEQUENCE_ROWS = 1 << 16


def slab_rows(dim: int) -> int:
    """Return how many rows to handle at once, so that their vectors take at most 32 MiB."""
    return max(1, min(_MAX_SLAB_ROWS, _MAX_SLAB_BYTES // (4 * dim)))


def segments(view: View) -> Iterator[Segment]:
    """Yield all records of a view in insertion order, in bounded memory."""
    snapshot = view.base.snapshot
    if view.live is None and (view.delta is None or view.delta.n_live == 0):
        if snapshot.n_rows:
            yield 0, snapshot.n_rows
        return
    new = _DeltaRows(view)
    step = slab_rows(snapshot.dim)
    start = 0
    for first in range(0, snapshot.n_rows, step):
        last = min(first + step, snapshot.n_rows)
        live = None if view.live is None else unpack(view.live, first, last)
        if live is None or live.all():
            continue
        if start < first:
            yield start, first
        start = last
        batch = _mixed(snapshot, new, live, first, last)
        if len(batch):
            yield batch
    if start < snapshot.n_rows:
        yield start, snapshot.n_rows
    yield from new.appended(snapshot.n_rows, step)


class _DeltaRows:
    """The records of the delta, ordered by place."""

    def __init__(self, view: View) -> None:
        self._delta = view.delta
        self._rows = np.empty(0, np.int64) if view.delta is None else view.delta.live_rows()
        self.places = self._rows if view.delta is None else view.delta.places[self._rows]

    def between(self, first: int, last: int) -> tuple[NDArray[np.int64], RecordBatch | None]:
        """Return places and records with a place in first..last."""
        begin, end = np.searchsorted(self.places, (first, last)).tolist()
        if begin == end or self._delta is None:
            return self.places[begin:end], None
        return self.places[begin:end], self._delta.take(self._rows[begin:end])

    def appended(self, first_place: int, step: int) -> Iterator[RecordBatch]:
        """Yield the records with a place from `first_place` on."""
        begin = int(np.searchsorted(self.places, first_place))
        for start in range(begin, len(self._rows), step):
            assert self._delta is not None
            yield self._delta.take(self._rows[start : start + step])


def _mixed(
    snapshot: Snapshot, new: _DeltaRows, live: NDArray[np.bool_], first: int, last: int
) -> RecordBatch:
    """Return the records with places first..last where some of the snapshot's rows are hidden."""
    kept = np.flatnonzero(live)
    places, replacing = new.between(first, last)
    stored = snapshot.slice(first, last)
    if replacing is None:
        return stored.take(kept)
    joined = RecordBatch.concat([stored, replacing])
    rows = np.concatenate([kept, np.arange(last - first, last - first + len(places))])
    order = np.argsort(np.concatenate([kept + first, places]), kind="stable")
    return joined.take(rows[order])


def batches(
    view: View, batch_rows: int, condition: Filter | None = None, *, vectors: bool = True
) -> Iterator[RecordBatch]:
    """Yield the records of a view that meet a filter, in insertion order, at most `batch_rows` at once."""
    snapshot = view.base.snapshot
    for segment in segments(view):
        if isinstance(segment, RecordBatch):
            shown = segment
            if not vectors:
                nothing = np.empty((len(segment), 0), np.float32)
                shown = RecordBatch(segment.ids, nothing, segment.metadata)
            for start in range(0, len(shown), batch_rows):
                yield from _selected(shown.slice(start, min(start + batch_rows, len(shown))), condition)
            continue
        for start in range(segment[0], segment[1], batch_rows):
            stop = min(start + batch_rows, segment[1])
            if vectors:
                batch = snapshot.slice(start, stop)
            else:
                nothing = np.empty((stop - start, 0), np.float32)
                metadata = snapshot.metadata_slice(start, stop)
                batch = RecordBatch(snapshot.ids_slice(start, stop), nothing, metadata)
            yield from _selected(batch, condition)


def _selected(batch: RecordBatch, condition: Filter | None) -> Iterator[RecordBatch]:
    if condition is None:
        yield batch
        return
    from iqdb_core.filters_eval import evaluate

    metadata = MetadataColumns.none(len(batch)) if batch.metadata is None else batch.metadata
    rows = np.flatnonzero(evaluate(condition, metadata))
    if len(rows):
        yield batch if len(rows) == len(batch) else batch.take(rows)


def view_digest(view: View, threads: int) -> ContentDigest:
    """Return the content digest of a view, without reading what no write came upon.

    It is the digest in the snapshot's header, less the hidden rows (hashed as they are in the old
    file), plus the delta's records. It knows nothing of the file that a fold writes, so comparing it
    with what is read back from there proves that the fold lost nothing.
    """
    snapshot = view.base.snapshot
    digest = snapshot.digest
    step = slab_rows(snapshot.dim)
    if view.live is not None:
        for first in range(0, snapshot.n_rows, step):
            last = min(first + step, snapshot.n_rows)
            hidden = np.flatnonzero(~unpack(view.live, first, last))
            if len(hidden):
                digest = digest.minus(batch_digest(snapshot.take(hidden + first), threads=threads))
    if view.delta is not None:
        rows = view.delta.live_rows()
        for start in range(0, len(rows), step):
            batch = view.delta.take(rows[start : start + step])
            digest = digest.plus(batch_digest(batch, threads=threads))
    return digest


def view_sequence(view: View) -> int:
    """Return the `sequence_sum` of all ids of a view, in insertion order.

    Like `view_digest` it is made from the view's own facts (which rows are hidden, and the place of each
    record of the delta), not from the segments that a fold copies.
    """
    snapshot = view.base.snapshot
    rows = np.empty(0, np.int64) if view.delta is None else view.delta.live_rows()
    places = rows if view.delta is None else view.delta.places[rows]
    before = np.empty(len(rows), np.int64)  # how many rows of the snapshot come before each
    total = n_kept = 0
    for first in range(0, snapshot.n_rows, _SEQUENCE_ROWS):
        last = min(first + _SEQUENCE_ROWS, snapshot.n_rows)
        ids = snapshot.ids_slice(first, last)
        kept = np.arange(last - first)
        if view.live is not None:
            kept = np.flatnonzero(unpack(view.live, first, last))
            ids = ids if len(kept) == last - first else ids.take(kept)
        ranks = n_kept + np.arange(len(kept)) + np.searchsorted(places, kept + first)
        total += sequence_sum(ids, ranks)
        begin, end = np.searchsorted(places, (first, last)).tolist()
        before[begin:end] = n_kept + np.searchsorted(kept, places[begin:end] - first)
        n_kept += len(kept)
    before[np.searchsorted(places, snapshot.n_rows) :] = n_kept
    if view.delta is not None:
        for start in range(0, len(rows), _SEQUENCE_ROWS):
            part = slice(start, start + _SEQUENCE_ROWS)
            ids = view.delta.take(rows[part]).ids
            total += sequence_sum(ids, before[part] + np.arange(start, start + len(ids)))
    return total % 2**64
