"""Exact search over codes finds what a scan of the vectors finds, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

COSINE, DOT, EUCLIDEAN, MANHATTAN = range(4)
METRICS = [COSINE, DOT, EUCLIDEAN]


class Found(NamedTuple):
    rows: np.ndarray
    distances: np.ndarray
    counts: np.ndarray
    scored: int = 0


class Encoded(NamedTuple):
    model: np.ndarray
    codes: np.ndarray
    norms: np.ndarray
    bounds: np.ndarray


@pytest.fixture(autouse=True)
def _restore_variant() -> Iterator[None]:
    before = _kernels.variant()
    yield
    _kernels.set_variant(before)


def encode(vectors: np.ndarray, metric: int, trained_on: np.ndarray | None = None) -> Encoded:
    n, dim = vectors.shape
    model = np.array(_kernels.train_codes(vectors if trained_on is None else trained_on, metric))
    codes = np.empty((n, -(-dim // 32) * 32), np.uint8)
    lengths, norms, bounds = np.empty(n, np.int32), np.empty(n, np.float32), np.empty((2, n), np.float32)
    _kernels.encode_codes(model, vectors, codes, lengths, norms, bounds)
    return Encoded(model, codes, norms, bounds)


def stored(encoded: Encoded, dim: int, metric: int, **options: Any) -> _kernels.StoredCodes:
    norms = encoded.norms if metric == DOT else None
    return _kernels.StoredCodes(metric, dim, encoded.model, encoded.codes, encoded.bounds, norms, **options)


def outputs(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shape = (len(queries), k)
    return np.empty(shape, np.int64), np.empty(shape, np.float64), np.empty(len(queries), np.int64)


def by_vectors(vectors: np.ndarray, queries: np.ndarray, metric: int, k: int, **options: Any) -> Found:
    rows, distances, counts = outputs(queries, k)
    assert _kernels.search_flat(vectors, queries, metric, k, rows, distances, counts, **options) == -1
    return Found(rows, distances, counts)


def by_codes(
    codes: _kernels.StoredCodes, vectors: np.ndarray, queries: np.ndarray, k: int, **options: Any
) -> Found:
    rows, distances, counts = outputs(queries, k)
    part, _, scored = codes.search(vectors, queries, k, rows, distances, counts, **options)
    assert part == 0
    return Found(rows, distances, counts, scored)


def assert_same(found: Found, wanted: Found) -> None:
    assert np.array_equal(found.counts, wanted.counts)
    assert np.array_equal(found.rows, wanted.rows)
    assert np.array_equal(found.distances.view(np.uint64), wanted.distances.view(np.uint64))


def check(
    vectors: np.ndarray,
    queries: np.ndarray,
    metric: int,
    k: int = 10,
    *,
    encoded: Encoded | None = None,
    **options: Any,
) -> Found:
    """Compare single queries and a batch; return the batch."""
    vectors, queries = vectors.astype(np.float32), queries.astype(np.float32)
    codes = stored(encoded or encode(vectors, metric), vectors.shape[1], metric)
    wanted = by_vectors(vectors, queries, metric, k, **options)
    found = by_codes(codes, vectors, queries, k, **options)
    assert_same(found, wanted)
    for i in range(min(len(queries), 5)):
        one = slice(i, i + 1)
        single = by_codes(codes, vectors, queries[one], k, **options)
        assert_same(single, Found(wanted.rows[one], wanted.distances[one], wanted.counts[one]))
    return found


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, n // 50), dim))
    return centres[generator.integers(0, len(centres), n)] + 0.3 * generator.standard_normal((n, dim))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 3, 31, 32, 33, 64, 100, 384])
def test_every_dimension_gives_the_hits_of_a_scan(metric: int, dim: int) -> None:
    vectors = clustered(700, dim)
    check(vectors, vectors[:40] + 0.05, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("variant", _kernels.variants())
def test_every_variant_and_number_of_threads_gives_the_same(metric: int, variant: str) -> None:
    vectors = clustered(9_000, 48)
    for threads in (1, 2, 5):
        _kernels.set_variant(variant)
        check(vectors, vectors[:21] + 0.05, metric, threads=threads)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.05, 0.5, 0.9, 1.0])
def test_a_mask_keeps_the_hits_among_its_rows(metric: int, kept: float) -> None:
    vectors = clustered(3_000, 40)
    chosen = np.random.default_rng(1).random(3_000) < kept
    mask = np.packbits(chosen, bitorder="little")
    found = check(vectors, vectors[:9] + 0.05, metric, mask=mask)
    assert chosen[found.rows[found.rows >= 0]].all()


@pytest.mark.parametrize("metric", METRICS)
def test_equal_distances_come_by_tie_key_then_row(metric: int) -> None:
    vectors = np.repeat(clustered(30, 20), 40, axis=0)
    keys = np.random.default_rng(2).integers(0, 7, len(vectors))
    check(vectors, vectors[::100], metric, k=25)
    check(vectors, vectors[::100], metric, k=25, tie_keys=keys)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("most", [-1.0, 0.0, 0.3, 1.0, 1.5, 2.0])
def test_a_maximal_distance_cuts_lists_short(metric: int, most: float) -> None:
    vectors = clustered(2_000, 24)
    check(vectors, vectors[:30], metric, max_distance=most)


@pytest.mark.parametrize("metric", METRICS)
def test_more_hits_than_rows_are_all_of_them(metric: int) -> None:
    vectors = clustered(50, 24)
    check(vectors, vectors[:8], metric, k=80)


@pytest.mark.parametrize("metric", METRICS)
def test_vectors_of_length_zero_have_their_place(metric: int) -> None:
    vectors = clustered(500, 24)
    vectors[::7] = 0.0
    queries = np.concatenate([np.zeros((2, 24)), vectors[:12], -vectors[:12]])
    check(vectors, queries, metric, k=60)
    check(np.zeros((300, 24)), queries, metric, k=60)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_and_queries_far_beyond_the_codes_reach_are_found(metric: int) -> None:
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((4_000, 32))
    trained_on = vectors[:1_000].astype(np.float32)
    vectors[::97] *= 1_000.0
    vectors[5] *= 1e12
    vectors[6, 3] = 1e20
    queries = np.concatenate([vectors[::500], 30.0 * vectors[:10], vectors[::97][:5]])
    encoded = encode(vectors.astype(np.float32), metric, trained_on)
    check(vectors, queries, metric, encoded=encoded)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e-10, 1e10, 1e18, 1e37])
def test_very_small_and_very_large_vectors_keep_their_hits(metric: int, size: float) -> None:
    vectors = size * clustered(800, 20)
    check(vectors, vectors[:15], metric)
    vectors[::2] /= size
    check(vectors, np.concatenate([vectors[:8], 0.5 * vectors[:8], vectors[:4] - vectors[4:8]]), metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("offset", [1.0, 100.0, 1e5])
def test_vectors_far_from_the_origin_keep_their_hits(metric: int, offset: float) -> None:
    vectors = clustered(2_000, 24) + offset
    check(vectors, vectors[:20] + 0.01, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_opposite_vectors_keep_their_hits(metric: int) -> None:
    vectors = clustered(1_000, 24)
    check(vectors, -vectors[:20], metric, k=200)
    check(np.abs(vectors), -np.abs(vectors[:20]), metric, k=200)


def test_few_vectors_are_compared() -> None:
    vectors = clustered(20_000, 64).astype(np.float32)
    for metric in METRICS:
        found = check(vectors, vectors[:16] + 0.01, metric)
        assert found.scored < 16 * 1_000


def test_codes_that_no_longer_fit_their_vectors_break_nothing_but_the_answer() -> None:
    generator = np.random.default_rng(4)
    vectors = clustered(1_000, 40).astype(np.float32)
    for metric in METRICS:
        encoded = encode(vectors, metric)
        hostile = encoded._replace(
            codes=generator.integers(0, 256, encoded.codes.shape).astype(np.uint8),
            bounds=np.frombuffer(generator.bytes(encoded.bounds.nbytes), np.float32).reshape(2, -1),
            norms=np.frombuffer(generator.bytes(encoded.norms.nbytes), np.float32),
        )
        found = by_codes(stored(hostile, 40, metric), vectors, vectors[:9], 5)
        assert ((found.rows >= -1) & (found.rows < 1_000)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_only_blocks_that_are_used_are_verified(metric: int) -> None:
    vectors = clustered(4_000, 32).astype(np.float32)
    encoded = encode(vectors, metric)
    crcs = {}
    for name, data in (("codes", encoded.codes), ("vectors", vectors)):
        crcs[name] = np.empty(-(-data.nbytes // 4096), np.uint32)
        _kernels.crc32c_blocks(data.view(np.uint8), 5, 0, crcs[name])
    verified = {name: np.zeros(len(table), np.uint8) for name, table in crcs.items()}
    codes = stored(encoded, 32, metric, code_blocks=(crcs["codes"], verified["codes"], 5))
    blocks = (crcs["vectors"], verified["vectors"], 5)
    wanted = by_vectors(vectors, vectors[:2], metric, 3)
    assert_same(by_codes(codes, vectors, vectors[:2], 3, vector_blocks=blocks), wanted)
    assert verified["codes"].all()
    assert not verified["vectors"].all()

    out = outputs(vectors[:1], 3)
    verified["codes"][:] = 0
    encoded.codes[2_000, 0] ^= 1
    block = 2_000 * 32 // 4096
    assert codes.search(vectors, vectors[:1], 3, *out, vector_blocks=blocks)[:2] == (1, block)
    encoded.codes[2_000, 0] ^= 1
    verified["vectors"][:] = 0
    vectors[0, 0] += 1.0
    assert codes.search(vectors, vectors[:1], 3, *out, vector_blocks=blocks)[:2] == (3, 0)


def test_arguments_that_do_not_fit_are_refused() -> None:
    vectors = clustered(20, 8).astype(np.float32)
    encoded = encode(vectors, DOT)
    with pytest.raises(ValueError, match="norms"):
        _kernels.StoredCodes(DOT, 8, encoded.model, encoded.codes, encoded.bounds)
    with pytest.raises(ValueError, match="bounds must have"):
        _kernels.StoredCodes(DOT, 8, encoded.model, encoded.codes, encoded.bounds[:1], encoded.norms)
    with pytest.raises(ValueError, match="another metric"):
        stored(encoded, 8, EUCLIDEAN)
    with pytest.raises(ValueError, match="manhattan"):
        stored(encoded, 8, MANHATTAN)
    with pytest.raises(ValueError, match="model must have"):
        stored(encoded, 9, DOT)
    codes = stored(encoded, 8, DOT)
    out = outputs(vectors[:1], 3)
    with pytest.raises(ValueError, match="a row for every code"):
        codes.search(vectors[:19], vectors[:1], 3, *out)
    with pytest.raises(ValueError, match="slots"):
        codes.search(vectors, vectors[:1], 4, *out)


@settings(max_examples=150)
@given(data=st.data())
def test_any_finite_vectors_give_the_hits_of_a_scan(data: st.DataObject) -> None:
    metric = data.draw(st.sampled_from(METRICS))
    dim = data.draw(st.integers(1, 40))
    n = data.draw(st.integers(1, 120))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    exponents = data.draw(st.sampled_from([0, 0, 1, 4, 20, 37]))
    sizes = 10.0 ** generator.uniform(-exponents, exponents, (n, 1))
    vectors = (sizes * generator.standard_normal((n, dim))).clip(-3e38, 3e38)
    vectors[generator.random(n) < data.draw(st.sampled_from([0.0, 0.3]))] = 0.0
    if data.draw(st.booleans()):
        vectors = np.round(vectors)
    vectors += data.draw(st.sampled_from([0.0, 0.0, 10.0, 1e6]))
    queries = np.concatenate(
        [
            vectors[generator.integers(0, n, 4)],
            generator.standard_normal((2, dim)),
            vectors[generator.integers(0, n, 2)] * generator.standard_normal((2, 1)),
        ]
    ).clip(-3e38, 3e38)
    options: dict[str, Any] = {"threads": data.draw(st.integers(1, 3))}
    if data.draw(st.booleans()):
        options["mask"] = np.packbits(generator.random(n) < 0.5, bitorder="little")
    if data.draw(st.booleans()):
        options["tie_keys"] = generator.integers(0, 4, n)
    _kernels.set_variant(data.draw(st.sampled_from(_kernels.variants())))
    check(vectors, queries, metric, k=data.draw(st.integers(1, 20)), **options)


@pytest.mark.parametrize("dim", [1, 3, 4, 31, 64, 130])
@pytest.mark.parametrize("n", [1, 4, 7, 50])
def test_codes_and_bounds_are_the_same_bits_on_every_cpu(dim: int, n: int) -> None:
    generator = np.random.default_rng(dim)
    vectors = generator.standard_normal((n, dim), np.float32)
    vectors[-1] *= 100  # beyond what codes reach
    stride = -(-dim // 32) * 32
    for metric in METRICS:
        model = np.array(_kernels.train_codes(vectors, metric))
        # In this order: each sum of squares is added up from the first component to the last.
        squares = np.zeros(n)
        for column in vectors.T.astype(np.float64):
            squares += column * column
        factors = np.ones(n) if metric == EUCLIDEAN else 1.0 / np.sqrt(squares)
        exact = (vectors * factors[:, None] - model[3:].astype("f4")) * model[1]
        expected = np.full((n, stride), 64, np.uint8)
        expected[:, :dim] = np.clip(np.rint(np.clip(exact, -63, 63)), -63, 63) + 64
        kept = set()
        for variant in _kernels.variants():
            _kernels.set_variant(variant)
            for threads in (1, 3):
                codes, lengths = np.empty((n, stride), np.uint8), np.empty(n, np.int32)
                norms, bounds = np.empty(n, np.float32), np.empty((2, n), np.float32)
                _kernels.encode_codes(model, vectors, codes, lengths, norms, bounds, threads)
                assert np.array_equal(codes, expected)
                assert np.array_equal(lengths, (expected.astype(np.int64) ** 2).sum(axis=1))
                kept.add(norms.tobytes() + bounds.tobytes())
        assert len(kept) == 1
