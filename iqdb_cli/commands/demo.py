"""`iqdb demo`."""

from __future__ import annotations

import os
from importlib import resources
from typing import Annotated

import typer

from iqdb_cli.commands import import_, search
from iqdb_cli.errors import PathTakenError
from iqdb_cli.output import OutputFormat, open_output
from iqdb_core.types import DistanceMetric

EXAMPLES = """
  iqdb demo
  iqdb demo /tmp/words.iqdb
"""

_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_WORD, _WORD_ID = "facetiousness", "noun-04649560"
_OTHER_ID = "noun-01621127"  # owl


def command(
    db: Annotated[
        str,
        typer.Argument(metavar="DB", help="Where the database is made; nothing may be there."),
    ] = "demo.iqdb",
) -> None:
    """Build a small database from real data and search it.

    The data are 1,000 words and glosses of WordNet 3.0 with their embeddings. The database stays, so
    that you can go on with it; delete the file when you are done.
    """
    if os.path.lexists(db):
        raise PathTakenError(db, 'remove it, or name another place as in "iqdb demo other.iqdb"')
    with resources.as_file(resources.files("iqdb_cli") / "sample" / "wordnet.parquet") as sample:
        import_.command(
            db,
            [str(sample)],
            metric=DistanceMetric.COSINE,
            id_field="synset",
            vector_field="vector",
            columns="words,gloss,pos,n_words",
            model=_MODEL,
        )
    like = f"iqdb search {db} --like"
    with open_output() as out:
        out.write_line(f"\nWhat is near to {_WORD}?\n  {like} {_WORD_ID} --k 6 --columns words,gloss\n")
        out.flush()
        search.command(db, like=[_WORD_ID], k=6, columns="words,gloss", output_format=OutputFormat.TABLE)
        out.write_line("\nTry next:")
        for line in (
            f"{like} {_OTHER_ID} --columns words,gloss",
            f"{like} {_OTHER_ID} --filter \"pos = 'verb'\"",
            f"iqdb get {db} {_OTHER_ID}",
            f"iqdb inspect {db}",
            "iqdb import --help",
        ):
            out.write_line(f"  {line}")
