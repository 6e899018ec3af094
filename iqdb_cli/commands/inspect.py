"""`iqdb inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iqdb_cli import terminal
from iqdb_cli.exit_codes import ExitStatus
from iqdb_cli.ids import to_json
from iqdb_cli.options import Database, Json
from iqdb_cli.output import Output, open_output
from iqdb_cli.sizes import counted, human_bytes, percent

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
    "unknown": "damaged, or behind something that is",
}

_TEXT_WIDTH = 66  # beside the labels, in 80 columns


def command(db: Database, as_json: Json = False) -> int:
    """Show what a database holds and where its bytes go.

    Only bytes whose checksums are right are believed; if some are not, what is still known is shown, and
    the exit status is 6. The ledger accounts for every byte of the file and of its log; compact gives
    back what is dead. The content digest is the same for the same records, in whatever order, file or
    compression they are.
    """
    from iqdb_core.errors import UnsupportedVersionError
    from iqdb_core.storage.inspect import inspect_file

    try:
        facts = inspect_file(db)
        _check_config(facts)
    except UnsupportedVersionError as error:
        from iqdb_core.legacy import is_legacy

        if not is_legacy(error):
            raise
        from iqdb_core.legacy.report import inspect_legacy

        facts = inspect_legacy(db)
    with open_output() as out:
        if as_json:
            out.write_line(to_json(facts))
        else:
            _write_text(out, facts)
    return ExitStatus.DAMAGED if facts["problems"] else ExitStatus.DONE


def _check_config(facts: dict[str, Any]) -> None:
    """Add a problem when the stored configuration, whose checksum is right, is none that there can be."""
    from iqdb_core.config import IqdbConfig
    from iqdb_core.errors import ConfigError, VectorIndexError

    if facts["config"] is None:
        return
    try:
        IqdbConfig.from_dict(facts["config"])
    except (ConfigError, VectorIndexError) as error:
        facts["problems"].append({"file": "snapshot", "part": "section config", "problem": str(error)})
        facts["config"] = None


def _write_text(out: Output, facts: dict[str, Any]) -> None:
    log_bytes = facts["log_bytes"]
    size = human_bytes(facts["file_bytes"]) + (f" and a log of {human_bytes(log_bytes)}" if log_bytes else "")
    rows = [("database", f"{facts['path']}, {size}"), ("records", _records_text(facts["counts"]))]
    if facts["config"] is not None:
        rows += _config_rows(facts["config"])
    if facts["header"] is not None:
        rows += _format_rows(facts["header"])
    rows += _digest_rows(facts)
    rows += [("problem", f"{item['file']}, {item['part']}: {item['problem']}") for item in facts["problems"]]
    if facts["problems"]:
        rows.append(("", f'"iqdb verify {facts["path"]}" says what still works'))
    _write_rows(out, rows)
    if facts["sections"]:
        out.write_line("")
        _write_sections(out, facts["sections"])
    out.write_line("")
    _write_totals(out, facts["totals"], facts["file_bytes"] + log_bytes)


def _config_rows(config: dict[str, Any]) -> list[tuple[str, str]]:
    from iqdb_cli.index_options import describe
    from iqdb_core.config import index_config_from_dict

    return [
        ("vectors", f"{config['dim']} dimensions, {config['metric']}"),
        *_wrapped("index", describe(index_config_from_dict(config["index"]))),
        ("compression", config["compression"]),
        *sorted(config["provenance"].items()),
    ]


def _format_rows(header: dict[str, Any]) -> list[tuple[str, str]]:
    database_id = header.get("database_id")
    if database_id is None:
        return [("format", f"snapshot {header['version']} of iqdb 1.x, which is only read")]
    return [("format", f"snapshot {header['version']}"), ("database id", database_id)]


def _wrapped(label: str, text: str) -> list[tuple[str, str]]:
    """Return rows for a list of settings, cut between them."""
    from textwrap import wrap

    # Only the spaces between settings are places to cut.
    kept = text.replace(" ", "\0").replace(",\0", ", ")
    lines = wrap(kept, _TEXT_WIDTH, break_long_words=False, break_on_hyphens=False)
    return [("" if number else label, line.replace("\0", " ")) for number, line in enumerate(lines)]


def _digest_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    with_log, of_snapshot = facts["content_digest_with_log"], facts["content_digest"]
    if with_log is not None:
        return [("digest", with_log)]
    if of_snapshot is not None:
        return [("digest", f"{of_snapshot} (without the log)")]
    return []


def _records_text(counts: dict[str, Any]) -> str:
    if counts["n_rows"] is None:
        return "unknown"
    parts = [f"{counts['n_rows']:,}"]
    if counts["dead_rows"]:
        parts.append(f"{counted(counts['dead_rows'], 'dead row')} in the file")
    if counts["log_frames"]:
        parts.append(f"{counted(counts['log_frames'], 'frame')} in the log")
    if counts["log_torn_bytes"]:
        parts.append(f"{counted(counts['log_torn_bytes'], 'byte')} of a torn write at its end")
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
        if size == 0 and kind == "unknown":
            continue
        rows.append((kind, f"{size:,}", percent(size, whole_bytes), meaning))
    rows.append(("all", f"{whole_bytes:,}", percent(whole_bytes, whole_bytes), ""))
    _write_rows(out, rows, right=(1, 2), has_heading=True)


def _write_rows(
    out: Output, rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), has_heading: bool = False
) -> None:
    from iqdb_cli.table import aligned

    for number, line in enumerate(aligned(rows, right=right)):
        out.write_line(terminal.bold(line) if has_heading and number == 0 else line)
