"""`iqdb optimize`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from iqdb_cli.ids import to_json
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
from iqdb_cli.options import Database, Json, Threads, Wait
from iqdb_cli.output import open_output
from iqdb_cli.sizes import counted, human_bytes
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.config import FlatConfig, IndexConfig
from iqdb_core.database import Iqdb

if TYPE_CHECKING:
    from iqdb_core.reports import OptimizeReport

EXAMPLES = """
  iqdb optimize notes.iqdb
  iqdb optimize notes.iqdb --index hnsw --m 24
  iqdb optimize notes.iqdb --index flat
"""


@taken_back_when_terminated()
def command(
    db: Database,
    index: Annotated[
        IndexChoice | None,
        typer.Option(
            "--index",
            help="Change the index kind: flat compares with every record and is exact, hnsw walks a graph, "
            "ivf visits some of many lists. The default keeps it.",
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
    sample: Annotated[
        int,
        typer.Option(
            "--sample",
            metavar="N",
            min=0,
            help="Measure recall before and after with the vectors of N stored records; 0 measures none.",
        ),
    ] = 100,
    wait: Wait = 0,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Build the index anew, or change it, and say what that gained.

    The log is folded in on the way. While the index kind stays, so do the settings that are not given.
    Also the way out when the index is damaged: it is made from the records. Recall is the share of the 10
    nearest of each sampled record, itself not counted, that a search with the default settings finds;
    "iqdb recall" measures with your own queries.
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
    handle = Iqdb.open_existing(db, threads=threads, lock_wait=wait)
    try:
        present = handle.config.index
        report = handle.optimize(options.config(index, present), sample=sample)
        now = handle.config.index
    finally:
        handle.close(compact=False)
    with open_output() as out:
        if as_json:
            out.write_line(to_json(report.to_dict()))
            return
        for line in _lines(report, present, now):
            out.write_line(line)


def _lines(report: OptimizeReport, before: IndexConfig, after: IndexConfig) -> list[str]:
    if not report.changed:
        return [report.reason]
    old_size, new_size = human_bytes(report.bytes_before), human_bytes(report.bytes_after)
    old_index, new_index = human_bytes(report.index_bytes_before), human_bytes(report.index_bytes_after)
    lines = [
        f"index {describe(after)}",
        f"{counted(report.n_rows, 'record')} in {report.seconds:.1f} s; {report.reason}",
        f"file: {old_size} before, {new_size} after",
        f"index: {old_index} before, {new_index} after",
    ]
    if report.recall_before is not None or report.recall_after is not None:
        found = _recall(report.recall_before, before), _recall(report.recall_after, after)
        sample = counted(report.n_sampled, "stored record")
        lines.append(f"recall@10: {found[0]} before, {found[1]} after, measured with {sample}")
    return lines


def _recall(value: float | None, index: IndexConfig) -> str:
    if value is None:
        return "exact" if isinstance(index, FlatConfig) else "unknown"
    return f"{value:.3f}"
