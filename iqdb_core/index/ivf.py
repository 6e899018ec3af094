"""Approximate search in inverted lists, each of the rows nearest to one trained centroid.

Centroids are trained by k-means over seven-bit codes (`kernels/ivf_train.hpp`), so that comparisons are of
integers and the lists depend on neither the number of threads nor the CPU. A search scans the codes in
the lists whose centroids are nearest, then scores the nearest candidates by their stored vectors. With
product quantisation the lists hold product codes instead (`kernels/ivf_search.hpp`).

Persisted arrays: `ivf.model` (float64: how components become codes), `ivf.centroids` (f32[c][dim]),
`ivf.changes` (u64[1]: rows that came or went since the training), `ivf.offsets` (u64[c + 1]), `ivf.rows`
(u32[n], ascending in each list), and in the order of `ivf.rows` either `ivf.codes` (u8[n][stride]),
`ivf.lengths` (i32[n]) and `ivf.norms` (f32[n], inner product only), or `ivf.pq_codes` (u8[n][parts]) and
`ivf.pq_terms` (f32[n], euclidean only) with `ivf.pq_books` (f32). Hamming has none and is scanned.
"""

from __future__ import annotations

import threading
from array import array
from typing import TYPE_CHECKING, Any, ClassVar, Final

from iqdb_core import _kernels
from iqdb_core.bitmap import count_ones
from iqdb_core.index.codes import vector_blocks
from iqdb_core.index.flat import BusyScan
from iqdb_core.index.topk import Plan
from iqdb_core.types import DistanceMetric, IndexKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iqdb_core.config import IqdbConfig
    from iqdb_core.index.protocol import (
        ArrayReader,
        Buffer,
        IndexArrays,
        SingleSearch,
        StoredArray,
        VectorBlock,
        VectorReader,
    )
    from iqdb_core.index.topk import TopK

MODEL: Final = "ivf.model"
CENTROIDS: Final = "ivf.centroids"
CHANGES: Final = "ivf.changes"
OFFSETS: Final = "ivf.offsets"
ROWS: Final = "ivf.rows"
CODES: Final = "ivf.codes"
LENGTHS: Final = "ivf.lengths"
NORMS: Final = "ivf.norms"
PQ_BOOKS: Final = "ivf.pq_books"
PQ_CODES: Final = "ivf.pq_codes"
PQ_TERMS: Final = "ivf.pq_terms"

_U64: Final = ("Q", "L")  # of NumPy's arrays and of a file's
# What `StoredLists.search` says is damaged, by its number; the vectors come last.
_PARTS: Final = ("", CODES, ROWS, LENGTHS, NORMS, PQ_CODES, PQ_TERMS)
# Codes order near neighbours slightly wrongly, so more than k rows are scored by their vectors.
_SCORED_PER_HIT: Final = 2
_SCORED_AT_LEAST: Final = 10
# So few rows are scanned by their vectors in no time.
_SCANNED_AT_MOST: Final = 1_000
# A row that is scanned by its vector costs about as much as so many by their codes.
_CODES_PER_VECTOR: Final = 3


class IvfIndex:
    """The index kind `ivf`; see `iqdb_core.index.protocol.Index` for what its methods promise."""

    __slots__ = ("_arrays", "_lock", "_metric", "_n_rows", "_opened", "_scan", "_settings")

    kind: ClassVar[IndexKind] = IndexKind.IVF
    parameters: ClassVar[frozenset[str]] = frozenset({"n_probes"})

    def __init__(
        self, settings: Mapping[str, Any], metric_tag: int, n_rows: int, arrays: ArrayReader
    ) -> None:
        self._metric = metric_tag
        self._n_rows = n_rows
        self._settings = dict(settings)
        self._arrays = arrays
        self._opened: OpenLists | None = None
        self._lock = threading.Lock()
        self._scan = BusyScan(metric_tag)

    @classmethod
    def open(cls, settings: Mapping[str, Any], metric_tag: int, n_rows: int, arrays: ArrayReader) -> IvfIndex:
        """Return the index; its arrays are looked at by the first search."""
        return cls(settings, metric_tag, n_rows, arrays)

    @classmethod
    def build(cls, config: IqdbConfig, vectors: VectorReader, threads: int) -> IndexArrays:
        """Train centroids on a sample and return the lists of all rows."""
        if vectors.n_rows == 0 or config.metric is DistanceMetric.HAMMING:
            return {}
        from iqdb_core.index.ivf_build import ListBuilder

        return ListBuilder.trained(config.index.to_dict(), config.metric.tag, vectors, threads).arrays()

    def update(
        self, config: IqdbConfig, vectors: VectorReader, origin: NDArray[Any], threads: int
    ) -> IndexArrays:
        """Drop rows that are gone and put rows that came into the lists of the nearest centroids.

        Centroids and the mapping to codes stay as they were trained, until the rows that came and went
        since then are a third of the rows there are.
        """
        import numpy as np

        from iqdb_core.index.ivf_build import ListBuilder

        lists = self._stored()
        if lists is None:
            return self.build(config, vectors, threads)
        kept = int(np.count_nonzero(origin >= 0))
        changes = int(lists.whole(CHANGES)[0]) + (vectors.n_rows - kept) + (self._n_rows - kept)
        if 3 * changes > vectors.n_rows:
            return self.build(config, vectors, threads)
        builder = ListBuilder.carried(lists, self._metric, vectors, self._n_rows, origin, changes, threads)
        return builder.arrays()

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
        """Scan the nearest lists for each query, or all candidates where that was asked for or is cheaper.

        The fewer rows pass the mask, the more lists are scanned; at the latest all of them give every query
        min(k, candidates) hits.
        """
        n_rows = self._n_rows
        candidates = n_rows if mask is None else count_ones(mask, n_rows)
        n_clusters = min(self._settings["n_clusters"], max(n_rows, 1))
        n_probes = min(parameters.get("n_probes", self._settings["n_probes"]), n_clusters)
        if candidates < n_rows and candidates:
            # The hits among half of the rows are farther away than those among all.
            n_probes = min(n_clusters, -(-n_probes * n_rows // candidates))
        compared = n_clusters + n_probes * max(1, candidates // n_clusters)
        if exact or candidates <= max(_SCANNED_AT_MOST, compared // _CODES_PER_VECTOR):
            return self._scan.search(vectors, queries, out, mask, max_distance, threads)
        damaged = self._train_if_needed(vectors, mask, threads)
        if damaged >= 0:
            return damaged
        lists = self._opened
        if lists is None:
            return self._scan.search(vectors, queries, out, mask, max_distance, threads)
        return self._probe(
            lists, vectors, queries, out, mask, max_distance, n_probes, min(out.k, candidates), threads
        )

    def single_search(self, vectors: VectorBlock) -> SingleSearch | None:
        """Return the shortest way to answer one query over all rows, or None when there are no lists.

        What it returns is what `search` would; where it returns None, `search` is to be asked.
        """
        if vectors.block_crcs is None:  # compressed: decoded as far as searches need them
            return None
        if self._n_rows <= _SCANNED_AT_MOST:
            return None
        lists = self._stored()
        if lists is None:
            return None
        per_hit, more = self._scored_by()
        return _kernels.SingleListSearch(
            lists.stored,
            vectors.buffer,
            vector_blocks(vectors),
            self._settings["n_probes"],
            per_hit,
            more,
            _SCANNED_AT_MOST,
            _CODES_PER_VECTOR,
        ).nearest

    def _probe(
        self,
        lists: OpenLists,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        max_distance: float,
        n_probes: int,
        wanted: int,
        threads: int,
    ) -> int:
        counts = array("q", bytes(24 * out.n_queries))
        per_hit, more = self._scored_by()
        part, block = lists.stored.search(
            vectors.buffer,
            queries,
            out.k,
            n_probes,
            wanted,
            per_hit * out.k + more,
            out.rows,
            out.distances,
            out.counts,
            counts,
            mask=mask,
            threads=threads,
            vector_blocks=vector_blocks(vectors),
            max_distance=max_distance,
        )
        if 0 < part < len(_PARTS):
            raise lists.arrays[_PARTS[part]].damaged(block)
        if part:
            return block
        scored = counts[1::3]
        # Only a file whose lists lack rows leaves a query short of them.
        short = [query for query in range(out.n_queries) if scored[query] < wanted]
        out.plan = Plan("lists", max(counts[2::3]), sum(counts[0::3]), sum(scored), rescanned=len(short))
        for query in short:
            damaged = self._scan_one(query, vectors, queries, out, mask, max_distance, threads)
            if damaged >= 0:
                return damaged
        return -1

    def _scored_by(self) -> tuple[int, int]:
        """Return how many candidates are scored by their vectors: so many for each hit, and so many more."""
        if not self._settings["use_pq"]:
            return _SCORED_PER_HIT, _SCORED_AT_LEAST
        return max(1, int(self._settings["pq_refine_factor"])), 0

    def _scan_one(
        self,
        query: int,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        mask: Buffer | None,
        max_distance: float,
        threads: int,
    ) -> int:
        one = type(out)(1, out.k)
        view = memoryview(queries)[query : query + 1]
        damaged = self._scan.search(vectors, view, one, mask, max_distance, threads)
        first = query * out.k
        out.rows[first : first + out.k] = one.rows
        out.distances[first : first + out.k] = one.distances
        out.counts[query] = one.counts[0]
        return damaged

    def _stored(self) -> OpenLists | None:
        """Return the lists, opened once; None when the snapshot has none and none were trained."""
        with self._lock:
            if self._opened is None and self._n_rows:
                self._opened = OpenLists.of(self._metric, self._arrays)
            return self._opened

    def _train_if_needed(self, vectors: VectorBlock, mask: Buffer | None, threads: int) -> int:
        """Train lists in memory where the snapshot has none. Returns a damaged block, or -1."""
        if self._stored() is not None or self._metric == DistanceMetric.HAMMING.tag:
            return -1
        if mask is not None and vectors.block_crcs is None:
            return -1  # of compressed vectors those under the mask may be all that is decoded
        from iqdb_core.index.ivf_build import ListBuilder, StoredVectors

        with self._lock:
            if self._opened is not None:
                return -1
            stored = StoredVectors(vectors, self._n_rows)
            damaged = stored.verify(threads)
            if damaged < 0:
                arrays = ListBuilder.trained(self._settings, self._metric, stored, threads).arrays()
                self._opened = OpenLists(self._metric, {name: InMemory(a) for name, a in arrays.items()})
            return damaged


class InMemory:
    """An array that was never stored, as a `StoredArray` that needs no verifying."""

    __slots__ = ("blocks", "buffer")

    def __init__(self, items: Any) -> None:
        self.buffer: Any = items
        self.blocks: Any = None

    def verified(self) -> Any:
        """Return the array."""
        return self.buffer

    def damaged(self, block: int) -> Exception:
        """Never called: there are no checksums."""
        raise AssertionError(block)


class OpenLists:
    """The arrays of a snapshot's lists and the kernel's view of them."""

    __slots__ = ("arrays", "stored")

    def __init__(self, metric: int, arrays: Mapping[str, StoredArray]) -> None:
        self.arrays = arrays
        changes = arrays[CHANGES].buffer
        if len(changes) != 1 or memoryview(changes).format not in _U64:
            raise ValueError("changes must be one uint64")

        def buffer(name: str) -> Any:
            return arrays[name].buffer if name in arrays else None

        def blocks(name: str) -> Any:
            return arrays[name].blocks if name in arrays else None

        self.stored = _kernels.StoredLists(
            metric,
            self.whole(MODEL),
            self.whole(CENTROIDS),
            self.whole(OFFSETS),
            buffer(ROWS),
            codes=buffer(CODES),
            lengths=buffer(LENGTHS),
            norms=buffer(NORMS),
            books=self.whole(PQ_BOOKS) if PQ_BOOKS in arrays else None,
            product_codes=buffer(PQ_CODES),
            product_terms=buffer(PQ_TERMS),
            row_blocks=blocks(ROWS),
            code_blocks=blocks(CODES),
            length_blocks=blocks(LENGTHS),
            norm_blocks=blocks(NORMS),
            product_code_blocks=blocks(PQ_CODES),
            product_term_blocks=blocks(PQ_TERMS),
        )

    @classmethod
    def of(cls, metric: int, reader: ArrayReader) -> OpenLists | None:
        """Return the lists that a snapshot has; None when an array of them is missing."""
        names = (MODEL, CENTROIDS, CHANGES, OFFSETS, *_PARTS[1:], PQ_BOOKS)
        found = {name: reader(name) for name in names}
        arrays = {name: stored for name, stored in found.items() if stored is not None}
        if PQ_CODES in arrays:
            needed = {PQ_BOOKS} | ({PQ_TERMS} if metric == DistanceMetric.EUCLIDEAN.tag else set())
        else:
            needed = {CODES, LENGTHS} | ({NORMS} if metric == DistanceMetric.DOT.tag else set())
        needed |= {MODEL, CENTROIDS, CHANGES, OFFSETS, ROWS}
        return cls(metric, arrays) if needed <= arrays.keys() else None

    def whole(self, name: str) -> Any:
        """Return an array, all of it verified."""
        return self.arrays[name].verified()
