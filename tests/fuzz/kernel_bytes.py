"""Calls of the kernels over bytes: masks, strings, ids, checksums, digests, numbers as text, frames."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
from kernel_feed import REFUSED, Feed

from iqdb_core import _kernels


def mask_within(feed: Feed) -> None:
    """Set bits of values in an interval, and compare with NumPy."""
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


def strings(feed: Feed) -> None:
    """Compare, search, gather, number, hash and sort strings."""
    n = feed.below(20)
    data = feed.array("u1", feed.below(100))
    offsets = np.sort(feed.numbers("<u8", n + 1, len(data))) if feed.below(4) else feed.array("<u8", n + 1)
    if len(offsets) and feed.below(4):
        offsets[0], offsets[-1] = 0, len(data)
    needle = bytes(feed.array("u1", feed.below(4)))
    kinds = feed.numbers("u1", n, 3)
    chosen = feed.numbers("<i8", 5, n)
    room = feed.below(200)
    if len(data) and n and feed.below(4):
        # Most often just what the strings take.
        lengths = np.diff(offsets.astype(np.int64))
        room = int(np.clip(lengths[chosen % len(lengths)].sum(), 0, 5 * len(data)))
    for call in (
        lambda: _kernels.compare_strings(offsets, data, needle, np.empty(n, np.int8)),
        lambda: _kernels.contains_strings(offsets, data, needle, np.empty(n, np.uint8)),
        lambda: _kernels.dictionary_strings(
            offsets, data, np.empty(n, np.uint32), np.empty(n // 2, np.uint32)
        ),
        lambda: _kernels.gather_strings(offsets, data, chosen, np.empty(room, np.uint8)),
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
        except REFUSED:
            continue


def lookup(feed: Feed) -> None:
    """Look ids up."""
    n, asked = feed.below(30), feed.below(9)
    found = np.empty(asked, np.int64)
    order = feed.numbers("<u4", n, n) if feed.below(2) else None
    _kernels.lookup_u64(feed.array("<u8", n), order, feed.array("<u8", asked), found)
    assert np.all((found >= -1) & (found < n))


# --- Checksums, hashes and digests ----------------------------------------------------------------


def sums(feed: Feed) -> None:
    """Checksums and hashes of any bytes, in pieces and whole."""
    data = feed.array("u1", feed.below(9000))
    cut = feed.below(len(data) + 1)
    whole = _kernels.crc32c(data)
    assert whole == _kernels._crc32c_portable(data)
    assert whole == _kernels.crc32c(data[cut:], _kernels.crc32c(data[:cut]))
    crcs = np.empty(-(-data.nbytes // 4096), np.uint32)
    _kernels.crc32c_blocks(data, 3, feed.below(5), crcs)
    verified = bytearray(len(crcs))
    first, stop = sorted((feed.below(len(crcs) + 1), feed.below(len(crcs) + 1)))
    stop += feed.below(16) == 1
    damaged = _kernels.verify_blocks(data, crcs, verified, 3, first, stop, 1 + feed.below(2))
    assert damaged == -1 or first <= damaged < stop
    _kernels.hash_bytes(data)
    bits = feed.array("u1", 9)
    count = feed.below(80)
    assert _kernels.count_bits(bits, count) == np.unpackbits(bits, bitorder="little")[:count].sum()
    values = feed.array("<f4", feed.below(60))
    bad = np.flatnonzero(~np.isfinite(values))
    assert _kernels.check_finite(values) == (bad[0] if len(bad) else -1)


def values(feed: Feed) -> None:
    """Hashes of values that go to any rows."""
    n, width = feed.below(20), feed.below(10)
    rows = feed.numbers("<u4", n, n) if feed.below(2) else None
    _kernels.hash_values(
        feed.array("u1", feed.below(600)), feed.array("u1", n * width), width, rows,
        np.zeros((n, 2), np.uint64),
    )  # fmt: skip


def digests(feed: Feed) -> None:
    """Digests of records, in one pass over plain ones and in parts."""
    n, dim, first = feed.below(30), 1 + feed.below(9), feed.below(1 << 16)
    vectors, ids = feed.array("<f4", n, dim), feed.array("<u8", n)
    hashes = [np.zeros((n, 2), np.uint64) for _ in range(3)]
    _kernels.hash_ids_u64(ids, hashes[0])
    _kernels.hash_vectors(vectors, hashes[1], 1 + feed.below(2))
    other = feed.array("<u8", n, 2) if feed.below(2) else hashes[2]
    out = np.zeros((n, 2), np.uint64)
    _kernels.combine_digest(hashes[0], hashes[1], other, out if feed.below(4) else None)
    total = _kernels.combine_digest(*hashes, out)
    parts = np.stack(hashes, axis=1)
    for seed in (0, 1):
        each = [_kernels.hash_bytes(record[:, seed].tobytes())[seed] for record in parts]
        assert out[:, seed].tolist() == each
        assert total[seed] == sum(each) % 2**64
    bad, low, high, sequence = _kernels.digest_plain(vectors, dim, ids, first)
    wrong = np.flatnonzero(~np.isfinite(vectors.reshape(-1)))
    assert bad == (wrong[0] if len(wrong) else -1)
    if bad < 0:
        ranks = enumerate(hashes[0][:, 0].tolist(), first)
        assert (low, high) == total
        assert sequence == sum(hashed * (2 * rank + 1) for rank, hashed in ranks) % 2**64
    below = feed.below(9) if feed.below(2) else None
    numbers = ids.tolist()
    before = ([] if below is None else [below]) + numbers
    ascend = all(a < b for a, b in pairwise(before))
    assert _kernels.ids_ascend(ids, below) == ascend
    _kernels.number_ids(first, ids)
    assert ids.tolist() == list(range(first, first + len(ids)))


def vectors(feed: Feed) -> None:
    """Blocks of stored vectors, looked at once, against the kernels that look for one thing each."""
    n, dim, start = feed.below(40), 1 + feed.below(90), 4 * feed.below(30)
    rows = feed.array("<f4", n, dim)
    data = bytes(start) + rows.tobytes()
    crcs = np.empty(-(-len(data) // 4096), np.uint32)
    _kernels.crc32c_blocks(data, 5, 9, crcs)
    right = crcs.copy()
    if len(crcs) and feed.below(2):
        crcs[feed.below(len(crcs))] ^= np.uint32(1 << feed.below(32))
    wrong, hashes = np.empty(len(crcs), np.uint8), np.empty((n + (feed.below(32) == 1), 2), np.uint64)
    bad = _kernels.check_vectors(data, 5, 9, crcs, start, dim, wrong, hashes)
    expected = np.empty((n, 2), np.uint64)
    _kernels.hash_vectors(rows, expected)
    finite = np.flatnonzero(~np.isfinite(rows.reshape(-1)))
    assert bad == (finite[0] if len(finite) else -1)
    assert np.array_equal(wrong != 0, crcs != right)
    assert np.array_equal(hashes, expected)


# --- Text -----------------------------------------------------------------------------------------


def text(feed: Feed) -> None:
    """Numbers as decimals, and records as JSON lines."""
    vector = np.nan_to_num(feed.array("<f4", feed.below(12)))
    spelt = _kernels.format_f32_json(vector)
    for form in (spelt, _kernels._format_f32_json_portable(vector)):
        assert np.array(json.loads(form), np.float32).tobytes() == vector.tobytes()
    for number in spelt[1:-1].decode().split(",") if len(vector) else ():
        assert _kernels._round_number(number, False) == _kernels._round_number(number, True)
    line = b'{"id":%d,"vector":%s,"n":1}\n' % (feed.below(9), spelt)
    damaged = bytearray(line * 3)
    for _ in range(max(0, feed.below(6) - 3)):
        damaged[feed.below(len(damaged))] = feed.below(256)
    batch = _kernels.parse_jsonl(bytes(damaged), id_field="id", vector_field="vector", max_rows=2)
    assert batch.consumed_bytes <= len(damaged)
    assert len(batch.vectors) == batch.n_rows * batch.dim


# --- Single records -------------------------------------------------------------------------------


def records(feed: Feed) -> None:
    """Copy a vector, of any kind of buffer, and put a frame together."""
    dim = 1 + feed.below(20)
    vector = feed.array("<f4", dim)
    given = (
        vector, vector.tobytes(), bytearray(vector.tobytes()), memoryview(vector)[::-1],
        vector.astype(">f4"), None, vector.tolist(), np.zeros(len(vector)), vector.reshape(1, -1),
        np.broadcast_to(vector, (2, len(vector))), memoryview(vector), vector[::2],
    )[feed.below(12)]  # fmt: skip
    copied = _kernels.copy_vector(given, dim)
    if copied is not None:
        assert copied == memoryview(given).tobytes()
        assert len(copied) == 4 * dim
        assert np.isfinite(np.frombuffer(copied, np.float32)).all()
    header, seed = feed.array("u1", 40), feed.below(1 << 16)
    # Above 64 KiB the frame is written while other threads run.
    sizes = [feed.below((9, 9, 90, 40_000)[feed.below(4)]) for _ in range(feed.below(5))]
    parts = [feed.array("u1", size) for size in sizes]
    frame = _kernels.encode_frame(header, parts, seed)
    body = b"".join(part.tobytes() for part in parts)
    crc = _kernels.crc32c(body, _kernels.crc32c(header[:36], seed))
    assert frame == header[:36].tobytes() + crc.to_bytes(4, "little") + body
