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
from iqdb_cli.progress import ProgressBar, bytes_text
from iqdb_cli.sizes import counted, human_bytes

if TYPE_CHECKING:
    from iqdb_core.verification import Level as LevelName
    from iqdb_core.verification import VerifyReport

EXAMPLES = """
  iqdb verify notes.iqdb
  iqdb verify notes.iqdb --level checksums && cp notes.iqdb backup/
  iqdb verify notes.iqdb --level records --json
"""

# More would only repeat what the first ones say; --json has them all.
_SHOWN_FINDINGS = 20


class Level(enum.Enum):
    """How much is checked; each includes the one before."""

    CHECKSUMS = "checksums"
    STRUCTURE = "structure"
    RECORDS = "records"


def command(
    db: Database,
    level: Annotated[
        Level,
        typer.Option(
            "--level",
            help="How much to check; each level includes the one before. checksums compares the checksums of "
            "every byte. structure also decodes every record, checks all rules of the format and everything "
            "in the index, and computes the content digest again. records also looks up every id, reads "
            "every record as a search does, searches for a sample of them and measures recall.",
        ),
    ] = Level.STRUCTURE,
    sample: Annotated[
        int,
        typer.Option("--sample", metavar="N", min=0, help="With --level records: search for N records."),
    ] = 200,
    threads: Threads = None,
    as_json: Json = False,
) -> int:
    """Check whether a database is whole.

    Nothing is written. If something is damaged, it says what, what that means, what is whole and what
    still works, and the exit status is 6.
    """
    from iqdb_core.errors import UnsupportedVersionError

    try:
        report = verify_with_progress(db, level.value, sample, threads)
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


def verify_with_progress(db: str, level: LevelName, sample: int, threads: int | None) -> VerifyReport:
    """Verify a database, with a bar on a terminal."""
    from iqdb_core.verification import verify

    fraction = 0.0
    with ProgressBar("verify", lambda: fraction, text=bytes_text) as bar:

        def progress(done: int, total: int) -> None:
            nonlocal fraction
            fraction = done / total if total else 1.0
            bar.update(done)

        return verify(db, level=level, sample=sample, threads=threads, progress=progress)


def _write_text(out: Output, path: str, report: VerifyReport) -> None:
    if report.ok:
        rows = "" if report.n_rows is None else f", {counted(report.n_rows, 'record')} in the snapshot"
        frames = f", {counted(report.log_frames, 'frame')} in the log" if report.log_frames else ""
        out.write_line(f"{path}: whole ({human_bytes(report.checked_bytes)} checked{rows}{frames})")
        if report.content_digest is not None:
            out.write_line(f"content digest {report.content_digest}")
        for line in _facts(report):
            out.write_line(line)
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
        # Nothing is to be repaired where the records are whole, and nothing can be where none can be trusted.
        final = ("all records", "nothing: no record can be trusted")
        if not any(sentence.startswith(final) for sentence in report.works):
            out.write_line(f'"iqdb repair {path} -o NEW" keeps what can be read')
    _write_list(out, "note", report.notes)


def _facts(report: VerifyReport) -> list[str]:
    """Return what the index and the records gave, a line each."""
    lines = []
    index = report.index
    if "nodes" in index:
        lines.append(
            f"index: {counted(index['nodes'], 'node')}, {counted(index['links'], 'link')}, "
            f"{index['unreachable_nodes']} not reachable"
        )
    elif "lists" in index:
        lines.append(
            f"index: {counted(index['lists'], 'list')}, {index['empty_lists']} empty, the largest of "
            f"{counted(index['largest_list'], 'row')}"
        )
    records = report.records
    if "n_sampled" in records:
        recall = ""
        if records["recall_mean"] is not None:
            recall = f"; recall@10 {records['recall_mean']:.3f}, worst {records['recall_worst']:.3f}"
        lines.append(
            f"records: {records['found_by_id']:,} found by their ids, {records['found_themselves']:,} of "
            f"{records['n_sampled']:,} sampled found by their vectors{recall}"
        )
    return lines


def _write_list(out: Output, title: str, items: Sequence[str]) -> None:
    if items:
        out.write_line(f"{title}:")
    for item in items:
        out.write_line(f"  {item}")
