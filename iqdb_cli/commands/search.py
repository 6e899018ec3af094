"""`iqdb search`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from iqdb_cli import terminal
from iqdb_cli.errors import RecordNotFoundError
from iqdb_cli.exit_codes import UsageError
from iqdb_cli.hit_formats import hit_writer
from iqdb_cli.ids import format_id, parse_id
from iqdb_cli.legacy_notes import tell_of_legacy
from iqdb_cli.options import Database, OutputFile, Threads
from iqdb_cli.output import OutputFormat, choose_format, open_output
from iqdb_cli.queries import QueryBatch, read_queries
from iqdb_core.database import Iqdb

if TYPE_CHECKING:
    from iqdb_core.explain import SearchExplanation
    from iqdb_core.filters import Filter
    from iqdb_core.hits import Hit
    from iqdb_core.types import VectorId

EXAMPLES = """
  iqdb search notes.iqdb query.npy
  iqdb search notes.iqdb --like 42 --filter "lang = 'en' and year > 2020"
  echo '[0.1, 0.7, 0.2]' | iqdb search notes.iqdb --k 3
  iqdb search notes.iqdb query.npy --ef 200 --explain
  iqdb search notes.iqdb queries.npy --format parquet -o hits.parquet
"""

# At most so many hits are held at a time, however many queries there are.
_MAX_HITS_HELD = 200_000
# Ctrl-C is noticed between batches, so one batch takes a second or two; the kernels need no more than
# the least number of queries to work at full speed.
_MAX_BATCH_PRODUCTS = 200_000_000_000
_LEAST_BATCH = 128


def command(
    db: Database,
    queries: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERIES",
            help="A .npy file (1-D or 2-D) or JSON lines (an array, or an object with a vector, a line); "
            '"-" is stdin, which is also the default.',
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", metavar="N", min=1, help="Return the N nearest records of each query.")
    ] = 10,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="ID",
            help="Search by the vector of the stored record ID instead of QUERIES. May be given more than "
            "once; each is a query. The record itself is found too.",
        ),
    ] = None,
    exclude_self: Annotated[
        bool,
        typer.Option("--exclude-self", help="Leave the record that --like names out of its own results."),
    ] = False,
    filter_expression: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="EXPR",
            help="Search only records whose metadata meets EXPR, such as \"pos = 'noun' and n_words >= 2\".",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare with every record and use no approximate index.")
    ] = False,
    ef: Annotated[
        int | None,
        typer.Option(
            "--ef",
            metavar="N",
            min=1,
            help="For the index kind hnsw: hold N candidates. More find more of the nearest, in more time. "
            "The default is the ef_search of the database.",
        ),
    ] = None,
    n_probes: Annotated[
        int | None,
        typer.Option(
            "--n-probes",
            metavar="N",
            min=1,
            help="For the index kind ivf: visit N lists. More find more of the nearest, in more time. The "
            "default is the n_probes of the database.",
        ),
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option("--max-distance", metavar="D", help="Leave out records farther than D from the query."),
    ] = None,
    with_vectors: Annotated[
        bool, typer.Option("--with-vectors", help="Write the vector of each hit too.")
    ] = False,
    no_metadata: Annotated[
        bool, typer.Option("--no-metadata", help="Leave the metadata of the hits out.")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="KEYS",
            help="Write only these metadata keys, separated by commas, in this order.",
        ),
    ] = None,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format",
            help="Write the hits in this format. The default is the suffix of --output if it is one of them, "
            "else table on a terminal and jsonl elsewhere.",
        ),
    ] = None,
    output: OutputFile = None,
    vector_field: Annotated[
        str | None,
        typer.Option(
            "--vector-field",
            metavar="NAME",
            help="Take the query from this field of JSON objects. The default is vector or embedding, else "
            "the only field that holds an array.",
        ),
    ] = None,
    threads: Threads = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also say on stderr how the search was answered: plan, counts and times. With --format "
            "jsonl that is a JSON object. Queries that were searched together are explained together.",
        ),
    ] = False,
) -> None:
    """Find the nearest records to query vectors.

    Each query is a vector of the database's dimension. Smaller distances are nearer, and records at
    equal distances come in the order in which they were inserted. In JSON lines a hit has the keys
    query (from 0), rank (from 1), id, distance and metadata.
    """
    if like and queries is not None:
        raise UsageError("--like and QUERIES exclude each other; give one of them")
    if exclude_self and not like:
        raise UsageError("--exclude-self needs --like")
    if not like and queries is None and terminal.stdin_is_terminal():
        raise UsageError(
            "no queries: stdin is a terminal\n"
            f'Try "iqdb search {db} query.npy" or "iqdb search {db} --like ID".'
        )
    if no_metadata and columns is not None:
        raise UsageError("--no-metadata and --columns exclude each other; give one of them")
    chosen = choose_format(output_format, output)
    condition = None if filter_expression is None else _parse_filter(filter_expression)
    with Iqdb.open_existing(db, read_only=True, threads=threads) as handle:
        tell_of_legacy(handle, db)
        if like:
            own_ids = [parse_id(text, "--like") for text in like]
            batches = _like_batches(handle, db, own_ids)
        else:
            own_ids = []
            limit = _batch_limit(k, len(handle) * handle.dim)
            batches = read_queries(queries or "-", handle.dim, field=vector_field, limit=limit)
        with open_output(output, database=db) as out:
            writer = hit_writer(
                chosen,
                out,
                with_metadata=not no_metadata,
                with_vectors=with_vectors,
                columns=None if columns is None else [key.strip() for key in columns.split(",")],
            )
            n_hits = 0
            for batch in batches:
                if explain:
                    results, explanation = handle.explain_buffers(
                        batch.values,
                        batch.n_queries,
                        k + exclude_self,
                        filter=condition,
                        ef=ef,
                        n_probes=n_probes,
                        exact=exact,
                        max_distance=max_distance,
                        metadata=not no_metadata,
                    )
                    _explain(explanation, as_json=output_format is OutputFormat.JSONL)
                else:
                    results = handle.search_buffers(
                        batch.values,
                        batch.n_queries,
                        k + exclude_self,
                        filter=condition,
                        ef=ef,
                        n_probes=n_probes,
                        exact=exact,
                        max_distance=max_distance,
                    )
                for number, found in enumerate(results, batch.first):
                    n_hits += len(found)
                    hits = _without(own_ids[number], found)[:k] if exclude_self else found
                    vectors = [_vector(handle, hit.id) for hit in hits] if with_vectors else []
                    writer.write(number, hits, vectors)
            writer.finish()
        if condition is not None and not n_hits and max_distance is None and len(handle):
            from iqdb_cli.filter_notes import no_match

            terminal.note(no_match(handle, db, condition))


def _explain(explanation: SearchExplanation, *, as_json: bool) -> None:
    if as_json:
        from iqdb_cli.ids import to_json

        terminal.note(to_json(explanation.to_dict()))
        return
    from iqdb_cli.explanation import explanation_lines

    for line in explanation_lines(explanation):
        terminal.note(line)


def _parse_filter(expression: str) -> Filter:
    from iqdb_core.filters import Filter

    return Filter.parse(expression)


def _batch_limit(k: int, components: int) -> int:
    """Return how many queries one batch may have, for `components` vector components in the database."""
    by_time = max(_LEAST_BATCH, _MAX_BATCH_PRODUCTS // max(1, components))
    return max(1, min(by_time, _MAX_HITS_HELD // k))


def _like_batches(handle: Iqdb, path: str, ids: list[VectorId]) -> Iterator[QueryBatch]:
    from array import array

    values = array("f")
    for record_id in ids:
        stored = handle.vector_bytes(record_id)
        if stored is None:
            raise RecordNotFoundError(path, format_id(record_id))
        values.frombytes(stored)
    yield QueryBatch(values, len(ids), 0)


def _without(record_id: VectorId, hits: list[Hit]) -> list[Hit]:
    return [hit for hit in hits if hit.id != record_id or type(hit.id) is not type(record_id)]


def _vector(handle: Iqdb, record_id: VectorId) -> bytes:
    stored = handle.vector_bytes(record_id)
    assert stored is not None, "a read-only handle keeps seeing the records that it found"
    return stored
