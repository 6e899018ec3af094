from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from iqdb_core import _kernels

VALUES = st.lists(st.one_of(st.binary(max_size=3), st.sampled_from([b"", b"a", b"ab", b"a\0", b"long" * 20])))


def packed(values: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    offsets = np.zeros(len(values) + 1, np.uint64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    return offsets, np.frombuffer(b"".join(values), np.uint8)


@given(VALUES, st.integers(0, 20))
def test_distinct_strings_are_numbered_by_first_appearance(values: list[bytes], room: int) -> None:
    codes = np.zeros(len(values), np.uint32)
    rows = np.zeros(room, np.uint32)
    distinct = list(dict.fromkeys(values))
    found = _kernels.dictionary_strings(*packed(values), codes, rows)
    if len(distinct) > room:
        assert found == -1
        return
    assert found == len(distinct)
    assert [distinct[code] for code in codes] == values
    assert [values[row] for row in rows[:found]] == distinct
    assert rows[:found].tolist() == [values.index(value) for value in distinct]


def test_many_strings_are_told_apart() -> None:
    values = [str(number % 5000).encode() for number in range(20_000)]
    codes = np.zeros(len(values), np.uint32)
    rows = np.zeros(5000, np.uint32)
    assert _kernels.dictionary_strings(*packed(values), codes, rows) == 5000
    assert codes.tolist() == [number % 5000 for number in range(20_000)]
    assert rows.tolist() == list(range(5000))


@given(VALUES.filter(bool), st.data())
def test_chosen_strings_are_copied_in_order(values: list[bytes], data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(values) - 1))), np.int64)
    expected = b"".join(values[row] for row in rows)
    out = np.zeros(len(expected), np.uint8)
    _kernels.gather_strings(*packed(values), rows, out)
    assert out.tobytes() == expected


@pytest.mark.parametrize(
    ("rows", "room", "problem"),
    [
        ([0, 2], 2, "row 2 is outside the 2 values"),
        ([-1], 2, "row -1 is outside"),
        ([0, 1], 2, "too short"),
        ([0, 1], 4, "too long"),
        ([], 1, "too long"),
    ],
)
def test_rows_and_room_that_do_not_fit_are_refused(rows: list[int], room: int, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        _kernels.gather_strings(*packed([b"a", b"bc"]), np.array(rows, np.int64), np.zeros(room, np.uint8))


@pytest.mark.parametrize("offsets", [[0, 2, 1], [0, 1, 4], [3, 3, 3], [2**64 - 1, 0, 1]])
def test_offsets_outside_the_data_are_refused(offsets: list[int]) -> None:
    strings = np.array(offsets, np.uint64), np.frombuffer(b"ab", np.uint8)
    with pytest.raises(ValueError, match="do not lie in order"):
        _kernels.dictionary_strings(*strings, np.zeros(2, np.uint32), np.zeros(2, np.uint32))
    with pytest.raises(ValueError, match="do not lie in order"):
        _kernels.gather_strings(*strings, np.array([0, 1]), np.zeros(2, np.uint8))


def test_arrays_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="out_codes"):
        _kernels.dictionary_strings(*packed([b"a", b"b"]), np.zeros(1, np.uint32), np.zeros(2, np.uint32))
    with pytest.raises(ValueError, match="offsets"):
        _kernels.dictionary_strings(
            np.zeros(0, np.uint64), np.zeros(0, np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        )
