"""`iqdb inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iqdb_cli.ids import to_json
from iqdb_cli.options import Database, Json
from iqdb_cli.output import Output, open_output
from iqdb_cli.sizes import human_bytes, percent

EXAMPLES = """
  iqdb inspect notes.iqdb
  iqdb inspect notes.iqdb --json | jq .totals
"""

_KINDS = {
    "live": "records that a search sees",
    "dead": "records deleted or replaced since",
    "log": "writes since, not yet folded in",
    "index": "derived, can be rebuilt",
    "structure": "headers, tables, checksums",
    "padding": "zeros up to the next page",
}


def command(db: Database, as_json: Json = False) -> None:
    """Show what a database holds and where its bytes go.

    Everything is checked before it is shown. The ledger accounts for every byte of the file and of its
    log; compact gives back what is dead. The content digest is the same for the same records, in
    whatever order, file or compression they are.
    """
    from iqdb_core.storage.inspect import inspect_file

    facts = inspect_file(db)
    with open_output() as out:
        if as_json:
            out.write_line(to_json(facts))
        else:
            _write_text(out, facts)


def _write_text(out: Output, facts: dict[str, Any]) -> None:
    header, config, counts = facts["header"], facts["config"], facts["counts"]
    log_bytes = facts["log_bytes"]
    size = human_bytes(facts["file_bytes"]) + (f" and a log of {human_bytes(log_bytes)}" if log_bytes else "")
    summary = [
        ("database", f"{facts['path']}, {size}"),
        ("records", _records_text(counts)),
        ("vectors", f"{config['dim']} dimensions, {config['metric']}, index {config['index']['kind']}"),
        ("compression", str(config["compression"])),
        *((name, str(text)) for name, text in sorted(config.get("provenance", {}).items())),
        ("format", f"snapshot {header['version']}"),
        ("database id", str(header["database_id"])),
        ("digest", str(facts["content_digest"])),
    ]
    _write_rows(out, summary)
    out.write_line("")
    _write_sections(out, facts["sections"])
    out.write_line("")
    _write_totals(out, facts["totals"], facts["file_bytes"] + log_bytes)


def _records_text(counts: dict[str, Any]) -> str:
    parts = [f"{counts['n_rows']:,}"]
    if counts["dead_rows"]:
        parts.append(f"{counts['dead_rows']:,} dead rows in the file")
    if counts["log_frames"]:
        parts.append(f"{counts['log_frames']:,} frames in the log")
    if counts["log_torn_bytes"]:
        parts.append(f"{counts['log_torn_bytes']:,} bytes of a torn write at its end")
    return ", ".join(parts)


def _write_sections(out: Output, sections: Sequence[dict[str, Any]]) -> None:
    rows = [("section", "type", "shape", "codec", "stored", "raw", "ratio")]
    for section in sections:
        stored, raw = section["stored_bytes"], section["raw_bytes"]
        rows.append(
            (
                section["name"],
                str(section["dtype"]),
                " x ".join(f"{size:,}" for size in section["shape"]),
                str(section["codec"]),
                human_bytes(stored),
                human_bytes(raw),
                f"{raw / stored:.2f}" if stored else "",
            )
        )
    _write_rows(out, rows, right=(2, 4, 5, 6), has_heading=True)


def _write_totals(out: Output, totals: dict[str, int], whole_bytes: int) -> None:
    rows = [("bytes", "", "", "")]
    for kind, meaning in _KINDS.items():
        size = totals[f"{kind}_bytes"]
        rows.append((kind, f"{size:,}", percent(size, whole_bytes), meaning))
    rows.append(("all", f"{whole_bytes:,}", percent(whole_bytes, whole_bytes), ""))
    _write_rows(out, rows, right=(1, 2), has_heading=True)


def _write_rows(
    out: Output, rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), has_heading: bool = False
) -> None:
    from iqdb_cli import terminal
    from iqdb_cli.table import aligned

    for number, line in enumerate(aligned(rows, right=right)):
        out.write_line(terminal.bold(line) if has_heading and number == 0 else line)
