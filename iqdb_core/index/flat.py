"""Exact search: every candidate row is compared with the query. Nothing is persisted.

Who searches often is answered by codes that the handle keeps in memory; see `memory_codes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from iqdb_core import _kernels
from iqdb_core.index.topk import SCAN
from iqdb_core.types import IndexKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iqdb_core.config import IqdbConfig
    from iqdb_core.index.memory_codes import MemoryCodes
    from iqdb_core.index.protocol import ArrayReader, Buffer, IndexArrays, VectorBlock, VectorReader
    from iqdb_core.index.topk import TopK


class FlatIndex:
    """The index kind `flat`; see `iqdb_core.index.protocol.Index` for what its methods promise."""

    __slots__ = ("_codes", "_metric", "_searched")

    kind: ClassVar[IndexKind] = IndexKind.FLAT
    parameters: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, metric_tag: int) -> None:
        self._metric = metric_tag
        self._codes: MemoryCodes | None = None
        self._searched = False

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
        if self._codes is None:
            # The first search of a process should not wait for this import.
            if mask is None and self._searched:
                from iqdb_core.index.memory_codes import MemoryCodes

                self._codes = MemoryCodes(self._metric)
            self._searched = True
        else:
            found = self._codes.search(vectors, queries, out, mask, max_distance, threads)
            if found is not None:
                return found
        return scan(self._metric, vectors, queries, out, mask, max_distance, threads)


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
