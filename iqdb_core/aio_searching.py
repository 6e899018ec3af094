"""The searching half of the asynchronous handle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from iqdb_core.aio_threads import HandleThreads
    from iqdb_core.cache import CacheStats
    from iqdb_core.database import Iqdb
    from iqdb_core.explain import SearchExplanation
    from iqdb_core.filters import Filter
    from iqdb_core.hits import Hit
    from iqdb_core.index.protocol import Buffer


class AsyncSearching:
    """What `AsyncIqdb` offers to find records by their vectors; `Searching` in threads."""

    _db: Iqdb
    _threads: HandleThreads

    async def search(
        self,
        query: ArrayLike,
        k: int,
        *,
        filter: Filter | str | None = None,
        ef: int | None = None,
        n_probes: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
    ) -> list[Hit]:
        """Return the records nearest to a query; see `Iqdb.search`."""
        return await self._threads.read(
            self._db.search,
            query,
            k,
            filter=filter,
            ef=ef,
            n_probes=n_probes,
            exact=exact,
            max_distance=max_distance,
        )

    async def search_with(self, query: ArrayLike, k: int, filter: Filter | str | None) -> list[Hit]:
        """Return the nearest records that meet a filter; `search` with a filter."""
        return await self._threads.read(self._db.search_with, query, k, filter)

    async def search_batch(
        self,
        queries: ArrayLike,
        k: int,
        *,
        filter: Filter | str | None = None,
        ef: int | None = None,
        n_probes: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
    ) -> list[list[Hit]]:
        """Return the hits of each of n x `dim` queries; see `Iqdb.search_batch`."""
        return await self._threads.read(
            self._db.search_batch,
            queries,
            k,
            filter=filter,
            ef=ef,
            n_probes=n_probes,
            exact=exact,
            max_distance=max_distance,
        )

    async def search_batch_with(
        self,
        queries: ArrayLike,
        k: int,
        filter: Filter | str | None,
    ) -> list[list[Hit]]:
        """Return the hits of each query that meet a filter; `search_batch` with a filter."""
        return await self._threads.read(self._db.search_batch_with, queries, k, filter)

    async def search_buffers(
        self,
        queries: Buffer,
        n_queries: int,
        k: int,
        *,
        filter: Filter | str | None = None,
        ef: int | None = None,
        n_probes: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
    ) -> list[list[Hit]]:
        """Search with queries in a float32 buffer; see `Iqdb.search_buffers`."""
        return await self._threads.read(
            self._db.search_buffers,
            queries,
            n_queries,
            k,
            filter=filter,
            ef=ef,
            n_probes=n_probes,
            exact=exact,
            max_distance=max_distance,
        )

    async def search_arrays(
        self,
        queries: ArrayLike,
        k: int,
        *,
        filter: Filter | str | None = None,
        ef: int | None = None,
        n_probes: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return the ids and distances of the hits of each query as arrays; see `Iqdb.search_arrays`."""
        return await self._threads.read(
            self._db.search_arrays,
            queries,
            k,
            filter=filter,
            ef=ef,
            n_probes=n_probes,
            exact=exact,
            max_distance=max_distance,
        )

    # --- The cache of results ------------------------------------------------------------------

    def cache_stats(self) -> CacheStats:
        """Return what the cache of search results did so far; see `Iqdb.cache_stats`."""
        return self._db.cache_stats()

    async def clear_cache(self) -> None:
        """Drop all cached search results; see `Iqdb.clear_cache`."""
        await self._threads.read(self._db.clear_cache)

    async def explain(
        self,
        query: ArrayLike,
        k: int,
        *,
        filter: Filter | str | None = None,
        ef: int | None = None,
        n_probes: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
    ) -> SearchExplanation:
        """Search, and return how it was done; see `Iqdb.explain`."""
        return await self._threads.read(
            self._db.explain,
            query,
            k,
            filter=filter,
            ef=ef,
            n_probes=n_probes,
            exact=exact,
            max_distance=max_distance,
        )

    async def explain_buffers(
        self,
        queries: Buffer,
        n_queries: int,
        k: int,
        *,
        filter: Filter | str | None = None,
        ef: int | None = None,
        n_probes: int | None = None,
        exact: bool = False,
        max_distance: float | None = None,
        metadata: bool = True,
    ) -> tuple[list[list[Hit]], SearchExplanation]:
        """Search, and return the hits and how they were found; see `Iqdb.explain_buffers`."""
        return await self._threads.read(
            self._db.explain_buffers,
            queries,
            n_queries,
            k,
            filter=filter,
            ef=ef,
            n_probes=n_probes,
            exact=exact,
            max_distance=max_distance,
            metadata=metadata,
        )
