"""CRC-32C against published values and a bit-by-bit reference, and the block checksums on it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    Crc32c = Callable[..., int]

BLOCK = 4096
PREFIX = 0x1234ABCD

either_way = pytest.mark.parametrize(
    "crc32c", [_kernels.crc32c, _kernels._crc32c_portable], ids=["fast", "tables"]
)


def reference(data: bytes, value: int = 0) -> int:
    """One bit at a time, from the polynomial."""
    crc = value ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def random_bytes(n: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, n, dtype=np.uint8).tobytes()


def block_sum(data: bytes, number: int) -> int:
    return _kernels.crc32c(data, _kernels.crc32c(struct.pack("<Q", number), PREFIX))


def checksums(data: bytes, first_block: int = 0) -> np.ndarray:
    out = np.zeros(-(-len(data) // BLOCK), np.uint32)
    _kernels.crc32c_blocks(data, PREFIX, first_block, out)
    return out


@either_way
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (
            bytes.fromhex(
                "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000"
            ),
            0xD9963A56,
        ),
    ],
)
def test_crc32c_gives_the_published_values(crc32c: Crc32c, data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


@either_way
def test_crc32c_equals_the_reference_for_every_length_and_alignment(crc32c: Crc32c) -> None:
    data = random_bytes(600)
    for start in range(9):
        for stop in [*range(start, start + 40), 511, 512, 513, 600]:
            assert crc32c(memoryview(data)[start:stop]) == reference(data[start:stop])


@either_way
def test_crc32c_equals_the_reference_around_the_lengths_of_interleaved_lanes(crc32c: Crc32c) -> None:
    data = random_bytes(3 * 4080 + 20)
    for n in (503, 504, 505, 1008, 4079, 4080, 4081, 4096, 4080 + 504, 2 * 4080 + 7, len(data)):
        assert crc32c(data[:n]) == reference(data[:n])


@either_way
@given(data=st.binary(max_size=2000), cut=st.integers(0, 2000))
def test_crc32c_of_two_pieces_chains(crc32c: Crc32c, data: bytes, cut: int) -> None:
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_a_block_checksum_covers_prefix_number_and_bytes(n: int) -> None:
    data = random_bytes(n)
    expected = [block_sum(data[i : i + BLOCK], 7 + i // BLOCK) for i in range(0, n, BLOCK)]
    assert checksums(data, first_block=7).tolist() == expected


def test_block_checksums_refuse_an_out_of_the_wrong_size() -> None:
    with pytest.raises(ValueError, match="out must have 2 items, found 1"):
        _kernels.crc32c_blocks(bytes(BLOCK + 1), 0, 0, np.zeros(1, np.uint32))


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 10, BLOCK, 10 * BLOCK + 1, 3000 * BLOCK + 17])
def test_whole_blocks_are_verified_and_marked(n: int, threads: int) -> None:
    data = random_bytes(n)
    crcs = checksums(data)
    verified = np.zeros(len(crcs), np.uint8)
    assert _kernels.verify_blocks(data, crcs, verified, PREFIX, 0, len(crcs), threads) == -1
    assert verified.all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_first_damaged_block_is_named_and_not_marked(threads: int) -> None:
    data = bytearray(random_bytes(3000 * BLOCK + 17))
    crcs = checksums(bytes(data))
    for damaged in (3000, 2999, 1400, 11):
        data[damaged * BLOCK + 5] ^= 1
        verified = np.zeros(len(crcs), np.uint8)
        assert _kernels.verify_blocks(data, crcs, verified, PREFIX, 0, len(crcs), threads) == damaged
        assert verified[:damaged].all()
        assert not verified[damaged]


def test_blocks_in_each_others_place_do_not_pass() -> None:
    first, second = random_bytes(BLOCK, 1), random_bytes(BLOCK, 2)
    crcs = checksums(first + second)[::-1].copy()
    assert _kernels.verify_blocks(second + first, crcs, np.zeros(2, np.uint8), PREFIX, 0, 2) == 0


def test_only_unverified_blocks_of_the_range_are_looked_at() -> None:
    data = bytearray(random_bytes(5 * BLOCK))
    crcs = checksums(bytes(data))
    for block in (0, 2, 4):
        data[block * BLOCK] ^= 0x80
    verified = np.array([0, 0, 1, 0, 0], np.uint8)
    assert _kernels.verify_blocks(data, crcs, verified, PREFIX, 1, 4) == -1
    assert verified.tolist() == [0, 1, 1, 1, 0]
    assert _kernels.verify_blocks(data, crcs, verified, PREFIX, 3, 3) == -1
    assert _kernels.verify_blocks(data, crcs, verified, PREFIX, 1, 5) == 4


@pytest.mark.parametrize(
    ("crcs", "verified", "first", "stop", "message"),
    [
        (1, 2, 0, 2, "crcs must have 2 items"),
        (2, 3, 0, 2, "verified must have 2 items"),
        (2, 2, 0, 3, "first and stop"),
        (2, 2, 2, 1, "first and stop"),
    ],
)
def test_verify_refuses_shapes_that_do_not_fit(
    crcs: int, verified: int, first: int, stop: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.verify_blocks(
            bytes(BLOCK + 1), np.zeros(crcs, np.uint32), np.zeros(verified, np.uint8), 0, first, stop
        )


def test_verify_refuses_marks_that_it_cannot_write() -> None:
    with pytest.raises(ValueError, match="verified must be a writable"):
        _kernels.verify_blocks(bytes(10), np.zeros(1, np.uint32), bytes(1), 0, 0, 1)


def test_verify_refuses_no_threads() -> None:
    with pytest.raises(ValueError, match="threads must be at least 1, found 0"):
        _kernels.verify_blocks(b"", np.zeros(0, np.uint32), bytearray(), 0, 0, 0, 0)
