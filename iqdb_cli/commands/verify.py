"""`iqdb verify`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from iqdb_cli.exit_codes import ExitStatus
from iqdb_cli.ids import to_json
from iqdb_cli.options import Database, Json, Threads
from iqdb_cli.output import Output, open_output
from iqdb_cli.sizes import counted, human_bytes

if TYPE_CHECKING:
    from iqdb_core.storage.verify import VerifyReport

EXAMPLES = """
  iqdb verify notes.iqdb
  iqdb verify notes.iqdb --level checksums && cp notes.iqdb backup/
"""

# More would only repeat what the first ones say; --json has them all.
_SHOWN_FINDINGS = 20


class Level(enum.Enum):
    """How much is checked; the second includes the first."""

    CHECKSUMS = "checksums"
    STRUCTURE = "structure"


def command(
    db: Database,
    level: Annotated[
        Level,
        typer.Option(
            "--level",
            help="Compare the checksums of every byte, or also decode every record, check all rules of the "
            "format and compute the content digest again.",
        ),
    ] = Level.STRUCTURE,
    threads: Threads = None,
    as_json: Json = False,
) -> int:
    """Check whether a database is whole.

    Nothing is written. If something is damaged, it says what, what that means, what is whole and what
    still works, and the exit status is 6.
    """
    from iqdb_core.errors import UnsupportedVersionError
    from iqdb_core.storage.verify import verify_file

    try:
        report = verify_file(db, level=level.value, threads=threads)
    except UnsupportedVersionError as error:
        from iqdb_core.legacy import is_legacy

        if not is_legacy(error):
            raise
        from iqdb_core.legacy.report import verify_legacy

        report = verify_legacy(db, level=level.value)
    with open_output() as out:
        if as_json:
            out.write_line(to_json(report.to_dict()))
        else:
            _write_text(out, db, report)
    return ExitStatus.DONE if report.ok else ExitStatus.DAMAGED


def _write_text(out: Output, path: str, report: VerifyReport) -> None:
    if report.ok:
        rows = "" if report.n_rows is None else f", {counted(report.n_rows, 'record')} in the snapshot"
        frames = f", {counted(report.log_frames, 'frame')} in the log" if report.log_frames else ""
        out.write_line(f"{path}: whole ({human_bytes(report.checked_bytes)} checked{rows}{frames})")
        if report.content_digest is not None:
            out.write_line(f"content digest {report.content_digest}")
    else:
        out.write_line(f"{path}: damaged")
        for finding in report.findings[:_SHOWN_FINDINGS]:
            end = finding.offset_bytes + finding.length_bytes
            place = "" if finding.path == report.path else f"{finding.path}: "
            out.write_line(
                f"  {place}{finding.part}, bytes {finding.offset_bytes} to {end}: {finding.problem}"
            )
            out.write_line(f"    {finding.effect}")
        if len(report.findings) > _SHOWN_FINDINGS:
            out.write_line(f"  and {len(report.findings) - _SHOWN_FINDINGS} more, which --json lists")
        _write_list(out, "whole", report.whole)
        _write_list(out, "still works", report.works)
    _write_list(out, "note", report.notes)


def _write_list(out: Output, title: str, items: Sequence[str]) -> None:
    if items:
        out.write_line(f"{title}:")
    for item in items:
        out.write_line(f"  {item}")
