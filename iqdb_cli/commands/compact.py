"""`iqdb compact`."""

from __future__ import annotations

from typing import Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.exit_codes import UsageError
from iqdb_cli.ids import to_json
from iqdb_cli.options import Database, Json, Threads, Wait
from iqdb_cli.output import open_output
from iqdb_cli.sizes import counted, human_bytes
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.database import Iqdb

EXAMPLES = """
  iqdb compact notes.iqdb
  iqdb compact notes.iqdb --compression zstd:9
  iqdb compact old.iqdb -o notes.iqdb
"""


@taken_back_when_terminated()
def command(
    db: Database,
    compression: Annotated[
        str | None,
        typer.Option(
            "--compression",
            metavar="CODEC",
            help="Change the compression to none, lz4, zstd or zstd:LEVEL with a level from 1 to 22. The "
            "default keeps it.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NEW",
            help="For a database of iqdb 1.x: make the new database at NEW, where nothing may be yet. The "
            "old files stay as they are.",
        ),
    ] = None,
    wait: Wait = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Fold the log into the file and rewrite it without dead space.

    The new file is read back and must hold exactly the records of the old one before it takes its
    place; until then the old file stays as it is. It needs free space for both. A database of iqdb 1.x
    is never changed: with --output it becomes a new one, with its records in order, its ids, metadata
    and index settings, and an index.
    """
    if output is not None:
        _convert(db, output, compression, threads, as_json=as_json)
        return
    handle = Iqdb.open_existing(db, threads=threads, lock_wait=wait)
    try:
        report = handle.compact(compression=compression)
    finally:
        handle.close(compact=False)
    before_bytes = report.bytes_before + report.log_bytes
    with open_output() as out:
        if as_json:
            out.write_line(
                to_json(
                    {
                        "changed": report.changed,
                        "before_bytes": before_bytes,
                        "after_bytes": report.bytes_after,
                        "n_rows": report.n_rows,
                        "content_digest": report.digest,
                    }
                )
            )
            return
        if report.changed:
            out.write_line(f"{human_bytes(before_bytes)} before, {human_bytes(report.bytes_after)} after")
        else:
            out.write_line(f"nothing to fold, {human_bytes(before_bytes)} as before")
        out.write_line(f"{counted(report.n_rows, 'record')}, content digest {report.digest}")


def _convert(db: str, output: str, compression: str | None, threads: int | None, *, as_json: bool) -> None:
    from iqdb_core.legacy_opening import convert, legacy_version

    if legacy_version(db) is None:
        raise UsageError(f"{db}: --output is for databases of iqdb 1.x; this one is compacted in place")
    report = convert(db, output, compression=compression, threads=threads)
    for text in report.notes:
        terminal.note(f"iqdb: {db}: {text}")
    with open_output() as out:
        if as_json:
            out.write_line(
                to_json(
                    {
                        "changed": True,
                        "before_bytes": report.bytes_before,
                        "after_bytes": report.bytes_after,
                        "n_rows": report.n_rows,
                        "content_digest": report.digest,
                        "output": output,
                        "notes": report.notes,
                    }
                )
            )
            return
        sizes = f"{human_bytes(report.bytes_before)} before, {human_bytes(report.bytes_after)} after"
        out.write_line(f"{output}: format {report.version} converted, {sizes}")
        out.write_line(f"{counted(report.n_rows, 'record')}, content digest {report.digest}")
