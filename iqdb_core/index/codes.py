"""Exact search that reads a byte a component: codes exclude most rows, vectors decide about the rest.

What a code excludes is certainly no hit (`kernels/code_bounds.hpp`), so that the answers are those of a scan
of the vectors, bit for bit. An index that keeps codes of all rows has the arrays `<kind>.model`, `.codes`,
`.bounds` and, for inner products, `.norms`. They are derived: where they are missing or damaged, vectors are
scanned.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from iqdb_core import _kernels
from iqdb_core.errors import DamagedError
from iqdb_core.index.flat import scan
from iqdb_core.index.topk import Plan
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from iqdb_core.index.protocol import ArrayReader, Buffer, VectorBlock
    from iqdb_core.index.topk import TopK

CODED_METRICS: Final = frozenset(
    {DistanceMetric.COSINE, DistanceMetric.DOT, DistanceMetric.EUCLIDEAN},
)

CODED_TAGS: Final = frozenset(metric.tag for metric in CODED_METRICS)
MODEL_HEAD: Final = 3  # numbers in front of the means of a code model
_CODE_ALIGN: Final = 32
_IN_CODES: Final = 1
# Pairs of a query and a candidate from which reading codes first is faster than reading vectors. Measured.
_PAYS_FROM: Final = 1_000


class CodedScan:
    """The codes of a snapshot's rows, opened by the first search that needs them."""

    __slots__ = ("_arrays", "_dim", "_lock", "_metric", "_n_rows", "_opened", "_prefix", "_stored")

    def __init__(self, metric_tag: int, n_rows: int, arrays: ArrayReader, prefix: str) -> None:
        self._metric = metric_tag
        self._n_rows = n_rows
        self._arrays = arrays
        self._prefix = prefix
        self._lock = threading.Lock()
        self._dim = 0
        self._opened = False
        self._stored: _kernels.StoredCodes | None = None

    def pays(self, candidates: int, n_queries: int) -> bool:
        """Whether a scan of so many candidates should go by codes: there are some, and it would be faster."""
        if self._metric not in CODED_TAGS or candidates * n_queries < _PAYS_FROM:
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
        if memoryview(vectors.buffer).shape != (self._n_rows, self._dim):  # codes of other vectors
            return scan(self._metric, vectors, queries, out, mask, max_distance, threads)
        part, block = search_codes(stored, vectors, queries, out, mask, max_distance, threads)
        if part == _IN_CODES:
            return scan(self._metric, vectors, queries, out, mask, max_distance, threads)
        return block

    def _open(self) -> _kernels.StoredCodes | None:
        names = ["model", "codes", "bounds"]
        if self._metric == DistanceMetric.DOT.tag:
            names.append("norms")
        found = {name: self._arrays(f"{self._prefix}.{name}") for name in names}
        arrays = {name: stored for name, stored in found.items() if stored is not None}
        if len(arrays) < len(names) or not self._n_rows:
            return None
        codes = arrays["codes"]
        self._dim = len(arrays["model"].buffer) - MODEL_HEAD
        try:
            return _kernels.StoredCodes(
                self._metric,
                self._dim,
                arrays["model"].verified(),
                codes.buffer,
                arrays["bounds"].verified(),
                arrays["norms"].verified() if "norms" in arrays else None,
                code_blocks=codes.blocks,
            )
        except (DamagedError, TypeError, ValueError):  # damaged, or no codes of these vectors
            return None


def code_stride(dim: int) -> int:
    """Return the bytes of a code of `dim` components."""
    return -(-dim // _CODE_ALIGN) * _CODE_ALIGN


def vector_blocks(vectors: VectorBlock) -> tuple[Buffer, Buffer, int] | None:
    """Return what a kernel verifies vectors with, if they are not verified already."""
    if vectors.block_crcs is None or vectors.verified is None:
        return None
    return vectors.block_crcs, vectors.verified, vectors.crc_prefix


def search_codes(
    stored: _kernels.StoredCodes,
    vectors: VectorBlock,
    queries: Buffer,
    out: TopK,
    mask: Buffer | None,
    max_distance: float,
    threads: int,
) -> tuple[int, int]:
    """Find what `index.flat.scan` finds. Return what was damaged and its block, or (0, -1)."""
    part, block, scored = stored.search(
        vectors.buffer,
        queries,
        out.k,
        out.rows,
        out.distances,
        out.counts,
        mask=mask,
        threads=threads,
        vector_blocks=vector_blocks(vectors),
        max_distance=max_distance,
    )
    out.plan = Plan("scan", scored=scored, coded=True)
    return (part, block) if part else (0, -1)
