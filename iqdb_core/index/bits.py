"""Hamming distances by a bit a component, where each component takes at most two values over all rows.

Components that differ are then bits that differ, so that what codes count is the distance: nothing has to be
scored again. Values are told apart by their f32 bits, as the metric does. A component that only ever took one
value has room for a query's other one; a query with a third one differs there from every row.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from iqdb_core import _kernels
from iqdb_core.errors import DamagedError
from iqdb_core.index.codes import vector_blocks
from iqdb_core.index.flat import scan
from iqdb_core.index.topk import Plan
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.index.protocol import ArrayReader, Buffer, VectorBlock, VectorReader
    from iqdb_core.index.topk import TopK

BIT_METRIC: Final = DistanceMetric.HAMMING
BIT_TAG: Final = BIT_METRIC.tag
_IN_CODES: Final = 1
# Pairs of a query and a candidate from which reading bits first is faster than reading vectors.
_PAYS_FROM: Final = 1_000
_WORD_BITS: Final = 64
_SLAB_BYTES: Final = 8 << 20


def bit_stride(dim: int) -> int:
    """Return the bytes of a code of `dim` components: whole words."""
    return -(-dim // _WORD_BITS) * 8


def values_of(vectors: VectorReader, threads: int) -> NDArray[Any] | None:
    """Return f32[2][dim], the values of components; None when one takes a third, or there are no rows."""
    import numpy as np

    values = None
    for slab in vectors.slabs(_rows_at_once(vectors.dim)):
        if values is None:
            values = np.stack([slab[0], slab[0]])
        if not _kernels.find_values(slab, values, threads):
            return None
    return values


def take_in(values: NDArray[Any], vectors: VectorReader, rows: NDArray[Any], threads: int) -> bool:
    """Make the values those of the listed rows too; False when a component would have three."""
    return all(
        _kernels.find_values(vectors.take(part), values, threads) for part in _parts(rows, vectors.dim)
    )


def encode(
    values: NDArray[Any], vectors: VectorReader, rows: NDArray[Any], codes: NDArray[Any], threads: int
) -> None:
    """Put the codes of the listed rows into their places among all codes."""
    import numpy as np

    for part in _parts(rows, vectors.dim):
        found = np.empty((len(part), codes.shape[1]), np.uint8)
        _kernels.encode_bits(values, vectors.take(part), found, threads)
        codes[part] = found


def search_bits(
    stored: _kernels.StoredBits,
    vectors: VectorBlock | None,
    queries: Buffer,
    out: TopK,
    mask: Buffer | None,
    max_distance: float,
    threads: int,
) -> tuple[int, int]:
    """Find what `index.flat.scan` finds. Return what was damaged and its block, or (0, -1).

    Distances of hits are computed from the vectors; None: the codes were made from these, and are right.
    """
    part, block = stored.search(
        queries,
        out.k,
        out.rows,
        out.distances,
        out.counts,
        vectors=None if vectors is None else vectors.buffer,
        mask=mask,
        threads=threads,
        vector_blocks=None if vectors is None else vector_blocks(vectors),
        max_distance=max_distance,
    )
    out.plan = Plan("scan", scored=0 if vectors is None else sum(out.counts), coded=True)
    return (part, block) if part else (0, -1)


class BitScan:
    """The bits of a snapshot's rows, `<kind>.values` and `<kind>.bits`, opened when first needed.

    They are derived: where they are missing or damaged, vectors are scanned.
    """

    __slots__ = ("_arrays", "_dim", "_lock", "_n_rows", "_opened", "_prefix", "_stored")

    def __init__(self, metric_tag: int, n_rows: int, arrays: ArrayReader, prefix: str) -> None:
        assert metric_tag == BIT_TAG
        self._n_rows = n_rows
        self._arrays = arrays
        self._prefix = prefix
        self._lock = threading.Lock()
        self._dim = 0
        self._opened = False
        self._stored: _kernels.StoredBits | None = None

    def pays(self, candidates: int, n_queries: int) -> bool:
        """Whether a scan of so many candidates should go by bits: there are some, and it would be faster."""
        if candidates * n_queries < _PAYS_FROM:
            return False
        with self._lock:
            if not self._opened:
                self._stored = self._open()
                self._opened = True
            return self._stored is not None

    def search(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        max_distance: float,
        threads: int,
    ) -> int:
        """Do what `index.flat.scan` does; only where it `pays`."""
        stored = self._stored
        assert stored is not None  # `pays` opened it
        if memoryview(vectors.buffer).shape != (self._n_rows, self._dim):  # bits of other vectors
            return scan(BIT_TAG, vectors, queries, out, mask, max_distance, threads)
        part, block = search_bits(stored, vectors, queries, out, mask, max_distance, threads)
        if part == _IN_CODES:
            return scan(BIT_TAG, vectors, queries, out, mask, max_distance, threads)
        return block

    def _open(self) -> _kernels.StoredBits | None:
        values, bits = self._arrays(f"{self._prefix}.values"), self._arrays(f"{self._prefix}.bits")
        if values is None or bits is None or not self._n_rows:
            return None
        self._dim = values.buffer.nbytes // 8
        try:
            if len(bits.buffer) != self._n_rows:
                return None
            return _kernels.StoredBits(self._dim, values.verified(), bits.buffer, code_blocks=bits.blocks)
        except (DamagedError, TypeError, ValueError):  # damaged, or no bits of these vectors
            return None


def _rows_at_once(dim: int) -> int:
    return max(1, _SLAB_BYTES // (4 * dim))


def _parts(rows: NDArray[Any], dim: int) -> list[NDArray[Any]]:
    at_once = _rows_at_once(dim)
    return [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
