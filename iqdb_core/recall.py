"""Measured recall: how much of what exact search finds an index finds, and how fast.

A hit counts as found when it is no farther from its query than the last hit of exact search, so that
among records at equal distances it does not matter which one is returned. Distances are compared bit
by bit: every index kind computes the same one for the same record.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from iqdb_core.bitmap import unpack
from iqdb_core.errors import InvalidParameterError
from iqdb_core.plain_dicts import PlainFields
from iqdb_core.search import search, search_base
from iqdb_core.search_request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from iqdb_core.filters import Filter
    from iqdb_core.hits import Hit
    from iqdb_core.types import VectorId
    from iqdb_core.view import View

# The setting in the index configuration that a search parameter replaces.
STORED_SETTING: Final = {"ef": "ef_search", "n_probes": "n_probes"}

_SAMPLE_SEED: Final = 0
_BATCH: Final = 256
_WARM_QUERIES: Final = 200
_EXACT_SECONDS: Final = 0.5
_SWEEPS: Final = {"ef": (16, 32, 64, 128, 256, 512), "n_probes": (1, 2, 4, 8, 16, 32, 64)}
_LARGEST: Final = {"ef": 65_536, "n_probes": 2**24}


@dataclass(frozen=True)
class RecallPoint(PlainFields):
    """What one setting gives.

    Attributes:
        value: the setting of `ef` or `n_probes`.
        plan: what the index did: "graph", "matches", "lists", or "scan" where comparing everything costs
            less.
        recall_mean: the share of the k nearest records that was found, the mean over the queries.
        recall_p5: the same at the fifth percentile: 95 of 100 queries find at least this much.
        recall_worst: the same of the query that found the least.
        queries_per_second: speed of queries asked one by one.
    """

    value: int
    plan: str
    recall_mean: float
    recall_p5: float
    recall_worst: float
    queries_per_second: float


@dataclass(frozen=True)
class RecallReport(PlainFields):
    """What `Iqdb.recall` measured.

    Attributes:
        index: the index kind.
        k: hits asked for.
        n_queries: queries asked.
        sampled: whether these were stored records, each left out of its own results. They are easier
            than real queries, which lie farther from what is stored.
        filter: the filter as an expression, or None.
        parameter: the name of the search parameter that was varied; None for an index that is exact.
        default: its value stored in the database.
        points: one for each setting, ascending.
        exact_queries_per_second: speed of exact search.
        target: the mean recall that was asked for, or None.
        reached: the smallest setting that reaches it, or None.
    """

    index: str
    k: int
    n_queries: int
    sampled: bool
    filter: str | None
    parameter: str | None
    default: int | None
    points: list[RecallPoint]
    exact_queries_per_second: float
    target: float | None
    reached: int | None

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Return what `to_dict` described.

        Raises:
            InvalidParameterError: a key is missing or unknown, or a value has another type.
        """
        if isinstance(value, dict) and isinstance(value.get("points"), list):
            value = {**value, "points": [RecallPoint.from_dict(point) for point in value["points"]]}
        return super().from_dict(value)


class Queries(NamedTuple):
    """Queries, and for stored records their ids, so that they do not find themselves."""

    vectors: NDArray[np.float32]
    own_ids: list[VectorId] | None

    def __len__(self) -> int:
        return len(self.vectors)


def sample_queries(view: View, count: int) -> Queries:
    """Return the vectors of up to `count` records, chosen at random but the same ones each time."""
    snapshot, delta = view.base.snapshot, view.delta
    rows = np.arange(snapshot.n_rows)
    if view.live is not None:
        rows = np.flatnonzero(unpack(view.live, 0, snapshot.n_rows))
    new = np.empty(0, np.int64) if delta is None else delta.live_rows()
    generator = np.random.default_rng(_SAMPLE_SEED)
    chosen = np.sort(generator.permutation(len(rows) + len(new))[:count])
    old_rows = rows[chosen[chosen < len(rows)]]
    new_rows = new[chosen[chosen >= len(rows)] - len(rows)]
    vectors = [snapshot.take_vectors(old_rows)]
    ids = list(map(snapshot.id_at, old_rows.tolist()))
    if delta is not None:
        vectors.append(delta.vectors[new_rows])
        ids += map(delta.id_at, new_rows.tolist())
    return Queries(np.ascontiguousarray(np.concatenate(vectors), np.float32), ids)


class Measurement:
    """Exact results for some queries, with which those of any setting are compared."""

    def __init__(
        self,
        view: View,
        queries: Queries,
        k: int,
        condition: Filter | None,
        threads: int,
        exact: Sequence[Sequence[Hit]] | None = None,
    ) -> None:
        """Search exactly, in batches, unless `exact` has the hits of each query: one more for stored records.

        Raises:
            DamagedError: a part of the records that is needed is damaged.
        """
        self._view = view
        self._queries = queries
        self._k = k
        self._condition = condition
        self._threads = threads
        self._farthest = np.full(len(queries), -np.inf)
        self._wanted = np.zeros(len(queries), np.int64)
        for number, hits in enumerate(self._exact_hits() if exact is None else exact):
            distances = self._distances(hits, number)
            self._wanted[number] = len(distances)
            self._farthest[number] = distances[-1] if distances else -np.inf

    def exact_queries_per_second(self) -> float:
        """Return the speed of exact search with single queries, from as many as fit in a moment."""
        request = self._request(exact=True)
        started = time.perf_counter()
        done, taken = 0, 0.0
        while done < len(self._queries) and (taken < _EXACT_SECONDS or done == 0):
            self._search_one(done, request)
            done += 1
            taken = time.perf_counter() - started
        return done / taken if taken else 0.0

    def warm(self, parameters: dict[str, int]) -> None:
        """Let the first touch of everything pass before anything is timed."""
        batch = self._queries.vectors[:_WARM_QUERIES]
        search(self._view, batch, len(batch), self._request(parameters=parameters), self._threads)

    def recalls(self, view: View, parameters: dict[str, int]) -> NDArray[np.float64]:
        """Return for each query the share of its nearest records that is found in a view with these records.

        A query to which nothing qualifies finds all of it.
        """
        request = self._request(parameters=parameters)
        found = search(view, self._queries.vectors, len(self._queries), request, self._threads)
        return self._shares(found)

    def point(self, name: str, value: int) -> RecallPoint:
        """Return what a setting gives, with queries asked one by one."""
        request = self._request(parameters={name: value})
        started = time.perf_counter()
        found = [self._search_one(number, request) for number in range(len(self._queries))]
        taken = time.perf_counter() - started
        shares = self._shares(found)
        return RecallPoint(
            value,
            self._plan(request),
            float(shares.mean()),
            float(np.percentile(shares, 5)),
            float(shares.min()),
            len(self._queries) / taken if taken else 0.0,
        )

    def _request(self, *, exact: bool = False, parameters: dict[str, int] | None = None) -> Request:
        k = self._k + (self._queries.own_ids is not None)
        return Request(k, self._condition, exact=exact, parameters=parameters or {})

    def _exact_hits(self) -> Iterator[list[Hit]]:
        request = self._request(exact=True)
        for start in range(0, len(self._queries), _BATCH):
            batch = self._queries.vectors[start : start + _BATCH]
            yield from search(self._view, batch, len(batch), request, self._threads)

    def _search_one(self, number: int, request: Request) -> list[Hit]:
        query = self._queries.vectors[number : number + 1]
        return search(self._view, query, 1, request, self._threads)[0]

    def _plan(self, request: Request) -> str:
        out = search_base(self._view, self._queries.vectors[:1], 1, request, self._threads)
        return "scan" if out is None else out.plan.name

    def _distances(self, hits: Sequence[Hit], number: int) -> list[float]:
        own_ids = self._queries.own_ids
        if own_ids is not None:
            own = own_ids[number]
            hits = [hit for hit in hits if hit.id != own or type(hit.id) is not type(own)]
        return [hit.distance for hit in hits[: self._k]]

    def _shares(self, found: Sequence[Sequence[Hit]]) -> NDArray[np.float64]:
        shares = np.ones(len(self._queries))
        for number, hits in enumerate(found):
            if self._wanted[number]:
                near = sum(distance <= self._farthest[number] for distance in self._distances(hits, number))
                shares[number] = near / self._wanted[number]
        return shares


def measure_recall(
    view: View,
    queries: Queries,
    k: int,
    condition: Filter | None,
    *,
    sweep: Sequence[int] | None,
    target: float | None,
    threads: int,
    progress: Callable[[RecallPoint], object] | None,
) -> RecallReport:
    """Measure the index of a view; see `Iqdb.recall`."""
    if not len(queries):
        raise InvalidParameterError("queries", 0, "at least one query")
    index = view.base.index
    settings = view.base.snapshot.config["index"]
    measurement = Measurement(view, queries, k, condition, threads)
    parameter = min(index.parameters, default=None)
    points: dict[int, RecallPoint] = {}
    default = reached = None
    if parameter is not None:
        default = int(settings[STORED_SETTING[parameter]])
        largest = _largest(parameter, settings, view.base.snapshot.n_rows)
        values = sorted({default, *_SWEEPS[parameter]} if sweep is None else set(sweep))
        values = [value for value in values if value <= largest] or [largest]

        def measure(value: int) -> RecallPoint:
            if value not in points:
                points[value] = measurement.point(parameter, value)
                if progress is not None:
                    progress(points[value])
            return points[value]

        measurement.warm({parameter: values[-1]})
        for value in values:
            measure(value)
        if target is not None:
            reached = _smallest(lambda value: measure(value).recall_mean >= target, values, largest)
    return RecallReport(
        index=index.kind.value,
        k=k,
        n_queries=len(queries),
        sampled=queries.own_ids is not None,
        filter=None if condition is None else str(condition),
        parameter=parameter,
        default=default,
        points=[points[value] for value in sorted(points)],
        exact_queries_per_second=measurement.exact_queries_per_second(),
        target=target,
        reached=reached,
    )


def _largest(parameter: str, settings: dict[str, Any], n_rows: int) -> int:
    """Return the largest setting that makes sense: everything there is."""
    everything = int(settings["n_clusters"]) if parameter == "n_probes" else max(1, n_rows)
    return min(_LARGEST[parameter], everything)


def _smallest(reaches: Callable[[int], bool], values: Sequence[int], largest: int) -> int | None:
    """Return the smallest setting that reaches the target, taking recall to rise with the setting.

    Where no value of the sweep does, larger ones are tried; then the gap below the first that does is
    halved until nothing is left of it.
    """
    low, high = 0, None
    tried = list(values)
    while tried[-1] < largest and not reaches(tried[-1]):
        tried.append(min(2 * tried[-1], largest))
    for value in tried:
        if reaches(value):
            high = value
            break
        low = value
    if high is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if reaches(middle):
            high = middle
        else:
            low = middle
    return high
