"""`iqdb upsert`."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.exit_codes import UsageError
from iqdb_cli.input_options import (
    AllowEmpty,
    Columns,
    FirstId,
    IdField,
    IdsFile,
    InputFormat,
    MetadataField,
    MetadataFile,
    NoMetadata,
    VectorField,
    split_columns,
)
from iqdb_cli.options import Database, Wait
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.database import Iqdb

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqdb_cli.inputs.readers import Inputs

EXAMPLES = """
  iqdb upsert notes.iqdb new.jsonl
  echo '{"id": 7, "vector": [0.1, 0.7, 0.2]}' | iqdb upsert notes.iqdb
  iqdb upsert notes.iqdb vectors.npy --ids ids.npy --batch-size 10000
"""


@taken_back_when_terminated()
def command(
    db: Database,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="Records as .npy, Parquet or JSON lines, from a file or FIFO. The default is stdin, "
            'which is also "-".',
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", metavar="N", min=1, max=65_536, help="Acknowledge after every N records."
        ),
    ] = 1000,
    input_format: InputFormat = None,
    id_field: IdField = None,
    vector_field: VectorField = None,
    metadata_field: MetadataField = None,
    columns: Columns = None,
    no_metadata: NoMetadata = False,
    ids: IdsFile = None,
    metadata: MetadataFile = None,
    first_id: FirstId = 0,
    allow_empty: AllowEmpty = False,
    wait: Wait = 0,
) -> None:
    """Insert or replace records, acknowledged batch by batch.

    Each batch is one frame of the log: on disk as a whole or not at all. After an error or Ctrl-C what
    was acknowledged is kept, every record before the bad one among it, and a line on stderr says how
    far it came. For many records import is faster, and all or nothing.
    """
    from iqdb_cli.inputs.reader import InputOptions
    from iqdb_cli.inputs.readers import Inputs
    from iqdb_cli.progress import ProgressBar, rate_text

    if no_metadata and (columns or metadata or metadata_field):
        raise UsageError("--no-metadata excludes --columns, --metadata and --metadata-field")
    if source is None and terminal.stdin_is_terminal():
        raise UsageError(f'no records: stdin is a terminal\nTry "iqdb upsert {db} FILE".')
    options = InputOptions(
        kind=input_format,
        id_field=id_field,
        vector_field=vector_field,
        metadata_field=metadata_field,
        columns=split_columns(columns),
        no_metadata=no_metadata,
        ids_path=ids,
        metadata_path=metadata,
        batch_rows=batch_size,
    )
    started = time.monotonic()
    handle = Iqdb.open_existing(db, lock_wait=wait)
    try:
        with (
            Inputs([source or "-"], options, dim=handle.dim) as inputs,
            ProgressBar("upsert", inputs.fraction) as progress,
        ):
            for text in inputs.notes:
                terminal.note(text)
            rows = _upsert(handle, inputs, first_id, allow_empty=allow_empty, progress=progress.update)
        n_rows = len(handle)
    finally:
        handle.close(compact=False)
    taken = rate_text(rows, time.monotonic() - started)
    terminal.note(f"{db}: {taken} acknowledged; the database holds {n_rows:,}")


def _upsert(
    handle: Iqdb, inputs: Inputs, first_id: int, *, allow_empty: bool, progress: Callable[[int], None]
) -> int:
    acknowledged = 0
    try:
        with closing(inputs.batches(first_id, allow_empty=allow_empty)) as batches:
            for batch in batches:
                handle.upsert_batch(batch)
                acknowledged += len(batch)
                progress(acknowledged)
    except BaseException:
        total = "" if inputs.total_rows is None else f" of {inputs.total_rows:,}"
        terminal.note(f"iqdb: {acknowledged:,}{total} records acknowledged and kept; stopped there:")
        raise
    return acknowledged
