"""A vector as bytes and a frame out of its parts, against plain Python."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels


@pytest.mark.parametrize(
    "vector",
    [
        np.arange(5, dtype=np.float32),
        array("f", [0, -0.0, 1e-45, 3.4e38, 5]),
        memoryview(np.ones(5, np.float32)),
        np.ones((3, 5), np.float32)[1],
    ],
)
def test_a_plain_vector_is_copied(vector: Any) -> None:
    assert _kernels.copy_vector(vector, 5) == bytes(memoryview(vector).cast("B"))


@pytest.mark.parametrize(
    "vector",
    [
        None,
        "text",
        b"12345678901234567890",
        [1.0] * 5,
        np.ones(5),
        np.ones(5, np.int32),
        np.ones(5, ">f4"),
        np.ones(4, np.float32),
        np.ones(6, np.float32),
        np.ones(0, np.float32),
        np.ones((1, 5), np.float32),
        np.ones(10, np.float32)[::2],
        np.array([1, 2, 3, 4, np.nan], np.float32),
        np.array([-np.inf, 2, 3, 4, 5], np.float32),
    ],
)
def test_everything_else_is_left_to_others(vector: Any) -> None:
    assert _kernels.copy_vector(vector, 5) is None


def test_an_empty_vector_is_none_of_dimension_zero() -> None:
    assert _kernels.copy_vector(np.ones(0, np.float32), 0) is None


def test_what_is_no_number_of_components_is_refused() -> None:
    with pytest.raises(TypeError):
        _kernels.copy_vector(np.ones(5, np.float32), -1)


@given(
    st.binary(min_size=40, max_size=40),
    st.lists(st.binary(max_size=50), max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_a_frame_is_its_header_its_checksum_and_its_parts(
    header: bytes, parts: list[bytes], seed: int
) -> None:
    body = b"".join(parts)
    crc = _kernels.crc32c(body, _kernels.crc32c(header[:36], seed))
    assert _kernels.encode_frame(header, parts, seed) == header[:36] + struct.pack("<I", crc) + body


def test_a_large_frame_is_encoded_like_a_small_one() -> None:
    part = np.arange(100_000, dtype=np.uint32).view(np.uint8)
    header = bytes(range(40))
    frame = _kernels.encode_frame(header, (part, b"end"), 7)
    crc = _kernels.crc32c(bytes(part) + b"end", _kernels.crc32c(header[:36], 7))
    assert frame == header[:36] + struct.pack("<I", crc) + bytes(part) + b"end"


@pytest.mark.parametrize(
    ("header", "parts", "error"),
    [
        (bytes(39), [], ValueError),
        (bytes(41), [], ValueError),
        (bytes(40), [1], TypeError),
        (bytes(40), ["text"], TypeError),
        (bytes(40), [b"whole", None], TypeError),
        (bytes(40), 5, TypeError),
        (bytes(40), [np.ones(8, np.uint8)[::2]], ValueError),
        (bytes(40), [np.ones(8, np.uint8), np.ones(2, object)], (TypeError, ValueError)),
    ],
)
def test_other_parts_are_refused(header: Any, parts: Any, error: Any) -> None:
    with pytest.raises(error):
        _kernels.encode_frame(header, parts, 0)
