"""The header of a .npy file, read strictly and without NumPy.

Every declared size is compared with the bytes that are really there before anything is allocated, and
a header is data, never code: it has to be a Python literal with exactly the three known keys.
Format: NumPy enhancement proposal 1 and `numpy.lib.format`, versions 1.0, 2.0 and 3.0.
"""

from __future__ import annotations

import ast
import struct
import sys
from array import array
from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Protocol

    class Readable(Protocol):
        """What a header is read from: a binary stream."""

        def read(self, size: int, /) -> bytes:
            """Return at most `size` bytes, fewer only at the end."""
            ...


MAGIC = b"\x93NUMPY"
# numpy.lib.format refuses longer headers too unless it is told to trust the file.
MAX_HEADER_BYTES = 10_000
_STRUCT_CODES = {
    ("f", 2): "e", ("f", 4): "f", ("f", 8): "d",
    ("i", 1): "b", ("i", 2): "h", ("i", 4): "i", ("i", 8): "q",
    ("u", 1): "B", ("u", 2): "H", ("u", 4): "I", ("u", 8): "Q",
}  # fmt: skip


class NpyHeaderError(ValueError):
    """The bytes are not a .npy array of numbers that can be read. The message is a reason without a place."""


class NpyHeader(NamedTuple):
    """What a .npy file says about its array; `data_offset` is where the values start, in bytes."""

    kind: str  # "f", "i" or "u"
    item_bytes: int
    byte_order: str  # "<" or ">"
    shape: tuple[int, ...]
    fortran_order: bool
    data_offset: int

    @property
    def dtype(self) -> str:
        """The element type as NumPy spells it, such as `<f4`."""
        return f"{'|' if self.item_bytes == 1 else self.byte_order}{self.kind}{self.item_bytes}"

    @property
    def rows(self) -> int:
        """The number of vectors; a 1-D array is one vector."""
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def dim(self) -> int:
        """The number of components of each vector."""
        return self.shape[-1]

    @property
    def data_bytes(self) -> int:
        """The exact number of bytes that must follow the header."""
        return prod(self.shape) * self.item_bytes

    def check_data_bytes(self, found_bytes: int) -> None:
        """Compare the declared size with the bytes that are there.

        Raises:
            NpyHeaderError: the file is shorter or longer than its header says.
        """
        if found_bytes != self.data_bytes:
            raise NpyHeaderError(
                f"header declares {_shape_text(self.shape)} {self.dtype} = {self.data_bytes} bytes of data, "
                f"found {found_bytes}"
            )

    def to_float32(self, data: bytes | bytearray | memoryview) -> array[float]:
        """Convert values as they stand in the file (same order) to native float32.

        float64 and integers are rounded to the nearest float32; what lies beyond its range becomes
        infinite, which every reader of vectors refuses.
        """
        native = "<" if sys.byteorder == "little" else ">"
        if self.kind == "f" and self.item_bytes == 4:
            values = array("f")
            values.frombytes(data)
            if self.byte_order != native:
                values.byteswap()
            return values
        count = len(data) // self.item_bytes
        code = _STRUCT_CODES[self.kind, self.item_bytes]
        return array("f", struct.unpack(f"{self.byte_order}{count}{code}", data))


def read_npy_header(stream: Readable) -> NpyHeader:
    """Read and check a header; the stream then stands at the first value.

    Returns:
        The header of a 1-D or 2-D array of floats or integers. No size in it has been compared with
        the stream yet: see `NpyHeader.check_data_bytes`.

    Raises:
        NpyHeaderError: not a .npy file, an unknown version, pickled or structured values, other types
            than float16/32/64 and integers, other shapes than 1-D and 2-D.
    """
    start = _read_exactly(stream, 8, "it ends inside its header")
    if start[:6] != MAGIC:
        raise NpyHeaderError("does not begin as a .npy file does")
    major, minor = start[6], start[7]
    if (major, minor) not in {(1, 0), (2, 0), (3, 0)}:
        raise NpyHeaderError(f"has .npy version {major}.{minor}, expected 1.0, 2.0 or 3.0")
    length_format = "<H" if major == 1 else "<I"
    raw_length = _read_exactly(stream, struct.calcsize(length_format), "it ends inside its header")
    (length,) = struct.unpack(length_format, raw_length)
    if length > MAX_HEADER_BYTES:
        raise NpyHeaderError(f"has a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
    text = _read_exactly(stream, length, "it ends inside its header")
    return _parse(text, major, 8 + len(raw_length) + length)


def _read_exactly(stream: Readable, size: int, problem: str) -> bytes:
    parts = b""
    while len(parts) < size:
        part = stream.read(size - len(parts))
        if not part:
            raise NpyHeaderError(problem)
        parts += part
    return parts


def _parse(raw: bytes, major: int, data_offset: int) -> NpyHeader:
    try:
        text = raw.decode("utf-8" if major == 3 else "latin-1")
    except UnicodeDecodeError:
        raise NpyHeaderError("its header is not UTF-8") from None
    fields = _literal(text)
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise NpyHeaderError("its header has other keys than descr, fortran_order and shape")
    kind, item_bytes, byte_order = _parse_descr(fields["descr"])
    if not isinstance(fields["fortran_order"], bool):
        raise NpyHeaderError("fortran_order in its header is neither True nor False")
    shape = fields["shape"]
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise NpyHeaderError("shape in its header is not a tuple of sizes")
    if len(shape) not in {1, 2}:
        raise NpyHeaderError(f"has {len(shape)} dimensions {_shape_text(shape)}, expected 1 or 2")
    if prod(shape) * item_bytes > 2**63 - 1:
        raise NpyHeaderError(f"declares the shape {_shape_text(shape)}, more than any file can hold")
    return NpyHeader(kind, item_bytes, byte_order, shape, fields["fortran_order"], data_offset)


def _literal(text: str) -> object:
    # A backslash has no place in the header of a plain array, and in a literal it can make Python warn.
    if "\\" in text:
        raise NpyHeaderError("its header is not a Python literal")
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise NpyHeaderError("its header is not a Python literal") from None


def _parse_descr(descr: object) -> tuple[str, int, str]:
    if isinstance(descr, list):
        raise NpyHeaderError("holds records of several fields, expected one array of numbers")
    if not isinstance(descr, str):
        raise NpyHeaderError("descr in its header is not text")
    if "O" in descr:
        raise NpyHeaderError(
            "holds pickled Python objects, which are never read; expected an array of numbers"
        )
    order = descr[:1] if descr[:1] in {"<", ">", "|", "="} else ""
    kind, size = descr[len(order) : len(order) + 1], descr[len(order) + 1 :]
    item_bytes = int(size) if size in {"1", "2", "4", "8"} else 0
    if (kind, item_bytes) not in _STRUCT_CODES:
        raise NpyHeaderError(f"has element type {descr[:40]!r}, expected float16/32/64 or an integer type")
    if order in {"", "=", "|"}:
        if order == "|" and item_bytes > 1:
            raise NpyHeaderError(f"has element type {descr!r}, which leaves the byte order open")
        order = "<" if sys.byteorder == "little" else ">"
    return kind, item_bytes, order


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) if n < 2**64 else "2^64 or more" for n in shape[:8]) if shape else "()"
