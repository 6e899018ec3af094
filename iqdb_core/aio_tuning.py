"""The tuning half of the asynchronous handle."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from iqdb_core.aio_threads import HandleThreads
    from iqdb_core.config import IndexConfig
    from iqdb_core.database import Iqdb
    from iqdb_core.filters import Filter
    from iqdb_core.recall import RecallPoint, RecallReport
    from iqdb_core.reports import FoldReport, OptimizeReport


class AsyncTuning:
    """What `AsyncIqdb` offers for an index that is fast enough and finds enough; `Tuning` in threads."""

    _db: Iqdb
    _threads: HandleThreads

    async def optimize(
        self, index: IndexConfig | None = None, *, threads: int | None = None, sample: int = 100
    ) -> OptimizeReport:
        """Build the index anew from the records, or another index; see `Iqdb.optimize`."""
        return await self._threads.write(self._db.optimize, index, threads=threads, sample=sample)

    async def recall(
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
        """Measure what the index finds of what exact search finds, and how fast; see `Iqdb.recall`."""
        return await self._threads.read(
            self._db.recall,
            queries,
            k,
            filter=filter,
            sample=sample,
            sweep=sweep,
            target=target,
            progress=progress,
        )

    async def set_search_defaults(self, *, ef: int | None = None, n_probes: int | None = None) -> FoldReport:
        """Store what searches use that do not say otherwise; see `Iqdb.set_search_defaults`."""
        return await self._threads.write(self._db.set_search_defaults, ef=ef, n_probes=n_probes)
