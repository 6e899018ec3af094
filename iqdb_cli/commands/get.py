"""`iqdb get`."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.exit_codes import ExitStatus, UsageError
from iqdb_cli.hit_formats import vector_json
from iqdb_cli.id_arguments import given_ids
from iqdb_cli.ids import format_id, id_to_json, metadata_to_json, to_json
from iqdb_cli.legacy_notes import tell_of_legacy
from iqdb_cli.npy_output import npy_preamble
from iqdb_cli.options import Database, OutputFile
from iqdb_cli.output import Output, open_output
from iqdb_core.database import Iqdb
from iqdb_core.types import MetadataValue, VectorId

EXAMPLES = """
  iqdb get notes.iqdb 42
  iqdb get notes.iqdb 42 --format npy | iqdb search other.iqdb
  iqdb search notes.iqdb --like 42 | iqdb get notes.iqdb
"""

Record = tuple[VectorId, dict[str, MetadataValue] | None, bytes]


class RecordFormat(enum.Enum):
    """How records are printed."""

    TEXT = "text"
    JSONL = "jsonl"
    NPY = "npy"


def command(
    db: Database,
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help='Ids: 42 is an integer, text:42 and hex:2a say otherwise, anything else is text. "-" is '
            "stdin, one id a line, which is also the default.",
        ),
    ] = None,
    record_format: Annotated[
        RecordFormat | None,
        typer.Option(
            "--format",
            help="Print the records in this format; npy is their vectors only. The default is text on a "
            "terminal and jsonl elsewhere.",
        ),
    ] = None,
    output: OutputFile = None,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Exit with status 0 although an id is not there.")
    ] = False,
) -> int:
    """Print records by their ids.

    Ids that are not in the database are named on stderr, and the exit status is then 3. In JSON lines a
    record has the keys id, vector and metadata.
    """
    to_terminal = output is None and terminal.stdout_is_terminal()
    chosen = record_format or (RecordFormat.TEXT if to_terminal else RecordFormat.JSONL)
    if chosen is RecordFormat.NPY and to_terminal:
        raise UsageError("npy is binary and stdout is a terminal; add --output FILE or a pipe")
    n_found = missing = 0
    vectors: list[bytes] = []
    with Iqdb.open_existing(db, read_only=True) as handle, open_output(output, database=db) as out:
        tell_of_legacy(handle, db)
        for record_id in given_ids(ids, f"iqdb get {db}"):
            vector = handle.vector_bytes(record_id)
            if vector is None:
                missing += 1
                terminal.note(f"iqdb: {db}: no record has the id {format_id(record_id)}")
                continue
            record = (record_id, handle.metadata(record_id), vector)
            if chosen is RecordFormat.JSONL:
                _write_json(out, record)
            elif chosen is RecordFormat.TEXT:
                _write_text(out, record, is_first=n_found == 0)
            else:
                vectors.append(vector)
            n_found += 1
        if chosen is RecordFormat.NPY:
            out.write(npy_preamble("<f4", (n_found, handle.dim)))
            for vector in vectors:
                out.write(vector)
    return ExitStatus.NOT_FOUND if missing and not missing_ok else ExitStatus.DONE


def _write_json(out: Output, record: Record) -> None:
    record_id, metadata, vector = record
    shown = to_json(metadata_to_json(metadata))
    out.write_line(
        f'{{"id": {to_json(id_to_json(record_id))}, "vector": {vector_json(vector)}, "metadata": {shown}}}'
    )


def _write_text(out: Output, record: Record, *, is_first: bool) -> None:
    from iqdb_cli.table import record_lines

    if not is_first:
        out.write_line("")
    for line in record_lines(*record):
        out.write_line(line)
