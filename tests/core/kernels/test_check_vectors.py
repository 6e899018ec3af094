"""One look at stored vectors against what three separate kernels say of the same bytes."""

from __future__ import annotations

import numpy as np
import pytest

from iqdb_core import _kernels

BLOCK = 4096


def looked_at(
    data: bytes, crcs: np.ndarray, start: int, dim: int, n_rows: int, prefix: int = 7, first: int = 3
) -> tuple[int, np.ndarray, np.ndarray]:
    wrong = np.full(len(crcs), True)
    hashes = np.zeros((n_rows, 2), np.uint64)
    place = _kernels.check_vectors(data, prefix, first, crcs, start, dim, wrong, hashes)
    return place, wrong, hashes


@pytest.mark.parametrize("dim", [1, 3, 8, 100, 384, 1024, 1500, 40_000])
@pytest.mark.parametrize("start", [0, 4, 2052])
def test_hashes_checksums_and_numbers_are_those_of_the_separate_kernels(dim: int, start: int) -> None:
    generator = np.random.default_rng(dim + start)
    n_rows = 3 if dim > 2000 else 300_000 // (4 * dim)
    values = generator.standard_normal((n_rows, dim), np.float32)
    data = generator.bytes(start) + values.tobytes() + generator.bytes(20)
    crcs = np.empty(-(-len(data) // BLOCK), np.uint32)
    _kernels.crc32c_blocks(data, 7, 3, crcs)
    expected = np.empty((n_rows, 2), np.uint64)
    _kernels.hash_vectors(values, expected)

    place, wrong, hashes = looked_at(data, crcs, start, dim, n_rows)
    assert place == -1
    assert not wrong.any()
    assert np.array_equal(hashes, expected)

    crcs[[0, -1]] ^= 1
    _, wrong, hashes = looked_at(data, crcs, start, dim, n_rows)
    assert set(np.flatnonzero(wrong).tolist()) == {0, len(crcs) - 1}
    assert np.array_equal(hashes, expected)

    for at in {values.size - 1, values.size // 2, 0}:
        odd = values.copy()
        odd.reshape(-1)[[at, values.size - 1]] = np.nan, np.inf
        raw = data[:start] + odd.tobytes() + data[start + odd.nbytes :]
        assert looked_at(raw, crcs, start, dim, n_rows)[0] == at


@pytest.mark.parametrize(
    ("start", "dim", "n_rows"),
    [(0, 0, 1), (0, 1025, 1), (2, 1, 1), (4100, 1, 1), (4096, 1, 1), (0, 2**62, 1)],
)
def test_rows_that_are_not_within_the_data_are_refused(start: int, dim: int, n_rows: int) -> None:
    with pytest.raises(ValueError, match="data must hold a row"):
        looked_at(bytes(BLOCK), np.zeros(1, np.uint32), start, dim, n_rows)


def test_arrays_of_other_sizes_are_refused() -> None:
    crcs, wrong, hashes = np.zeros(1, np.uint32), np.zeros(1, np.bool_), np.zeros((1, 2), np.uint64)
    with pytest.raises(ValueError, match="crcs must have 2 items"):
        _kernels.check_vectors(bytes(BLOCK + 4), 0, 0, crcs, 0, 1, wrong, hashes)
    with pytest.raises(ValueError, match="out_wrong must have 1 items"):
        _kernels.check_vectors(bytes(BLOCK), 0, 0, crcs, 0, 1, np.zeros(2, np.bool_), hashes)
    with pytest.raises(ValueError, match="out_hashes must have two items a row"):
        _kernels.check_vectors(bytes(BLOCK), 0, 0, crcs, 0, 1, wrong, np.zeros(3, np.uint64))
    place = _kernels.check_vectors(b"", 0, 0, crcs[:0], 0, 1, wrong[:0], hashes[:0])
    assert place == -1
