"""Calls of the native module with arrays of any content and, now and then, of any shape.

What a harness of libFuzzer calls lies behind the bindings; this goes through them: their checks of shapes,
the searches that come and go by the shortest way, the masks of filters. It is worth most in the module that
`tests/sanitize.py` builds, where a read beyond an array ends the process.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from mutators import mutate_bytes

from iqdb_core import _kernels

_REFUSED = (ValueError, TypeError, OverflowError, BufferError)
_METRICS = 5


class Feed:
    """Numbers and arrays out of the bytes of an input; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, limit: int) -> int:
        """Return a number below a limit of at most 2^16."""
        return int.from_bytes(self._take(2), "little") % limit

    def array(self, dtype: str, *shape: int) -> Any:
        """Return an array; once in a while of another shape than was asked for."""
        if self.below(64) == 1:
            shape = (*shape[:-1], max(0, shape[-1] + (-1, 1, 5)[self.below(3)]))
        if self.below(128) == 1:
            dtype = ("u1", "f4", "f8", "u8", "i4")[self.below(5)]
        count = int(np.prod(shape))
        size = np.dtype(dtype).itemsize
        # A short input fills an array over and over, or else all but its start would be zeros.
        some = self._take(min(count * size, 512)) or b"\0"
        raw = (some * (1 + count * size // len(some)))[: count * size]
        return np.frombuffer(bytearray(raw), dtype, count).reshape(shape)

    def numbers(self, dtype: str, count: int, limit: int) -> Any:
        """Return numbers most of which are below a limit."""
        found = self.array(dtype, count)
        if self.below(8) and found.dtype.kind in "iu":
            found %= np.asarray(max(1, limit + self.below(2)), found.dtype)
        return found

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken


def run_kernels(data: bytes) -> str:
    """Call one of the kernels."""
    feed = Feed(data)
    call = _CALLS[feed.below(len(_CALLS))]
    variants = _kernels.variants()
    before = _kernels.variant()
    _kernels.set_variant(variants[feed.below(len(variants))])
    try:
        call(feed)
    except _REFUSED as error:
        return f"{call.__name__}: {type(error).__name__}"
    finally:
        _kernels.set_variant(before)
    return call.__name__


def kernel_seeds() -> Iterator[bytes]:
    """Yield inputs for every call."""
    for number in range(4 * len(_CALLS)):
        yield struct.pack("<H", number % len(_CALLS)) + random.Random(number).randbytes(600)


def mutate_kernels(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes, or take others behind the choice of the call."""
    return data[:2] + rng.randbytes(rng.randrange(1200)) if rng.randrange(2) else mutate_bytes(data, rng)


# --- Masks and strings ----------------------------------------------------------------------------


def _mask_within(feed: Feed) -> None:
    n_rows = feed.below(300)
    columns: list[tuple[int, int, Any, Any]] = []
    first = 0
    for _ in range(feed.below(4)):
        rows = feed.below(90)
        dtype = ("<i8", "<f8")[feed.below(2)]
        if feed.below(2):
            columns.append((first, rows, feed.array(dtype, rows), None))
        else:
            bits = feed.array("u1", 8 * ((rows + 63) // 64))
            if rows % 8 and feed.below(8) and len(bits):
                bits[rows // 8 :] = 0
            count = int(np.unpackbits(bits.view(np.uint8)).sum())
            if feed.below(4) == 1:
                count = feed.below(count + 2)
            columns.append((first, rows, feed.array(dtype, count), bits))
        first += rows
    low, high = sorted(feed.array("<i8", 2).view(np.int64).tolist()[:2])
    mask = bytearray((n_rows + 7) // 8)
    inverted = bool(feed.below(2))
    _kernels.mask_within(columns, low, high, float(low), float(high), inverted, mask)
    expected = np.zeros(8 * len(mask), np.bool_)
    for start, rows, values, bits in columns:
        within = (values >= low) & (values <= high)
        if values.dtype == np.float64:
            within = (values >= float(low)) & (values <= float(high))
        places = (
            np.arange(rows)
            if bits is None
            else np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little", count=rows))
        )
        assert len(places) == len(values), "more values than rows that have one were taken"
        expected[start + places[within != inverted]] = True
    assert bytes(mask) == np.packbits(expected, bitorder="little").tobytes()


def _strings(feed: Feed) -> None:
    n = feed.below(20)
    data = feed.array("u1", feed.below(100))
    offsets = np.sort(feed.numbers("<u8", n + 1, len(data))) if feed.below(4) else feed.array("<u8", n + 1)
    if len(offsets) and feed.below(4):
        offsets[0], offsets[-1] = 0, len(data)
    needle = bytes(feed.array("u1", feed.below(4)))
    kinds = feed.numbers("u1", n, 3)
    for call in (
        lambda: _kernels.compare_strings(offsets, data, needle, np.empty(n, np.int8)),
        lambda: _kernels.contains_strings(offsets, data, needle, np.empty(n, np.uint8)),
        lambda: _kernels.dictionary_strings(
            offsets, data, np.empty(n, np.uint32), np.empty(n // 2, np.uint32)
        ),
        lambda: _kernels.gather_strings(
            offsets, data, feed.numbers("<i8", 5, n), np.empty(feed.below(200), np.uint8)
        ),
        lambda: _kernels.hash_strings(
            needle, offsets, data, feed.numbers("<u4", n, n), np.zeros((n, 2), np.uint64)
        ),
        lambda: _kernels.sort_ids_var(kinds, offsets, data, np.empty(n, np.uint32)),
        lambda: _kernels.hash_ids_var(kinds, offsets, data, np.empty((n, 2), np.uint64)),
        lambda: _kernels.lookup_var(
            kinds, offsets, data, feed.numbers("<u4", n, n), kinds, offsets, data, np.empty(n, np.int64)
        ),
    ):
        try:
            call()
        except _REFUSED:
            continue


def _lookup(feed: Feed) -> None:
    n, asked = feed.below(30), feed.below(9)
    found = np.empty(asked, np.int64)
    order = feed.numbers("<u4", n, n) if feed.below(2) else None
    _kernels.lookup_u64(feed.array("<u8", n), order, feed.array("<u8", asked), found)
    assert np.all((found >= -1) & (found < n))


# --- Searches -------------------------------------------------------------------------------------


def _blocks(feed: Feed, array: Any) -> tuple[Any, Any, int] | None:
    if feed.below(2):
        return None
    n_blocks = -(-array.nbytes // 4096)
    crcs = np.empty(n_blocks, np.uint32)
    _kernels.crc32c_blocks(array.reshape(-1).view(np.uint8), 7, 0, crcs)
    return crcs, bytearray(n_blocks + (feed.below(32) == 1)), 7 if feed.below(8) else 8


def _outputs(n_queries: int, k: int) -> tuple[Any, Any, Any]:
    return np.empty((n_queries, k), np.int64), np.empty((n_queries, k)), np.empty(n_queries, np.int64)


def _query(feed: Feed, *shape: int) -> Any:
    return np.nan_to_num(feed.array("<f4", *shape))


def _model(feed: Feed, dim: int, metric: int) -> Any:
    return np.concatenate(
        [[float(metric != 2), 10.0, 1.0 + feed.below(3)], np.zeros(dim + (feed.below(64) == 1))]
    )


def _mask(feed: Feed, n: int) -> Any:
    return feed.array("u1", (n + 7) // 8) if feed.below(2) else None


def _flat(feed: Feed) -> None:
    n, dim, k = feed.below(40), 1 + feed.below(40), 1 + feed.below(12)
    vectors, queries = feed.array("<f4", n, dim), _query(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    metric = feed.below(_METRICS)
    _kernels.search_flat(vectors, queries, metric, k, *_outputs(len(queries), k), mask=_mask(feed, n))
    rows = feed.numbers("<i8", 5, n)
    if n and len(queries):
        _kernels.distances(vectors, rows, queries[0], metric, np.empty(len(rows)))


def _codes(feed: Feed) -> None:
    n, dim, k, metric = feed.below(40), 1 + feed.below(40), 1 + feed.below(12), feed.below(3)
    vectors, queries = feed.array("<f4", n, dim), _query(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    codes = feed.array("u1", n, -(-dim // 32) * 32)
    stored = _kernels.StoredCodes(
        metric, dim, _model(feed, dim, metric), codes, feed.array("<f4", 2, n), feed.array("<f4", n),
        _blocks(feed, codes),
    )  # fmt: skip
    stored.search(
        vectors,
        queries,
        k,
        *_outputs(len(queries), k),
        mask=_mask(feed, n),
        vector_blocks=_blocks(feed, vectors),
    )


def _graph(feed: Feed) -> None:
    n, dim, k, metric = 1 + feed.below(60), 1 + feed.below(40), 1 + feed.below(6), feed.below(4)
    vectors, queries = feed.array("<f4", n, dim), _query(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    codes = feed.array("u1", n, -(-dim // 32) * 32)
    degree = 1 + feed.below(9)
    links = feed.numbers("<u4", n * degree, n).reshape(n, -1)
    entries = feed.numbers("<u4", feed.below(4), n)
    stored = _kernels.StoredGraph(
        metric, dim, _model(feed, dim, metric), codes, feed.array("<i4", n), links, entries,
        feed.array("<f4", n), _blocks(feed, codes), _blocks(feed, links),
    )  # fmt: skip
    mask = _mask(feed, n)
    stored.search(
        vectors, queries, k, 10, 10, *_outputs(len(queries), k), np.empty((len(queries), 2), np.int64),
        mask=mask, vector_blocks=_blocks(feed, vectors), filtered=mask is not None and bool(feed.below(2)),
    )  # fmt: skip
    single = _kernels.SingleSearch(stored, vectors, _blocks(feed, vectors), 4, 8, 1, 1)
    _check_single(single.nearest(_odd_query(feed, dim), k, None, None), n, k)
    _kernels.check_graph(links, entries)


def _lists(feed: Feed) -> None:
    n, dim, k, metric = 1 + feed.below(60), 1 + feed.below(40), 1 + feed.below(6), feed.below(4)
    vectors, queries = feed.array("<f4", n, dim), _query(feed, (1, 1, 2, 0)[feed.below(4)], dim)
    n_lists = 1 + feed.below(6)
    offsets = np.sort(feed.numbers("<u8", n_lists + 1, n))
    if feed.below(8):
        offsets = np.minimum(offsets, np.asarray(n, offsets.dtype))
        offsets[0], offsets[-1] = 0, n
    codes = feed.array("u1", n, -(-dim // 32) * 32)
    rows = feed.numbers("<u4", n, n)
    stored = _kernels.StoredLists(
        metric, _model(feed, dim, metric), feed.array("<f4", n_lists, dim), offsets, rows, codes=codes,
        lengths=feed.array("<i4", n), norms=feed.array("<f4", n), row_blocks=_blocks(feed, rows),
        code_blocks=_blocks(feed, codes),
    )  # fmt: skip
    stored.search(
        vectors, queries, k, 2, k, 20, *_outputs(len(queries), k), np.empty((len(queries), 3), np.int64),
        mask=_mask(feed, n), vector_blocks=_blocks(feed, vectors),
    )  # fmt: skip
    single = _kernels.SingleListSearch(stored, vectors, _blocks(feed, vectors), 2, 2, 4, 1, 1)
    _check_single(single.nearest(_odd_query(feed, dim), k, None, None), n, k)


def _odd_query(feed: Feed, dim: int) -> Any:
    query = _query(feed, dim)
    return (query, query, query, query[::-1], query.astype(np.float64), b"", None, query.tolist())[
        feed.below(8)
    ]


def _check_single(found: Any, n: int, k: int) -> None:
    if found is not None:
        rows, distances = found
        assert len(rows) == len(distances) <= k
        assert all(0 <= row < n for row in rows)
        assert distances == sorted(distances)


# --- Building -------------------------------------------------------------------------------------


def _carried(feed: Feed) -> None:
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


def _encoded(feed: Feed) -> None:
    n, dim, metric = 1 + feed.below(20), 1 + feed.below(40), feed.below(4)
    rows = _query(feed, n, dim)
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


_CALLS: tuple[Callable[[Feed], None], ...] = (
    _mask_within, _strings, _lookup, _flat, _codes, _graph, _lists, _carried, _encoded,
)  # fmt: skip
