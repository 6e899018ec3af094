"""`iqdb create`."""

from __future__ import annotations

from typing import Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.index_options import (
    EfConstruction,
    EfSearch,
    FilterWiden,
    IndexChoice,
    IndexOptions,
    M,
    NClusters,
    NProbes,
    Pq,
    PqRefineFactor,
    PqSubvectors,
    Seed,
    TrainingSampleSize,
    describe,
)
from iqdb_cli.options import Database
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.config import Compression, FlatConfig, IqdbConfig
from iqdb_core.database import Iqdb
from iqdb_core.errors import InvalidConfigError
from iqdb_core.types import DistanceMetric

EXAMPLES = """
  iqdb create notes.iqdb --dim 384
  iqdb create images.iqdb --dim 512 --metric euclidean --compression zstd:9
  iqdb create notes.iqdb --dim 384 --index hnsw --m 24
  iqdb create notes.iqdb --dim 384 --model MiniLM-L6-v2 --revision 8b3219a
"""


@taken_back_when_terminated()
def command(
    db: Database,
    dim: Annotated[
        int,
        typer.Option(
            "--dim", metavar="N", min=1, max=65_536, help="Vectors have N components.", show_default=False
        ),
    ],
    metric: Annotated[
        DistanceMetric, typer.Option("--metric", help="The distance between two vectors; smaller is nearer.")
    ] = DistanceMetric.COSINE,
    index: Annotated[
        IndexChoice,
        typer.Option(
            "--index",
            help="How neighbours are found: flat compares with every record and is exact, hnsw walks a "
            "graph, ivf visits some of many lists.",
        ),
    ] = IndexChoice.FLAT,
    m: M = None,
    ef_construction: EfConstruction = None,
    ef_search: EfSearch = None,
    filter_widen: FilterWiden = None,
    seed: Seed = None,
    n_clusters: NClusters = None,
    n_probes: NProbes = None,
    training_sample_size: TrainingSampleSize = None,
    pq: Pq = None,
    pq_subvectors: PqSubvectors = None,
    pq_refine_factor: PqRefineFactor = None,
    compression: Annotated[
        str,
        typer.Option(
            "--compression",
            metavar="CODEC",
            help="Compress the file: none, lz4, zstd or zstd:LEVEL with a level from 1 to 22. Opening and "
            "searching an uncompressed file is fastest.",
        ),
    ] = "none",
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="Record the name of the model that makes the vectors."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="TEXT", help="Record the revision of that model.")
    ] = None,
    database_id: Annotated[
        str | None,
        typer.Option(
            "--database-id",
            metavar="HEX",
            help="Use these 32 hex digits as the id of the database instead of random ones, so that the same "
            "records give the same file.",
        ),
    ] = None,
) -> None:
    """Create an empty database.

    Nothing may exist at DB. The dimension and the metric of a database never change; "iqdb optimize"
    changes the index. Options for an index kind go with that kind only.
    """
    options = IndexOptions(
        m=m,
        ef_construction=ef_construction,
        ef_search=ef_search,
        filter_widen=filter_widen,
        seed=seed,
        n_clusters=n_clusters,
        n_probes=n_probes,
        training_sample_size=training_sample_size,
        use_pq=pq,
        pq_subvectors=pq_subvectors,
        pq_refine_factor=pq_refine_factor,
    )
    chosen = options.config(index) or FlatConfig()
    facts = {"model": model, "revision": revision}
    config = IqdbConfig(
        dim=dim,
        metric=metric,
        index=chosen,
        compression=Compression.parse(compression),
        provenance={key: text for key, text in facts.items() if text is not None},
        database_id=None if database_id is None else parse_database_id(database_id),
    )
    Iqdb.create(db, config).close()
    kind = "" if isinstance(chosen, FlatConfig) else f", index {describe(chosen)}"
    terminal.note(f"{db}: created, {dim} dimensions, {metric.value}{kind}")


def parse_database_id(text: str) -> bytes:
    """Return the 16 bytes that 32 hex digits mean.

    Raises:
        InvalidConfigError: they are something else.
    """
    try:
        parsed = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        parsed = b""
    if len(parsed) != 16:
        raise InvalidConfigError("--database-id", text, "32 hex digits")
    return parsed
