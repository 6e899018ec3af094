"""How records are to be found in a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from iqdb_cli.inputs.source import InputKind

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
