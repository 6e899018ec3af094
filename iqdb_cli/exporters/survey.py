"""What has to be known of all records before the first one is written: how many, and of which types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from iqdb_core.record_ids import BYTES, INT, STR

if TYPE_CHECKING:
    from iqdb_core.column_type import ColumnType
    from iqdb_core.records import Ids, RecordBatch


@dataclass
class Survey:
    """What occurs in the records.

    Attributes:
        n_rows: how many there are.
        id_kinds: the kinds of their ids.
        id_characters: the length of the longest id of text, in characters, or of bytes.
        ids_end_in_zero: whether an id ends in a zero character, which fixed-width arrays drop.
        columns: each pair of metadata key and type.
        any_mapping: whether a record has metadata, be it empty.
        any_without: whether a record has none.
    """

    n_rows: int = 0
    id_kinds: set[int] = field(default_factory=set)
    id_characters: int = 0
    ids_end_in_zero: bool = False
    columns: set[tuple[str, ColumnType]] = field(default_factory=set)
    any_mapping: bool = False
    any_without: bool = False

    def add(self, batch: RecordBatch) -> None:
        """Take note of a batch."""
        if not len(batch):
            return
        self.n_rows += len(batch)
        self._add_ids(batch.ids)
        metadata = batch.metadata
        if metadata is None:
            self.any_without = True
            return
        self.columns.update((column.key, column.type) for column in metadata.columns)
        has = metadata.has_metadata
        self.any_mapping |= has is None or bool(has.any())
        self.any_without |= has is not None and not bool(has.all())

    def _add_ids(self, ids: Ids) -> None:
        if ids.is_u64:
            self.id_kinds.add(INT)
            return
        kinds, _, _ = ids.as_var()
        self.id_kinds.update(np.unique(kinds).tolist())
        if self.id_kinds in ({STR}, {BYTES}):
            values = ids.to_list()
            self.id_characters = max(self.id_characters, *map(len, values))  # type: ignore[arg-type]
            zero = "\0" if self.id_kinds == {STR} else b"\0"
            self.ids_end_in_zero |= any(value.endswith(zero) for value in values)  # type: ignore[union-attr, arg-type]


def survey_of(batches: Iterable[RecordBatch]) -> Survey:
    """Return the survey of all batches."""
    survey = Survey()
    for batch in batches:
        survey.add(batch)
    return survey
