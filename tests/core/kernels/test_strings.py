"""String columns against Python's bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Callable

STRINGS = st.one_of(st.text("ab\xe9\0", max_size=6), st.text(max_size=20)).map(str.encode)


def packed(values: list[bytes]) -> tuple[np.ndarray, bytes]:
    return np.cumsum([0, *map(len, values)], dtype=np.uint64), b"".join(values)


@given(st.lists(STRINGS, max_size=20), STRINGS)
def test_compare_strings_says_how_each_stands_to_the_needle(values: list[bytes], needle: bytes) -> None:
    out = np.full(len(values), 9, np.int8)
    _kernels.compare_strings(*packed(values), needle, out)
    assert out.tolist() == [(value > needle) - (value < needle) for value in values]


def test_bytes_compare_as_unsigned() -> None:
    out = np.zeros(2, np.int8)
    _kernels.compare_strings(*packed([b"\xff", b"\x01"]), b"\x7f", out)
    assert out.tolist() == [1, -1]


@given(st.lists(STRINGS, max_size=20), STRINGS)
def test_contains_strings_finds_the_needle_anywhere(values: list[bytes], needle: bytes) -> None:
    out = np.full(len(values), 9, np.uint8)
    _kernels.contains_strings(*packed(values), needle, out)
    assert out.tolist() == [needle in value for value in values]


def test_a_needle_across_two_values_is_in_neither() -> None:
    out = np.zeros(2, np.uint8)
    _kernels.contains_strings(*packed([b"xab", b"cdx"]), b"abcd", out)
    assert out.tolist() == [0, 0]


@pytest.mark.parametrize("function", [_kernels.compare_strings, _kernels.contains_strings])
@pytest.mark.parametrize("offsets", [[0, 4], [2, 1], [2**64 - 1, 2**64 - 1]])
def test_offsets_outside_the_data_are_refused(function: Callable[..., None], offsets: list[int]) -> None:
    out = np.zeros(1, np.int8 if function is _kernels.compare_strings else np.uint8)
    with pytest.raises(ValueError, match=f"offsets {offsets[0]} and {offsets[1]} of value 0"):
        function(np.array(offsets, np.uint64), b"abc", b"a", out)


@pytest.mark.parametrize("function", [_kernels.compare_strings, _kernels.contains_strings])
def test_an_out_of_the_wrong_size_is_refused(function: Callable[..., None]) -> None:
    out = np.zeros(2, np.int8 if function is _kernels.compare_strings else np.uint8)
    with pytest.raises(ValueError, match="out must have 1 items"):
        function(*packed([b"a"]), b"a", out)
