"""The half of the handle that measures and changes its index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_core.errors import InvalidParameterError
from iqdb_core.search_request import at_least_one, parsed_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from iqdb_core.config import IndexConfig
    from iqdb_core.filters import Filter
    from iqdb_core.recall import RecallPoint, RecallReport
    from iqdb_core.reports import FoldReport, OptimizeReport
    from iqdb_core.store import Store


class Tuning:
    """What `Iqdb` offers for an index that is fast enough and finds enough."""

    _store: Store

    def optimize(
        self, index: IndexConfig | None = None, *, threads: int | None = None, sample: int = 100
    ) -> OptimizeReport:
        """Build the index anew from the records, or another index, and fold the log on the way.

        Compaction extends an index and mends it; this makes it as good as new, also when it is
        damaged. The index kind flat has nothing to rebuild: then nothing is written.

        Args:
            index: the new index kind and settings; None keeps both.
            threads: threads to use; None: those of the handle. The index is the same for any number.
            sample: recall before and after is measured with the vectors of up to this many records,
                the 10 nearest of each, itself not counted. 0 measures none.

        Raises:
            ConfigError, VectorIndexError: the index does not go with this database; nothing was changed.
            PersistError: a leaf says why; the database is as it was.
        """
        from iqdb_core.optimize import optimize

        if type(sample) is not int or sample < 0:
            raise InvalidParameterError("sample", sample, "an integer of at least 0")
        count = self._store.threads if threads is None else at_least_one("threads", threads)
        return optimize(self._store, index, threads=count, sample=sample)

    def recall(
        self,
        queries: ArrayLike | None = None,
        k: int = 10,
        *,
        filter: Filter | str | None = None,
        sample: int = 1000,
        sweep: Sequence[int] | None = None,
        target: float | None = None,
        progress: Callable[[RecallPoint], object] | None = None,
    ) -> RecallReport:
        """Measure what the index finds of what exact search finds, and how fast, at several settings.

        Args:
            queries: n x `dim` finite numbers. None takes a sample of the stored records, each left out
                of its own results; they are easier than real queries, so take those if you have them.
            k: hits of each query.
            filter: only records whose metadata meets this `Filter` or expression.
            sample: the most records to take as queries.
            sweep: the values of `ef` or `n_probes` to try; None is a common range and the default of
                the database. Values that exceed everything there is are left out.
            target: also find the smallest value with this mean recall, in (0, 1]; values beside those
                of the sweep are tried for it.
            progress: called with each point when it is measured, in no particular order.

        Raises:
            InvalidParameterError: something is out of its range, or there is no query.
            DamagedError: a part of the file is damaged.
        """
        from iqdb_core.recall import Queries, measure_recall, sample_queries
        from iqdb_core.sources import many_vectors

        count = at_least_one("k", k)
        condition = parsed_filter(filter)
        values = None if sweep is None else [at_least_one("sweep", value) for value in sweep]
        if values is not None and not values:
            raise InvalidParameterError("sweep", values, "at least one value")
        if target is not None and not 0 < target <= 1:
            raise InvalidParameterError("target", target, "a number above 0 and at most 1")
        store = self._store
        view = store.lease()
        try:
            if queries is None:
                asked = sample_queries(view, at_least_one("sample", sample))
            else:
                dim = view.base.snapshot.dim
                asked = Queries(many_vectors(queries, dim, lambda row: f"query {row}", what="queries"), None)
            return measure_recall(
                view,
                asked,
                count,
                condition,
                sweep=values,
                target=target,
                threads=store.threads,
                progress=progress,
            )
        finally:
            store.release(view)

    def set_search_defaults(self, *, ef: int | None = None, n_probes: int | None = None) -> FoldReport:
        """Store what searches use that do not say otherwise, and leave the index as it is.

        Folds the log on the way.

        Args:
            ef: search breadth, for the index kind hnsw: its setting `ef_search`.
            n_probes: lists to visit, for the index kind ivf.

        Raises:
            InvalidParameterError: the index kind has no such parameter.
            InvalidConfigError: the value is out of its range.
            PersistError: a leaf says why; the database is as it was.
        """
        from iqdb_core.fold import fold
        from iqdb_core.recall import STORED_SETTING
        from iqdb_core.search_request import search_request

        store = self._store
        with store.write_lock:
            store.check_writable()
            request = search_request(store.view().base.index, 1, None, ef, n_probes, None, exact=False)
            settings = {STORED_SETTING[name]: value for name, value in request.parameters.items()}
            return fold(store, index=store.config.index.replace(**settings).to_dict())
