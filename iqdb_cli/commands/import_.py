"""`iqdb import`."""

from __future__ import annotations

import enum
import os
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.commands.create import parse_database_id
from iqdb_cli.exit_codes import UsageError
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
)
from iqdb_cli.input_options import (
    AllowEmpty,
    Columns,
    FirstId,
    IdField,
    IdsFile,
    InputFormat,
    MetadataField,
    MetadataFile,
    NoMetadata,
    VectorField,
    split_columns,
)
from iqdb_cli.inputs.npy_checks import numbered
from iqdb_cli.inputs.options import InputOptions
from iqdb_cli.inputs.plain_npy import open_plain_npy
from iqdb_cli.inputs.source import ByteSource, InputKind, kind_of
from iqdb_cli.options import Database, Threads, Wait
from iqdb_cli.progress import ProgressBar, rate_text
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.config import Compression, IqdbConfig
from iqdb_core.errors import ConfigConflictError, DatabaseNotFoundError, DuplicateIdError
from iqdb_core.plain_load import create_from_plain, is_loadable
from iqdb_core.types import DistanceMetric, IndexKind

if TYPE_CHECKING:
    from iqdb_cli.inputs.plain_npy import PlainNpy
    from iqdb_cli.inputs.readers import Inputs
    from iqdb_core.database import Iqdb
    from iqdb_core.reports import BulkReport


class OnDuplicate(enum.Enum):
    """What happens when an id occurs twice in the sources."""

    LAST = "last"
    ERROR = "error"


EXAMPLES = """
  iqdb import notes.iqdb notes.parquet --metric cosine --columns lang,year
  iqdb import notes.iqdb vectors.npy --ids ids.npy --metadata notes.jsonl
  iqdb import notes.iqdb notes.parquet --metric cosine --index hnsw --m 24
  iqdb import notes.iqdb old.iqdb
  embed notes/*.txt | iqdb import notes.iqdb - --input-format jsonl
"""


@taken_back_when_terminated()
def command(
    db: Database,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Files or FIFOs of records: .npy, Parquet or JSON lines, or databases, also of iqdb 1.x. "
            '"-" is stdin.',
            show_default=False,
        ),
    ],
    metric: Annotated[
        DistanceMetric | None,
        typer.Option(
            "--metric",
            help="Create the database if it does not exist, with this distance and the dimension of the "
            "vectors. A single database as SOURCE is enough for that: its settings are taken.",
        ),
    ] = None,
    input_format: InputFormat = None,
    id_field: IdField = None,
    vector_field: VectorField = None,
    metadata_field: MetadataField = None,
    columns: Columns = None,
    no_metadata: NoMetadata = False,
    ids: IdsFile = None,
    metadata: MetadataFile = None,
    first_id: FirstId = 0,
    on_duplicate: Annotated[
        OnDuplicate,
        typer.Option(
            "--on-duplicate",
            help="When an id occurs more than once in the sources: take its last record, or refuse them all.",
        ),
    ] = OnDuplicate.LAST,
    allow_empty: AllowEmpty = False,
    index: Annotated[
        IndexChoice | None,
        typer.Option(
            "--index",
            help="For a new database: how neighbours are found. flat compares with every record and is "
            "exact, hnsw walks a graph, ivf visits some of many lists.",
        ),
    ] = None,
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
        str | None,
        typer.Option(
            "--compression", metavar="CODEC", help="For a new database: none, lz4, zstd or zstd:LEVEL."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="NAME", help="For a new database: the name of the model that made the vectors."
        ),
    ] = None,
    database_id: Annotated[
        str | None,
        typer.Option(
            "--database-id", metavar="HEX", help="For a new database: its id, 32 hex digits, not random ones."
        ),
    ] = None,
    wait: Wait = 0,
    threads: Threads = None,
) -> None:
    """Import vectors from .npy, Parquet or JSON lines, all or nothing.

    A record whose id is in the database replaces it. After an error, Ctrl-C or a crash the database is
    as it was, and one that did not exist does not exist. Sources are streamed: their size does not
    matter. float64 values and integers become the nearest float32; a 1-D .npy array is one record.
    """
    if no_metadata and (columns or metadata or metadata_field):
        raise UsageError("--no-metadata excludes --columns, --metadata and --metadata-field")
    options = InputOptions(
        kind=input_format,
        id_field=id_field,
        vector_field=vector_field,
        metadata_field=metadata_field,
        columns=split_columns(columns),
        no_metadata=no_metadata,
        ids_path=ids,
        metadata_path=metadata,
    )
    index_options = IndexOptions(
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
    wanted = _Wanted(metric, index, index_options, compression, model, database_id)
    exists = os.path.lexists(db)
    if not exists and metric is None and not (len(sources) == 1 and _is_database(sources[0], input_format)):
        raise DatabaseNotFoundError(db)
    started = time.monotonic()
    report = None
    if not exists and len(sources) == 1 and options == InputOptions(kind=input_format):
        report = _import_plain(db, sources[0], input_format, wanted, threads, first_id)
    if report is None:
        report = _import(
            db, sources, options, wanted, threads, first_id, exists=exists,
            wait=wait, allow_empty=allow_empty, on_duplicate=on_duplicate,
        )  # fmt: skip
    taken = rate_text(report.rows_read, time.monotonic() - started)
    terminal.note(f"{db}: {taken}: {_counts(report)}")


def _import_plain(
    db: str, path: str, kind: InputKind | None, wanted: _Wanted, threads: int | None, first_id: int
) -> BulkReport | None:
    """Import a .npy file whose bytes can be taken as they are into a new database; None if it cannot be."""
    source = open_plain_npy(path, kind)
    if source is None:
        return None
    with closing(source):
        config = wanted.config(source, threads)
        plain = config.index.kind is IndexKind.FLAT and str(config.compression) == "none"
        if not plain or not is_loadable(source.dim) or first_id + source.n_rows > 2**64:
            return None
        terminal.note(numbered(path))
        with ProgressBar("import", source.fraction) as progress:
            return create_from_plain(db, config, source, first_id=first_id, progress=progress.update)


def _import(
    db: str,
    sources: list[str],
    options: InputOptions,
    wanted: _Wanted,
    threads: int | None,
    first_id: int,
    *,
    exists: bool,
    wait: float,
    allow_empty: bool,
    on_duplicate: OnDuplicate,
) -> BulkReport:
    """Import records of any kind into a database, which is created unless it exists."""
    from iqdb_cli.inputs.readers import Inputs
    from iqdb_core.database import Iqdb

    handle = Iqdb.open_existing(db, threads=threads, lock_wait=wait) if exists else None
    try:
        dim = None if handle is None else handle.dim
        if handle is not None:
            wanted.check(db, handle)
        with (
            Inputs(sources, options, dim=dim) as inputs,
            closing(inputs.batches(first_id, allow_empty=allow_empty)) as batches,
            ProgressBar("import", inputs.fraction) as progress,
        ):
            for text in inputs.notes:
                terminal.note(text)
            try:
                if handle is not None:
                    return handle.bulk_load(
                        batches, on_duplicate=on_duplicate.value, progress=progress.update
                    )
                config = wanted.config(inputs, threads)
                return Iqdb.create_from(
                    db, config, batches, on_duplicate=on_duplicate.value, progress=progress.update
                )
            except DuplicateIdError as error:
                if error.row is None:
                    raise
                where = inputs.place_of_record(error.row)
                raise DuplicateIdError(error.record_id, where=where, row=error.row) from None
    finally:
        if handle is not None:
            handle.close(compact=False)


def _is_database(path: str, kind: InputKind | None) -> bool:
    if path == "-" or kind is not None:
        return kind is InputKind.IQDB
    with closing(ByteSource(path)) as source:
        return kind_of(source, None) is InputKind.IQDB


def _counts(report: BulkReport) -> str:
    parts = [f"{report.rows_added:,} added", f"{report.rows_replaced:,} replaced"]
    repeated = report.rows_read - report.rows_added - report.rows_replaced
    if repeated:
        parts.append(f"{repeated:,} with an id that came again later")
    return ", ".join(parts) + f"; the database holds {report.n_rows:,}"


class _Wanted:
    """What was asked for a new database, or has to agree with an existing one."""

    def __init__(
        self,
        metric: DistanceMetric | None,
        index: IndexChoice | None,
        index_options: IndexOptions,
        compression: str | None,
        model: str | None,
        database_id: str | None,
    ) -> None:
        self._metric = metric
        self._index = index
        self._index_options = index_options
        self._compression = None if compression is None else Compression.parse(compression)
        self._model = model
        self._database_id = None if database_id is None else parse_database_id(database_id)

    def config(self, inputs: Inputs | PlainNpy, threads: int | None) -> IqdbConfig:
        """Return the configuration of a new database: what was asked for, else that of a database source."""
        source = inputs.config
        if source is None:
            assert self._metric is not None
            source = IqdbConfig(dim=inputs.dim, metric=self._metric)
        model = {} if self._model is None else {"model": self._model}
        return IqdbConfig(
            dim=inputs.dim,
            metric=self._metric or source.metric,
            index=self._index_options.config(self._index, source.index) or source.index,
            compression=self._compression or source.compression,
            provenance={**source.provenance, **model},
            database_id=self._database_id,
            threads=threads,
        )

    def check(self, path: str, handle: Iqdb) -> None:
        """Refuse what contradicts an existing database.

        Raises:
            ConfigConflictError: something does.
        """
        config = handle.config
        stored: dict[str, object] = {
            "metric": config.metric.value,
            "index": config.index.kind.value,
            "compression": str(config.compression),
            "model": config.provenance.get("model"),
            "database-id": None if config.database_id is None else config.database_id.hex(),
        }
        wanted: dict[str, object] = {
            "metric": None if self._metric is None else self._metric.value,
            "index": None if self._index is None else self._index.value,
            "compression": None if self._compression is None else str(self._compression),
            "model": self._model,
            "database-id": None if self._database_id is None else self._database_id.hex(),
        }
        if wanted["index"] in (None, stored["index"]):
            self._index_options.check(config.index.kind.value, config.index)
            settings = config.index.to_dict()
            for name, value in self._index_options.settings().items():
                option = name.removeprefix("use_").replace("_", "-")
                wanted[option], stored[option] = value, settings[name]
        for field, text in wanted.items():
            if text is not None and text != stored[field]:
                hint = f"leave --{field} out to import into this database"
                raise ConfigConflictError(field, text, stored[field], where=path, hint=hint)
