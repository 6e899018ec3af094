"""`TopK`: where a search puts its results."""

from __future__ import annotations

from array import array


class TopK:
    """Room for `n_queries` lists of `k` hits.

    Attributes:
        rows: i64[n_queries * k]; -1 where a list is shorter.
        distances: f64[n_queries * k]; infinite where a list is shorter.
        counts: i64[n_queries], hits in each list.
    """

    __slots__ = ("counts", "distances", "k", "n_queries", "rows")

    def __init__(self, n_queries: int, k: int) -> None:
        self.n_queries = n_queries
        self.k = k
        self.rows = array("q", bytes(8 * n_queries * k))
        self.distances = array("d", bytes(8 * n_queries * k))
        self.counts = array("q", bytes(8 * n_queries))
