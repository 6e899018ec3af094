"""Product quantisation: a vector's parts as words of trained codebooks (Jegou et al., PAMI 33(1), 2011)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index import ivf
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_WORDS: Final = 256
# Half a byte for each of so many small parts is as exact as bytes for half as many, and scanned much faster.
HALF_WORDS: Final = 16
HALF_ROWS: Final = 32
_HALF_PARTS: Final = range(32, 257)
_HALF_COMPONENTS: Final = 4
_ITERATIONS: Final = 12
_SAMPLE_PER_WORD: Final = 64
_SAMPLE_AT_LEAST: Final = 16_384
_COMPONENTS_PER_PART: Final = 4


def default_parts(dim: int) -> int:
    """Return the number of parts where none is given: the largest divisor of `dim` up to a quarter of it."""
    return next(parts for parts in range(max(1, dim // _COMPONENTS_PER_PART), 0, -1) if dim % parts == 0)


class ProductQuantiser:
    """Codebooks over what vectors differ by from their centroids.

    Attributes:
        books: f32[parts * words, dim / parts].
        parts: parts of a vector.
        has_terms: whether each row needs the square of its coded vector's length.
    """

    def __init__(self, metric: int, centroids: NDArray[Any], books: NDArray[Any]) -> None:
        self.books = books
        self.parts = int(centroids.shape[1] // books.shape[1])
        self.has_terms = metric == DistanceMetric.EUCLIDEAN.tag
        self._absolute = metric == DistanceMetric.MANHATTAN.tag
        self._centroids = centroids
        # Squares of what is compared should neither overflow nor vanish in f32; powers of two lose nothing.
        largest = float(np.abs(books).max(initial=0.0))
        self._factor = 2.0 ** -math.frexp(largest)[1] if largest else 1.0

    @classmethod
    def trained(
        cls,
        settings: Mapping[str, Any],
        metric: int,
        sample: NDArray[Any],
        centroids: NDArray[Any],
        assigned: NDArray[Any],
        threads: int,
    ) -> ProductQuantiser:
        """Return the quantiser for rows like those of a sample, each assigned to a centroid."""
        dim = sample.shape[1]
        parts = settings["pq_subvectors"] or default_parts(dim)
        halves = parts in _HALF_PARTS and dim // parts <= _HALF_COMPONENTS
        words = min(HALF_WORDS if halves else MAX_WORDS, len(sample))
        step = max(1, len(sample) // max(_SAMPLE_PER_WORD * words, _SAMPLE_AT_LEAST))
        absolute = metric == DistanceMetric.MANHATTAN.tag
        points = sample[::step] - centroids[assigned[::step]].astype(np.float64)
        largest = float(np.abs(points).max(initial=0.0))
        factor = 2.0 ** -math.frexp(largest)[1] if largest else 1.0
        books = np.empty((parts * words, dim // parts), np.float32)
        scaled = (points * factor).astype(np.float32)
        _kernels.train_product(scaled, parts, absolute, _ITERATIONS, int(settings["seed"]), books, threads)
        return cls(metric, centroids, (books.astype(np.float64) / factor).astype(np.float32))

    @property
    def words(self) -> int:
        """Words of each part."""
        return len(self.books) // self.parts

    def encode(self, rows: NDArray[Any], assigned: NDArray[Any], threads: int) -> dict[str, NDArray[Any]]:
        """Return the columns of rows, each assigned to a centroid."""
        codes = np.empty((len(rows), self.parts), np.uint8)
        centroids = np.ascontiguousarray(self._centroids, np.float32)
        numbers = np.ascontiguousarray(assigned, np.uint32)
        books = (self.books * np.float64(self._factor)).astype(np.float32)
        scaled = np.empty(rows.shape, np.float32)
        points = np.ascontiguousarray(rows, np.float32)
        _kernels.product_residuals(points, centroids, numbers, self._factor, scaled, threads)
        _kernels.encode_product(books, scaled, self.parts, self._absolute, codes, threads)
        columns: dict[str, NDArray[Any]] = {ivf.PQ_CODES: codes}
        if self.has_terms:
            terms = columns[ivf.PQ_TERMS] = np.empty(len(rows), np.float32)
            words = np.ascontiguousarray(self.books, np.float32)
            _kernels.product_terms(words, centroids, numbers, codes, self.parts, terms, threads)
        return columns


def pack_halves(codes: NDArray[Any], offsets: NDArray[Any]) -> NDArray[Any]:
    """Return codes u8[n][parts] below 16, in list order, as `kernels/ivf_table.hpp` has half bytes."""
    parts = codes.shape[1]
    places, n_blocks = _places(offsets)
    pairs = -(-parts // 2)
    padded = np.zeros((n_blocks * HALF_ROWS, 2 * pairs), np.uint8)
    padded[places, :parts] = codes
    halves = padded[:, 0::2] | padded[:, 1::2] << 4
    return np.ascontiguousarray(halves.reshape(n_blocks, HALF_ROWS, pairs).swapaxes(1, 2)).reshape(
        n_blocks, pairs * HALF_ROWS
    )


def unpack_halves(blocks: NDArray[Any], offsets: NDArray[Any], parts: int) -> NDArray[Any]:
    """Return what `pack_halves` packed."""
    places, n_blocks = _places(offsets)
    halves = blocks.reshape(n_blocks, -1, HALF_ROWS).swapaxes(1, 2).reshape(n_blocks * HALF_ROWS, -1)
    codes = np.empty((len(halves), 2 * halves.shape[1]), np.uint8)
    codes[:, 0::2] = halves & 15
    codes[:, 1::2] = halves >> 4
    return codes[places, :parts]


def _places(offsets: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return where each row of the lists stands when every list begins a block, and the number of blocks."""
    starts = offsets.astype(np.int64)
    sizes = np.diff(starts)
    blocks = np.concatenate([[0], np.cumsum(-(-sizes // HALF_ROWS))])
    shift = HALF_ROWS * blocks[:-1] - starts[:-1]
    return np.arange(starts[-1]) + np.repeat(shift, sizes), int(blocks[-1])
