"""`iqdb export`."""

from __future__ import annotations

import enum
import os
from contextlib import ExitStack
from itertools import combinations
from typing import TYPE_CHECKING, Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.exit_codes import UsageError
from iqdb_cli.filter_notes import no_match
from iqdb_cli.legacy_notes import tell_of_legacy
from iqdb_cli.options import Database
from iqdb_cli.output import is_same_file, open_output
from iqdb_cli.sizes import counted
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.database import Iqdb
from iqdb_core.errors import DatabaseExistsError
from iqdb_core.filters import Filter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqdb_cli.exporters.survey import Survey
    from iqdb_cli.output import Output
    from iqdb_core.records import RecordBatch


class ExportFormat(enum.Enum):
    """How records are written."""

    NPY = "npy"
    PARQUET = "parquet"
    JSONL = "jsonl"
    IQDB2 = "iqdb2"


_FORMAT_OF_EXTENSION = {
    ".npy": ExportFormat.NPY,
    ".parquet": ExportFormat.PARQUET,
    ".pq": ExportFormat.PARQUET,
    ".jsonl": ExportFormat.JSONL,
    ".ndjson": ExportFormat.JSONL,
    ".json": ExportFormat.JSONL,
}
# Whoever names such a file expects something else than JSON lines in it.
_OTHER_EXTENSIONS = {
    ".iqdb": 'a database of iqdb 1.x is --format iqdb2, and one of this release is made by "iqdb import"',
    **dict.fromkeys((".csv", ".tsv", ".arrow", ".feather", ".npz", ".xlsx"), "that is not written"),
}
_BATCH_BYTES = 16 * 1024 * 1024
_MAX_BATCH_ROWS = 65_536

EXAMPLES = """
  iqdb export notes.iqdb -o notes.parquet
  iqdb export notes.iqdb --filter "lang = 'en'" | head -n 3
  iqdb export notes.iqdb -o v.npy --ids-out ids.npy --metadata-out m.jsonl
  iqdb export notes.iqdb --format iqdb2 -o old.iqdb
"""


def command(
    db: Database,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to FILE, which appears when all of it is written. The default is stdout, which is "
            'also "-".',
        ),
    ] = None,
    export_format: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format",
            help="Write this format. The default is the extension of FILE, else jsonl. The first three give "
            "an import exactly the same records; npy needs --ids-out and --metadata-out for that. iqdb2 is a "
            "database that iqdb 1.x opens.",
        ),
    ] = None,
    filter_expression: Annotated[
        str | None,
        typer.Option("--filter", metavar="EXPR", help="Export only records whose metadata meets EXPR."),
    ] = None,
    ids_out: Annotated[
        str | None,
        typer.Option(
            "--ids-out",
            metavar="FILE",
            help="With npy: write the ids to FILE, a .npy array if they are of one kind, or JSON lines.",
        ),
    ] = None,
    metadata_out: Annotated[
        str | None,
        typer.Option(
            "--metadata-out",
            metavar="FILE",
            help="With npy: write the metadata to FILE, JSON lines or .parquet, a line or row a record.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Export all records to .npy, Parquet, JSON lines or iqdb 1.x.

    Records come in the order in which they were inserted. An import of what was exported gives a
    database with the same content digest: ids of all kinds, every bit of the vectors, and metadata with
    its types, where an absent key, a null, an empty mapping and none at all stay four different things.
    For iqdb 1.x text ids become bytes; what it cannot hold is refused before anything is written, and
    FILE is never replaced.
    """
    from iqdb_cli.exporters.survey import survey_of

    chosen = _choose_format(export_format, output)
    if (ids_out or metadata_out) and chosen is not ExportFormat.NPY:
        raise UsageError(f"--ids-out and --metadata-out go with npy; {chosen.value} holds everything itself")
    if chosen is ExportFormat.IQDB2:
        _export_legacy(db, output, filter_expression, force=force)
        return
    condition = None if filter_expression is None else Filter.parse(filter_expression)
    _check_targets([output, ids_out, metadata_out], force=force)
    with Iqdb.open_existing(db, read_only=True) as handle:
        tell_of_legacy(handle, db)
        rows = _rows_at_once(handle)

        def batches(*, vectors: bool = True) -> Iterator[RecordBatch]:
            return handle.batches(filter=condition, batch_rows=rows, vectors=vectors)

        with ExitStack() as stack:

            def target(path: str | None) -> Output:
                return stack.enter_context(open_output(path, database=db))

            if chosen is ExportFormat.JSONL:
                from iqdb_cli.exporters.jsonl import write_records

                count = write_records(batches(), target(output))
            else:
                survey = survey_of(batches(vectors=False))
                count = survey.n_rows
                if chosen is ExportFormat.PARQUET:
                    _write_parquet(batches(), survey, handle.dim, target(output))
                else:
                    beside = [target(path) if path else None for path in (ids_out, metadata_out)]
                    _write_npy(batches(), survey, handle.dim, target(output), *beside)
        if condition is not None and not count and len(handle):
            terminal.note(no_match(handle, db, condition))
    terminal.note(f"{db}: {counted(count, 'record')} exported")


@taken_back_when_terminated()
def _export_legacy(db: str, output: str | None, filter_expression: str | None, *, force: bool) -> None:
    from iqdb_cli.progress import ProgressBar
    from iqdb_core.legacy.writer import write_legacy

    if output is None or output == "-":
        raise UsageError("iqdb2 is a database; add --output FILE")
    if force:
        raise UsageError("--force does not go with iqdb2: a database is never replaced")
    with Iqdb.open_existing(db, read_only=True) as handle:
        tell_of_legacy(handle, db)
        total = 0 if filter_expression else len(handle)
        done = 0

        def fraction() -> float | None:
            return done / total if total else None

        with ProgressBar("export", fraction) as bar:

            def progress(count: int) -> None:
                nonlocal done
                done = count
                bar.update(count)

            report = write_legacy(
                output,
                handle.config,
                lambda: handle.batches(filter=filter_expression),
                progress=progress,
            )
    for text in report.notes:
        terminal.note(f"iqdb: {output}: {text}")
    terminal.note(f"{db}: {counted(report.n_rows, 'record')} exported")


def _rows_at_once(handle: Iqdb) -> int:
    """Return how many records fit in a batch, by what a record takes in the file on average."""
    info = handle.info()
    stored_bytes: int = (info["snapshot_bytes"] + info["log_bytes"]) // max(1, info["n_records"])
    rows = _BATCH_BYTES // max(4 * handle.dim, stored_bytes)
    return max(1, min(_MAX_BATCH_ROWS, rows))


def _choose_format(wanted: ExportFormat | None, output: str | None) -> ExportFormat:
    if wanted is None and output is not None:
        extension = os.path.splitext(output)[1].lower()  # noqa: PTH122 - may be "-"
        if extension in _OTHER_EXTENSIONS:
            raise UsageError(
                f"{output}: {_OTHER_EXTENSIONS[extension]}; name a .npy, .parquet or .jsonl file "
                "or add --format"
            )
        wanted = _FORMAT_OF_EXTENSION.get(extension)
    chosen = wanted or ExportFormat.JSONL
    to_terminal = output in {None, "-"} and terminal.stdout_is_terminal()
    if to_terminal and chosen is not ExportFormat.JSONL:
        raise UsageError(f"{chosen.value} is binary and stdout is a terminal; add --output FILE or a pipe")
    return chosen


def _check_targets(paths: list[str | None], *, force: bool) -> None:
    files = [path for path in paths if path is not None and path != "-"]
    doubled = any(is_same_file(*pair) for pair in combinations(files, 2))
    if doubled or paths[1:].count("-"):
        raise UsageError("--output, --ids-out and --metadata-out must name different files")
    for path in files:
        # A device or a FIFO is written to, not replaced.
        taken = os.path.isfile(path) or os.path.isdir(path) or os.path.islink(path)  # noqa: PTH112, PTH113, PTH114
        if taken and not force:
            raise DatabaseExistsError(path)


def _write_parquet(batches: Iterator[RecordBatch], survey: Survey, dim: int, out: Output) -> None:
    from iqdb_cli.exporters.arrow import ArrowLayout
    from iqdb_cli.exporters.parquet import ParquetRecordWriter

    writer = ParquetRecordWriter(ArrowLayout(survey, dim), out)
    for batch in batches:
        writer.write(batch)
    writer.finish()


def _write_npy(
    batches: Iterator[RecordBatch],
    survey: Survey,
    dim: int,
    vectors: Output,
    ids: Output | None,
    metadata: Output | None,
) -> None:
    from iqdb_cli.exporters.npy import SidecarWriter, write_vectors

    with SidecarWriter(survey, dim, ids, metadata) as beside:
        for batch in write_vectors(batches, survey, dim, vectors):
            beside.write(batch)
