"""Exact search against sorted distances, for every metric, batch size, mask, thread count and variant."""

from __future__ import annotations

import array
import contextlib
import ctypes
import platform
import struct
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

COSINE, DOT, EUCLIDEAN, MANHATTAN, HAMMING = METRICS = range(5)
VARIANTS = _kernels.variants()
SINGLE, FEW, BATCH = 1, 3, 37


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    before = _kernels.variant()
    _kernels.set_variant(name)
    try:
        yield
    finally:
        _kernels.set_variant(before)


def search(
    x: np.ndarray, queries: np.ndarray, metric: int, k: int, **options: Any
) -> list[list[tuple[int, float]]]:
    """The hits of each query as (row, distance); checks counts and unused slots on the way."""
    width = min(k, len(x))
    rows = np.full((len(queries), width), 77, np.int64)
    distances = np.full((len(queries), width), 77.0)
    counts = np.full(len(queries), 77, np.int64)
    if "mask" in options and options["mask"] is not None:
        options["mask"] = np.packbits(options["mask"], bitorder="little")
    assert _kernels.search_flat(x, queries, metric, k, rows, distances, counts, **options) == -1
    hits = []
    for i, count in enumerate(counts.tolist()):
        assert (rows[i, count:] == -1).all()
        assert (distances[i, count:] == np.inf).all()
        hits.append(list(zip(rows[i, :count].tolist(), distances[i, :count].tolist(), strict=True)))
    return hits


def oracle(
    x: np.ndarray,
    queries: np.ndarray,
    metric: int,
    k: int,
    *,
    mask: np.ndarray | None = None,
    tie_keys: np.ndarray | None = None,
    max_distance: float = np.inf,
) -> list[list[tuple[int, float]]]:
    """Sort all canonical distances (test_distance.py) by (distance, tie key, row)."""
    hits = []
    for query in queries:
        distances = np.empty(len(x))
        _kernels.distances(x, np.arange(len(x)), query, metric, distances)
        keys = np.arange(len(x)) if tie_keys is None else tie_keys
        order = np.lexsort((np.arange(len(x)), keys, distances))
        chosen = [row for row in order if (mask is None or mask[row]) and distances[row] <= max_distance]
        hits.append([(int(row), float(distances[row])) for row in chosen[:k]])
    return hits


def numpy_distances(x32: np.ndarray, query32: np.ndarray, metric: int) -> np.ndarray:
    x, query = x32.astype(np.float64), query32.astype(np.float64)
    if metric == COSINE:
        return 1 - x @ query / (np.linalg.norm(x, axis=1) * np.linalg.norm(query))
    if metric == DOT:
        return -(x @ query)
    if metric == EUCLIDEAN:
        return np.linalg.norm(x - query, axis=1)
    if metric == MANHATTAN:
        return np.abs(x - query).sum(axis=1)
    return (x32.view(np.uint32) != query32.view(np.uint32)).sum(axis=1).astype(np.float64)


def gaussian(seed: int, n: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def coarse(seed: int, n: int, dim: int) -> np.ndarray:
    """Few distinct values, so that distances tie and rows repeat."""
    return np.random.default_rng(seed).integers(-1, 2, (n, dim)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_queries", [SINGLE, FEW, BATCH])
def test_hits_are_the_nearest_rows_by_float64_arithmetic(metric: int, n_queries: int) -> None:
    x, queries = gaussian(1, 3000, 48), gaussian(2, n_queries, 48)
    x[::2] = np.round(x[::2])
    queries[0] = x[4]
    for query, hits in zip(queries, search(x, queries, metric, 10, threads=2), strict=True):
        expected = numpy_distances(x, query, metric)
        assert [row for row, _ in hits] == np.argsort(expected, kind="stable")[:10].tolist()
        assert [d for _, d in hits] == pytest.approx(np.sort(expected)[:10].tolist(), rel=1e-12, abs=1e-7)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("make", [gaussian, coarse])
def test_hits_have_the_same_bits_however_they_are_asked_for(name: str, metric: int, make: Any) -> None:
    x, queries = make(3, 2500, 29), make(4, BATCH, 29)
    x[700:720] = x[7]
    x[40] = 0
    queries[5] = 0
    queries[6] = x[7]
    mask = np.random.default_rng(5).random(len(x)) < 0.3
    expected = oracle(x, queries, metric, 12)
    masked = oracle(x, queries, metric, 12, mask=mask)
    with variant(name):
        assert search(x, queries, metric, 12) == expected
        assert search(x, queries, metric, 12, threads=5) == expected
        assert search(x, queries, metric, 12, mask=np.ones(len(x), bool)) == expected
        assert [search(x, query[None], metric, 12)[0] for query in queries] == expected
        assert search(x, queries[:FEW], metric, 12) == expected[:FEW]
        assert search(x, queries, metric, 12, mask=mask, threads=3) == masked
        assert [search(x, query[None], metric, 12, mask=mask)[0] for query in queries] == masked


def test_a_large_search_on_several_threads_has_the_bits_of_one_thread() -> None:
    x, queries = gaussian(6, 60_000, 64), gaussian(7, 100, 64)
    for metric in METRICS:
        expected = search(x, queries, metric, 50)
        for threads in (2, 3, 8):
            assert search(x, queries, metric, 50, threads=threads) == expected


@settings(max_examples=150)
@given(st.data())
def test_any_small_search_agrees_with_the_sorted_distances(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 90), "n")
    dim = data.draw(st.integers(1, 70), "dim")
    n_queries = data.draw(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 40]), "queries")
    metric = data.draw(st.sampled_from(METRICS), "metric")
    k = data.draw(st.sampled_from([1, 2, 5, 10, 100, 2**63 - 1]), "k")
    make = data.draw(st.sampled_from([gaussian, coarse]), "make")
    scale = data.draw(st.sampled_from([1.0, 1e-45, 1e-40, 1e-25, 1e-16, 1e15, 1e20, 3e37]), "scale")
    offset = data.draw(st.sampled_from([0.0, 1.0, 1000.0]), "offset")
    rng = np.random.default_rng(data.draw(st.integers(0, 10), "seed"))
    factor = min(scale, 3e37 / (5 + offset))
    x = ((make(1, n, dim).astype(np.float64) + offset) * factor).astype(np.float32)
    queries = ((make(2, n_queries, dim).astype(np.float64) + offset) * factor).astype(np.float32)
    if n and n_queries and data.draw(st.booleans(), "repeat"):
        x[rng.integers(0, n, n // 2)] = x[0]
        queries[-1] = x[0]
    options: dict[str, Any] = {}
    if data.draw(st.booleans(), "with mask"):
        options["mask"] = rng.random(n) < data.draw(st.sampled_from([0.0, 0.1, 0.9]), "selectivity")
    if data.draw(st.booleans(), "with tie keys"):
        options["tie_keys"] = rng.integers(-3, 3, n)
    if data.draw(st.booleans(), "with a maximum distance"):
        query = queries[0] if n_queries else np.zeros(dim, np.float32)
        row = x[0] if n else np.ones(dim, np.float32)
        near = np.empty(1)
        _kernels.distances(row[None], np.zeros(1, np.int64), query, metric, near)
        options["max_distance"] = float(near[0])
    expected = oracle(x, queries, metric, k, **options)
    threads = data.draw(st.integers(1, 3), "threads")
    for name in VARIANTS:
        with variant(name):
            assert search(x, queries, metric, k, threads=threads, **options) == expected


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
def test_rows_and_queries_of_every_magnitude_mix(metric: int, n_queries: int) -> None:
    rng = np.random.default_rng(8)
    scales = np.array(
        [0.0, 1e-45, 1e-40, 1e-30, 1e-20, 1e-15, 1e-10, 1.0, 1e10, 1e15, 1e16, 1e20, 1e30, 3e38]
    )
    x = (rng.uniform(-1, 1, (400, 19)) * rng.choice(scales, (400, 1))).astype(np.float32)
    queries = (rng.uniform(-1, 1, (n_queries, 19)) * rng.choice(scales, (n_queries, 1))).astype(np.float32)
    for name in VARIANTS:
        with variant(name):
            assert search(x, queries, metric, 30) == oracle(x, queries, metric, 30)


@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
def test_cosine_does_not_depend_on_the_length_of_huge_vectors(n_queries: int) -> None:
    directions, queries = gaussian(9, 500, 24), gaussian(10, n_queries, 24)
    near = [[row for row, _ in hits] for hits in search(directions, queries, COSINE, 5)]
    for scale in (2.0**66, 2.0**120, 2.0**-66):
        x = directions * np.float32(scale)
        assert [[row for row, _ in hits] for hits in search(x, queries, COSINE, 5)] == near


@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
def test_euclidean_distances_far_from_the_origin_are_exact(n_queries: int) -> None:
    x, queries = gaussian(11, 2000, 32) + np.float32(1000), gaussian(12, n_queries, 32) + np.float32(1000)
    assert search(x, queries, EUCLIDEAN, 10) == oracle(x, queries, EUCLIDEAN, 10)


@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
@pytest.mark.parametrize("metric", METRICS)
def test_non_finite_rows_come_last_and_disturb_nothing(metric: int, n_queries: int) -> None:
    x, queries = gaussian(13, 100, 9), gaussian(14, n_queries, 9)
    finite = search(x, queries, metric, 90)
    spoilt = np.concatenate([x, np.full((3, 9), np.nan, np.float32), x[:1] * np.float32(np.nan)])
    if metric != HAMMING:
        assert search(spoilt, queries, metric, 90) == finite


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
def test_equal_distances_are_ordered_by_tie_key_then_row(metric: int, n_queries: int) -> None:
    x = np.repeat(gaussian(15, 3, 6), 200, axis=0)
    queries = gaussian(16, n_queries, 6)
    tie_keys = np.random.default_rng(17).permutation(np.arange(600) // 2) - 50
    for options in ({}, {"tie_keys": tie_keys}):
        expected = oracle(x, queries, metric, 250, **options)
        for threads in (1, 4):
            assert search(x, queries, metric, 250, threads=threads, **options) == expected


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dim", [64, 70, 131])
@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_within_a_distance_is_found_by_the_first_components_as_by_all(
    name: str, dim: int, threads: int
) -> None:
    generator = np.random.default_rng(dim)
    x = generator.standard_normal((3000, dim), np.float32)
    x[100:140, :16] = x[100, :16]  # alike where the pass looks first
    x[200:230] = x[200]
    x[300] = x[7] * np.float32(1 + 2**-23)
    x[400:404, 20] = [1e25, -1e25, 3e38, -3e38]
    x[410], x[411] = 0, 1e-42
    queries = x[[7, 100, 200, 300, 400, 402, 410, 411, 2999]]
    mask = generator.random(len(x)) < 0.7
    with variant(name):
        for shown in (None, mask):
            everything = search(x, queries, EUCLIDEAN, len(x), mask=shown)
            within = sorted({distance for hits in everything for _, distance in hits[:40]} - {np.inf})
            # The greatest let nearly all rows through, so that all components are looked at after all.
            for limit in (-1.0, 0.0, within[0], within[3], within[len(within) // 2], 8.0, 12.0, 1e30):
                found = search(x, queries, EUCLIDEAN, 50, mask=shown, threads=threads, max_distance=limit)
                assert found == [[hit for hit in hits if hit[1] <= limit][:50] for hits in everything]


def test_max_distance_includes_hits_exactly_at_it() -> None:
    x = np.arange(10, dtype=np.float32)[:, None]
    for n_queries in (SINGLE, BATCH):
        queries = np.zeros((n_queries, 1), np.float32)
        for metric in (EUCLIDEAN, MANHATTAN):
            for hits in search(x, queries, metric, 10, max_distance=3.0):
                assert hits == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
            for hits in search(x, queries, metric, 10, max_distance=-1.0):
                assert hits == []


def test_fewer_rows_than_k_are_all_returned() -> None:
    x, queries = gaussian(18, 5, 4), gaussian(19, BATCH, 4)
    assert [len(hits) for hits in search(x, queries, DOT, 2**63 - 1)] == [5] * BATCH


def test_outputs_may_have_k_slots_when_there_are_fewer_rows() -> None:
    x = gaussian(20, 2, 4)
    rows, distances, counts = np.empty((1, 7), np.int64), np.empty((1, 7)), np.empty(1, np.int64)
    _kernels.search_flat(x, x[:1], EUCLIDEAN, 7, rows, distances, counts)
    assert rows.tolist() == [[0, 1, -1, -1, -1, -1, -1]]
    assert counts.tolist() == [2]


def test_no_rows_no_queries_and_no_k_give_no_hits() -> None:
    x = gaussian(21, 4, 3)
    assert search(x[:0], x, COSINE, 5) == [[], [], [], []]
    assert search(x, x[:0], COSINE, 5) == []
    assert search(x, x, COSINE, 0) == [[], [], [], []]
    assert search(x, x, COSINE, 5, mask=np.zeros(4, bool)) == [[], [], [], []]


def test_search_takes_memoryviews_and_arrays() -> None:
    x = memoryview(array.array("f", range(12))).cast("B").cast("f", [4, 3])
    rows, distances, counts = array.array("q", [0, 0]), array.array("d", [0, 0]), array.array("q", [0])
    query = memoryview(array.array("f", [6, 7, 8])).cast("B").cast("f", [1, 3])
    _kernels.search_flat(x, query, EUCLIDEAN, 2, rows, distances, counts)
    assert (rows[0], distances[0], counts[0]) == (2, 0.0, 2)
    _kernels.search_flat(array.array("f"), query, EUCLIDEAN, 2, rows, distances, counts)
    assert (rows.tolist(), counts[0]) == ([-1, -1], 0)


PREFIX = 0x1234


def checked(x: np.ndarray) -> dict[str, Any]:
    blocks = -(-x.nbytes // 4096)
    crcs = np.empty(blocks, np.uint32)
    _kernels.crc32c_blocks(x.reshape(-1).view(np.uint8), PREFIX, 0, crcs)
    return {"block_crcs": crcs, "verified": np.zeros(blocks, np.uint8), "crc_prefix": PREFIX}


def status(x: np.ndarray, queries: np.ndarray, **options: Any) -> int:
    n = len(queries)
    return _kernels.search_flat(
        x, queries, DOT, 3, np.empty((n, 3), np.int64), np.empty((n, 3)), np.empty(n, np.int64), **options
    )


@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_are_verified_once_and_marked(n_queries: int, threads: int) -> None:
    x, queries = gaussian(22, 5000, 33), gaussian(23, n_queries, 33)
    check = checked(x)
    assert status(x, queries, threads=threads, **check) == -1
    assert check["verified"].all()
    check["block_crcs"] ^= 1  # not looked at again
    assert status(x, queries, threads=threads, **check) == -1


@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_block_with_a_candidate_is_reported(n_queries: int, threads: int) -> None:
    x, queries = gaussian(24, 5000, 33), gaussian(25, n_queries, 33)
    for row in (0, 2500, 4999):
        check = checked(x)
        damaged = x.copy()
        damaged[row, 32] += 1
        block = (row * 33 + 32) * 4 // 4096
        assert status(damaged, queries, threads=threads, **check) == block
        assert check["verified"][block] == 0


@pytest.mark.parametrize("n_queries", [SINGLE, BATCH])
def test_a_damaged_block_without_a_candidate_is_not_looked_at(n_queries: int) -> None:
    x, queries = gaussian(26, 5000, 33), gaussian(27, n_queries, 33)
    check = checked(x)
    x[2500] += 1
    far = np.ones(5000, bool)
    far[2400:2600] = False
    options = {**check, "mask": np.packbits(far, bitorder="little")}
    assert status(x, queries, **options) == -1
    block = 2500 * 33 * 4 // 4096
    assert check["verified"][[block, block + 1]].tolist() == [0, 0]
    far[2500] = True
    options["mask"] = np.packbits(far, bitorder="little")
    assert status(x, queries, **options) in (block, block + 1)


def test_only_the_blocks_of_candidates_are_verified() -> None:
    x = gaussian(28, 64, 1024)  # a block for each row
    check = checked(x)
    mask = np.zeros(64, bool)
    mask[[3, 40]] = True
    assert status(x, x[:1], mask=np.packbits(mask, bitorder="little"), **check) == -1
    assert np.flatnonzero(check["verified"]).tolist() == [3, 40]


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "vectors": gaussian(29, 10, 4),
        "queries": gaussian(30, 2, 4),
        "metric": DOT,
        "k": 3,
        "out_rows": np.empty((2, 3), np.int64),
        "out_distances": np.empty((2, 3)),
        "out_counts": np.empty(2, np.int64),
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": gaussian(0, 2, 5)}, "vectors must have 5 columns, found 4"),
        ({"queries": gaussian(0, 2, 3)}, "queries must have 4 columns, found 3"),
        ({"queries": np.zeros(4, np.float32)}, "queries must be a 2-D buffer, found 1 dimension"),
        ({"vectors": np.zeros((3, 0), np.float32)}, "vectors must have at least 1 column"),
        ({"metric": 5}, "metric must be 0 to 4, found 5"),
        ({"metric": -1}, "metric must be 0 to 4, found -1"),
        ({"k": -1}, "k must not be negative, found -1"),
        ({"k": 4}, "out_rows must have at least 4 slots for each of 2 queries, found 6"),
        ({"k": 2**63 - 1}, "out_rows must have at least 10 slots for each of 2 queries, found 6"),
        ({"out_rows": np.empty(7, np.int64), "out_distances": np.empty(7)}, "out_rows must have at least 3"),
        ({"out_distances": np.empty(5)}, "out_distances must have 6 items, found 5"),
        ({"out_counts": np.empty(3, np.int64)}, "out_counts must have 2 items, found 3"),
        ({"out_counts": bytes(16)}, "out_counts must be a writable"),
        ({"mask": np.zeros(1, np.uint8)}, "mask must have at least 2 items, found 1"),
        ({"tie_keys": np.zeros(9, np.int64)}, "tie_keys must have 10 items, found 9"),
        ({"threads": 0}, "threads must be at least 1, found 0"),
        ({"max_distance": float("nan")}, "max_distance must not be NaN"),
        ({"block_crcs": np.zeros(1, np.uint32)}, "block_crcs and verified must be given together"),
        (
            {"block_crcs": np.zeros(2, np.uint32), "verified": np.zeros(1, np.uint8)},
            "block_crcs must have 1 items, found 2",
        ),
        (
            {"block_crcs": np.zeros(1, np.uint32), "verified": np.zeros(2, np.uint8)},
            "verified must have 1 items, found 2",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.search_flat(**arguments(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"vectors": gaussian(0, 10, 4).astype(np.float64)},
        {"out_rows": np.empty((2, 3), np.int32)},
        {"tie_keys": np.zeros(10, np.uint64)},
        {"mask": [1, 1]},
        {"k": 2.5},
        {"k": 2**64},
        {"vectors": None},
    ],
)
def test_arguments_of_the_wrong_type_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        _kernels.search_flat(**arguments(**changes))


@pytest.mark.parametrize("metric", METRICS)
def test_many_more_queries_than_fit_one_sweep(metric: int) -> None:
    x, queries = gaussian(31, 50, 600), gaussian(32, 4300, 600)
    hits = search(x, queries, metric, 2, threads=2)
    for i in (0, 1, 3400, 3500, 4095, 4096, 4299):
        assert hits[i] == oracle(x, queries[i : i + 1], metric, 2)[0]


def test_a_thread_that_flushes_subnormal_numbers_gets_the_same_bits() -> None:
    # What a library built with -ffast-math does to the thread that loads it, done here by the C library.
    libm = ctypes.CDLL(None)
    size = 64
    saved, flushing = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
    x, queries = gaussian(33, 50, 8) * np.float32(1e-40), gaussian(34, FEW, 8) * np.float32(1e-40)
    expected = search(x, queries, COSINE, 5)
    assert libm.fegetenv(saved) == 0
    assert libm.fegetenv(flushing) == 0
    set_flush_to_zero(flushing)
    assert libm.fesetenv(flushing) == 0
    try:
        found = search(x, queries, COSINE, 5)
    finally:
        libm.fesetenv(saved)
    assert found == expected


def set_flush_to_zero(environment: ctypes.Array[ctypes.c_char]) -> None:
    if sys.platform == "darwin":
        pytest.skip("macOS saves the environment in a layout of its own")
    if platform.machine() == "x86_64":
        # MXCSR is the last word of the 32 bytes that Linux C libraries save: FTZ and DAZ.
        mxcsr = struct.unpack_from("<I", environment, 28)[0]
        struct.pack_into("<I", environment, 28, mxcsr | 0x8040)
    else:
        # FPCR is the first word: FZ.
        struct.pack_into("<I", environment, 0, struct.unpack_from("<I", environment, 0)[0] | 1 << 24)
