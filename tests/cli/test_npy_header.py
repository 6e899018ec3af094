from __future__ import annotations

import contextlib
import io
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_cli.inputs.npy_header import MAGIC, NpyHeaderError, read_npy_header

TYPES = ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "|i1", "<i2", "<i4", "<i8", ">i4", ">i8"]
TYPES += ["|u1", "<u2", "<u4", "<u8", ">u2", ">u8"]


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version, allow_pickle=True)
    return stream.getvalue()


def with_header(text: str, *, version: tuple[int, int] = (1, 0), data: bytes = b"") -> bytes:
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text.encode()))
    return MAGIC + bytes(version) + length + text.encode() + data


def problem(raw: bytes) -> str:
    with pytest.raises(NpyHeaderError) as caught:
        read_npy_header(io.BytesIO(raw))
    return str(caught.value)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_type_and_version_is_read_as_numpy_reads_it(dtype: Any, version: Any) -> None:
    array = (np.arange(12).reshape(3, 4) - (0 if "u" in dtype else 5)).astype(dtype)
    raw = npy(array, version)
    stream = io.BytesIO(raw)
    header = read_npy_header(stream)
    assert header.dtype == dtype
    assert (header.rows, header.dim, header.fortran_order) == (3, 4, False)
    assert header.data_offset == stream.tell() == len(raw) - array.nbytes
    header.check_data_bytes(array.nbytes)
    assert list(header.to_float32(stream.read())) == array.astype(np.float32).ravel().tolist()


def test_fortran_order_is_told() -> None:
    header = read_npy_header(io.BytesIO(npy(np.asfortranarray(np.zeros((3, 4), np.float32)))))
    assert header.fortran_order
    assert header.shape == (3, 4)


def test_one_dimension_is_one_row() -> None:
    header = read_npy_header(io.BytesIO(npy(np.zeros(5))))
    assert (header.rows, header.dim) == (1, 5)


def test_float64_beyond_float32_becomes_infinite() -> None:
    raw = npy(np.array([1e300, -1e300, 1.0]))
    stream = io.BytesIO(raw)
    header = read_npy_header(stream)
    assert list(header.to_float32(stream.read())) == [np.inf, -np.inf, 1.0]


def test_pickled_objects_are_refused_before_anything_is_read() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("a pickle was loaded",))

    array = np.array([Bomb()], dtype=object)
    assert "pickled Python objects" in problem(npy(array))
    assert "does not begin as a .npy file" in problem(pickle.dumps([1, 2]))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 2, 2)), "has 3 dimensions 2 x 2 x 2, expected 1 or 2"),
        (np.array(1.0), "has 0 dimensions"),
        (np.zeros(3, np.complex64), "element type '<c8'"),
        (np.zeros(3, np.bool_), "element type '|b1'"),
        (np.array(["a"]), "element type '<U1'"),
        (np.zeros(3, np.longdouble), "element type '<f16'"),
        (np.zeros(3, "datetime64[s]"), "element type '<M8[s]'"),
        (np.zeros(3, [("a", "<f4"), ("b", "<f4")]), "records of several fields"),
    ],
)
def test_other_arrays_are_refused_with_what_was_found(array: Any, reason: Any) -> None:
    assert reason in problem(npy(array))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "ends inside its header"),
        (MAGIC + b"\x01", "ends inside its header"),
        (MAGIC + b"\x01\x00\x40\x00{", "ends inside its header"),
        (MAGIC + b"\x04\x00", "has .npy version 4.0"),
        (MAGIC + b"\x02\x00\xff\xff\xff\xff", "has a header of 4294967295 bytes"),
        (with_header("{"), "not a Python literal"),
        (with_header("(" * 5000), "not a Python literal"),
        (with_header("__import__('os').system('true')"), "not a Python literal"),
        (
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), '\\d': 1}"),
            "not a Python literal",
        ),
        (with_header("[]"), "other keys"),
        (with_header("{'descr': '<f4', 'shape': (3,)}"), "other keys"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'x': 1}"), "other keys"),
        (with_header("{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}"), "neither True nor False"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': [3]}"), "not a tuple of sizes"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}"), "not a tuple of sizes"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}"), "not a tuple of sizes"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2**9,)}"), "not a Python literal"),
        (with_header("{'descr': '|f4', 'fortran_order': False, 'shape': (3,)}"), "byte order open"),
        (with_header("{'descr': 4, 'fortran_order': False, 'shape': (3,)}"), "not text"),
        (
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9)}"),
            "more than any file can hold",
        ),
        (
            with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 4000},)}}"),
            "2^64 or more",
        ),
        (with_header("\xff", version=(3, 0)).replace(b"\xc3\xbf", b"\xff\xff"), "not UTF-8"),
    ],
)
def test_a_header_that_is_wrong_is_refused(raw: Any, reason: Any) -> None:
    assert reason in problem(raw)


def test_a_declared_size_must_be_the_size_that_is_there() -> None:
    header = read_npy_header(io.BytesIO(npy(np.zeros((3, 4), np.float32))))
    for found in (0, 47, 49):
        with pytest.raises(NpyHeaderError, match=f"3 x 4 <f4 = 48 bytes of data, found {found}"):
            header.check_data_bytes(found)


@given(st.binary(max_size=200))
def test_no_bytes_behind_the_magic_do_more_than_raise_the_error(raw: Any) -> None:
    for prefix in (MAGIC, MAGIC + b"\x01\x00", MAGIC + b"\x01\x00\x40\x00"):
        with contextlib.suppress(NpyHeaderError):
            read_npy_header(io.BytesIO(prefix + raw))
