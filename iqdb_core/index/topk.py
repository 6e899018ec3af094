"""`TopK`: where a search puts its results."""

from __future__ import annotations

from array import array
from typing import NamedTuple


class Plan(NamedTuple):
    """How an index answered.

    Attributes:
        name: "scan", or what the index did instead ("graph", "matches", "lists").
        breadth: places in the pool of a walk, or lists probed; 0 for a scan.
        visited: codes compared, over all queries.
        scored: vectors compared, over all queries; 0 when a scan did not count them.
        rescanned: queries that came short and were answered by a scan after all.
        coded: whether a scan compared the codes of all candidates, and vectors of few.
    """

    name: str
    breadth: int = 0
    visited: int = 0
    scored: int = 0
    rescanned: int = 0
    coded: bool = False


SCAN = Plan("scan")


class TopK:
    """Room for `n_queries` lists of `k` hits.

    Attributes:
        rows: i64[n_queries * k]; -1 where a list is shorter.
        distances: f64[n_queries * k]; infinite where a list is shorter.
        counts: i64[n_queries], hits in each list.
        plan: how the index found them.
    """

    __slots__ = ("counts", "distances", "k", "n_queries", "plan", "rows")

    def __init__(self, n_queries: int, k: int) -> None:
        self.n_queries = n_queries
        self.k = k
        self.plan = SCAN
        self.rows = array("q", bytes(8 * n_queries * k))
        self.distances = array("d", bytes(8 * n_queries * k))
        self.counts = array("q", bytes(8 * n_queries))
