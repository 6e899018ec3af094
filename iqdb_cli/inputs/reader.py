"""What every format's reader has in common: its options, and what it offers to the commands."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from iqdb_cli.inputs.source import InputKind, place_of
from iqdb_core.records import RecordBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH_BYTES: Final = 8 * 1024 * 1024
MAX_BATCH_ROWS: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """How records are to be found in a source; None means that the reader works it out.

    Attributes:
        kind: the format, instead of the extension or the first bytes.
        id_field: the column or field with the ids.
        vector_field: the column or field with the vectors.
        metadata_field: the JSONL field whose object is the metadata.
        columns: the columns or fields that become metadata, instead of all remaining scalar ones.
        no_metadata: read no metadata.
        ids_path: a file with one id for each row of a .npy source.
        metadata_path: a file with the metadata of each row of a .npy source.
        batch_rows: the largest number of records in a batch.
    """

    kind: InputKind | None = None
    id_field: str | None = None
    vector_field: str | None = None
    metadata_field: str | None = None
    columns: tuple[str, ...] | None = None
    no_metadata: bool = False
    ids_path: str | None = None
    metadata_path: str | None = None
    batch_rows: int = MAX_BATCH_ROWS


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


def rows_per_batch(dim: int, limit: int) -> int:
    """Return how many vectors of `dim` float32 components one batch holds."""
    return max(1, min(limit, MAX_BATCH_ROWS, BATCH_BYTES // (4 * dim)))
