"""`View`: what a database holds at one moment, as every search, read and fold sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_core.errors import DamagedError
from iqdb_core.id_lookup import IdLookup
from iqdb_core.storage.layout import BLOCK_LOG2, IDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from iqdb_core.delta import DeltaView
    from iqdb_core.filters import Filter
    from iqdb_core.index.protocol import Buffer, Index, SingleSearch
    from iqdb_core.storage.snapshot import Snapshot, VectorBlock
    from iqdb_core.types import VectorId

_CACHED_MASKS = 8
_IDS_PER_BLOCK_LOG2 = BLOCK_LOG2 - 3


def _ask_the_index(query: object, k: object, ef: object, n_probes: object) -> None:
    """Answer nothing."""


class Base:
    """A snapshot with what is derived from it and shared by all views on it."""

    __slots__ = ("_integer_ids", "_masks", "_single", "_vectors", "index", "lookup", "snapshot")

    def __init__(self, snapshot: Snapshot, index: Index) -> None:
        self.snapshot = snapshot
        self.index = index
        self.lookup = IdLookup(snapshot)
        self._vectors: VectorBlock | None = None
        self._integer_ids: tuple[memoryview, bytearray] | None = None
        self._masks: dict[Filter, bytearray] = {}
        self._single: SingleSearch | None = None

    def vectors(self) -> VectorBlock:
        """Return the vectors as kernels take them."""
        block = self._vectors
        if block is None:
            block = self._vectors = self.snapshot.vectors()
        return block

    def nearest(
        self, query: object, k: object, ef: object, n_probes: object
    ) -> tuple[list[int], list[float]] | None:
        """Return rows and distances of the nearest of all rows, or None: then the index is to be asked.

        The arguments need not be checked: with anything unusual the answer is None.
        """
        single = self._single
        if single is None:
            prepare = getattr(self.index, "single_search", None)
            try:
                single = None if prepare is None else prepare(self.vectors())
            except (TypeError, ValueError, DamagedError):
                single = None  # the long way reports what is wrong
            self._single = single = single or _ask_the_index
        return single(query, k, ef, n_probes)

    def ids(self, rows: Iterable[int]) -> list[VectorId]:
        """Return the ids of rows; quick where they are integers in blocks that were verified before."""
        id_at = self.snapshot.id_at
        cells = self._integer_ids
        if cells is None:
            section = self.snapshot.sections.get(IDS)
            if section is None or section.compressed or not self.snapshot.n_rows:
                return list(map(id_at, rows))
            # Blocks are verified one by one, by `id_at`, before a value here is used.
            cells = self._integer_ids = section.shaped(section.unverified()), section.blocks().verified
        ids, verified = cells
        return [ids[row] if verified[row >> _IDS_PER_BLOCK_LOG2] else id_at(row) for row in rows]

    def mask(self, condition: Filter) -> bytearray:
        """Return the bitmap of the snapshot's rows that meet a filter; it must not be changed.

        The masks of the last few filters are kept, since the snapshot never changes.
        """
        found = self._masks.get(condition)
        if found is None:
            from iqdb_core.filter_masks import snapshot_mask

            found = snapshot_mask(self.snapshot, condition)
            # A new dict each time: another thread may be reading the old one. A copy hashes nothing anew.
            kept = self._masks.copy()
            if len(kept) >= _CACHED_MASKS:
                del kept[next(iter(kept))]
            kept[condition] = found
            self._masks = kept
        return found


class View:
    """An immutable state: a snapshot, which of its rows are still seen, and the delta.

    Attributes:
        base: the snapshot.
        live: bitmap of the snapshot's rows that are still seen, or None when all are.
        delta: the rows written since, or None when there are none.
        n_base: snapshot rows that are still seen.
        n_records: records in all.
        is_whole: whether all there is are the snapshot's rows, none of them replaced or deleted.
        leases: searches and other readers at work on this view; guarded by the store.
    """

    __slots__ = ("base", "delta", "is_whole", "leases", "live", "n_base", "n_records")

    def __init__(self, base: Base, live: bytearray | None, n_base: int, delta: DeltaView | None) -> None:
        self.base = base
        self.live = live
        self.delta = delta
        self.n_base = n_base
        self.n_records = n_base + (delta.n_live if delta is not None else 0)
        self.is_whole = live is None and self.n_records == n_base
        self.leases = 0

    def base_candidates(self, condition: Filter | None) -> Buffer | None:
        """Return the bitmap of the snapshot's rows that are seen and meet the filter; None = all."""
        if condition is None:
            return self.live
        mask = self.base.mask(condition)
        if self.live is None:
            return mask
        import numpy as np

        return np.frombuffer(mask, np.uint8) & np.frombuffer(self.live, np.uint8)
