"""Row bitmaps as kernels take them: bit r & 7 of byte r >> 3 stands for row r. NumPy is optional."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_core import _kernels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.index.protocol import Buffer


class Bitmap:
    """A bitmap that one writer changes while readers may hold the bytes of an earlier state.

    `pin` says that a reader may hold `bits` from now on: the next change of an existing bit then goes
    to a copy. Setting bits beyond every row that a reader looks at needs no copy.
    """

    __slots__ = ("_pinned", "bits", "n_zeros")

    def __init__(self, n_rows: int, *, filled: bool) -> None:
        self.bits = bytearray(b"\xff" if filled else b"\0") * ((n_rows + 7) >> 3)
        self.n_zeros = 0
        """Rows cleared by `clear` or `clear_one`."""
        self._pinned = False

    def pin(self) -> None:
        """Keep the present `bits` as they are, for a reader that may hold them."""
        self._pinned = True

    def _own(self) -> bytearray:
        if self._pinned:
            self.bits = bytearray(self.bits)
            self._pinned = False
        return self.bits

    def reserve(self, n_rows: int) -> None:
        """Make room for rows up to `n_rows`; new bits are zero."""
        missing = ((n_rows + 7) >> 3) - len(self.bits)
        if missing > 0:
            # A new object: the old one cannot be resized while a reader has it exported.
            self.bits = self.bits + bytes(max(missing, len(self.bits)))
            self._pinned = False

    def is_set(self, row: int) -> bool:
        """Say whether the bit of `row` is 1."""
        return bool(self.bits[row >> 3] >> (row & 7) & 1)

    def clear_one(self, row: int) -> None:
        """Clear a bit that is 1."""
        self._own()[row >> 3] &= ~(1 << (row & 7)) & 0xFF
        self.n_zeros += 1

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Clear the bits of distinct rows, all of which are 1."""
        if not len(rows):
            return
        import numpy as np

        view = np.frombuffer(self._own(), np.uint8)
        np.bitwise_and.at(view, rows >> 3, ~(np.uint8(1) << (rows & 7).astype(np.uint8)))
        self.n_zeros += len(rows)

    def append_ones(self, start: int, stop: int) -> None:
        """Set the bits of new rows start..stop, for which there is room."""
        if stop - start == 1:
            self.bits[start >> 3] |= 1 << (start & 7)
            return
        import numpy as np

        view = np.frombuffer(self.bits, np.uint8)
        first = (start + 7) & -8
        last = stop & -8
        if first >= last:
            for row in range(start, stop):
                view[row >> 3] |= 1 << (row & 7)
            return
        view[first >> 3 : last >> 3] = 0xFF
        for row in (*range(start, first), *range(last, stop)):
            view[row >> 3] |= 1 << (row & 7)


def are_set(bits: bytearray, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of `rows` have their bit set."""
    import numpy as np

    view = np.frombuffer(bits, np.uint8)
    found: NDArray[np.bool_] = (view[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).astype(np.bool_)
    return found


def unpack(bits: bytes | bytearray | NDArray[np.uint8], start: int, stop: int) -> NDArray[np.bool_]:
    """Return the bits of rows start..stop as booleans."""
    import numpy as np

    view = np.frombuffer(bits, np.uint8)
    first = start & -8
    unpacked = np.unpackbits(view[first >> 3 : (stop + 7) >> 3], bitorder="little")
    rows: NDArray[np.bool_] = unpacked[start - first : stop - first].view(np.bool_)
    return rows


def count_ones(bits: Buffer, n_rows: int) -> int:
    """Return how many of the rows 0..n_rows have their bit set."""
    return _kernels.count_bits(bits, n_rows)


def rows_of(bits: bytes | bytearray, n_rows: int) -> list[int]:
    """Return the rows of 0..n_rows whose bit is set, ascending."""
    import numpy as np

    rows: list[int] = np.flatnonzero(unpack(bits, 0, n_rows)).tolist()
    return rows
