"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from typing import Annotated

import typer

Database = Annotated[str, typer.Argument(metavar="DB", help="The database file.", show_default=False)]

OutputFile = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write the results to FILE instead of stdout. FILE appears, or is replaced, when all of it is "
        "written.",
    ),
]

Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        max=1024,
        help="Use N threads. The default is IQDB_NUM_THREADS if it is set, else all cores. The results are "
        "the same for any number.",
    ),
]


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        message = "it must be a finite number of seconds"
        raise typer.BadParameter(message)
    return seconds


Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        callback=_finite,
        help="While another process has the database open for writing, wait up to SECONDS for it to end "
        "before giving up with exit status 5.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
