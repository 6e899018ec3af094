"""The canonical distances against float64 arithmetic written out here, in every variant."""

from __future__ import annotations

import array
import contextlib
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

COSINE, DOT, EUCLIDEAN, MANHATTAN, HAMMING = METRICS = range(5)
VARIANTS = _kernels.variants()


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    """Use the kernels of that name inside the block."""
    before = _kernels.variant()
    _kernels.set_variant(name)
    try:
        yield
    finally:
        _kernels.set_variant(before)


def lanes(terms: np.ndarray) -> float:
    """Sum float64 terms in the documented order: eight lanes, then a fixed tree."""
    lane = [0.0] * 8
    for i, term in enumerate(terms.tolist()):
        lane[i % 8] += term
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]))


def exact(metric: int, q32: np.ndarray, x32: np.ndarray) -> float:
    """The canonical distance, bit for bit, in plain float64."""
    q, x = q32.astype(np.float64), x32.astype(np.float64)
    if metric == COSINE:
        product = lanes(q * q) * lanes(x * x)
        return 1.0 if product == 0.0 else min(max(1.0 - lanes(q * x) / math.sqrt(product), 0.0), 2.0)
    if metric == DOT:
        return 0.0 - lanes(q * x)
    if metric == EUCLIDEAN:
        return math.sqrt(lanes((q - x) * (q - x)))
    if metric == MANHATTAN:
        return lanes(np.abs(q - x))
    return float(np.count_nonzero(q32.view(np.uint32) != x32.view(np.uint32)))


def kernel(metric: int, query: np.ndarray, x: np.ndarray) -> np.ndarray:
    out = np.empty(len(x))
    _kernels.distances(x, np.arange(len(x)), query, metric, out)
    return out


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_those_of_the_documented_order_of_operations(name: str, metric: int) -> None:
    rng = np.random.default_rng(metric)
    with variant(name):
        for dim in range(1, 71):
            x = rng.standard_normal((7, dim), dtype=np.float32)
            query = rng.standard_normal(dim, dtype=np.float32)
            query[::3] = x[2, ::3]
            assert kernel(metric, query, x).tolist() == [exact(metric, query, row) for row in x]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e-20, 1.0, 1e20, 1e30, 1e38, 3e38])
def test_extreme_magnitudes_keep_their_precision(metric: int, scale: float) -> None:
    rng = np.random.default_rng(3)
    x = (rng.uniform(-1, 1, (20, 33)) * scale).astype(np.float32)
    query = (rng.uniform(-1, 1, 33) * scale).astype(np.float32)
    expected = [exact(metric, query, row) for row in x]
    for name in VARIANTS:
        with variant(name):
            assert kernel(metric, query, x).tolist() == expected


@given(
    st.integers(0, 4),
    st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=70,
    ),
)
def test_any_finite_vectors_have_the_same_distance_in_every_variant(
    metric: int, pairs: list[tuple[float, float]]
) -> None:
    query = np.array([a for a, _ in pairs], dtype=np.float32)
    x = np.array([[b for _, b in pairs]], dtype=np.float32)
    expected = [exact(metric, query, x[0])]
    for name in VARIANTS:
        with variant(name):
            assert kernel(metric, query, x).tolist() == expected


def test_a_zero_vector_is_at_cosine_distance_one() -> None:
    x = np.array([[0, 0, 0], [1, 2, 3]], dtype=np.float32)
    assert kernel(COSINE, np.zeros(3, np.float32), x).tolist() == [1.0, 1.0]
    assert kernel(COSINE, x[1], x).tolist() == [1.0, 0.0]


def test_the_dot_product_distance_is_never_minus_zero() -> None:
    x = np.array([[0.0, 1.0], [-0.0, 0.0]], dtype=np.float32)
    out = kernel(DOT, np.array([1.0, 0.0], np.float32), x)
    assert np.signbit(out).tolist() == [False, False]


def test_hamming_tells_the_two_zeros_apart() -> None:
    x = np.array([[0.0, -0.0, 1.0]], dtype=np.float32)
    assert kernel(HAMMING, np.array([-0.0, -0.0, 1.0], np.float32), x).tolist() == [1.0]


def test_a_non_finite_component_gives_no_nan() -> None:
    x = np.array([[np.nan, 1.0], [np.inf, 1.0]], dtype=np.float32)
    for metric in METRICS:
        assert not np.isnan(kernel(metric, np.ones(2, np.float32), x)).any()


def test_distances_take_any_contiguous_buffer() -> None:
    x = memoryview(array.array("f", range(12))).cast("B").cast("f", [4, 3])
    out = array.array("d", [0.0] * 2)
    _kernels.distances(x, array.array("q", [3, 0]), array.array("f", [0, 1, 2]), MANHATTAN, out)
    assert out.tolist() == [27.0, 0.0]


def test_distances_refuse_a_row_out_of_range() -> None:
    x = np.zeros((3, 2), np.float32)
    for row in (3, -1, 2**62):
        with pytest.raises(ValueError, match=rf"rows must be rows of the 3 vectors, found {row}"):
            _kernels.distances(x, np.array([0, row]), x[0], DOT, np.empty(2))


def test_distances_refuse_buffers_that_do_not_fit() -> None:
    x = np.zeros((3, 2), np.float32)
    rows = np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="vectors must have 3 columns, found 2"):
        _kernels.distances(x, rows, np.zeros(3, np.float32), DOT, np.empty(2))
    with pytest.raises(ValueError, match="out must have 2 items, found 3"):
        _kernels.distances(x, rows, x[0], DOT, np.empty(3))
    with pytest.raises(ValueError, match="metric must be 0 to 4, found 5"):
        _kernels.distances(x, rows, x[0], 5, np.empty(2))
    with pytest.raises(TypeError, match="vectors must hold float32 items, found items of format 'd'"):
        _kernels.distances(x.astype(np.float64), rows, x[0], DOT, np.empty(2))
    with pytest.raises(TypeError, match="vectors must hold float32 items, found items of format '>f'"):
        _kernels.distances(x.astype(">f4"), rows, x[0], DOT, np.empty(2))
    with pytest.raises(ValueError, match="vectors must be a C-contiguous buffer"):
        _kernels.distances(
            np.zeros((4, 3), np.float32).T[:3], rows, np.zeros(4, np.float32), DOT, np.empty(2)
        )
    with pytest.raises(ValueError, match="out must be a writable C-contiguous buffer"):
        _kernels.distances(x, rows, x[0], DOT, bytes(16))
    with pytest.raises(TypeError):
        _kernels.distances([[0.0, 1.0]], rows, x[0], DOT, np.empty(2))


@pytest.mark.parametrize("name", VARIANTS)
def test_check_finite_finds_the_first_component_that_is_not(name: str) -> None:
    with variant(name):
        assert _kernels.check_finite(np.empty(0, np.float32)) == -1
        for size in (1, 7, 64, 1000):
            x = np.full(size, np.finfo(np.float32).max, np.float32)
            x[::2] = -1e-45
            assert _kernels.check_finite(x) == -1
            for bad in (np.nan, np.inf, -np.inf):
                for place in {0, size // 2, size - 1}:
                    y = x.copy()
                    y[place] = bad
                    y[-1] = bad
                    assert _kernels.check_finite(y) == place


def test_check_finite_takes_a_matrix() -> None:
    x = np.zeros((3, 5), np.float32)
    x[1, 2] = np.inf
    assert _kernels.check_finite(x) == 7


def test_a_variant_that_does_not_exist_is_refused() -> None:
    assert VARIANTS[0] == "baseline"
    with pytest.raises(ValueError, match="no kernels named 'mmx' run on this CPU; there are: baseline"):
        _kernels.set_variant("mmx")


def import_with(kernels: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from iqdb_core import _kernels; print(_kernels.variant())"],
        env={**os.environ, "IQDB_KERNELS": kernels},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_chooses_the_variant() -> None:
    for name in VARIANTS:
        assert import_with(name).stdout.strip() == name
    assert import_with("").stdout.strip() == VARIANTS[-1]


def test_an_unknown_variant_in_the_environment_is_an_import_error() -> None:
    result = import_with("mmx")
    assert result.returncode == 1
    assert "ImportError: IQDB_KERNELS: no kernels named 'mmx' run on this CPU; there are: " in result.stderr
