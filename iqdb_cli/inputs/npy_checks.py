"""What every reader of .npy files checks before it reads a value, without NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_cli.inputs.npy_header import NpyHeader, NpyHeaderError, read_npy_header
from iqdb_cli.inputs.source import BadInputError
from iqdb_core.types import MAX_DIM, MAX_ROWS

if TYPE_CHECKING:
    from iqdb_cli.inputs.source import ByteSource


def read_checked_header(source: ByteSource) -> NpyHeader:
    """Read the header of a .npy file and compare it with the size of a regular file.

    Raises:
        BadInputError: not an array that can become vectors, or not all of it.
    """
    try:
        header = read_npy_header(source)
        if source.size_bytes is not None:
            header.check_data_bytes(source.size_bytes - source.offset)
    except NpyHeaderError as error:
        empty = source.offset == 0 and not source.peek(1)
        reason = "is empty, expected a .npy array" if empty else str(error)
        raise BadInputError(source.name, reason) from None
    if header.rows > MAX_ROWS:
        raise BadInputError(source.name, f"declares {header.rows} rows, expected at most {MAX_ROWS}")
    if not 1 <= header.dim <= MAX_DIM:
        found = f"holds vectors of {header.dim} components"
        raise BadInputError(source.name, f"{found}, expected 1 to {MAX_DIM}")
    return header


def ended_early(name: str, whole_rows: int, declared_rows: int) -> BadInputError:
    """Return the error for a file that ends inside its array."""
    return BadInputError(name, f"ends after {whole_rows:,} whole rows, its header declares {declared_rows:,}")


def numbered(name: str) -> str:
    """Return what the user is told of a source without ids."""
    return f"{name}: row numbers as ids"
