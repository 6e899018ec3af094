"""Building a graph over codes: encoding the rows, linking them, carrying both over to a new snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index import hnsw_bits
from iqdb_core.index.bits import BIT_METRIC
from iqdb_core.index.codes import CODED_METRICS, code_stride
from iqdb_core.index.hnsw_arrays import (
    BOUNDS,
    COARSE,
    COARSE_LENGTHS,
    CODES,
    ENTRIES,
    LENGTHS,
    LINKS,
    MODEL,
    NO_ROW,
    NORMS,
)
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.config import HnswConfig, IqdbConfig
    from iqdb_core.index.hnsw_arrays import OpenGraph
    from iqdb_core.index.protocol import Buffer, IndexArrays, VectorReader

_COARSE_GROUP: Final = 64  # components in 32 bytes of a coarse code
# Graphs are built by coarse codes from this many bytes a code on, and keep them for walks where a walk gains
# more by them than a file should grow for.
_COARSE_BUILD: Final = 128
_COARSE_STORED: Final = 192
_SAMPLE_ROWS: Final = 65_536
_SAMPLE_BYTES: Final = 64 << 20
_SLAB_BYTES: Final = 8 << 20


def built(config: IqdbConfig, vectors: VectorReader, threads: int) -> IndexArrays:
    """Return the graph over all rows, of which there are some."""
    if config.metric is BIT_METRIC:
        return hnsw_bits.build(settings_of(config), vectors, threads)
    codes = CodesBuilder(config, vectors, trained_model(config, vectors))
    rows = np.arange(vectors.n_rows)
    codes.encode(vectors, rows, threads)
    links = np.empty((vectors.n_rows, 2 * settings_of(config).m), np.uint32)
    return codes.linked(links, np.empty(0, np.uint32), rows, threads)


def updated(
    graph: OpenGraph,
    n_rows: int,
    config: IqdbConfig,
    vectors: VectorReader,
    origin: NDArray[Any],
    threads: int,
) -> IndexArrays:
    """Return a graph over `n_rows` rows carried over to a new snapshot; see `Index.update`."""
    kept = np.flatnonzero(origin >= 0)
    settings = settings_of(config)
    if 2 * len(kept) < vectors.n_rows or graph.degree != 2 * settings.m:
        return built(config, vectors, threads)
    if config.metric is BIT_METRIC:
        return hnsw_bits.update(settings, graph, vectors, origin, threads)
    codes = CodesBuilder(config, vectors, graph.whole(MODEL))
    if graph.has_bounds or config.metric not in CODED_METRICS:
        codes.copy(graph, kept, origin[kept])
    else:
        codes.encode(vectors, kept, threads)
    target = np.full(n_rows, NO_ROW, np.uint32)
    target[origin[kept]] = kept
    links = np.full((vectors.n_rows, graph.degree), NO_ROW, np.uint32)
    entries = _kernels.carry_graph(
        config.metric.tag,
        codes.codes,
        codes.lengths,
        links,
        graph.whole(LINKS),
        graph.whole(ENTRIES),
        target,
        settings.m,
        settings.ef_construction,
        threads,
    )
    fresh = np.flatnonzero(origin < 0)
    codes.encode(vectors, fresh, threads)
    return codes.linked(links, np.array(entries, np.uint32), fresh, threads)


class CodesBuilder:
    """The codes of all rows of a new snapshot, and the graph over them once it is linked."""

    def __init__(self, config: IqdbConfig, vectors: VectorReader, model: Buffer) -> None:
        self._config = config
        n_rows, dim = vectors.n_rows, vectors.dim
        self.model = np.asarray(model, np.float64)
        self.codes = np.empty((n_rows, code_stride(dim)), np.uint8)
        self.lengths = np.empty(n_rows, np.int32)
        self.norms = np.empty(n_rows, np.float32)
        self.bounds = np.empty((2, n_rows), np.float32)

    def encode(self, vectors: VectorReader, rows: NDArray[Any], threads: int) -> None:
        """Encode rows of the new snapshot, a slab at a time."""
        at_once = max(1, _SLAB_BYTES // (4 * vectors.dim))
        for start in range(0, len(rows), at_once):
            part = rows[start : start + at_once]
            codes = np.empty((len(part), self.codes.shape[1]), np.uint8)
            lengths = np.empty(len(part), np.int32)
            norms = np.empty(len(part), np.float32)
            bounds = np.empty((2, len(part)), np.float32)
            _kernels.encode_codes(self.model, vectors.take(part), codes, lengths, norms, bounds, threads)
            self.codes[part] = codes
            self.lengths[part] = lengths
            self.norms[part] = norms
            self.bounds[:, part] = bounds

    def copy(self, graph: OpenGraph, rows: NDArray[Any], old_rows: NDArray[Any]) -> None:
        """Take over the codes of rows that were in the old snapshot."""
        self.codes[rows] = np.asarray(graph.whole(CODES))[old_rows]
        self.lengths[rows] = np.asarray(graph.whole(LENGTHS))[old_rows]
        if NORMS in graph.arrays:
            self.norms[rows] = np.asarray(graph.whole(NORMS))[old_rows]
        if graph.has_bounds:
            self.bounds[:, rows] = np.asarray(graph.whole(BOUNDS))[:, old_rows]

    def linked(
        self, links: NDArray[Any], entries: NDArray[Any], fresh: NDArray[Any], threads: int
    ) -> IndexArrays:
        """Insert the fresh rows into the graph and return all arrays."""
        settings = settings_of(self._config)
        coarse = coarse_lengths = None
        stride = self.codes.shape[1]
        if stride >= _COARSE_BUILD:
            coarse, coarse_lengths = coarsened(self.codes, threads)
        entries = np.array(
            _kernels.extend_graph(
                self._config.metric.tag,
                self.codes,
                self.lengths,
                links,
                entries,
                fresh.astype(np.uint32),
                settings.m,
                settings.ef_construction,
                settings.seed,
                threads,
                coarse,
                coarse_lengths,
                self.model,
                self.norms if self._config.metric is DistanceMetric.DOT else None,
            ),
            np.uint32,
        )
        arrays: dict[str, NDArray[Any]] = {MODEL: self.model, CODES: self.codes, LENGTHS: self.lengths}
        if self._config.metric is DistanceMetric.DOT:
            arrays[NORMS] = self.norms
        if self._config.metric in CODED_METRICS:
            arrays[BOUNDS] = self.bounds
        arrays |= {LINKS: links, ENTRIES: entries}
        if coarse is not None and coarse_lengths is not None and stride >= _COARSE_STORED:
            arrays |= {COARSE: coarse, COARSE_LENGTHS: coarse_lengths}
        return arrays


def coarsened(codes: NDArray[Any], threads: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the coarse codes of codes, and their lengths."""
    n_rows, stride = codes.shape
    coarse = np.empty((n_rows, -(-stride // _COARSE_GROUP) * (_COARSE_GROUP // 2)), np.uint8)
    lengths = np.empty(n_rows, np.int32)
    _kernels.coarsen_codes(codes, coarse, lengths, threads)
    return coarse, lengths


def settings_of(config: IqdbConfig) -> HnswConfig:
    """Return the index settings of a configuration of this kind."""
    settings: Any = config.index
    return settings  # type: ignore[no-any-return]  # the caller chose this class by the settings' kind


def trained_model(config: IqdbConfig, vectors: VectorReader) -> NDArray[Any]:
    """Return the code model of a fixed sample: the same rows give the same model."""
    count = min(vectors.n_rows, _SAMPLE_ROWS, max(1, _SAMPLE_BYTES // (4 * vectors.dim)))
    rows = np.arange(count) * vectors.n_rows // count
    return np.array(_kernels.train_codes(vectors.take(rows), config.metric.tag), np.float64)
