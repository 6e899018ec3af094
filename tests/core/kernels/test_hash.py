"""The hashes of the content digest against the xxhash package."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = st.lists(
    st.one_of(
        st.tuples(st.just(0), st.integers(0, 2**64 - 1).map(lambda x: struct.pack("<Q", x))),
        st.tuples(st.just(1), st.binary(min_size=1, max_size=80)),
        st.tuples(st.just(2), st.text(min_size=1, max_size=30).map(str.encode)),
    ),
    max_size=20,
)


def both(data: bytes) -> list[int]:
    """XXH64 of the data under the seeds 0 and 1."""
    return [xxhash.xxh64_intdigest(data, 0), xxhash.xxh64_intdigest(data, 1)]


def pairs(n: int) -> np.ndarray:
    return np.zeros((n, 2), np.uint64)


def packed(values: list[bytes]) -> tuple[np.ndarray, bytes]:
    return np.cumsum([0, *map(len, values)], dtype=np.uint64), b"".join(values)


def added(start: np.ndarray, rows: list[int], values: list[bytes]) -> list[list[int]]:
    """What `start` becomes when the hash of each value is added to its row."""
    sums = [[int(x) for x in row] for row in start]
    for row, value in zip(rows, values, strict=True):
        sums[row] = [(x + y) % 2**64 for x, y in zip(sums[row], both(value), strict=True)]
    return sums


@given(st.binary(max_size=300))
def test_hash_bytes_is_xxh64_under_both_seeds(data: bytes) -> None:
    assert list(_kernels.hash_bytes(data)) == both(data)


def test_hash_bytes_is_xxh64_for_every_short_length_and_alignment() -> None:
    data = bytes(range(256)) * 2
    for start in range(9):
        for n in range(140):
            assert list(_kernels.hash_bytes(memoryview(data)[start : start + n])) == both(
                data[start : start + n]
            )


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (5, 3), (3000, 384)])
def test_hash_vectors_hashes_the_bytes_of_each_row(shape: tuple[int, int], threads: int) -> None:
    vectors = np.random.default_rng(3).standard_normal(shape, np.float32)
    out = pairs(shape[0])
    _kernels.hash_vectors(vectors, out, threads)
    assert out.tolist() == [both(row.tobytes()) for row in vectors]


@pytest.mark.parametrize("variant", _kernels.variants())
def test_every_variant_hashes_rows_of_any_length_and_number(variant: str) -> None:
    before = _kernels.variant()
    _kernels.set_variant(variant)
    try:
        for dim in (*range(1, 36), 128, 131):
            vectors = np.random.default_rng(dim).standard_normal((8, dim), np.float32)
            for n in range(9):
                out = pairs(n)
                _kernels.hash_vectors(vectors[:n], out)
                assert out.tolist() == [both(row.tobytes()) for row in vectors[:n]]
    finally:
        _kernels.set_variant(before)


def test_hash_vectors_tells_zero_from_minus_zero() -> None:
    out = pairs(2)
    _kernels.hash_vectors(np.array([[0.0], [-0.0]], np.float32), out)
    assert out[0].tolist() != out[1].tolist()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_integer_ids_are_hashed_with_their_kind(ids: list[int]) -> None:
    out = pairs(len(ids))
    _kernels.hash_ids_u64(np.array(ids, np.uint64), out)
    assert out.tolist() == [both(b"\0" + struct.pack("<Q", x)) for x in ids]


@given(IDS)
def test_ids_of_all_kinds_are_hashed_with_their_kind(ids: list[tuple[int, bytes]]) -> None:
    out = pairs(len(ids))
    _kernels.hash_ids_var(bytes(kind for kind, _ in ids), *packed([data for _, data in ids]), out)
    assert out.tolist() == [both(bytes([kind]) + data) for kind, data in ids]


@given(st.data())
def test_values_are_hashed_behind_the_prefix_and_added_to_their_rows(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([0, 1, 2, 8]))
    prefix = data.draw(st.binary(max_size=40) | st.binary(min_size=505, max_size=520))
    n = data.draw(st.integers(1, 8))
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=12))
    values = [data.draw(st.binary(min_size=width, max_size=width)) for _ in rows]
    out = np.random.default_rng(n).integers(0, 2**64, (n, 2), np.uint64)
    expected = added(out, rows, [prefix + value for value in values])
    _kernels.hash_values(prefix, b"".join(values), width, np.array(rows, np.uint32), out)
    assert out.tolist() == expected


@given(st.data())
def test_strings_are_hashed_behind_the_prefix_and_added_to_their_rows(data: st.DataObject) -> None:
    prefix = data.draw(st.binary(max_size=40) | st.binary(min_size=505, max_size=520))
    n = data.draw(st.integers(1, 8))
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=8))
    values = [data.draw(st.binary(max_size=60)) * data.draw(st.sampled_from([1, 40])) for _ in rows]
    out = pairs(n)
    expected = added(out, rows, [prefix + value for value in values])
    _kernels.hash_strings(prefix, *packed(values), np.array(rows, np.uint32), out)
    assert out.tolist() == expected


def test_values_without_rows_belong_to_one_row_each() -> None:
    numbers, nulls, strings = pairs(3), pairs(3), pairs(3)
    _kernels.hash_values(b"p", np.array([5, 6, 7], "<i8").view(np.uint8), 8, None, numbers)
    assert numbers.tolist() == [both(b"p" + struct.pack("<q", x)) for x in (5, 6, 7)]
    _kernels.hash_values(b"p", b"", 0, None, nulls)
    assert nulls.tolist() == [both(b"p")] * 3
    _kernels.hash_strings(b"p", *packed([b"", b"x", b"yz"]), None, strings)
    assert strings.tolist() == [both(b"p"), both(b"px"), both(b"pyz")]


@given(st.integers(0, 30))
def test_combine_digest_hashes_the_three_parts_and_sums_the_records(n: int) -> None:
    parts = np.random.default_rng(n).integers(0, 2**64, (3, n, 2), np.uint64)
    expected = [
        [xxhash.xxh64_intdigest(struct.pack("<3Q", *parts[:, row, seed].tolist()), seed) for seed in (0, 1)]
        for row in range(n)
    ]
    out = pairs(n)
    sums = tuple(sum(record[seed] for record in expected) % 2**64 for seed in (0, 1))
    assert _kernels.combine_digest(*parts, out) == sums
    assert out.tolist() == expected
    assert _kernels.combine_digest(*parts, None) == sums


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: _kernels.hash_vectors(np.zeros((3, 2), np.float32), pairs(2)),
            "out must have one row a vector",
        ),
        (lambda: _kernels.hash_vectors(np.zeros(3, np.float32), pairs(3)), "vectors must be a 2-D buffer"),
        (
            lambda: _kernels.hash_vectors(np.zeros((1, 2), np.float32), pairs(1), 0),
            "threads must be at least 1",
        ),
        (lambda: _kernels.hash_ids_u64(np.zeros(3, np.uint64), pairs(2)), "out must have 6 items"),
        (lambda: _kernels.hash_values(b"", bytes(9), 8, None, pairs(1)), "values must have 8 items"),
        (lambda: _kernels.hash_values(b"", bytes(16), 8, None, pairs(3)), "one row a value"),
        (
            lambda: _kernels.hash_values(b"", bytes(8), 8, np.zeros(2, np.uint32), pairs(3)),
            "rows must have 1 items",
        ),
        (
            lambda: _kernels.hash_values(b"", bytes(2), 1, np.array([0, 3], np.uint32), pairs(3)),
            "row 3 of value 1",
        ),
        (
            lambda: _kernels.hash_strings(b"", *packed([b"a"]), np.array([1], np.uint32), pairs(1)),
            "row 1 of value 0",
        ),
        (
            lambda: _kernels.hash_strings(b"", np.zeros(0, np.uint64), b"", None, pairs(0)),
            "offsets must have at least 1",
        ),
        (
            lambda: _kernels.hash_strings(b"", np.array([0, 9], np.uint64), b"abc", None, pairs(1)),
            "offsets 0 and 9",
        ),
        (
            lambda: _kernels.hash_ids_var(b"\3", np.array([0, 1], np.uint64), b"a", pairs(1)),
            "id kind 3 of row 0",
        ),
        (
            lambda: _kernels.hash_ids_var(b"\1", np.array([0, 1, 1], np.uint64), b"a", pairs(1)),
            "offsets must have 2",
        ),
        (lambda: _kernels.combine_digest(pairs(2), pairs(1), pairs(2), None), "vec_h must have 4 items"),
        (lambda: _kernels.combine_digest(pairs(2), pairs(2), pairs(2), pairs(3)), "out must have 4 items"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
