"""What every format's reader has in common: what it offers to the commands."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from iqdb_cli.inputs.options import MAX_BATCH_ROWS, InputOptions
from iqdb_cli.inputs.source import place_of
from iqdb_core._kernels import number_ids
from iqdb_core.errors import InvalidIdError
from iqdb_core.records import Ids, RecordBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class SourceBatch(RecordBatch):
    """Records that know where they stand in a source.

    Attributes:
        source: the source's name for messages.
        lines: the number of the line of each record, where the source has lines; else `first_row` is the
            number of the first row, from 0.
    """

    source: str = ""
    lines: NDArray[np.uint64] | None = None

    def where(self, row: int) -> str:
        """Return how messages name the record at `row` of this batch."""
        if self.lines is not None:
            return place_of(self.source, line=int(self.lines[row]))
        return place_of(self.source, row=self.first_row + row)


class RecordReader(Protocol):
    """One opened source. Its dimension is known; its records are read once, forward.

    Attributes:
        name: how messages name the source.
        dim: components of each vector.
        total_rows: records in the source, None when only reading it tells.
        notes: what was decided about columns and ids, as sentences for the user.
    """

    name: str
    dim: int
    total_rows: int | None
    notes: list[str]

    def batches(self, first_id: int) -> Generator[SourceBatch]:
        """Yield the records in order, in bounded memory.

        A batch is valid until the next one is asked for: its buffers are used again. Records without
        an id of their own are numbered from `first_id`.
        """
        ...

    def fraction(self) -> float | None:
        """Return how much of the source has been read, None when its size is not known."""
        ...

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        ...


def numbered_ids(first: int, count: int) -> Ids:
    """Return `count` integer ids from `first` on.

    Raises:
        InvalidIdError: one of them would be beyond the largest id.
    """
    if first + count > 2**64:
        raise InvalidIdError(max(first, 2**64), "records are numbered up to 2^64-1; give a lower --first-id")
    numbers = np.empty(count, np.uint64)
    number_ids(first, numbers)
    return Ids.from_u64(numbers)


def rows_per_batch(dim: int, limit: int) -> int:
    """Return how many vectors of `dim` float32 components one batch holds."""
    return max(1, min(limit, MAX_BATCH_ROWS, BATCH_BYTES // (4 * dim)))


__all__ = ["InputOptions", "RecordReader", "SourceBatch", "numbered_ids", "rows_per_batch"]
