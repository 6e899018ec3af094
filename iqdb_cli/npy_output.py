"""Writing .npy without NumPy."""

from __future__ import annotations

from collections.abc import Sequence


def npy_preamble(dtype: str | Sequence[tuple[str, str]], shape: tuple[int, ...]) -> bytes:
    """Return what stands before the values of a C-order array in a .npy file, version 1.0.

    Args:
        dtype: the element type as NumPy spells it (`<f4`), or the fields of a structured one.
        shape: the sizes of the array.
    """
    descr = dtype if isinstance(dtype, str) else list(dtype)
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode("ascii")
    # The values start at a multiple of 64 bytes; 10 bytes stand before the text, a line feed ends it.
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
