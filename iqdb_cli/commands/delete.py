"""`iqdb delete`."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.exit_codes import ExitStatus
from iqdb_cli.id_arguments import given_ids
from iqdb_cli.ids import format_id, to_json
from iqdb_cli.options import Database, Json, Wait
from iqdb_cli.output import open_output
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.database import Iqdb

EXAMPLES = """
  iqdb delete notes.iqdb 42 43
  iqdb delete notes.iqdb < ids.txt
"""

# One batch is one frame of the log, and is deleted whole or not at all.
_BATCH_IDS = 10_000


@taken_back_when_terminated()
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
    missing_ok: Annotated[
        bool,
        typer.Option("--missing-ok", help="Say nothing of ids that are not there, and exit with status 0."),
    ] = False,
    wait: Wait = 0,
    as_json: Json = False,
) -> int:
    """Delete records by their ids.

    The deletion is in the log, and on disk, when the command ends; compact gives the space back. Ids
    that are not in the database are named on stderr, and the exit status is then 3. A bad id deletes
    nothing of its batch of 10,000.
    """
    deleted = missing = 0
    handle = Iqdb.open_existing(db, lock_wait=wait)
    try:
        source = given_ids(ids, f"iqdb delete {db}")
        while batch := list(dict.fromkeys(islice(source, _BATCH_IDS))):
            present = [record_id for record_id in batch if record_id in handle]
            deleted += handle.delete_many(present) if present else 0
            missing += len(batch) - len(present)
            if len(present) < len(batch) and not missing_ok:
                found = set(present)
                for record_id in batch:
                    if record_id not in found:
                        terminal.note(f"iqdb: {db}: no record has the id {format_id(record_id)}")
    finally:
        handle.close(compact=False)
    with open_output() as out:
        if as_json:
            out.write_line(to_json({"deleted": deleted, "missing": missing}))
        else:
            out.write_line(f"deleted {deleted}")
    return ExitStatus.NOT_FOUND if missing and not missing_ok else ExitStatus.DONE
