"""Calls of the kernels that encode, train and build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from kernel_feed import REFUSED, Feed, query_of

from iqdb_core import _kernels


def carried(feed: Feed) -> None:
    """Carry a graph over and extend it."""
    old_n, n, m, metric = 1 + feed.below(20), 1 + feed.below(20), 1 + feed.below(4), feed.below(4)
    codes, lengths = feed.array("u1", n, 32), feed.array("<i4", n)
    target = feed.numbers("<u4", old_n, 2 * n)
    _, firsts = np.unique(target, return_index=True)
    unique = np.full(len(target), 0xFFFFFFFF, np.uint32)
    with np.errstate(invalid="ignore"):
        unique[firsts] = target[firsts]
    unique[unique >= n] = 0xFFFFFFFF
    links = np.full((n, 2 * m), 0xFFFFFFFF, np.uint32)
    old = feed.numbers("<u4", old_n * 2 * m, old_n).reshape(old_n, -1)
    entries = _kernels.carry_graph(
        metric, codes, lengths, links, old, feed.numbers("<u4", 3, old_n), unique, m, 10
    )
    fresh = np.setdiff1d(np.arange(n, dtype=np.uint32), unique)
    _kernels.extend_graph(
        metric, codes, lengths, links, np.array(entries, np.uint32), fresh, m, 10, feed.below(99)
    )
    assert np.all((links < n) | (links == 0xFFFFFFFF))


def encoded(feed: Feed) -> None:
    """Encode rows, and assign them."""
    n, dim, metric = 1 + feed.below(20), 1 + feed.below(40), feed.below(4)
    rows = query_of(feed, n, dim)
    stride = -(-dim // 32) * 32
    model = np.array(_kernels.train_codes(rows, metric))
    codes, lengths = np.empty((n, stride), np.uint8), np.empty(n, np.int32)
    _kernels.encode_codes(
        model, feed.array("<f4", n, dim), codes, lengths, None, np.empty((2, n), np.float32)
    )
    coarse = np.empty((n, -(-stride // 64) * 32), np.uint8)
    _kernels.coarsen_codes(feed.array("u1", n, stride), coarse, lengths)
    _kernels.assign_clusters(model, feed.array("<f4", 3, dim), codes, metric, np.empty(n, np.uint32))
    _kernels.encode_product(feed.array("<f4", 8, dim), rows, 1, metric == 3, np.empty((n, 1), np.uint8))


def trained(feed: Feed) -> None:
    """Train clusters and product codebooks; the number of threads makes no difference."""
    n, dim, metric = 1 + feed.below(40), 1 + feed.below(40), feed.below(4)
    n_clusters, seed = 1 + feed.below(n + 1), feed.below(999)
    rows = query_of(feed, n, dim)

    model = np.array(_kernels.train_codes(rows, metric))
    codes, lengths = np.empty((n, -(-dim // 32) * 32), np.uint8), np.empty(n, np.int32)
    _kernels.encode_codes(model, rows, codes, lengths)
    _same(
        lambda out, threads: _kernels.train_clusters(model, codes, metric, 3, seed, out, threads),
        (n_clusters, dim),
    )
    parts, words = 1 + feed.below(4), 1 + feed.below(40)
    points = query_of(feed, n, parts * (1 + feed.below(4)))
    _same(
        lambda out, threads: _kernels.train_product(points, parts, metric == 3, 3, seed, out, threads),
        (parts * words, points.shape[1] // parts),
    )


def residuals(feed: Feed) -> None:
    """What product codes are made from, and the terms of rows that are coded, against NumPy."""
    n, parts, part_dim = feed.below(40), 1 + feed.below(5), 1 + feed.below(5)
    words, n_lists, dim = 1 + feed.below(40), 1 + feed.below(5), parts * part_dim
    rows, centroids = _moderate(feed, n, dim), _moderate(feed, n_lists, dim)
    books, assigned = _moderate(feed, parts * words, part_dim), feed.numbers("<u4", n, n_lists)
    codes = feed.array("u1", n, parts)
    if feed.below(8):
        codes = (codes % words).astype(np.uint8)
    factor = feed.below(9) / 4
    out = np.empty((n, dim), np.float32)
    _kernels.product_residuals(rows, centroids, assigned, factor, out, 1 + feed.below(2))
    near = centroids.astype(np.float64)[assigned]
    assert np.array_equal(out, ((rows.astype(np.float64) - near) * factor).astype(np.float32))
    terms = np.empty(n, np.float32)
    _kernels.product_terms(books, centroids, assigned, codes, parts, terms, 1 + feed.below(2))
    said = books.astype(np.float64).reshape(parts, words, part_dim)[np.arange(parts), codes].reshape(n, dim)
    assert np.allclose(terms, np.sum((near + said) ** 2, axis=1), rtol=1e-6, atol=1e-30)


def _moderate(feed: Feed, *shape: int) -> Any:
    return np.clip(query_of(feed, *shape), -1e6, 1e6)


def _same(train: Callable[[Any, int], None], shape: tuple[int, int]) -> None:
    found = [np.empty(shape, np.float32) for _ in range(2)]
    try:
        for threads, out in enumerate(found, 1):
            train(out, threads)
    except REFUSED:
        return
    assert found[0].tobytes() == found[1].tobytes()
