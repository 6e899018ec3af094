"""`ResultCache`: the hits of earlier searches, for searches that ask the same.

A key is all that a search asks: the query's bytes and the checked parameters. The entries belong to one
view, the state of the database that they were computed on. Publishing another view empties the cache, and
results computed on any other view than the published one are neither stored nor given out. So a search
with the cache has the same answer as one without.

Entries hold on to their hits alone. What callers get are copies, so nothing that a caller does to a hit or
its metadata is seen by another.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from iqdb_core.cache_policies import POLICIES
from iqdb_core.hits import SharedHits
from iqdb_core.plain_dicts import PlainFields
from iqdb_core.search import search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from iqdb_core.cache_config import CacheConfig
    from iqdb_core.filters import Filter
    from iqdb_core.hits import Hit
    from iqdb_core.index.protocol import Buffer
    from iqdb_core.search_request import Request
    from iqdb_core.view import View

    Key: TypeAlias = tuple[bytes, int, Filter | None, float, bool, tuple[tuple[str, int], ...]]


@dataclass(frozen=True)
class CacheStats(PlainFields):
    """What a result cache did since its handle was opened.

    Attributes:
        hits: queries answered from the cache.
        misses: queries that had to be searched.
        evictions: results given up because there was no more room. Results dropped because the database
            changed or their time was over are not counted.
        len: results in the cache now.
        capacity: results that it can hold; 0 when there is no cache.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    len: int = 0
    capacity: int = 0

    def lookups(self) -> int:
        """Return the number of queries that the cache was asked for."""
        return self.hits + self.misses

    def hit_rate(self) -> float:
        """Return the share of the queries that the cache answered; 0.0 before the first query."""
        lookups = self.lookups()
        return self.hits / lookups if lookups else 0.0


class ResultCache:
    """Search results of one view, as many as a policy keeps. Safe to use from many threads.

    The lock is held for a few dict operations, never during a search. Two threads that miss the same
    query at the same time both search; the later result replaces the earlier, equal one.
    """

    def __init__(self, config: CacheConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without results, for no view yet.

        Args:
            config: capacity, policy and time to live.
            clock: seconds, never going backwards.
        """
        self.config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._policy = POLICIES[config.policy](config.capacity)
        # In the order of their end: the time to live is the same for all.
        self._entries: OrderedDict[Key, tuple[float, SharedHits]] = OrderedDict()
        self._view: View | None = None
        self._hits = 0
        self._misses = 0
        self._evictions = 0

    def renew(self, view: View | None) -> None:
        """Drop all results, and keep those of another view from now on (None: of none)."""
        with self._lock:
            self._view = view
            self._clear()

    def clear(self) -> None:
        """Drop all results. The counts stay."""
        with self._lock:
            self._clear()

    def stats(self) -> CacheStats:
        """Return what happened so far."""
        with self._lock:
            self._drop_expired()
            return CacheStats(
                self._hits, self._misses, self._evictions, len(self._entries), self.config.capacity
            )

    def search(
        self, view: View, queries: Buffer, n_queries: int, request: Request, threads: int
    ) -> list[list[Hit]]:
        """Do what `iqdb_core.search.search` does, but search only for queries without a kept result."""
        keys = _keys(queries, n_queries, request)
        found = self._lookup(view, keys)
        missing = [index for index, entry in enumerate(found) if entry is None]
        if missing:
            if len(missing) < n_queries:
                queries = _joined([keys[index][0] for index in missing])
            results = search(view, queries, len(missing), request, threads)
            for index, hits in zip(missing, results, strict=True):
                entry = found[index] = SharedHits(hits)
                self._store(view, keys[index], entry)
        return [entry.copies() for entry in found if entry is not None]

    def _lookup(self, view: View, keys: Sequence[Key]) -> list[SharedHits | None]:
        found: list[SharedHits | None] = [None] * len(keys)
        with self._lock:
            if view is self._view:
                self._drop_expired()
                for index, key in enumerate(keys):
                    entry = self._entries.get(key)
                    if entry is not None:
                        self._policy.touch(key)
                        found[index] = entry[1]
            n_found = len(found) - found.count(None)
            self._hits += n_found
            self._misses += len(found) - n_found
        return found

    def _store(self, view: View, key: Key, hits: SharedHits) -> None:
        ttl = self.config.ttl_seconds
        with self._lock:
            # What was computed on a view that is not shown any more must not answer for a newer one.
            if view is not self._view:
                return
            self._drop_expired()
            if key in self._entries:
                del self._entries[key]
            else:
                gone = self._policy.admit(key)
                if gone is not None:
                    del self._entries[gone]  # type: ignore[arg-type]
                    self._evictions += 1
            self._entries[key] = (0.0 if ttl is None else self._clock() + ttl, hits)

    def _drop_expired(self) -> None:
        if self.config.ttl_seconds is None:
            return
        now = self._clock()
        while self._entries:
            key, (end, _) = next(iter(self._entries.items()))
            if end > now:
                break
            del self._entries[key]
            self._policy.forget(key)

    def _clear(self) -> None:
        self._entries.clear()
        self._policy.clear()


def _keys(queries: Buffer, n_queries: int, request: Request) -> list[Key]:
    """Return what identifies the result of each of n queries on one view."""
    rest = (
        request.k,
        request.condition,
        request.max_distance,
        request.exact,
        tuple(sorted(request.parameters.items())),
    )
    if n_queries == 0:
        return []
    cells = memoryview(queries).cast("B")
    size = cells.nbytes // n_queries
    return [(cells[start : start + size].tobytes(), *rest) for start in range(0, cells.nbytes, size)]


def _joined(queries: list[bytes]) -> Buffer:
    """Return queries as a float32[n, dim] buffer."""
    return memoryview(b"".join(queries)).cast("f", (len(queries), len(queries[0]) // 4))
