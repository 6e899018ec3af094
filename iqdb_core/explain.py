"""What one search did, and how long each part of it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqdb_core.bitmap import count_ones
from iqdb_core.plain_dicts import PlainFields
from iqdb_core.search import merged, search_candidates, search_delta

if TYPE_CHECKING:
    from iqdb_core.hits import Hit
    from iqdb_core.index.protocol import Buffer
    from iqdb_core.search_request import Request
    from iqdb_core.view import View


@dataclass(frozen=True)
class SearchExplanation(PlainFields):
    """How a search was answered. Counts of work are totals over all queries.

    Attributes:
        index: the index kind.
        plan: what the index did: "scan" compared every candidate, "graph" walked a graph over all rows,
            "matches" walked it over the rows that meet the filter, "lists" visited lists; "none" when the
            snapshot has no candidate.
        exact: whether the hits are the nearest for sure.
        n_queries: queries asked together.
        k: hits asked for.
        n_records: records of the database.
        matched: of these, records that meet the filter; all when there is none.
        candidates: rows of the snapshot that could be hits.
        tombstones: rows of the snapshot that were deleted or replaced since.
        breadth: places in the pool of a walk, or lists visited by each query; 0 for a scan.
        visited: codes compared.
        scored: stored vectors compared.
        rescanned: queries whose walk came short, and for which all candidates were compared.
        delta_rows: records written since the snapshot that were compared, with each query.
        threads: threads that the search was allowed.
        filter_seconds: time to find the candidates; next to none when the filter was used before.
        index_seconds: time to search the snapshot.
        delta_seconds: time to search what was written since.
        merge_seconds: time to put the hits together.
        metadata_seconds: time to decode the metadata of the hits.
    """

    index: str
    plan: str
    exact: bool
    n_queries: int
    k: int
    n_records: int
    matched: int
    candidates: int
    tombstones: int
    breadth: int
    visited: int
    scored: int
    rescanned: int
    delta_rows: int
    threads: int
    filter_seconds: float
    index_seconds: float
    delta_seconds: float
    merge_seconds: float
    metadata_seconds: float

    @property
    def seconds(self) -> float:
        """Time in all."""
        searching = self.filter_seconds + self.index_seconds + self.delta_seconds
        return searching + self.merge_seconds + self.metadata_seconds


def explained_search(
    view: View, queries: Buffer, n_queries: int, request: Request, threads: int, *, metadata: bool
) -> tuple[list[list[Hit]], SearchExplanation]:
    """Search as `search` does, with the same hits, and watch.

    Args:
        view: what to search.
        queries: f32[n_queries, dim], C-contiguous and finite.
        n_queries: the number of queries.
        request: k and the rest.
        threads: threads to use.
        metadata: decode the metadata of the hits, to say how long that takes.
    """
    times = [time.perf_counter()]

    def lap() -> None:
        times.append(time.perf_counter())

    mask = view.base_candidates(request.condition) if view.n_base else None
    lap()
    base_out = search_candidates(view, mask, queries, n_queries, request, threads) if n_queries else None
    lap()
    delta_out = search_delta(view, queries, n_queries, request, threads) if n_queries else None
    lap()
    results = merged(view, base_out, delta_out, n_queries, request.k)
    lap()
    if metadata:
        for hits in results:
            for hit in hits:
                _ = hit.metadata
    lap()
    candidates = view.n_base
    if mask is not None and request.condition is not None:
        candidates = count_ones(mask, view.base.snapshot.n_rows)
    delta_rows = 0 if view.delta is None else _delta_matches(view, request)
    plan = None if base_out is None or not candidates else base_out.plan
    scanned = plan is None or plan.name == "scan"
    n_scans = n_queries if scanned else 0
    by_codes = n_scans if plan is not None and plan.coded else 0
    rescanned = 0 if plan is None else plan.rescanned
    explanation = SearchExplanation(
        index=view.base.index.kind.value,
        plan="none" if plan is None else plan.name,
        exact=scanned or rescanned == n_queries,
        n_queries=n_queries,
        k=request.k,
        n_records=view.n_records,
        matched=candidates + delta_rows,
        candidates=candidates,
        tombstones=view.base.snapshot.n_rows - view.n_base,
        breadth=0 if plan is None else plan.breadth,
        visited=by_codes * candidates + (0 if plan is None else plan.visited),
        scored=(n_scans - by_codes + rescanned) * candidates + (0 if plan is None else plan.scored),
        rescanned=rescanned,
        delta_rows=delta_rows,
        threads=threads,
        filter_seconds=times[1] - times[0],
        index_seconds=times[2] - times[1],
        delta_seconds=times[3] - times[2],
        merge_seconds=times[4] - times[3],
        metadata_seconds=times[5] - times[4],
    )
    return results, explanation


def _delta_matches(view: View, request: Request) -> int:
    delta = view.delta
    assert delta is not None
    mask = None if request.condition is None else delta.candidates(request.condition)
    return delta.n_live if mask is None else count_ones(mask, 8 * memoryview(mask).nbytes)
