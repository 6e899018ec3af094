"""`iqdb repair`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iqdb_cli.exit_codes import ExitStatus, UsageError
from iqdb_cli.ids import format_id, metadata_to_json, to_json
from iqdb_cli.options import Database, Json, Threads
from iqdb_cli.output import is_part_of, open_output
from iqdb_cli.progress import ProgressBar
from iqdb_cli.sizes import counted
from iqdb_cli.termination import taken_back_when_terminated

if TYPE_CHECKING:
    from iqdb_core.salvage import Loss, RepairReport

EXAMPLES = """
  iqdb repair notes.iqdb -o repaired.iqdb
  iqdb repair notes.iqdb -o repaired.iqdb --json > account.json
  iqdb repair notes.iqdb -o repaired.iqdb --without-ids nameless.jsonl
"""

# More would only be read by a program; --json has them all.
_SHOWN_LOSSES = 20
_SHOWN_IDS = 10
_WHAT = {
    "records": "lost",
    "ids": "not kept, for want of an id",
    "metadata": "kept without metadata",
    "frames": "frames of the log lost",
    "log": "log not applied",
    "settings": "settings lost",
    "doubles": "not kept",
    "digest": "content digest",
}


@taken_back_when_terminated()
def command(
    db: Database,
    new: Annotated[
        str,
        typer.Option("--output", "-o", metavar="NEW", help="The new database; nothing may be there."),
    ],
    without_ids: Annotated[
        str | None,
        typer.Option(
            "--without-ids",
            metavar="FILE",
            help="Write the records whose ids are lost to FILE as JSON lines, with row, vector and metadata. "
            "The new database cannot hold them.",
        ),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
) -> int:
    """Keep what can be read of a damaged database, in a new file.

    It ends with an account of what is lost, to the row and the byte. The damaged file and its log are
    only read. A record is kept when a checksum proves its vector and its id, and without metadata when
    only these are lost; the index is built anew. Frames of the log behind a damaged one are applied
    too. The new database is verified at level records before it gets its name. The exit status is 0
    when nothing was lost, 9 when something was, and 6 when nothing could be kept.
    """
    from iqdb_core.legacy_opening import legacy_version

    if without_ids not in {None, "-"} and is_part_of(str(without_ids), new):
        raise UsageError(f"--without-ids: {without_ids} is the new database itself; choose another file")
    if legacy_version(db) is not None:
        return _repair_legacy(db, new, threads, as_json=as_json)
    report = _repair(db, new, without_ids, threads)
    with open_output() as out:
        if as_json:
            out.write_line(to_json(report.to_dict()))
        else:
            for line in _lines(report):
                out.write_line(line)
    return ExitStatus.DONE if report.complete else ExitStatus.LOSSES


def _repair_legacy(db: str, new: str, threads: int | None, *, as_json: bool) -> int:
    """Convert a database of iqdb 1.x whose log may be damaged. Its snapshot is whole or of no use."""
    from iqdb_core.legacy_opening import convert

    report = convert(db, new, threads=threads, salvage=True)
    complete = not report.lost
    with open_output() as out:
        if as_json:
            facts = {"output": new, "n_records": report.n_rows, "complete": complete}
            facts |= {"content_digest": report.digest, "losses": report.lost, "notes": report.notes}
            out.write_line(to_json(facts))
        else:
            state = "nothing was lost" if complete else "not everything could be kept"
            out.write_line(f"{new}: {counted(report.n_rows, 'record')}; {state}")
            out.write_line(f"content digest {report.digest}")
            for text in report.notes:
                out.write_line(f"  {text}")
    return ExitStatus.DONE if complete else ExitStatus.LOSSES


def _repair(db: str, new: str, without_ids: str | None, threads: int | None) -> RepairReport:
    from iqdb_core.salvage import repair

    fraction = 0.0
    with ExitStack() as stack:
        nameless = None
        if without_ids is not None:
            nameless = stack.enter_context(open_output(without_ids, database=db))
        bar = stack.enter_context(ProgressBar("repair", lambda: fraction))

        def progress(done: int, total: int) -> None:
            nonlocal fraction
            fraction = done / total if total else 1.0
            bar.update(done)

        def write(row: int, vector: Any, metadata: dict[str, Any] | None) -> None:
            assert nameless is not None
            shown = None if metadata is None else metadata_to_json(metadata)
            nameless.write_line(to_json({"row": row, "vector": vector.tolist(), "metadata": shown}))

        given = None if nameless is None else write
        return repair(db, new, without_id=given, threads=threads, progress=progress)


def _lines(report: RepairReport) -> list[str]:
    state = "nothing was lost" if report.complete else "not everything could be kept"
    lines = [f"{report.output}: {counted(report.n_records, 'record')}; {state}"]
    rows = [f"{counted(report.snapshot_rows, 'row')} in the snapshot", f"{report.rows_kept:,} kept"]
    for count, what in (
        (report.rows_without_metadata, "of them without metadata"),
        (report.rows_replaced, "replaced by the log"),
        (report.rows_deleted, "deleted by the log"),
        (report.rows_lost, "lost"),
        (report.rows_without_ids, "without an id"),
        (report.rows_doubled, "with the id of another"),
    ):
        if count:
            rows.append(f"{count:,} {what}")
    lines.append(", ".join(rows))
    if report.log_frames or report.frames_lost:
        lost = f", {report.frames_lost:,} lost" if report.frames_lost else ""
        lines.append(f"{counted(report.log_frames, 'frame')} of the log applied{lost}")
    lines.append(f"content digest {report.content_digest}")
    lines += [line for loss in report.losses[:_SHOWN_LOSSES] for line in _loss(loss)]
    if len(report.losses) > _SHOWN_LOSSES:
        lines.append(f"  and {len(report.losses) - _SHOWN_LOSSES} more, which --json lists")
    if report.notes:
        lines += ["note:", *(f"  {note}" for note in report.notes)]
    return lines


def _loss(loss: Loss) -> list[str]:
    unit = "frame" if loss.what == "frames" else "row"
    where = ""
    if loss.count and loss.what != "doubles":
        last = loss.first + loss.count - 1
        where = f" {unit} {loss.first}" if loss.count == 1 else f" {unit}s {loss.first} to {last}"
    lines = [f"{_WHAT[loss.what]}:{where} ({loss.path}: {loss.reason})"]
    known = [record_id for record_id in loss.ids if record_id is not None]
    if known:
        shown = ", ".join(format_id(record_id) for record_id in known[:_SHOWN_IDS])
        more = f" and {len(known) - _SHOWN_IDS:,} more" if len(known) > _SHOWN_IDS else ""
        lines.append(f"  ids {shown}{more}")
    if loss.ranges:
        places = [f"{start} to {stop}" for start, stop in loss.ranges[:_SHOWN_IDS]]
        more = " and more" if len(loss.ranges) > _SHOWN_IDS else ""
        lines.append(f"  damaged bytes {', '.join(places)}{more}")
    return lines
