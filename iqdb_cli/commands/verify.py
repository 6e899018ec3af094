"""`iqdb verify`."""

from __future__ import annotations

import enum
from typing import Annotated, Any

import typer

from iqdb_cli.exit_codes import ExitStatus
from iqdb_cli.ids import to_json
from iqdb_cli.options import Database, Json
from iqdb_cli.output import Output, open_output

EXAMPLES = """
  iqdb verify notes.iqdb
  iqdb verify notes.iqdb --level records
"""


class Level(enum.Enum):
    """How much is checked; each level includes the one before."""

    CHECKSUMS = "checksums"
    STRUCTURE = "structure"
    RECORDS = "records"


def command(
    db: Database,
    level: Annotated[
        Level,
        typer.Option(
            "--level",
            help="Check the checksums of all blocks, the structure of all sections too, or every record and the "
            "content digest too.",
        ),
    ] = Level.STRUCTURE,
    as_json: Json = False,
) -> int:
    """Check whether a database is whole.

    Nothing is written. If something is damaged, it says what, what that means for searches and exports,
    and what is whole, and the exit status is 6.
    """
    from iqdb_core.storage.verify import verify_file

    report = verify_file(db, level=level.value)
    with open_output() as out:
        if as_json:
            out.write_line(to_json(report_facts(db, level, report)))
        else:
            _write_text(out, db, level, report)
    return ExitStatus.DONE if report.ok else ExitStatus.DAMAGED


def report_facts(path: str, level: Level, report: Any) -> dict[str, Any]:
    """Return a report as plain values for JSON."""
    return {
        "path": path,
        "level": level.value,
        "ok": report.ok,
        "findings": [
            {
                "part": finding.part,
                "offset_bytes": finding.offset_bytes,
                "bytes": finding.bytes,
                "problem": finding.problem,
                "effect": finding.effect,
            }
            for finding in report.findings
        ],
        "whole": list(report.whole),
    }


def _write_text(out: Output, path: str, level: Level, report: Any) -> None:
    if report.ok:
        out.write_line(f"{path}: whole ({level.value}: {', '.join(report.whole)})")
        return
    out.write_line(f"{path}: damaged")
    for finding in report.findings:
        place = "" if finding.offset_bytes is None else f" at byte {finding.offset_bytes}"
        size = f", {finding.bytes} bytes" if finding.bytes else ""
        out.write_line(f"  {finding.part}{place}{size}: {finding.problem}")
        if finding.effect:
            out.write_line(f"    {finding.effect}")
    out.write_line(f"whole: {', '.join(report.whole) or 'nothing'}")
