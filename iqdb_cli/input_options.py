"""The options with which import and upsert say how records are found in their sources."""

from __future__ import annotations

from typing import Annotated

import typer

from iqdb_cli.inputs.source import InputKind

InputFormat = Annotated[
    InputKind | None,
    typer.Option(
        "--input-format",
        help="The format of the sources. The default is the extension (.npy; .parquet, .pq; .jsonl, "
        ".ndjson, .json; .iqdb), else the first bytes.",
    ),
]

IdField = Annotated[
    str | None,
    typer.Option(
        "--id-field",
        "--id-column",
        metavar="NAME",
        help="The field or column with the ids: integers, text or bytes. The default is id or _id if there "
        "is one, else records are numbered.",
    ),
]

VectorField = Annotated[
    str | None,
    typer.Option(
        "--vector-field",
        "--vector-column",
        metavar="NAME",
        help="The field or column with the vectors. The default is the only one that can hold them; among "
        "several JSON fields, the one named vector or embedding.",
    ),
]

MetadataField = Annotated[
    str | None,
    typer.Option(
        "--metadata-field",
        metavar="NAME",
        help="The JSON field whose object is the metadata. The default is metadata if it holds an object, "
        "else the remaining scalar fields are the metadata.",
    ),
]

Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,...",
        help="Only these columns or fields become metadata. The default is every remaining scalar one.",
    ),
]

NoMetadata = Annotated[bool, typer.Option("--no-metadata", help="Read no metadata.")]

IdsFile = Annotated[
    str | None,
    typer.Option(
        "--ids",
        metavar="FILE",
        help="With a .npy source: the ids, one for each row, as .npy (integers, text or bytes) or as JSON "
        "lines.",
    ),
]

MetadataFile = Annotated[
    str | None,
    typer.Option(
        "--metadata",
        metavar="FILE",
        help="With a .npy source: the metadata, one line or row for each row, as JSON lines or Parquet.",
    ),
]

FirstId = Annotated[
    int,
    typer.Option(
        "--first-id",
        metavar="N",
        min=0,
        help="Number records that have no id of their own from N, through all sources. Importing the same "
        "source twice so replaces its records.",
    ),
]

AllowEmpty = Annotated[
    bool, typer.Option("--allow-empty", help="Accept a source without records instead of refusing it.")
]


def split_columns(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a comma-separated list."""
    if text is None:
        return None
    return tuple(name for name in text.split(",") if name)
