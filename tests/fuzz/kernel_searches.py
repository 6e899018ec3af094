"""Calls of the kernels that search."""

from __future__ import annotations

from typing import Any

import numpy as np
from kernel_feed import Feed, blocks_of, mask_of, model_of, outputs, query_of

from iqdb_core import _kernels

_METRICS = 5


def flat(feed: Feed) -> None:
    """Search exactly, and compute some distances."""
    n, dim, k = feed.below(40), 1 + feed.below(40), 1 + feed.below(12)
    vectors, queries = feed.array("<f4", n, dim), query_of(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    metric = feed.below(_METRICS)
    _kernels.search_flat(vectors, queries, metric, k, *outputs(len(queries), k), mask=mask_of(feed, n))
    rows = feed.numbers("<i8", 5, n)
    if n and len(queries):
        _kernels.distances(vectors, rows, queries[0], metric, np.empty(len(rows)))


def codes(feed: Feed) -> None:
    """Search exactly over codes that are anything."""
    n, dim, k, metric = feed.below(40), 1 + feed.below(40), 1 + feed.below(12), feed.below(3)
    vectors, queries = feed.array("<f4", n, dim), query_of(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    codes = feed.array("u1", n, -(-dim // 32) * 32)
    stored = _kernels.StoredCodes(
        metric, dim, model_of(feed, dim, metric), codes, feed.array("<f4", 2, n), feed.array("<f4", n),
        blocks_of(feed, codes),
    )  # fmt: skip
    stored.search(
        vectors,
        queries,
        k,
        *outputs(len(queries), k),
        mask=mask_of(feed, n),
        vector_blocks=blocks_of(feed, vectors),
    )


def graph(feed: Feed) -> None:
    """Walk a graph that is anything."""
    n, dim, k, metric = 1 + feed.below(60), 1 + feed.below(40), 1 + feed.below(6), feed.below(4)
    vectors, queries = feed.array("<f4", n, dim), query_of(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    codes = feed.array("u1", n, -(-dim // 32) * 32)
    degree = 1 + feed.below(9)
    links = feed.numbers("<u4", n * degree, n).reshape(n, -1)
    entries = feed.numbers("<u4", feed.below(4), n)
    stored = _kernels.StoredGraph(
        metric, dim, model_of(feed, dim, metric), codes, feed.array("<i4", n), links, entries,
        feed.array("<f4", n), blocks_of(feed, codes), blocks_of(feed, links),
    )  # fmt: skip
    mask = mask_of(feed, n)
    stored.search(
        vectors, queries, k, 10, 10, *outputs(len(queries), k), np.empty((len(queries), 2), np.int64),
        mask=mask, vector_blocks=blocks_of(feed, vectors), filtered=mask is not None and bool(feed.below(2)),
    )  # fmt: skip
    single = _kernels.SingleSearch(stored, vectors, blocks_of(feed, vectors), 4, 8, 1, 1)
    _check_single(single.nearest(_odd_query(feed, dim), k, None, None), n, k)
    _kernels.check_graph(links, entries)


def lists(feed: Feed) -> None:
    """Search lists that are anything."""
    n, dim, k, metric = 1 + feed.below(60), 1 + feed.below(40), 1 + feed.below(6), feed.below(4)
    vectors, queries = feed.array("<f4", n, dim), query_of(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    n_lists = 1 + feed.below(6)
    offsets = np.sort(feed.numbers("<u8", n_lists + 1, n))
    if feed.below(8):
        offsets = np.minimum(offsets, np.asarray(n, offsets.dtype))
        offsets[0], offsets[-1] = 0, n
    codes = feed.array("u1", n, -(-dim // 32) * 32)
    rows = feed.numbers("<u4", n, n)
    stored = _kernels.StoredLists(
        metric, model_of(feed, dim, metric), feed.array("<f4", n_lists, dim), offsets, rows, codes=codes,
        lengths=feed.array("<i4", n), norms=feed.array("<f4", n), row_blocks=blocks_of(feed, rows),
        code_blocks=blocks_of(feed, codes),
    )  # fmt: skip
    stored.search(
        vectors, queries, k, 2, k, 20, *outputs(len(queries), k), np.empty((len(queries), 3), np.int64),
        mask=mask_of(feed, n), vector_blocks=blocks_of(feed, vectors),
    )  # fmt: skip
    single = _kernels.SingleListSearch(stored, vectors, blocks_of(feed, vectors), 2, 2, 4, 1, 1)
    _check_single(single.nearest(_odd_query(feed, dim), k, None, None), n, k)


def _odd_query(feed: Feed, dim: int) -> Any:
    query = query_of(feed, dim)
    return (query, query, query, query[::-1], query.astype(np.float64), b"", None, query.tolist())[
        feed.below(8)
    ]


def _check_single(found: Any, n: int, k: int) -> None:
    if found is not None:
        rows, distances = found
        assert len(rows) == len(distances) <= k
        assert all(0 <= row < n for row in rows)
        assert distances == sorted(distances)


def bits(feed: Feed) -> None:
    """Find values, encode rows by them, and search by bits; compare with a search over the vectors."""
    n, dim, k = feed.below(90), 1 + feed.below(130), 1 + feed.below(12)
    values, queries = query_of(feed, 2, dim), query_of(feed, (1, 2, 9, 0)[feed.below(4)], dim)
    honest = feed.below(4) != 0
    vectors = feed.array("<f4", n, dim)
    codes = feed.array("u1", n, -(-dim // 64) * 8)
    if honest and values.shape == (2, dim) and n:
        choices = np.resize(np.unpackbits(codes.reshape(-1).view(np.uint8)), (n, dim))
        vectors = np.where(choices, values[1], values[0]).astype(np.float32)
        found = np.stack([vectors[0]] * 2)
        assert _kernels.find_values(vectors, found, 1 + feed.below(2)), "two values are found"
        codes = np.empty((n, -(-dim // 64) * 8), np.uint8)
        _kernels.encode_bits(found, vectors, codes, 1 + feed.below(2))
        values = found
    else:
        _kernels.find_values(vectors, np.array(values), 1)
    stored = _kernels.StoredBits(dim, values, codes, blocks_of(feed, codes))
    mask, tied = mask_of(feed, n), feed.array("<i8", n) if feed.below(2) else None
    hits = outputs(len(queries), k)
    damaged, _ = stored.search(
        queries, k, *hits, vectors=vectors if feed.below(2) else None, mask=mask, tie_keys=tied,
        threads=1 + feed.below(2),
    )  # fmt: skip
    if honest and not damaged:
        plain = outputs(len(queries), k)
        _kernels.search_flat(vectors, queries, 4, k, *plain, mask=mask, tie_keys=tied)
        assert all(np.array_equal(one, other) for one, other in zip(hits, plain, strict=True))


def bit_graph(feed: Feed) -> None:
    """Walk a graph over bits that is anything, or build one and walk it."""
    n, dim, k, m = 1 + feed.below(60), 1 + feed.below(130), 1 + feed.below(6), 1 + feed.below(4)
    values, queries = query_of(feed, 2, dim), query_of(feed, 1 + feed.below(2), dim)
    vectors, codes = feed.array("<f4", n, dim), feed.array("u1", n, -(-dim // 64) * 8)
    links = feed.numbers("<u4", n * 2 * m, n).reshape(n, -1)
    entries = feed.numbers("<u4", feed.below(4), n)
    if feed.below(2):
        fresh = np.arange(n, dtype=np.uint32)
        entries = np.array(
            _kernels.extend_graph(4, codes, None, links, entries, fresh, m, 10, feed.below(99)), np.uint32
        )
    stored = _kernels.StoredGraph(
        4, dim, values, codes, None, links, entries, None, blocks_of(feed, codes), blocks_of(feed, links)
    )
    visited = np.empty((len(queries), 2), np.int64)
    stored.search(vectors, queries, k, 10, 10, *outputs(len(queries), k), visited, mask=mask_of(feed, n))
    single = _kernels.SingleSearch(stored, vectors, blocks_of(feed, vectors), 4, 8, 1, 1)
    _check_single(single.nearest(_odd_query(feed, dim), k, None, None), n, k)


def product_lists(feed: Feed) -> None:
    """Search lists of product codes that are anything."""
    n, parts, part_dim, k = 1 + feed.below(60), 1 + feed.below(6), 1 + feed.below(5), 1 + feed.below(6)
    metric, words, n_lists = 1 + feed.below(3), 1 + feed.below(40), 1 + feed.below(4)
    dim = parts * part_dim
    offsets = np.sort(feed.numbers("<u8", n_lists + 1, n))
    if feed.below(8) and offsets.dtype == np.uint64:
        offsets = np.minimum(offsets, np.uint64(n))
        offsets[0], offsets[-1] = 0, n
    width = parts
    rows_of_codes = n
    if words <= 16:
        rows_of_codes = int(sum(-(-int(count) // 32) for count in np.diff(offsets.astype(np.int64))))
        width = -(-parts // 2) * 32
    stored = _kernels.StoredLists(
        metric, model_of(feed, dim, metric), feed.array("<f4", n_lists, dim), offsets,
        feed.numbers("<u4", n, n), books=query_of(feed, parts * words, part_dim),
        product_codes=feed.array("u1", min(max(0, rows_of_codes), 200), width),
        product_terms=feed.array("<f4", n) if metric == 2 else None,
    )  # fmt: skip
    vectors, queries = feed.array("<f4", n, dim), query_of(feed, 1 + feed.below(2), dim)
    stored.search(
        vectors, queries, k, 2, k, 20, *outputs(len(queries), k), np.empty((len(queries), 3), np.int64),
        mask=mask_of(feed, n), vector_blocks=blocks_of(feed, vectors),
    )  # fmt: skip
