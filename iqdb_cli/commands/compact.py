"""`iqdb compact`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from iqdb_cli.ids import to_json
from iqdb_cli.options import Database, Json, Threads
from iqdb_cli.output import open_output
from iqdb_cli.sizes import human_bytes
from iqdb_core.database import Iqdb

EXAMPLES = """
  iqdb compact notes.iqdb
  iqdb compact notes.iqdb --compression zstd:9
"""


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
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Fold the log into the file and rewrite it without dead space.

    The new file is read back and must hold exactly the records of the old one before it takes its
    place; until then the old file stays as it is. It needs free space for both.
    """
    handle = Iqdb.open_existing(db, threads=threads)
    try:
        before_bytes = _size(db) + _size(db + ".wal")
        report = handle.compact(compression=compression)
    finally:
        handle.close(compact=False)
    after_bytes = _size(db) + _size(db + ".wal")
    facts = {
        "before_bytes": before_bytes,
        "after_bytes": after_bytes,
        "n_rows": report.n_rows,
        "content_digest": report.digest.hex(),
    }
    with open_output() as out:
        if as_json:
            out.write_line(to_json(facts))
        else:
            out.write_line(f"{human_bytes(before_bytes)} before, {human_bytes(after_bytes)} after")
            out.write_line(f"{report.n_rows} records, content digest {facts['content_digest']}")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - start-up: pathlib is not needed
    except OSError:
        return 0
