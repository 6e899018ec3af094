"""Building inverted lists: training centroids, assigning rows, bringing codes into the order of the lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index import ivf
from iqdb_core.index.codes import code_stride
from iqdb_core.index.ivf_product import HALF_WORDS, ProductQuantiser, pack_halves, unpack_halves
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from iqdb_core.index.ivf import OpenLists
    from iqdb_core.index.protocol import IndexArrays, VectorBlock, VectorReader

_ITERATIONS: Final = 10
_SAMPLE_BYTES: Final = 256 << 20
_SAMPLE_ROWS: Final = 1 << 24
_SLAB_BYTES: Final = 8 << 20


class ListBuilder:
    """Inverted lists in the making: rows are added, then `arrays` sorts them into lists."""

    def __init__(
        self,
        metric: int,
        model: NDArray[Any],
        centroids: NDArray[Any],
        product: ProductQuantiser | None,
        n_rows: int,
        changes: int = 0,
    ) -> None:
        dim = centroids.shape[1]
        self._metric = metric
        self._model = model
        self._centroids = centroids
        self._product = product
        self._changes = changes
        self._stride = code_stride(dim)
        self._assigned = np.empty(n_rows, np.uint32)
        self._columns: dict[str, NDArray[Any]] = {}
        if product is not None:
            self._columns[ivf.PQ_CODES] = np.empty((n_rows, product.parts), np.uint8)
            if product.has_terms:
                self._columns[ivf.PQ_TERMS] = np.empty(n_rows, np.float32)
            return
        self._columns[ivf.CODES] = np.empty((n_rows, self._stride), np.uint8)
        self._columns[ivf.LENGTHS] = np.empty(n_rows, np.int32)
        if metric == DistanceMetric.DOT.tag:
            self._columns[ivf.NORMS] = np.empty(n_rows, np.float32)

    @classmethod
    def trained(
        cls, settings: Mapping[str, Any], metric: int, vectors: VectorReader, threads: int
    ) -> ListBuilder:
        """Return the lists of all rows around newly trained centroids."""
        sample = _sample(vectors, int(settings["training_sample_size"]))
        # Product codes stand for differences of whole vectors, so those are divided as they are.
        metric_of_model = metric if not settings["use_pq"] else _metric_of_parts(metric)
        model = np.array(_kernels.train_codes(sample, metric_of_model), np.float64)
        codes, _, _ = _encode(model, sample, threads)
        centroids = np.empty((min(int(settings["n_clusters"]), len(sample)), vectors.dim), np.float32)
        _kernels.train_clusters(model, codes, metric, _ITERATIONS, int(settings["seed"]), centroids, threads)
        product = None
        if settings["use_pq"]:
            assigned = np.empty(len(sample), np.uint32)
            _kernels.assign_clusters(model, centroids, codes, metric, assigned, threads)
            product = ProductQuantiser.trained(settings, metric, sample, centroids, assigned, threads)
        builder = cls(metric, model, centroids, product, vectors.n_rows)
        builder._add(vectors, np.arange(vectors.n_rows), threads)
        return builder

    @classmethod
    def carried(
        cls,
        lists: OpenLists,
        metric: int,
        vectors: VectorReader,
        n_old_rows: int,
        origin: NDArray[Any],
        changes: int,
        threads: int,
    ) -> ListBuilder:
        """Return the lists of a new snapshot around the centroids of an old one, after so many changes."""
        model = np.asarray(lists.whole(ivf.MODEL), np.float64)
        centroids = np.asarray(lists.whole(ivf.CENTROIDS), np.float32)
        product = None
        if ivf.PQ_CODES in lists.arrays:
            product = ProductQuantiser(metric, centroids, np.asarray(lists.whole(ivf.PQ_BOOKS)))
        builder = cls(metric, model, centroids, product, vectors.n_rows, changes)
        builder._copy(lists, n_old_rows, origin)
        builder._add(vectors, np.flatnonzero(origin < 0), threads)
        return builder

    def arrays(self) -> IndexArrays:
        """Return what is persisted."""
        order = np.argsort(self._assigned, kind="stable")
        offsets = np.zeros(len(self._centroids) + 1, np.uint64)
        np.cumsum(np.bincount(self._assigned, minlength=len(self._centroids)), out=offsets[1:])
        arrays = {
            ivf.MODEL: self._model,
            ivf.CENTROIDS: self._centroids,
            ivf.CHANGES: np.array([self._changes], np.uint64),
            ivf.OFFSETS: offsets,
            ivf.ROWS: order.astype(np.uint32),
        }
        for name, column in self._columns.items():
            arrays[name] = column[order]
        if self._product is not None:
            arrays[ivf.PQ_BOOKS] = self._product.books
            if self._product.words <= HALF_WORDS:
                arrays[ivf.PQ_CODES] = pack_halves(arrays[ivf.PQ_CODES], offsets)
        return arrays

    def _add(self, vectors: VectorReader, rows: NDArray[Any], threads: int) -> None:
        """Encode rows of the new snapshot and find their lists, a slab at a time."""
        at_once = max(1, _SLAB_BYTES // (4 * vectors.dim))
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            slab = vectors.take(part)
            codes, lengths, norms = _encode(self._model, slab, threads)
            assigned = np.empty(len(part), np.uint32)
            _kernels.assign_clusters(self._model, self._centroids, codes, self._metric, assigned, threads)
            self._assigned[part] = assigned
            columns = {ivf.CODES: codes, ivf.LENGTHS: lengths, ivf.NORMS: norms}
            if self._product is not None:
                columns = self._product.encode(slab, assigned, threads)
            for name, column in self._columns.items():
                column[part] = columns[name]

    def _copy(self, lists: OpenLists, n_old_rows: int, origin: NDArray[Any]) -> None:
        """Take over the lists and codes of rows that were in the old snapshot."""
        old_rows = np.asarray(lists.whole(ivf.ROWS))
        if not np.array_equal(np.sort(old_rows), np.arange(n_old_rows)):
            raise ValueError("every row must be in the lists once")
        place = np.empty(len(old_rows), np.int64)
        place[old_rows] = np.arange(len(old_rows))
        kept = np.flatnonzero(origin >= 0)
        places = place[origin[kept]]
        offsets = np.asarray(lists.whole(ivf.OFFSETS)).astype(np.int64)
        lists_of_places = np.repeat(np.arange(len(offsets) - 1, dtype=np.uint32), np.diff(offsets))
        self._assigned[kept] = lists_of_places[places]
        for name, column in self._columns.items():
            stored = np.asarray(lists.whole(name))
            if name == ivf.PQ_CODES and self._product is not None and self._product.words <= HALF_WORDS:
                stored = unpack_halves(stored, offsets, self._product.parts)
            column[kept] = stored[places]


class StoredVectors:
    """The stored vectors of a snapshot that is open, for training on them; a `VectorReader`.

    Attributes:
        n_rows: number of rows.
        dim: components of a vector.
    """

    def __init__(self, vectors: VectorBlock, n_rows: int) -> None:
        self._vectors = vectors
        self._rows = np.asarray(vectors.buffer).reshape(n_rows, -1)
        self.n_rows = n_rows
        self.dim = self._rows.shape[1]

    def verify(self, threads: int) -> int:
        """Verify all vectors. Returns the first damaged block, or -1."""
        block = self._vectors
        if block.block_crcs is None or block.verified is None:
            return -1
        blocks = len(memoryview(block.verified))
        stored = memoryview(block.buffer).cast("B")
        return _kernels.verify_blocks(
            stored, block.block_crcs, block.verified, block.crc_prefix, 0, blocks, threads
        )

    def slabs(self, rows_per_slab: int) -> Iterator[NDArray[Any]]:
        """Yield f32[up to rows_per_slab, dim], in row order."""
        for start in range(0, self.n_rows, rows_per_slab):
            yield self._rows[start : start + rows_per_slab]

    def take(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return f32[len(rows), dim]."""
        return np.ascontiguousarray(self._rows[rows])


def _sample(vectors: VectorReader, rows: int) -> NDArray[Any]:
    """Return rows at even distances: the same rows give the same sample."""
    count = min(vectors.n_rows, rows, _SAMPLE_ROWS, max(1, _SAMPLE_BYTES // (4 * vectors.dim)))
    return vectors.take(np.arange(count) * vectors.n_rows // count)


def _metric_of_parts(metric: int) -> int:
    return metric if metric != DistanceMetric.DOT.tag else DistanceMetric.EUCLIDEAN.tag


def _encode(
    model: NDArray[Any], rows: NDArray[Any], threads: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    codes = np.empty((len(rows), code_stride(rows.shape[1])), np.uint8)
    lengths = np.empty(len(rows), np.int32)
    norms = np.empty(len(rows), np.float32)
    _kernels.encode_codes(model, rows, codes, lengths, norms, threads=threads)
    return codes, lengths, norms
