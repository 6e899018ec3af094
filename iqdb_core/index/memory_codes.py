"""Codes that the handle of a flat index makes for itself, once it has scanned so much that they pay.

Nothing is stored. The codes take a quarter of the vectors' memory and about as long as some hundred single
queries; a handle that answers a few queries never makes them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from iqdb_core import _kernels
from iqdb_core.index.codes import CODED_TAGS, search_codes

if TYPE_CHECKING:
    from iqdb_core.index.protocol import Buffer, VectorBlock
    from iqdb_core.index.topk import TopK

# What scans of all rows must have cost before codes are made, in queries of a batch. Encoding takes as
# long as about 500 to 800 of them; single queries, which are bound by memory, cost and gain some six times
# as much.
_PAYS_FROM: Final = 1_500
_SINGLE_QUERY_COST: Final = 6
_BATCH_FROM: Final = 4
_LEAST_ROWS: Final = 10_000
_MOST_BYTES: Final = 1 << 30
_SAMPLE_ROWS: Final = 65_536
_CODE_ALIGN: Final = 32


class MemoryCodes:
    """Counts what the scans of one snapshot cost, and makes its codes when that is enough."""

    __slots__ = ("_cost", "_lock", "_metric", "_stored", "_useful")

    def __init__(self, metric_tag: int) -> None:
        self._metric = metric_tag
        self._cost = 0
        self._lock = threading.Lock()
        self._stored: _kernels.StoredCodes | None = None
        self._useful = metric_tag in CODED_TAGS

    def search(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        max_distance: float,
        threads: int,
    ) -> int | None:
        """Do what `index.flat.scan` does if there are codes; else return None."""
        if self._stored is None and not self._make(vectors, out.n_queries, mask, threads):
            return None
        stored = self._stored
        if stored is None:
            return None
        _, block = search_codes(stored, vectors, queries, out, mask, max_distance, threads)
        return block  # codes in memory are never damaged

    def _make(self, vectors: VectorBlock, n_queries: int, mask: Buffer | None, threads: int) -> bool:
        if not self._useful or mask is not None:
            return False
        cost = n_queries * (1 if n_queries >= _BATCH_FROM else _SINGLE_QUERY_COST)
        # While one thread makes them, others scan.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._stored is None:
                before = self._cost
                self._cost += cost
                if before >= _PAYS_FROM:
                    self._stored = self._encoded(vectors, threads)
                    self._useful = self._stored is not None
        finally:
            self._lock.release()
        return self._stored is not None

    def _encoded(self, vectors: VectorBlock, threads: int) -> _kernels.StoredCodes | None:
        import numpy as np

        rows = np.asarray(vectors.buffer)
        if rows.ndim != 2:
            return None
        n_rows, dim = rows.shape
        stride = -(-dim // _CODE_ALIGN) * _CODE_ALIGN
        if n_rows < _LEAST_ROWS or n_rows * stride > _MOST_BYTES:
            return None
        if vectors.verified is not None and not np.asarray(vectors.verified).all():
            return None  # scans of all rows verify all blocks; what is left must be damaged
        count = min(n_rows, _SAMPLE_ROWS)
        sample = rows[np.arange(count) * n_rows // count]
        model = np.array(_kernels.train_codes(sample, self._metric))
        codes, lengths = np.empty((n_rows, stride), np.uint8), np.empty(n_rows, np.int32)
        norms, bounds = np.empty(n_rows, np.float32), np.empty((2, n_rows), np.float32)
        _kernels.encode_codes(model, rows, codes, lengths, norms, bounds, threads)
        return _kernels.StoredCodes(self._metric, dim, model, codes, bounds, norms)
