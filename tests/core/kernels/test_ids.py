"""Finding and sorting ids against Python's own sorting, and arrays that lie."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels

INT, BYTES, TEXT = range(3)
Id = tuple[int, int | bytes]

# Few letters and long runs of them, so that ids share prefixes across the eight-byte chunks of the sort.
STRINGS = st.text("ab\0\xff", min_size=1, max_size=30).map(lambda text: text.encode("latin-1"))
IDS = st.one_of(
    st.tuples(st.just(INT), st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))),
    st.tuples(st.sampled_from([BYTES, TEXT]), STRINGS),
    st.tuples(st.just(TEXT), st.builds(lambda n, tail: b"x" * n + tail, st.integers(0, 40), STRINGS)),
)
U64 = st.one_of(st.integers(0, 50), st.integers(0, 2**64 - 1))


def as_var(ids: list[Id]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds, offsets and data of ids."""
    payloads = [struct.pack("<Q", value) if kind == INT else value for kind, value in ids]
    return (
        np.array([kind for kind, _ in ids], np.uint8),
        np.cumsum([0, *map(len, payloads)], dtype=np.uint64),
        np.frombuffer(b"".join(payloads), np.uint8),
    )


def sort_var(ids: list[Id]) -> np.ndarray:
    order = np.full(len(ids), 0xFFFFFFFF, np.uint32)
    _kernels.sort_ids_var(*as_var(ids), order)
    return order


@given(st.lists(IDS, max_size=60))
def test_sorting_orders_by_kind_then_value_and_is_stable(ids: list[Id]) -> None:
    assert sort_var(ids).tolist() == sorted(range(len(ids)), key=ids.__getitem__)


def test_sorting_many_ids_with_long_common_prefixes() -> None:
    rng = np.random.default_rng(5)
    ids = [
        (TEXT, b"synset-" * int(rng.integers(0, 4)) + b"%06d" % rng.integers(0, 3000)) for _ in range(5000)
    ]
    assert sort_var(ids).tolist() == sorted(range(len(ids)), key=ids.__getitem__)


def test_sorting_the_longest_ids_that_differ_in_the_last_byte_only() -> None:
    ids = [(BYTES, b"k" * 65534 + bytes([last])) for last in (3, 1, 2, 1)]
    assert sort_var(ids).tolist() == [1, 3, 2, 0]


@given(st.lists(U64, unique=True, max_size=60), st.lists(U64, max_size=40))
def test_lookup_u64_finds_exactly_the_ids_that_are_there(ids: list[int], others: list[int]) -> None:
    order = np.argsort(np.array(ids, np.uint64)).astype(np.uint32)
    queries = ids + others
    expected = [ids.index(query) if query in ids else -1 for query in queries]
    out = np.zeros(len(queries), np.int64)
    _kernels.lookup_u64(np.array(ids, np.uint64), order, np.array(queries, np.uint64), out)
    assert out.tolist() == expected


@given(st.lists(U64, unique=True, max_size=60).map(sorted), st.lists(U64, max_size=40))
def test_lookup_u64_needs_no_order_when_rows_ascend(ids: list[int], queries: list[int]) -> None:
    out = np.zeros(len(queries), np.int64)
    _kernels.lookup_u64(np.array(ids, np.uint64), None, np.array(queries, np.uint64), out)
    assert out.tolist() == [ids.index(query) if query in ids else -1 for query in queries]


@given(st.lists(IDS, unique=True, max_size=40), st.lists(IDS, max_size=30))
def test_lookup_var_finds_exactly_the_ids_that_are_there(ids: list[Id], others: list[Id]) -> None:
    queries = ids + others
    expected = [ids.index(query) if query in ids else -1 for query in queries]
    out = np.zeros(len(queries), np.int64)
    _kernels.lookup_var(*as_var(ids), sort_var(ids), *as_var(queries), out)
    assert out.tolist() == expected


@given(st.lists(IDS, unique=True, max_size=40).map(sorted), st.lists(IDS, max_size=30))
def test_lookup_var_needs_no_order_when_rows_ascend(ids: list[Id], queries: list[Id]) -> None:
    out = np.zeros(len(queries), np.int64)
    _kernels.lookup_var(*as_var(ids), None, *as_var(queries), out)
    assert out.tolist() == [ids.index(query) if query in ids else -1 for query in queries]


def test_an_integer_is_not_the_bytes_or_the_text_that_spell_it() -> None:
    ids = [(INT, 7), (BYTES, b"7"), (TEXT, b"7")]
    out = np.zeros(4, np.int64)
    _kernels.lookup_var(*as_var(ids), None, *as_var([*ids[::-1], (BYTES, struct.pack("<Q", 7))]), out)
    assert out.tolist() == [2, 1, 0, -1]


def test_lookups_refuse_an_order_that_leaves_the_rows() -> None:
    queries, out = np.array([1], np.uint64), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match="is row 3 of 3"):
        _kernels.lookup_u64(np.array([1, 2, 3], np.uint64), np.array([3, 3, 3], np.uint32), queries, out)
    ids = as_var([(INT, 1), (INT, 2), (INT, 3)])
    with pytest.raises(ValueError, match="is row 4294967295 of 3"):
        _kernels.lookup_var(*ids, np.full(3, 2**32 - 1, np.uint32), *as_var([(INT, 1)]), out)


@pytest.mark.parametrize(
    ("kinds", "offsets", "data", "message"),
    [
        ([TEXT], [0, 4], b"abc", "offsets 0 and 4 of value 0"),
        ([TEXT, TEXT], [0, 3, 1], b"abc", "offsets 3 and 1 of value 1"),
        ([TEXT], [2**63, 2**64 - 1], b"abc", "offsets"),
        ([3], [0, 3], b"abc", "id kind 3 of row 0"),
        ([INT], [0, 7], b"1234567", "an integer id has 7 bytes"),
        ([TEXT], [0, 1, 2], b"abc", "offsets must have 2 items"),
    ],
)
def test_ids_that_contradict_themselves_are_refused(
    kinds: list[int], offsets: list[int], data: bytes, message: str
) -> None:
    bad = np.array(kinds, np.uint8), np.array(offsets, np.uint64), data
    good = (INT, 5) if kinds[0] == INT else (TEXT, b"x")
    out = np.zeros(len(kinds), np.int64)
    with pytest.raises(ValueError, match=message):
        _kernels.sort_ids_var(*bad, np.zeros(len(kinds), np.uint32))
    with pytest.raises(ValueError, match=message):
        _kernels.lookup_var(*as_var([good]), None, *bad, out)
    with pytest.raises(ValueError, match=message):
        _kernels.lookup_var(*bad, None, *as_var([good]), np.zeros(1, np.int64))


def test_lookups_refuse_arrays_of_the_wrong_size() -> None:
    ids, out = np.zeros(3, np.uint64), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="order must have 3 items"):
        _kernels.lookup_u64(ids, np.zeros(2, np.uint32), np.zeros(2, np.uint64), out)
    with pytest.raises(ValueError, match="out must have 1 items"):
        _kernels.lookup_u64(ids, None, np.zeros(1, np.uint64), out)
    with pytest.raises(ValueError, match="out_order must have 1 items"):
        _kernels.sort_ids_var(*as_var([(INT, 1)]), np.zeros(2, np.uint32))


@given(st.integers(0, 2**32))
def test_arrays_of_noise_give_an_error_or_an_answer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(0, 9, 2)
    kinds, query_kinds = rng.integers(0, 4, n, np.uint8), rng.integers(0, 3, m, np.uint8)
    limit = int(rng.choice([20, 2**64 - 1]))
    offsets, query_offsets = (rng.integers(0, limit, k + 1, np.uint64) for k in (n, m))
    if rng.integers(2):
        offsets.sort()
    data = rng.bytes(20)
    order = rng.integers(0, n + 1, n, np.uint32)
    out = np.zeros(m, np.int64)
    with contextlib.suppress(ValueError):
        _kernels.sort_ids_var(kinds, offsets, data, np.zeros(n, np.uint32))
    with contextlib.suppress(ValueError):
        _kernels.lookup_var(kinds, offsets, data, order, query_kinds, query_offsets, data, out)
    with contextlib.suppress(ValueError):
        _kernels.lookup_u64(rng.integers(0, 5, n, np.uint64), order, rng.integers(0, 5, m, np.uint64), out)
    assert ((out >= -1) & (out < max(n, 1))).all()
