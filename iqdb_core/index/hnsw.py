"""Approximate search in a proximity graph over seven-bit codes, scored again by the stored vectors.

The graph is the bottom layer of HNSW (Malkov and Yashunin, arXiv 1603.09320), built in batches against the
graph as it was before each batch (Dhulipala et al., ParlayANN, arXiv 2305.04359), so that it does not
depend on the number of threads; its keys are sums of integers, so that it does not depend on the CPU
either. `kernels/graph.hpp` says more.

Persisted arrays: `hnsw.model` (float64: how components become codes), `hnsw.codes` (u8[n][stride]),
`hnsw.lengths` (i32[n]), `hnsw.coarse` and `hnsw.coarse-lengths` (the upper half of the codes, in many
dimensions), `hnsw.norms` (f32[n], inner product only), `hnsw.bounds` (f32[2][n], not under manhattan: how far
codes can be from their vectors), `hnsw.links` (u32[n][2 m]) and `hnsw.entries` (u32).
Under hamming, where each component takes at most two values, there are `hnsw.values` (f32[2][dim]) and
`hnsw.bits` (u8[n][words of 8 bytes]) in place of all but the last two; where one takes a third, there are no
arrays, and every search is a scan of the vectors.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any, ClassVar, Final

from iqdb_core import _kernels
from iqdb_core.bitmap import count_ones
from iqdb_core.index.bits import BIT_TAG, BitScan
from iqdb_core.index.codes import CODED_TAGS, CodedScan, vector_blocks
from iqdb_core.index.flat import scan
from iqdb_core.index.hnsw_arrays import COARSE, LINKS, OpenGraph
from iqdb_core.index.topk import Plan
from iqdb_core.types import IndexKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iqdb_core.config import IqdbConfig
    from iqdb_core.index.protocol import (
        ArrayReader,
        Buffer,
        IndexArrays,
        SingleSearch,
        VectorBlock,
        VectorReader,
    )
    from iqdb_core.index.topk import TopK

# Codes order near neighbours slightly wrongly, so more than k rows are scored by their vectors.
_SCORED_PER_HIT: Final = 1
_SCORED_AT_LEAST: Final = 10
# A walk compares about so many codes; where there are fewer candidates, scanning them costs less.
_VISITS_AT_LEAST: Final = 200
_VISITS_PER_EF: Final = 13
# A scan by codes compares one in two thirds of the time that a walk takes.
_CODED_VISITS_PER_EF: Final = 20
# A walk over matches alone reads the links of rows that do not match too, and finds less than a scan does.
_MATCHING_VISITS_PER_EF: Final = 50
_CODED_MATCHING_VISITS_PER_EF: Final = 150
# Bits are few and stand one behind the other: a scan is past fifteen before a walk is at one. Measured.
_BIT_VISITS_PER_EF: Final = 300
_BIT_MATCHING_VISITS_PER_EF: Final = 600
# Where fewer rows than one in so many match, neighbours of neighbours hold too few matches for a walk over
# these alone: its pool has to be wider, and beyond that all matches are compared.
_SPARSE: Final = 10
_TOO_SPARSE: Final = 32
# What `StoredGraph.search` says is damaged.
_IN_CODES: Final = 1
_IN_LINKS: Final = 2
_IN_COARSE: Final = 4


class HnswIndex:
    """The index kind `hnsw`; see `iqdb_core.index.protocol.Index` for what its methods promise."""

    __slots__ = (
        "_arrays",
        "_coded",
        "_ef_search",
        "_filter_widen",
        "_lock",
        "_metric",
        "_n_rows",
        "_opened",
    )

    kind: ClassVar[IndexKind] = IndexKind.HNSW
    parameters: ClassVar[frozenset[str]] = frozenset({"ef"})

    def __init__(
        self, settings: Mapping[str, Any], metric_tag: int, n_rows: int, arrays: ArrayReader
    ) -> None:
        self._metric = metric_tag
        self._n_rows = n_rows
        self._ef_search = int(settings["ef_search"])
        self._filter_widen = int(settings["filter_widen"])
        self._arrays = arrays
        self._opened: OpenGraph | None = None
        scan_by_codes = BitScan if metric_tag == BIT_TAG else CodedScan
        self._coded = scan_by_codes(metric_tag, n_rows, arrays, "hnsw")
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, settings: Mapping[str, Any], metric_tag: int, n_rows: int, arrays: ArrayReader
    ) -> HnswIndex:
        """Return the index; its arrays are looked at by the first search."""
        return cls(settings, metric_tag, n_rows, arrays)

    @classmethod
    def build(cls, config: IqdbConfig, vectors: VectorReader, threads: int) -> IndexArrays:
        """Return the graph over all rows."""
        if vectors.n_rows == 0:
            return {}
        from iqdb_core.index.hnsw_build import built

        return built(config, vectors, threads)

    def update(
        self, config: IqdbConfig, vectors: VectorReader, origin: NDArray[Any], threads: int
    ) -> IndexArrays:
        """Carry the graph over, repair it around rows that are gone, insert rows that came.

        The mapping of components to codes stays as it was trained. When most rows are new everything
        is built afresh.
        """
        from iqdb_core.index.hnsw_build import updated

        graph = self._graph()
        if graph is None or vectors.n_rows == 0:
            return self.build(config, vectors, threads)
        return updated(graph, self._n_rows, config, vectors, origin, threads)

    def search(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        *,
        mask: Buffer | None,
        max_distance: float,
        exact: bool,
        parameters: Mapping[str, int],
        threads: int,
    ) -> int:
        """Walk the graph for each query, or scan where that was asked for or is cheaper.

        Where at least one row in `filter_widen` passes the mask, a walk goes over all rows, with a pool
        as much wider as rows that pass are rarer, and picks them out at its end. Where they are rarer
        still, its pool holds rows that pass alone. A query whose walk comes short of min(k, candidates)
        is scanned for.
        """
        candidates = self._n_rows if mask is None else count_ones(mask, self._n_rows)
        breadth = max(parameters.get("ef", self._ef_search), out.k)
        filtered = mask is not None and candidates * self._filter_widen < self._n_rows
        if candidates:
            breadth = self._widened(breadth, candidates, filtered=filtered)
        graph = None
        if not exact and self._walk_pays(candidates, breadth, filtered=filtered):
            graph = self._graph()
        if graph is None:
            return self._scan(vectors, queries, out, mask, candidates, max_distance, threads)

        counts = array("q", bytes(16 * out.n_queries))
        part, block = graph.stored.search(
            vectors.buffer,
            queries,
            out.k,
            breadth,
            _SCORED_PER_HIT * out.k + (0 if self._metric == BIT_TAG else _SCORED_AT_LEAST),
            out.rows,
            out.distances,
            out.counts,
            counts,
            mask=mask,
            threads=threads,
            vector_blocks=vector_blocks(vectors),
            max_distance=max_distance,
            filtered=filtered,
        )
        if part == _IN_CODES:
            raise graph.arrays[graph.codes].damaged(block)
        if part == _IN_LINKS:
            raise graph.arrays[LINKS].damaged(block)
        if part == _IN_COARSE:
            raise graph.arrays[COARSE].damaged(block)
        if part:
            return block
        visited, scored = counts[0::2], counts[1::2]
        wanted = min(out.k, candidates)
        short = [query for query in range(out.n_queries) if scored[query] < wanted]
        out.plan = Plan(
            "matches" if filtered else "graph", breadth, sum(visited), sum(scored), rescanned=len(short)
        )
        for query in short:
            damaged = self._scan_one(query, vectors, queries, out, mask, candidates, max_distance, threads)
            if damaged >= 0:
                return damaged
        return -1

    def single_search(self, vectors: VectorBlock) -> SingleSearch | None:
        """Return the shortest way to answer one query over all rows, or None when there is no graph.

        What it returns is what `search` would; where it returns None, `search` is to be asked.
        """
        if vectors.block_crcs is None:  # compressed: decoded as far as searches need them
            return None
        per_ef = self._visits_per_ef(filtered=False)
        if self._n_rows <= _VISITS_AT_LEAST + per_ef:
            return None
        graph = self._graph()
        if graph is None:
            return None
        return _kernels.SingleSearch(
            graph.stored,
            vectors.buffer,
            vector_blocks(vectors),
            self._ef_search,
            _SCORED_AT_LEAST,
            _VISITS_AT_LEAST,
            per_ef,
        ).nearest

    def _widened(self, breadth: int, candidates: int, *, filtered: bool) -> int:
        """Return the pool's breadth when so many rows pass the mask: at most `filter_widen` times as much."""
        if not filtered:
            return -(-breadth * self._n_rows // candidates)
        sparse = -(-breadth * self._n_rows // (_SPARSE * candidates))
        return max(breadth, min(sparse, breadth * self._filter_widen))

    def _walk_pays(self, candidates: int, breadth: int, *, filtered: bool) -> bool:
        """Whether a walk costs less than to compare all candidates, and finds what it should."""
        per_ef = self._visits_per_ef(filtered=filtered)
        if filtered and candidates * _TOO_SPARSE < self._n_rows:
            return False
        return candidates > _VISITS_AT_LEAST + per_ef * breadth

    def _visits_per_ef(self, *, filtered: bool) -> int:
        """Return how many rows are scanned in the time that a walk takes for one place in its pool."""
        if self._metric == BIT_TAG:
            return _BIT_MATCHING_VISITS_PER_EF if filtered else _BIT_VISITS_PER_EF
        if self._metric in CODED_TAGS:
            return _CODED_MATCHING_VISITS_PER_EF if filtered else _CODED_VISITS_PER_EF
        return _MATCHING_VISITS_PER_EF if filtered else _VISITS_PER_EF

    def _scan(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        candidates: int,
        max_distance: float,
        threads: int,
    ) -> int:
        """Compare every candidate, by its code first where that is faster."""
        if self._coded.pays(candidates, out.n_queries):
            return self._coded.search(vectors, queries, out, mask, max_distance, threads)
        return scan(self._metric, vectors, queries, out, mask, max_distance, threads)

    def _scan_one(
        self,
        query: int,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        candidates: int,
        max_distance: float,
        threads: int,
    ) -> int:
        one = type(out)(1, out.k)
        view = memoryview(queries)[query : query + 1]
        damaged = self._scan(vectors, view, one, mask, candidates, max_distance, threads)
        first = query * out.k
        out.rows[first : first + out.k] = one.rows
        out.distances[first : first + out.k] = one.distances
        out.counts[query] = one.counts[0]
        return damaged

    def _graph(self) -> OpenGraph | None:
        """Return the stored graph, opened once; None when the snapshot has none that can be used."""
        with self._lock:
            if self._opened is None and self._n_rows:
                self._opened = OpenGraph.of(self._metric, self._arrays)
            return self._opened
