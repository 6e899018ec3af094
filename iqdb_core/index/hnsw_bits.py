"""Building the graph of the kind `hnsw` over a bit a component, under hamming.

Keys are then the distances themselves. Where a component takes a third value there is no graph, and every
search compares the vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index.bits import BIT_TAG, bit_stride, encode, take_in, values_of
from iqdb_core.index.hnsw_arrays import BITS, ENTRIES, LINKS, NO_ROW, VALUES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.config import HnswConfig
    from iqdb_core.index.hnsw_arrays import OpenGraph
    from iqdb_core.index.protocol import IndexArrays, VectorReader

_NO_LENGTHS: Final = None


def build(settings: HnswConfig, vectors: VectorReader, threads: int) -> IndexArrays:
    """Return the graph over all rows; no arrays where a component takes a third value."""
    values = values_of(vectors, threads)
    if values is None:
        return {}
    rows = np.arange(vectors.n_rows)
    codes = np.empty((vectors.n_rows, bit_stride(vectors.dim)), np.uint8)
    encode(values, vectors, rows, codes, threads)
    links = np.empty((vectors.n_rows, 2 * settings.m), np.uint32)
    return _linked(settings, values, codes, links, np.empty(0, np.uint32), rows, threads)


def update(
    settings: HnswConfig, graph: OpenGraph, vectors: VectorReader, origin: NDArray[Any], threads: int
) -> IndexArrays:
    """Carry the graph over, repair it around rows that are gone, insert rows that came.

    A second value that came with them leaves the codes of the others as they are. With a third one all rows
    are looked at again, for the rows that had one of the others may be gone.
    """
    kept, fresh = np.flatnonzero(origin >= 0), np.flatnonzero(origin < 0)
    values = np.array(graph.whole(VALUES))
    if not take_in(values, vectors, fresh, threads):
        return build(settings, vectors, threads)
    codes = np.empty((vectors.n_rows, bit_stride(vectors.dim)), np.uint8)
    codes[kept] = np.asarray(graph.whole(BITS))[origin[kept]]
    encode(values, vectors, fresh, codes, threads)
    target = np.full(len(graph.arrays[BITS].buffer), NO_ROW, np.uint32)
    target[origin[kept]] = kept
    links = np.full((vectors.n_rows, graph.degree), NO_ROW, np.uint32)
    entries = _kernels.carry_graph(
        BIT_TAG,
        codes,
        _NO_LENGTHS,
        links,
        graph.whole(LINKS),
        graph.whole(ENTRIES),
        target,
        settings.m,
        settings.ef_construction,
        threads,
    )
    return _linked(settings, values, codes, links, np.array(entries, np.uint32), fresh, threads)


def _linked(
    settings: HnswConfig,
    values: NDArray[Any],
    codes: NDArray[Any],
    links: NDArray[Any],
    entries: NDArray[Any],
    fresh: NDArray[Any],
    threads: int,
) -> IndexArrays:
    found = _kernels.extend_graph(
        BIT_TAG,
        codes,
        _NO_LENGTHS,
        links,
        entries,
        fresh.astype(np.uint32),
        settings.m,
        settings.ef_construction,
        settings.seed,
        threads,
    )
    return {VALUES: values, BITS: codes, LINKS: links, ENTRIES: np.array(found, np.uint32)}
