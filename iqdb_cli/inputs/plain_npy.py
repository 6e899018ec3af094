"""A .npy file whose vectors go into a database as they are: float32, row after row, nothing beside them."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

from iqdb_cli.inputs.npy_checks import ended_early, read_checked_header
from iqdb_cli.inputs.source import ByteSource, InputKind, kind_of, place_of

if TYPE_CHECKING:
    from iqdb_cli.inputs.npy_header import NpyHeader


class PlainNpy:
    """The vectors of one such file. See `iqdb_core.plain_load.PlainVectors`."""

    def __init__(self, source: ByteSource, header: NpyHeader) -> None:
        self.name = source.name
        self.config = None
        self.n_rows = header.rows
        self.dim = header.dim
        self._source = source
        self._offset = source.position
        self._rows_read = 0

    def read_into(self, buffer: memoryview, row: int) -> None:
        """Fill `buffer` with the bytes of the vectors from `row` on.

        Raises:
            BadInputError: the file has become shorter.
            FileIOError: the operating system refused.
        """
        row_bytes = 4 * self.dim
        got = self._source.pread_into(buffer, self._offset + row * row_bytes)
        self._rows_read = max(self._rows_read, row + got // row_bytes)
        if got != len(buffer):
            raise ended_early(self.name, row + got // row_bytes, self.n_rows)

    def where(self, row: int) -> str:
        """Return how messages name a row."""
        return place_of(self.name, row=row)

    def fraction(self) -> float:
        """Return how much of the file has been read."""
        return self._rows_read / self.n_rows

    def close(self) -> None:
        """Release the file."""
        self._source.close()


def open_plain_npy(path: str, kind: InputKind | None) -> PlainNpy | None:
    """Open a source if it is such a file with one row at least; None when it is anything else.

    Only a regular file is looked at: what a pipe gives away is gone.

    Raises:
        Error: the source cannot be read, or is a .npy file that cannot be imported at all.
    """
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - "-" is no path
    except (OSError, ValueError):
        regular = False
    if not regular or path == "-":
        return None
    source = ByteSource(path)
    try:
        if source.is_regular and sys.byteorder == "little" and kind_of(source, kind) is InputKind.NPY:
            header = read_checked_header(source)
            rows_first = not header.fortran_order or min(header.rows, header.dim) == 1
            if header.dtype == "<f4" and rows_first and header.rows:
                return PlainNpy(source, header)
    except BaseException:
        source.close()
        raise
    source.close()
    return None
