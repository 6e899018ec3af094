"""Decimal text to floats and back, against exact fractions."""

from __future__ import annotations

import json
import math
import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Callable

FLT_MAX = float(np.finfo(np.float32).max)
HALF_ABOVE_MAX = Fraction(FLT_MAX) + Fraction(2**103)  # what rounds to infinity starts here

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?\Z"),
    FLOATS.map(lambda x: repr(float(x))),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)

either_way = pytest.mark.parametrize("portable", [False, True], ids=["usual", "c-library"])


def nearest_f32(text: str) -> float | None:
    """The float32 nearest to a decimal number, ties to even; None beyond the largest."""
    exact = abs(Fraction(text))
    sign = -1.0 if text.startswith("-") else 1.0
    if exact >= HALF_ABOVE_MAX:
        return None
    # Powers of two around the number, then the multiple of the unit in the last place; Fraction rounds
    # halves to even.
    exponent = -126
    while Fraction(2) ** (exponent + 1) <= exact:
        exponent += 1
    unit = Fraction(2) ** (exponent - 23)
    return sign * float(round(exact / unit) * unit)


def same(a: float | None, b: float | None) -> bool:
    """Equal with the sign of zero."""
    if a is None or b is None:
        return a is b
    return a == b and math.copysign(1, a) == math.copysign(1, b)


def halfway(bits: int) -> Fraction:
    """The point between a positive float32 and the next."""
    low, high = (struct.unpack("<f", struct.pack("<I", bits + i))[0] for i in (0, 1))
    return (Fraction(low) + Fraction(high)) / 2


def decimal(value: Fraction) -> str:
    """All digits of a fraction whose denominator is a power of two."""
    places = value.denominator.bit_length()
    digits = str(value * 10**places).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}"


@either_way
@given(text=NUMBERS)
@example(text="0")
@example(text="-0.0")
@example(text="1e-99")
@example(text="-1e-46")
@example(text="1e99")
@example(text="3.4028235e38")
@example(text="340282356779733661637539395458142568447")
@example(text="340282356779733661637539395458142568448")
@example(text="1e-45")
@example(text="7e-46")
@example(text="1.1754943508222875e-38")
@example(text="0." + "0" * 60 + "1e60")
@example(text="123456789" * 6 + "e-40")
@example(text="1" + "0" * 300 + "e-300")
@example(text="9007199254740993")
@example(text="8.5e-1000000000000000000000")
def test_numbers_are_rounded_correctly_to_float32_and_float64(portable: bool, text: str) -> None:
    f32, f64 = _kernels._round_number(text, portable)
    expected = float(text)
    assert same(f64, None if math.isinf(expected) else expected)
    if abs(int(text.lower().partition("e")[2] or "0")) < 1000:
        assert same(f32, nearest_f32(text))
    else:
        assert f32 == 0


@either_way
@given(bits=st.integers(1, 0x7F7FFFFE), away=st.sampled_from([-1, 0, 1]), distance=st.integers(1, 60))
def test_numbers_close_to_halfway_between_floats_go_to_the_right_one(
    portable: bool, bits: int, away: int, distance: int
) -> None:
    point = halfway(bits)
    text = decimal(point + Fraction(away) * point / 2**distance / 2**20)
    assert same(_kernels._round_number(text, portable)[0], nearest_f32(text))


@pytest.mark.parametrize(
    "text", ["01", "-", "1.", ".5", "+1", "1e", "1e+", "0x1", "NaN", "-Infinity", "1_0", " 1 2", ""]
)
def test_what_json_does_not_call_a_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|superfluous"):
        _kernels._round_number(text, False)


@pytest.fixture(
    params=[_kernels.format_f32_json, _kernels._format_f32_json_portable], ids=["usual", "c-library"]
)
def format_f32_json(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    return request.param


@given(x=FLOATS)
@example(x=-0.0)
@example(x=float(np.float32(1e-45)))
@example(x=FLT_MAX)
@example(x=16777216.0)
@example(x=9.5367431640625e-07)
def test_a_formatted_float_is_json_reads_back_and_has_no_digit_too_many(x: float) -> None:
    for function in (_kernels.format_f32_json, _kernels._format_f32_json_portable):
        text = function(np.array([x], np.float32)).decode()[1:-1]
        back = json.loads(text)
        assert same(float(np.float32(back)), x)
        assert len(text) <= len(np.format_float_scientific(np.float32(x), trim="-"))


def test_formatting_writes_a_json_array(format_f32_json: Callable[..., bytes]) -> None:
    assert format_f32_json(np.zeros(0, np.float32)) == b"[]"
    assert format_f32_json(np.array([0.1, -2, 1e30, -0.0], np.float32)) == b"[0.1,-2,1e+30,-0.0]"


@pytest.mark.parametrize("x", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_not_formatted(format_f32_json: Callable[..., bytes], x: float) -> None:
    with pytest.raises(ValueError, match="vector must be finite"):
        format_f32_json(np.array([1, x], np.float32))
