"""Many records at once, as arrays: what importers produce, the log and the snapshot store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iqdb_core.column_type import ColumnType
from iqdb_core.record_ids import Ids, Where, place
from iqdb_core.record_metadata import Column, MetadataColumns, Values
from iqdb_core.record_strings import StringValues

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """n records.

    Attributes:
        ids: the n ids, not necessarily distinct.
        vectors: f32[n, dim].
        metadata: the n mappings; None when no record has one.
        first_row: the number of the first record in its source, for messages.
    """

    ids: Ids
    vectors: NDArray[np.float32]
    metadata: MetadataColumns | None = None
    first_row: int = 0

    def __post_init__(self) -> None:
        assert self.vectors.ndim == 2
        assert len(self.ids) == len(self.vectors)
        assert self.metadata is None or self.metadata.n_rows == len(self.vectors)

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, row: int) -> str:
        """Return how messages name the record at `row` of this batch."""
        return f"record {self.first_row + row}"

    def slice(self, start: int, stop: int) -> RecordBatch:
        """Return the records start..stop. Vectors are shared."""
        metadata = None if self.metadata is None else self.metadata.slice(start, stop)
        first = self.first_row + start
        return RecordBatch(self.ids.slice(start, stop), self.vectors[start:stop], metadata, first)

    def take(self, rows: NDArray[np.integer]) -> RecordBatch:
        """Return the records at `rows`, in that order. Messages number them from `first_row`."""
        metadata = None if self.metadata is None else self.metadata.take(rows)
        return RecordBatch(self.ids.take(rows), self.vectors[rows], metadata, self.first_row)

    @staticmethod
    def concat(parts: Iterable[RecordBatch]) -> RecordBatch:
        """Return the records of all parts, at least one, in order. The dimensions must agree."""
        every = list(parts)
        if len(every) == 1:
            return every[0]
        metadata = None
        if any(part.metadata is not None for part in every):
            metadata = MetadataColumns.concat(
                MetadataColumns.none(len(part)) if part.metadata is None else part.metadata for part in every
            )
        return RecordBatch(
            Ids.concat(part.ids for part in every),
            np.concatenate([part.vectors for part in every]),
            metadata,
            every[0].first_row,
        )


__all__ = [
    "Column",
    "ColumnType",
    "Ids",
    "MetadataColumns",
    "RecordBatch",
    "StringValues",
    "Values",
    "Where",
    "place",
]
