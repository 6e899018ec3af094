"""`iqdb recall`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from iqdb_cli import terminal
from iqdb_cli.exit_codes import ExitStatus, UsageError
from iqdb_cli.filter_notes import no_match
from iqdb_cli.ids import to_json
from iqdb_cli.legacy_notes import tell_of_legacy
from iqdb_cli.options import Database, Threads, Wait
from iqdb_cli.output import Output, open_output
from iqdb_cli.progress import ProgressBar
from iqdb_cli.queries import read_queries
from iqdb_cli.sizes import counted
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.database import Iqdb
from iqdb_core.filters import Filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.recall import RecallPoint, RecallReport

EXAMPLES = """
  iqdb recall notes.iqdb
  iqdb recall notes.iqdb queries.npy --k 100 --sweep 100,200,400
  iqdb recall notes.iqdb queries.npy --target 0.95 --save
  iqdb recall notes.iqdb --filter "lang = 'en'" --plot recall.svg
"""

_DEFAULT_SAMPLE = 1000
_OTHER_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".eps", ".html"})


@taken_back_when_terminated()
def command(
    db: Database,
    queries: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERIES",
            help='A .npy file or JSON lines, as for "iqdb search"; "-" is stdin. Without them a sample of '
            "the stored records is searched for.",
        ),
    ] = None,
    k: Annotated[
        int,
        typer.Option("--k", "-k", metavar="N", min=1, help="Compare the N nearest records of each query."),
    ] = 10,
    filter_expression: Annotated[
        str | None,
        typer.Option("--filter", metavar="EXPR", help="Search only records whose metadata meets EXPR."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            metavar="N",
            min=1,
            help="Without QUERIES: search for N stored records. The default is 1000.",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="A,B,...",
            help="Try these values of ef (index kind hnsw) or n_probes (ivf). The default is a common range "
            "and the default of the database.",
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            "--target",
            metavar="R",
            help="Find the smallest value whose mean recall is at least R, such as 0.95.",
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option(
            "--save",
            help="With --target: make the value found the default of the database. The index stays as it is.",
        ),
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE", help="Also draw recall against speed as an SVG in FILE."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON lines on a terminal too, one for each value.")
    ] = False,
    vector_field: Annotated[
        str | None,
        typer.Option(
            "--vector-field",
            metavar="NAME",
            help="Take the query from this field of JSON objects. The default is vector or embedding, else "
            "the only field that holds an array.",
        ),
    ] = None,
    wait: Wait = 0,
    threads: Threads = None,
) -> int:
    """Measure recall and speed of the index against exact search.

    Recall is the share of the k nearest records that a search finds: the mean over the queries, the 5th
    percentile (95 of 100 queries find at least that much) and the worst query. Queries are asked one by
    one. A stored record is left out of its own results; stored records are easier than real queries, so
    measure with QUERIES of your own if you have them. With --target, values beside those of the sweep are
    tried too; the exit status is 3 if none reaches it.
    """
    if queries is not None and sample is not None:
        raise UsageError("--sample and QUERIES exclude each other; give one of them")
    if save and target is None:
        raise UsageError("--save needs --target")
    if target is not None and not 0 < target <= 1:
        raise UsageError(f"--target is {target}, expected a number above 0 and at most 1")
    if plot is not None:
        _check_plot(plot)
    values = None if sweep is None else _parse_sweep(sweep)
    in_lines = as_json or not terminal.stdout_is_terminal()
    condition = None if filter_expression is None else Filter.parse(filter_expression)
    with ExitStack() as stack:
        # What cannot be written is said before anything is measured.
        drawing = None if plot is None else stack.enter_context(open_output(plot, database=db))
        with Iqdb.open_existing(db, read_only=True, threads=threads) as handle:
            tell_of_legacy(handle, db)
            if not len(handle):
                raise UsageError(f"{db}: holds no records; there is nothing to measure")
            if condition is not None and next(handle.batches(filter=condition, vectors=False), None) is None:
                raise UsageError(f"{no_match(handle, db, condition)}; there is nothing to measure")
            asked = None if queries is None else _read_all(queries, handle.dim, vector_field)
            with _PointsBar() as bar:
                report = handle.recall(
                    asked,
                    k,
                    filter=condition,
                    sample=sample or _DEFAULT_SAMPLE,
                    sweep=values,
                    target=target,
                    progress=bar.measured,
                )
        if report.sampled:
            terminal.note(
                f"{db}: {counted(report.n_queries, 'stored record')} as queries, each left out of its own "
                "results; real queries are harder"
            )
        with open_output() as out:
            if in_lines:
                _write_lines(out, report)
            else:
                _write_table(out, report)
        if drawing is not None:
            from iqdb_cli.recall_plot import recall_svg

            drawing.write(recall_svg(report, os.path.basename(db)).encode())  # noqa: PTH119 - start-up
    return _conclude(db, report, save=save, wait=wait)


def _check_plot(path: str) -> None:
    """Refuse a name that promises another format than the one that is drawn."""
    extension = os.path.splitext(path)[1].lower()  # noqa: PTH122 - start-up: pathlib is not needed
    if extension in _OTHER_PICTURES:
        raise UsageError(f"--plot draws SVG, not {extension[1:]}: {path}; name a .svg file")


class _PointsBar:
    """What was measured last, on a terminal. How many settings there will be depends on what they give."""

    def __init__(self) -> None:
        self._last = ""
        self._count = 0
        self._bar = ProgressBar("recall", lambda: None, text=lambda _, __: self._last)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.__exit__(*details)

    def measured(self, point: RecallPoint) -> None:
        """Show a setting and its recall."""
        self._count += 1
        settings = counted(self._count, "setting")
        self._last = f"{settings}  {point.value}: {point.recall_mean:.3f}"
        self._bar.update(self._count)


def _parse_sweep(text: str) -> list[int]:
    values = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit() and len(word) <= 9 and int(word) > 0):
            raise UsageError(
                f"--sweep is {text!r}, expected whole numbers of at least 1, separated by commas"
            )
        values.append(int(word))
    return values


def _read_all(path: str, dim: int, field: str | None) -> NDArray[Any]:
    import numpy as np

    batches = [np.frombuffer(batch.values, np.float32) for batch in read_queries(path, dim, field=field)]
    return np.concatenate(batches).reshape(-1, dim)


def _write_lines(out: Output, report: RecallReport) -> None:
    facts = {"index": report.index, "k": report.k, "n_queries": report.n_queries, "sampled": report.sampled}
    for point in report.points:
        measured = point.to_dict()
        value = measured.pop("value")
        line = {**facts, "filter": report.filter, "parameter": report.parameter, "value": value, **measured}
        out.write_line(to_json(line))
    exact = {
        "parameter": None,
        "value": None,
        "plan": "exact",
        **dict.fromkeys(("recall_mean", "recall_p5", "recall_worst"), 1.0),
        "queries_per_second": report.exact_queries_per_second,
    }
    out.write_line(to_json({**facts, "filter": report.filter, **exact}))
    if report.target is not None and report.parameter is not None:
        out.write_line(
            to_json({"target": report.target, "parameter": report.parameter, "reached": report.reached})
        )


def _write_table(out: Output, report: RecallReport) -> None:
    from iqdb_cli.table import aligned

    rows: list[tuple[str, ...]] = [
        (report.parameter or "", "recall", "5th pct", "worst", "queries/s", "plan", "")
    ]
    rows += [_row(point, report) for point in report.points]
    rows.append(
        ("exact", "1.0000", "1.0000", "1.0000", f"{report.exact_queries_per_second:,.0f}", "exact", "")
    )
    for number, line in enumerate(aligned(rows, right=(0, 1, 2, 3, 4))):
        out.write_line(terminal.bold(line) if number == 0 else line)


def _row(point: RecallPoint, report: RecallReport) -> tuple[str, ...]:
    marks = [
        text
        for value, text in ((report.default, "default"), (report.reached, f"reaches {report.target}"))
        if value == point.value
    ]
    recalls = (f"{recall:.4f}" for recall in (point.recall_mean, point.recall_p5, point.recall_worst))
    return (str(point.value), *recalls, f"{point.queries_per_second:,.0f}", point.plan, ", ".join(marks))


def _conclude(db: str, report: RecallReport, *, save: bool, wait: float) -> int:
    """Say what came of the target, and store it if that was asked for; return the exit status."""
    if report.parameter is None:
        terminal.note(f"{db}: the index kind {report.index} compares every record, so every search is exact")
        return ExitStatus.DONE
    if report.target is None:
        return ExitStatus.DONE
    if report.reached is None:
        terminal.note(f"{db}: no value of {report.parameter} reaches recall {report.target}")
        return ExitStatus.NOT_FOUND
    terminal.note(f"{db}: {report.parameter} {report.reached} reaches recall {report.target}")
    if save:
        handle = Iqdb.open_existing(db, lock_wait=wait)
        try:
            handle.set_search_defaults(**{report.parameter: report.reached})
        finally:
            handle.close(compact=False)
        terminal.note(f"{db}: searches use {report.parameter} {report.reached} now, {report.default} before")
    return ExitStatus.DONE
