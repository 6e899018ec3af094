"""The searching half of the handle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqdb_core.search import nearest, query_block, search, vector_buffer
from iqdb_core.search_request import search_request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from iqdb_core.cache import CacheStats
    from iqdb_core.explain import SearchExplanation
    from iqdb_core.filters import Filter
    from iqdb_core.hits import Hit
    from iqdb_core.index.protocol import Buffer
    from iqdb_core.store import Store


class Searching:
    """What `Iqdb` offers to find records by their vectors."""

    _store: Store

    def search(
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
        """Return the records nearest to a query, by distance, then by insertion.

        Args:
            query: `dim` finite numbers; a float32 array is used without a copy.
            k: how many, at least 1. There are fewer hits only when fewer records qualify.
            filter: only records whose metadata meets this `Filter` or expression.
            ef: search breadth, for the index kind hnsw.
            n_probes: lists to visit, for the index kind ivf.
            exact: scan every candidate. The index kind flat always does.
            max_distance: only records at most this far away.

        Raises:
            VectorIndexError: a leaf says which argument is not acceptable.
            DamagedError: a part of the file that the answer depends on is damaged.
        """
        store = self._store
        if filter is None and not exact and max_distance is None and store.cache is None:
            # Most calls are of this kind, and a walk takes so little that every line here counts. A view
            # that is whole has no bitmap that could change, so that it needs no lease.
            whole = store.view()
            if whole.is_whole:
                hits = nearest(whole, query, k, ef, n_probes)
                if hits is not None:
                    return hits
        view = store.lease()
        try:
            buffer = vector_buffer(query, view.base.snapshot.dim, "query")
            request = search_request(view.base.index, k, filter, ef, n_probes, max_distance, exact=exact)
            cache = store.cache
            find = search if cache is None else cache.search
            return find(view, buffer, 1, request, store.threads)[0]
        finally:
            store.release(view)

    def search_with(self, query: ArrayLike, k: int, filter: Filter | str | None) -> list[Hit]:
        """Return the nearest records that meet a filter; `search` with a filter."""
        return self.search(query, k, filter=filter)

    def search_batch(
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
        """Return the hits of each of n x `dim` queries; the same as n calls of `search`, faster."""
        from iqdb_core.sources import many_vectors

        store = self._store
        view = store.lease()
        try:
            dim = view.base.snapshot.dim
            checked = many_vectors(queries, dim, lambda row: f"query {row}", what="queries")
            request = search_request(view.base.index, k, filter, ef, n_probes, max_distance, exact=exact)
            cache = store.cache
            find = search if cache is None else cache.search
            return find(view, checked, len(checked), request, store.threads)
        finally:
            store.release(view)

    def search_batch_with(
        self,
        queries: ArrayLike,
        k: int,
        filter: Filter | str | None,
    ) -> list[list[Hit]]:
        """Return the hits of each query that meet a filter; `search_batch` with a filter."""
        return self.search_batch(queries, k, filter=filter)

    def search_buffers(
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
        """Search with queries in a buffer of n_queries x `dim` float32, C-contiguous.

        The same as `search_batch`, but NumPy is imported only when the database has a log or the
        search a filter.
        """
        store = self._store
        view = store.lease()
        try:
            dim = view.base.snapshot.dim
            checked = query_block(queries, n_queries, dim)
            request = search_request(view.base.index, k, filter, ef, n_probes, max_distance, exact=exact)
            cache = store.cache
            find = search if cache is None else cache.search
            return find(view, checked, n_queries, request, store.threads)
        finally:
            store.release(view)

    def explain(
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
        """Search, and return how the search was answered instead of its hits.

        The arguments and errors are those of `search`. To have the hits too there is `explain_buffers`.
        """
        buffer = vector_buffer(query, self._store.view().base.snapshot.dim, "query")
        return self.explain_buffers(
            memoryview(buffer).cast("B").cast("f"),
            1,
            k,
            filter=filter,
            ef=ef,
            n_probes=n_probes,
            exact=exact,
            max_distance=max_distance,
        )[1]

    def explain_buffers(
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
        """Search as `search_buffers` does, and also return how that was answered.

        `metadata=False` does without decoding the metadata of the hits to say how long that takes; the
        other arguments and the errors are those of `search_buffers`.
        """
        from iqdb_core.explain import explained_search

        store = self._store
        view = store.lease()
        try:
            dim = view.base.snapshot.dim
            checked = query_block(queries, n_queries, dim)
            request = search_request(view.base.index, k, filter, ef, n_probes, max_distance, exact=exact)
            return explained_search(view, checked, n_queries, request, store.threads, metadata=metadata)
        finally:
            store.release(view)

    def search_arrays(
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
        """Return the ids and distances of the hits of each query as arrays, for bulk work.

        Returns:
            ids[n, w] and distances f64[n, w], where w is the smaller of `k` and the number of
            records. The ids are uint64 when all ids that the database has are integers, else
            objects. Where a query has fewer than w hits (with a filter or a maximal distance), the
            rest of its row has the distance infinity and the id 0 (None among objects).
        """
        from iqdb_core.search_arrays import search_arrays, search_arrays_of_one
        from iqdb_core.sources import many_vectors

        store = self._store
        if filter is None and not exact and max_distance is None:
            whole = store.view()
            if whole.is_whole:
                found = search_arrays_of_one(whole, queries, k, ef, n_probes)
                if found is not None:
                    return found
        view = store.lease()
        try:
            dim = view.base.snapshot.dim
            checked = many_vectors(queries, dim, lambda row: f"query {row}", what="queries")
            request = search_request(view.base.index, k, filter, ef, n_probes, max_distance, exact=exact)
            return search_arrays(view, checked, request, store.threads)
        finally:
            store.release(view)

    # --- The cache of results ------------------------------------------------------------------

    def cache_stats(self) -> CacheStats:
        """Return what the cache of search results did so far; all zero when there is no cache."""
        from iqdb_core.cache import CacheStats

        cache = self._store.cache
        return CacheStats() if cache is None else cache.stats()

    def clear_cache(self) -> None:
        """Drop all cached search results; the counts stay. Without a cache there is nothing to do."""
        cache = self._store.cache
        if cache is not None:
            cache.clear()
