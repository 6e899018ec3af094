"""Codes that a handle makes for itself, once it has scanned so much that they pay; see `flat.BusyScan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index.bits import BIT_TAG, bit_stride, search_bits
from iqdb_core.index.codes import CODED_TAGS, code_stride, search_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.index.protocol import Buffer, VectorBlock
    from iqdb_core.index.topk import TopK

_LEAST_ROWS: Final = 10_000
_MOST_BYTES: Final = 1 << 30
_SAMPLE_ROWS: Final = 65_536


class MemoryCodes:
    """The codes of a snapshot's rows: bits under hamming, seven bits a component otherwise.

    Attributes:
        stored: the codes; None where they would not help.
    """

    __slots__ = ("_metric", "stored")

    def __init__(self, metric_tag: int, vectors: VectorBlock, threads: int) -> None:
        self._metric = metric_tag
        self.stored: _kernels.StoredCodes | _kernels.StoredBits | None = None
        if metric_tag == BIT_TAG:
            self.stored = self._bits(vectors, threads)
        elif metric_tag in CODED_TAGS:
            self.stored = self._encoded(vectors, threads)

    def search(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        max_distance: float,
        threads: int,
    ) -> int:
        """Do what `index.flat.scan` does, where there are codes."""
        if isinstance(self.stored, _kernels.StoredBits):
            _, block = search_bits(self.stored, None, queries, out, mask, max_distance, threads)
            return block
        assert self.stored is not None
        _, block = search_codes(self.stored, vectors, queries, out, mask, max_distance, threads)
        return block  # codes in memory are never damaged

    def _encoded(self, vectors: VectorBlock, threads: int) -> _kernels.StoredCodes | None:
        rows = _whole(vectors)
        if rows is None:
            return None
        n_rows, dim = rows.shape
        stride = code_stride(dim)
        if n_rows * stride > _MOST_BYTES:
            return None
        count = min(n_rows, _SAMPLE_ROWS)
        sample = rows[np.arange(count) * n_rows // count]
        model = np.array(_kernels.train_codes(sample, self._metric))
        codes, lengths = np.empty((n_rows, stride), np.uint8), np.empty(n_rows, np.int32)
        norms, bounds = np.empty(n_rows, np.float32), np.empty((2, n_rows), np.float32)
        _kernels.encode_codes(model, rows, codes, lengths, norms, bounds, threads)
        return _kernels.StoredCodes(self._metric, dim, model, codes, bounds, norms)

    def _bits(self, vectors: VectorBlock, threads: int) -> _kernels.StoredBits | None:
        rows = _whole(vectors)
        if rows is None:
            return None
        n_rows, dim = rows.shape
        values = np.stack([rows[0], rows[0]])
        if n_rows * bit_stride(dim) > _MOST_BYTES or not _kernels.find_values(rows, values, threads):
            return None
        codes = np.empty((n_rows, bit_stride(dim)), np.uint8)
        _kernels.encode_bits(values, rows, codes, threads)
        return _kernels.StoredBits(dim, values, codes)


def _whole(vectors: VectorBlock) -> NDArray[Any] | None:
    """Return f32[n][dim] where there are rows enough for codes, and all are verified."""
    rows = np.asarray(vectors.buffer)
    if rows.ndim != 2 or len(rows) < _LEAST_ROWS:
        return None
    if vectors.verified is not None and not np.asarray(vectors.verified).all():
        return None  # scans of all rows verify all blocks; what is left must be damaged
    return rows
