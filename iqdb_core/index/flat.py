"""Exact search: every candidate row is compared with the query. Nothing is persisted.

Who searches often is answered by codes that the handle keeps in memory; see `BusyScan`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar, Final

from iqdb_core import _kernels
from iqdb_core.index.topk import SCAN
from iqdb_core.types import DistanceMetric, IndexKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iqdb_core.config import IqdbConfig
    from iqdb_core.index.memory_codes import MemoryCodes
    from iqdb_core.index.protocol import ArrayReader, Buffer, IndexArrays, VectorBlock, VectorReader
    from iqdb_core.index.topk import TopK

_HAMMING: Final = DistanceMetric.HAMMING.tag
# What scans of all rows must have cost before codes are made, in queries of a batch: the time to encode,
# over what codes would have saved each of them, is about 800 to 1,400. A query that is asked alone is bound
# by memory, and codes save it some fourteen times as much. Measured.
_PAYS_FROM: Final = 1_000
_SINGLE_QUERY_COST: Final = 14
_BATCH_FROM: Final = 4
# Bits under hamming cost two passes over the vectors and save nearly all of one: two queries pay for them.
_BITS_PAY_FROM: Final = 2 * _SINGLE_QUERY_COST


class FlatIndex:
    """The index kind `flat`; see `iqdb_core.index.protocol.Index` for what its methods promise."""

    __slots__ = ("_scan",)

    kind: ClassVar[IndexKind] = IndexKind.FLAT
    parameters: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, metric_tag: int) -> None:
        self._scan = BusyScan(metric_tag)

    @classmethod
    def open(
        cls,
        settings: Mapping[str, Any],  # noqa: ARG003 - the protocol's signature
        metric_tag: int,
        n_rows: int,  # noqa: ARG003
        arrays: ArrayReader,  # noqa: ARG003
    ) -> FlatIndex:
        """Return the index; there is nothing to read."""
        return cls(metric_tag)

    @classmethod
    def build(cls, config: IqdbConfig, vectors: VectorReader, threads: int) -> IndexArrays:  # noqa: ARG003
        """Return no arrays."""
        return {}

    def update(
        self,
        config: IqdbConfig,  # noqa: ARG002
        vectors: VectorReader,  # noqa: ARG002
        origin: NDArray[Any],  # noqa: ARG002
        threads: int,  # noqa: ARG002
    ) -> IndexArrays:
        """Return no arrays."""
        return {}

    def search(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        *,
        mask: Buffer | None,
        max_distance: float,
        exact: bool,  # noqa: ARG002 - flat is always exact
        parameters: Mapping[str, int],  # noqa: ARG002 - flat has none
        threads: int,
    ) -> int:
        """Compare every candidate row with every query, by codes once enough was asked to make them."""
        return self._scan.search(vectors, queries, out, mask, max_distance, threads)


class BusyScan:
    """Exact search of one snapshot, which makes codes for itself once its scans cost more than these would.

    Nothing is stored. The codes take a quarter of the vectors' memory, or a thirty-second under hamming, for
    which there are some where each component takes but two values; a handle that answers a few queries
    never makes them, and the time for what it did before is never more than twice the least possible.
    """

    __slots__ = ("_codes", "_cost", "_lock", "_metric")

    def __init__(self, metric_tag: int) -> None:
        self._metric = metric_tag
        self._codes: MemoryCodes | None = None
        self._cost = 0
        self._lock = threading.Lock()

    def search(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        max_distance: float,
        threads: int,
    ) -> int:
        """Do what `scan` does."""
        if self._codes is None and mask is None:
            self._count(vectors, out.n_queries, threads)
        codes = self._codes
        if codes is not None and codes.stored is not None:
            return codes.search(vectors, queries, out, mask, max_distance, threads)
        return scan(self._metric, vectors, queries, out, mask, max_distance, threads)

    def _count(self, vectors: VectorBlock, n_queries: int, threads: int) -> None:
        # While one thread makes codes, others scan.
        if not self._lock.acquire(blocking=False):
            return
        try:
            pays_from = _BITS_PAY_FROM if self._metric == _HAMMING else _PAYS_FROM
            if self._cost >= pays_from and self._codes is None:
                # The first search of a process should not wait for this import.
                from iqdb_core.index.memory_codes import MemoryCodes

                self._codes = MemoryCodes(self._metric, vectors, threads)
            self._cost += n_queries * (1 if n_queries >= _BATCH_FROM else _SINGLE_QUERY_COST)
        finally:
            self._lock.release()


def scan(
    metric_tag: int,
    vectors: VectorBlock,
    queries: Buffer,
    out: TopK,
    mask: Buffer | None,
    max_distance: float,
    threads: int,
) -> int:
    """Compare every candidate row with every query: what exact search is on every index kind."""
    out.plan = SCAN
    return _kernels.search_flat(
        vectors.buffer,
        queries,
        metric_tag,
        out.k,
        out.rows,
        out.distances,
        out.counts,
        mask=mask,
        threads=threads,
        block_crcs=vectors.block_crcs,
        verified=vectors.verified,
        crc_prefix=vectors.crc_prefix,
        max_distance=max_distance,
    )
