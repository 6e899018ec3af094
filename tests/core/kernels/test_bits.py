"""Codes of a bit a component: which vectors have them, and that searches by them find what a scan finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

HAMMING = 4


@pytest.fixture(autouse=True)
def _restore_variant() -> Iterator[None]:
    before = _kernels.variant()
    yield
    _kernels.set_variant(before)


def values_of(rows: np.ndarray, threads: int = 1) -> np.ndarray | None:
    values = np.stack([rows[0], rows[0]])
    return values if _kernels.find_values(rows, values, threads) else None


def encoded(values: np.ndarray, rows: np.ndarray, threads: int = 1) -> np.ndarray:
    codes = np.full((len(rows), 8 * -(-rows.shape[1] // 64)), 0xAA, np.uint8)
    _kernels.encode_bits(values, rows, codes, threads)
    return codes


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


def random_rows(n: int, dim: int, seed: int, values: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    # Few different rows near one another, so that there are many equal distances.
    base = generator.random((max(n // 7, 1), dim)) < 0.5
    flipped = generator.random((n, dim)) < 0.1
    rows: np.ndarray = np.where(base[generator.integers(0, len(base), n)] ^ flipped, *values)
    return rows.astype(np.float32)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dim", [1, 7, 63, 64, 65, 384])
def test_each_component_has_its_own_two_values(dim: int, threads: int) -> None:
    n = 9000
    pairs = np.random.default_rng(dim).standard_normal((2, dim)).astype(np.float32)
    pairs[0, 0], pairs[1, 0] = 0.0, -0.0  # the metric tells these apart, and so do bits
    chosen = random_rows(n, dim, 3) == 1
    chosen[:, -1] = False  # a component that never changes
    rows = np.where(chosen, pairs[1], pairs[0])
    values = values_of(rows, threads)
    assert values is not None
    assert same_bits(values[0], rows[0])
    codes = encoded(values, rows, threads)
    bits = np.unpackbits(codes, axis=1, bitorder="little")
    assert not bits[:, dim:].any()
    assert np.array_equal(bits[:, :dim] == 1, rows.view(np.uint32) != rows[0].view(np.uint32))
    decoded = np.where(bits[:, :dim] == 1, values[1], values[0])
    assert same_bits(decoded, rows)


@pytest.mark.parametrize("row", [2, 63, 64, 5000, 19_999])
@pytest.mark.parametrize("threads", [1, 4])
def test_a_third_value_is_found_wherever_it_is(row: int, threads: int) -> None:
    rows = random_rows(20_000, 33, 1)
    assert values_of(rows, threads) is not None
    rows[row, 32] = 0.5
    assert values_of(rows, threads) is None


def test_second_values_far_from_each_other_are_one_too_many() -> None:
    """Each of two threads may meet a second value first; that they are not the same must come out."""
    rows = np.zeros((60_000, 32), np.float32)
    rows[30_000:, 5] = 1
    rows[-1, 5] = 2
    for _ in range(20):
        assert values_of(rows, 4) is None
        assert values_of(rows[:-1], 4) is not None


def test_values_of_more_rows_are_taken_in() -> None:
    rows = np.zeros((3, 5), np.float32)
    values = np.stack([rows[0], rows[0]])
    assert _kernels.find_values(rows, values)
    more = np.array([[0, 0, 7, 0, 0]], np.float32)
    assert _kernels.find_values(more, values)
    assert values.tolist() == [[0] * 5, [0, 0, 7, 0, 0]]
    assert not _kernels.find_values(more + np.float32(1), values)


def outputs(n_queries: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (n_queries, k)
    return np.empty(shape, np.int64), np.empty(shape, np.float64), np.empty(n_queries, np.int64)


def assert_same_answers(rows: np.ndarray, queries: np.ndarray, k: int, **options: Any) -> None:
    wanted = outputs(len(queries), k)
    assert _kernels.search_flat(rows, queries, HAMMING, k, *wanted, **options) == -1
    values = values_of(rows)
    assert values is not None
    stored = _kernels.StoredBits(rows.shape[1], values, encoded(values, rows))
    for vectors in (None, rows):
        found = outputs(len(queries), k)
        assert stored.search(queries, k, *found, vectors=vectors, **options) == (0, 0)
        for one, other in zip(found, wanted, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("variant", _kernels.variants())
@pytest.mark.parametrize("dim", [1, 60, 128, 130, 256, 384, 512, 768, 1024, 1100])
@pytest.mark.parametrize("n_queries", [1, 9])
def test_bits_find_what_a_scan_finds(variant: str, dim: int, n_queries: int) -> None:
    _kernels.set_variant(variant)
    rows = random_rows(2500, dim, dim, (-1.0, 1.0))
    rows[:, 0] = -1
    queries = random_rows(n_queries, dim, 5, (-1.0, 1.0))
    queries[-1] = rows[3]
    queries[0, 0] = 4  # no row has a second value here
    queries[n_queries // 2, dim // 2 :: 3] = 0.25  # nor a third one there
    for threads in (1, 3):
        for k in (1, 10, 2500):
            assert_same_answers(rows, queries, k, threads=threads)
        assert_same_answers(rows, queries, 12, threads=threads, max_distance=dim / 2 + 0.5)
        assert_same_answers(rows, queries, 12, threads=threads, max_distance=-1)
        for share in (0.01, 0.3, 0.9):
            mask = np.packbits(np.random.default_rng(2).random(2500) < share, bitorder="little")
            assert_same_answers(rows, queries, 12, threads=threads, mask=mask)


@settings(max_examples=60)
@given(
    st.integers(1, 400),
    st.integers(1, 140),
    st.integers(1, 20),
    st.integers(1, 30),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_bits_find_what_a_scan_finds_for_any_shape(
    n: int, dim: int, n_queries: int, k: int, threads: int, seed: int
) -> None:
    rows, queries = random_rows(n, dim, seed), random_rows(n_queries, dim, seed + 1)
    tie_keys = np.random.default_rng(seed).permutation(n).astype(np.int64)
    assert_same_answers(rows, queries, k, threads=threads)
    assert_same_answers(rows, queries, k, threads=threads, tie_keys=tie_keys)


def test_equal_rows_come_in_order_for_a_query_like_all_of_them() -> None:
    rows = np.ones((5000, 70), np.float32)
    assert_same_answers(rows, rows[:9], 10, threads=2)


@pytest.mark.parametrize("variant", _kernels.variants())
def test_distances_beyond_sixteen_bits(variant: str) -> None:
    _kernels.set_variant(variant)
    for dim in (65_535, 65_536):
        rows = np.zeros((130, dim), np.float32)
        rows[1::2] = 1
        queries = np.repeat(rows[:1], 9, axis=0)
        queries[4] = 3
        assert_same_answers(rows, queries, 100)


def blocks_of(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    crcs = np.empty(-(-array.nbytes // 4096), np.uint32)
    _kernels.crc32c_blocks(array.view(np.uint8), 9, 0, crcs)
    return crcs, np.zeros(len(crcs), np.uint8), 9


def test_damaged_blocks_are_found_where_they_are_read() -> None:
    rows = random_rows(4000, 64, 1)
    values = values_of(rows)
    assert values is not None
    codes = encoded(values, rows)
    for name, array, part in (("code_blocks", codes, 1), ("vector_blocks", rows, 3)):
        crcs, verified, prefix = blocks_of(array)
        crcs[2] ^= 1
        crcs_of_codes = (crcs, verified, prefix) if name == "code_blocks" else None
        stored = _kernels.StoredBits(64, values, codes, crcs_of_codes)
        options: dict[str, Any] = {"vectors": rows}
        if name == "vector_blocks":
            options[name] = (crcs, verified, prefix)
        per_block = 4096 // array.strides[0]
        good, bad = rows[: per_block // 4 + 1], rows[2 * per_block : 2 * per_block + 1].copy()
        only = np.zeros(4000, np.bool_)
        only[: 2 * per_block] = True
        mask = np.packbits(only, bitorder="little")
        assert stored.search(good, 3, *outputs(len(good), 3), mask=mask, **options) == (0, 0)
        assert stored.search(bad, 1, *outputs(1, 1), **options) == (part, 2)


def test_bits_of_another_shape_are_refused() -> None:
    rows = random_rows(10, 65, 1)
    values = values_of(rows)
    assert values is not None
    codes = encoded(values, rows)
    with pytest.raises(ValueError, match="codes must have 16 columns, found 15"):
        _kernels.StoredBits(65, values, codes[:, :15].copy())
    with pytest.raises(ValueError, match="values must have 130 items, found 129"):
        _kernels.StoredBits(65, values.reshape(-1)[:-1].copy(), codes)
    with pytest.raises(TypeError, match="values must hold float32"):
        _kernels.StoredBits(65, values.astype(np.float64), codes)
    stored = _kernels.StoredBits(65, values, codes)
    with pytest.raises(ValueError, match="vectors must have a row for every code"):
        stored.search(rows, 1, *outputs(10, 1), vectors=rows[1:])
    with pytest.raises(ValueError, match="out_rows must have at least"):
        stored.search(rows, 2, *outputs(10, 1))
    with pytest.raises(ValueError, match="mask must have at least 2 items"):
        stored.search(rows, 1, *outputs(10, 1), mask=b"\xff")
    with pytest.raises(ValueError, match="values must have 130 items"):
        _kernels.find_values(rows, values[:1].copy())
    with pytest.raises(ValueError, match="out_codes must have 160 items"):
        _kernels.encode_bits(values, rows, codes[1:].copy())
