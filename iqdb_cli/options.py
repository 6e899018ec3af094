"""Arguments and options that several commands share."""

from __future__ import annotations

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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
