"""The records written since the snapshot, in memory: appended rows and the snapshot rows they hide.

One writer changes a `Delta` under the handle's publication lock and then publishes a `DeltaView`, which
never changes: rows are only appended, and bitmaps that a search may hold are copied before they change.
A record keeps its place in insertion order: a snapshot row's place is its number, a replacing row takes
over the place of what it replaces, and new records count on from the snapshot's last row.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

import numpy as np

from iqdb_core import _kernels
from iqdb_core.bitmap import Bitmap, are_set
from iqdb_core.index.topk import TopK
from iqdb_core.records import Ids, MetadataColumns, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from iqdb_core.filters import Filter
    from iqdb_core.index.protocol import Buffer
    from iqdb_core.types import MetadataValue, VectorId

    _Parts: TypeAlias = tuple[
        tuple[MetadataColumns, ...], tuple[int, ...], list[dict[str, MetadataValue] | None]
    ]

# Fewer rows than this wait as dicts in the tail and are evaluated one by one; more become columns.
_TAIL_ROWS = 512
_BATCH_ROWS = 128
# Also of few rows, when a dictionary that they share would take so much more as dicts or plain columns do.
_REPEATED_BYTES = 1 << 18
_FIRST_CAPACITY = 64


class MetadataRows:
    """The metadata of a number of rows at one moment: sealed columns, then a tail of dicts."""

    __slots__ = ("_columns", "_sealed", "_starts", "_tail", "n_rows")

    def __init__(
        self,
        sealed: tuple[MetadataColumns, ...],
        starts: tuple[int, ...],
        tail: list[dict[str, MetadataValue] | None],
        n_rows: int,
    ) -> None:
        self._sealed = sealed
        self._starts = starts
        self._tail = tail
        self.n_rows = n_rows
        self._columns: MetadataColumns | None = None

    @property
    def _n_sealed(self) -> int:
        return self._starts[-1]

    def row(self, row: int) -> dict[str, MetadataValue] | None:
        """Return the metadata of one row, a new dict."""
        if row >= self._n_sealed:
            mapping = self._tail[row - self._n_sealed]
            return None if mapping is None else dict(mapping)
        part = bisect_right(self._starts, row) - 1
        return self._sealed[part].row(row - self._starts[part])

    def columns(self) -> MetadataColumns:
        """Return the metadata of all rows as columns; the conversion is done once."""
        if self._columns is None:
            tail = MetadataColumns.from_dicts(self._tail[: self.n_rows - self._n_sealed])
            self._columns = MetadataColumns.concat((*self._sealed, tail))
        return self._columns

    def matches(self, condition: Filter) -> NDArray[np.bool_]:
        """Return for each row whether it meets the filter."""
        from iqdb_core.filters_eval import evaluate

        found = np.zeros(self.n_rows, np.bool_)
        for start, part in zip(self._starts, self._sealed, strict=False):
            found[start : start + part.n_rows] = evaluate(condition, part)
        for row in range(self._n_sealed, self.n_rows):
            found[row] = condition.matches(self._tail[row - self._n_sealed])
        return found


class _MetadataLog:
    """The growing side of `MetadataRows`. A list once published is only appended to."""

    __slots__ = ("_tail", "parts")

    def __init__(self) -> None:
        self._tail: list[dict[str, MetadataValue] | None] = []
        self.parts: _Parts = (), (0,), self._tail
        """What `MetadataRows` takes: sealed columns, the rows where they start, the tail."""

    def append(self, columns: MetadataColumns | None, n_rows: int) -> None:
        if n_rows >= _BATCH_ROWS or (columns is not None and columns.repeated_bytes > _REPEATED_BYTES):
            self._seal_tail()
            self._add(MetadataColumns.none(n_rows) if columns is None else columns)
        elif columns is None:
            self._tail.extend([None] * n_rows)
        else:
            self._tail.extend(columns.to_dicts())
        if len(self._tail) >= _TAIL_ROWS:
            self._seal_tail()

    def append_one(self, metadata: dict[str, MetadataValue] | None) -> None:
        self._tail.append(metadata)
        if len(self._tail) >= _TAIL_ROWS:
            self._seal_tail()

    def _seal_tail(self) -> None:
        if self._tail:
            # What was a dictionary in the log is one again.
            columns = MetadataColumns.from_dicts(self._tail).coded()
            self._tail = []
            self._add(columns)

    def _add(self, columns: MetadataColumns) -> None:
        sealed, starts, _ = self.parts
        self.parts = (*sealed, columns), (*starts, starts[-1] + columns.n_rows), self._tail


class DeltaView:
    """The delta at one moment. Immutable; rows are numbered as they were appended.

    Attributes:
        n_rows: rows, replaced and deleted ones included.
        n_live: records.
        vectors: f32[n_rows, dim].
        places: i64[n_rows], each row's place in insertion order.
        live: bitmap of the rows that are records, or None when all are.
        metadata: the rows' metadata.
    """

    # Every write makes a view, and most are never looked at: so a view is made of what is there, and
    # what readers want of it is made for them.
    __slots__ = ("_ids", "_metadata", "_parts", "_places", "_vectors", "live", "n_live", "n_rows")

    def __init__(
        self,
        n_rows: int,
        vectors: NDArray[np.float32],
        places: NDArray[np.int64],
        live: bytearray | None,
        n_live: int,
        ids: list[VectorId],
        parts: _Parts,
    ) -> None:
        self.n_rows = n_rows
        self.n_live = n_live
        self._vectors = vectors
        self._places = places
        self.live = live
        self._ids = ids
        self._parts = parts
        self._metadata: MetadataRows | None = None

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The vectors of the rows."""
        return self._vectors[: self.n_rows]

    @property
    def places(self) -> NDArray[np.int64]:
        """The rows' places in insertion order."""
        return self._places[: self.n_rows]

    @property
    def metadata(self) -> MetadataRows:
        """The rows' metadata."""
        rows = self._metadata
        if rows is None:
            rows = self._metadata = MetadataRows(*self._parts, self.n_rows)
        return rows

    def id_at(self, row: int) -> VectorId:
        """Return the id of a row."""
        return self._ids[row]

    def metadata_at(self, row: int) -> dict[str, MetadataValue] | None:
        """Return the metadata of a row."""
        return self.metadata.row(row)

    def candidates(self, condition: Filter | None) -> bytearray | NDArray[np.uint8] | None:
        """Return the bitmap of the records that meet the filter, or None when all rows do."""
        if condition is None:
            return self.live
        bits = np.packbits(self.metadata.matches(condition), bitorder="little")
        if self.live is not None:
            bits &= np.frombuffer(self.live, np.uint8)[: len(bits)]
        return bits

    def search(
        self,
        queries: Buffer,
        n_queries: int,
        k: int,
        *,
        metric_tag: int,
        condition: Filter | None,
        max_distance: float,
        threads: int,
    ) -> TopK:
        """Find the nearest rows of each query exactly, ordered by distance, then place."""
        out = TopK(n_queries, min(k, self.n_live))
        if out.k:
            _kernels.search_flat(
                self.vectors,
                queries,
                metric_tag,
                out.k,
                out.rows,
                out.distances,
                out.counts,
                mask=self.candidates(condition),
                tie_keys=self.places,
                threads=threads,
                max_distance=max_distance,
            )
        return out

    def live_rows(self) -> NDArray[np.int64]:
        """Return the rows that are records, in insertion order."""
        rows = np.arange(self.n_rows, dtype=np.int64)
        if self.live is not None:
            rows = rows[are_set(self.live, rows)]
        return rows[np.argsort(self.places[rows], kind="stable")]

    def take(self, rows: NDArray[np.int64]) -> RecordBatch:
        """Return the records in `rows`, in that order; consecutive rows without copying vectors."""
        if len(rows) and bool(np.all(rows[1:] - rows[:-1] == 1)):
            first, last = int(rows[0]), int(rows[-1]) + 1
            ids = Ids.from_list(self._ids[first:last])
            return RecordBatch(ids, self.vectors[first:last], self.metadata.columns().slice(first, last))
        ids = Ids.from_list([self._ids[row] for row in rows.tolist()])
        return RecordBatch(ids, self.vectors[rows], self.metadata.columns().take(rows))


class Delta:
    """The writer's side. Every method is called under the handle's publication lock."""

    def __init__(self, n_base_rows: int, dim: int) -> None:
        self.n_base_rows = n_base_rows
        self.dim = dim
        self.base_live = Bitmap(n_base_rows, filled=True)
        """Rows of the snapshot that are neither replaced nor deleted."""
        self._rows: dict[VectorId, int] = {}
        self._ids: list[VectorId] = []
        self._capacity = 0
        self._hold(np.empty((_FIRST_CAPACITY, dim), np.float32), np.empty(_FIRST_CAPACITY, np.int64))
        self._live = Bitmap(_FIRST_CAPACITY, filled=False)
        self._metadata = _MetadataLog()
        self._next_place = n_base_rows

    @property
    def n_rows(self) -> int:
        """Rows, replaced and deleted ones included."""
        return len(self._ids)

    @property
    def n_records(self) -> int:
        """Records of the whole database: the snapshot's that are still seen, and those here."""
        return self.n_base_rows - self.base_live.n_zeros + len(self._rows)

    @property
    def weight(self) -> int:
        """Rows here and snapshot rows hidden: what a fold would clear away."""
        return len(self._ids) + self.base_live.n_zeros

    def find(self, record_id: VectorId) -> int:
        """Return the row of a record, or -1."""
        return self._rows.get(record_id, -1)

    def pin(self) -> None:
        """Say that a search holds the state published last."""
        self.base_live.pin()
        self._live.pin()

    def reserve(self, n_rows: int) -> None:
        """Make room for `n_rows` more rows, so that applying a logged batch cannot fail for memory."""
        wanted = len(self._ids) + n_rows
        if wanted > self._capacity:
            capacity = max(wanted, 2 * self._capacity)
            # Published views keep the old arrays, whose rows never change.
            vectors = np.empty((capacity, self.dim), np.float32)
            vectors[: len(self._ids)] = self._vectors[: len(self._ids)]
            places = np.empty(capacity, np.int64)
            places[: len(self._ids)] = self._places[: len(self._ids)]
            self._live.reserve(capacity)
            self._hold(vectors, places)

    def _hold(self, vectors: NDArray[np.float32], places: NDArray[np.int64]) -> None:
        self._vectors, self._places = vectors, places
        self._capacity = len(places)
        # Single rows are written without NumPy, whose calls cost several times as much.
        self._vector_bytes = vectors.data.cast("B")
        self._place_items = places.data

    def upsert(self, batch: RecordBatch, base_rows: NDArray[np.int64]) -> None:
        """Append records with distinct ids.

        Args:
            batch: the records; the vectors are copied.
            base_rows: i64[n], for each the row of the snapshot that has its id, or -1.
        """
        n = len(batch)
        self.reserve(n)
        first = len(self._ids)
        new_ids = batch.ids.to_list()
        old_rows = np.fromiter(map(self._rows.get, new_ids, [-1] * n), np.int64, n)
        in_delta = old_rows >= 0
        in_base = (base_rows >= 0) & ~in_delta
        in_base[in_base] = are_set(self.base_live.bits, base_rows[in_base])
        new = ~(in_delta | in_base)
        places = self._places[first : first + n]
        places[in_delta] = self._places[old_rows[in_delta]]
        places[in_base] = base_rows[in_base]
        n_new = int(np.count_nonzero(new))
        places[new] = np.arange(self._next_place, self._next_place + n_new)
        self._next_place += n_new
        self._vectors[first : first + n] = batch.vectors
        self._live.clear(old_rows[in_delta])
        self.base_live.clear(base_rows[in_base])
        self._live.append_ones(first, first + n)
        self._metadata.append(batch.metadata, n)
        self._ids.extend(new_ids)
        self._rows.update(zip(new_ids, range(first, first + n), strict=True))

    def upsert_one(
        self,
        record_id: VectorId,
        vector: bytes,
        metadata: dict[str, MetadataValue] | None,
        base_row: int,
    ) -> None:
        """Append one record; the same as `upsert` with a batch of one, for less."""
        row = len(self._ids)
        if row == self._capacity:
            self.reserve(1)
        old = self._rows.get(record_id, -1)
        if old >= 0:
            self._place_items[row] = self._place_items[old]
            self._live.clear_one(old)
        elif base_row >= 0 and self.base_live.is_set(base_row):
            self._place_items[row] = base_row
            self.base_live.clear_one(base_row)
        else:
            self._place_items[row] = self._next_place
            self._next_place += 1
        start = row * len(vector)
        self._vector_bytes[start : start + len(vector)] = vector
        self._live.bits[row >> 3] |= 1 << (row & 7)
        self._metadata.append_one(metadata)
        self._ids.append(record_id)
        self._rows[record_id] = row

    def present(self, ids: Sequence[VectorId], base_rows: NDArray[np.int64]) -> list[int]:
        """Return which of `ids`, by index, are records."""
        rows = self._rows
        is_set = self.base_live.is_set
        return [
            index
            for index, (record_id, base_row) in enumerate(zip(ids, base_rows.tolist(), strict=True))
            if record_id in rows or (base_row >= 0 and is_set(base_row))
        ]

    def delete(self, ids: Sequence[VectorId], base_rows: NDArray[np.int64]) -> int:
        """Remove records; ids that are absent are passed over. Returns how many there were."""
        removed = 0
        for record_id, base_row in zip(ids, base_rows.tolist(), strict=True):
            row = self._rows.pop(record_id, -1)
            if row >= 0:
                self._live.clear_one(row)
            elif base_row >= 0 and self.base_live.is_set(base_row):
                self.base_live.clear_one(base_row)
            else:
                continue
            removed += 1
        return removed

    def view(self) -> DeltaView:
        """Return the present state."""
        n = len(self._ids)
        n_live = len(self._rows)
        live = None if n_live == n else self._live.bits
        return DeltaView(n, self._vectors, self._places, live, n_live, self._ids, self._metadata.parts)
