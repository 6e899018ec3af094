"""`AsyncIqdb`: `Iqdb` for programs that run in an event loop."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, overload

from iqdb_core.aio_searching import AsyncSearching
from iqdb_core.aio_threads import HandleThreads, Steps, run_alone, worker_count
from iqdb_core.aio_tuning import AsyncTuning
from iqdb_core.database import Iqdb
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from iqdb_core.config import CacheConfig, Compression, FsyncPolicy, IqdbConfig
    from iqdb_core.filters import Filter
    from iqdb_core.records import RecordBatch
    from iqdb_core.reports import BulkReport, FoldReport
    from iqdb_core.storage.files import FileSystem
    from iqdb_core.types import Metadata, MetadataValue, VectorId


class AsyncIqdb(AsyncSearching, AsyncTuning):
    """A handle like `Iqdb` whose work runs in threads, so that the event loop goes on.

    Every method does what the method of `Iqdb` with its name does, takes the same arguments and raises
    the same errors in the task that awaits it. `dim`, `metric`, `config`, `path`, `read_only`, `is_empty`,
    `len()` and `cache_stats()` need no work and are not awaited. `id in db` is `await db.contains(id)`.
    `batches()` and `ids()` are asynchronous iterators. Arguments (query arrays, iterables of batches,
    `progress`) are used in a thread: do not change them before the call has returned.

        async with await AsyncIqdb.open("notes.iqdb", 384) as db:
            await db.upsert("a", vector, {"lang": "en"})
            hits = await asyncio.gather(*(db.search(query, 10) for query in queries))

    The threads are the handle's own and end with it: `workers` of them read and search at the same time,
    and one more writes. So writes take place one after another, in the order of their calls, and never
    keep searches from a thread. Each worker may be busy with a search of `IqdbConfig.threads` threads;
    for the most searches a second set that to 1.

    When the awaiting task is cancelled (or `asyncio.timeout` strikes), work that has not begun is not done,
    and work that has begun goes on to its end in its thread. A write that was cancelled is therefore
    stored whole or not at all, and only a look at the database tells which; writes called later still
    come after it. A cancelled `close` closes the handle all the same.

    A handle may be used from any number of tasks, and from one event loop after another.
    """

    def __init__(self, db: Iqdb, *, workers: int | None = None) -> None:
        """Take over an open handle, which is closed with this one.

        Args:
            db: the handle.
            workers: threads for reading and searching; None is four more than there are cores, at
                most 32.

        Raises:
            InvalidParameterError: `workers` is no integer of at least 1.
        """
        self._threads = HandleThreads(db.path, workers)
        self._db = db

    # --- Opening --------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        dim: int,
        metric: DistanceMetric | str = DistanceMetric.COSINE,
        *,
        lock_wait: float = 0,
        workers: int | None = None,
    ) -> Self:
        """Open a database for writing, or create it when nothing is at the path; see `Iqdb.open`."""
        return await cls._opened(workers, Iqdb.open, path, dim, metric, lock_wait=lock_wait)

    @classmethod
    async def open_with(
        cls,
        path: str | os.PathLike[str],
        config: IqdbConfig,
        *,
        lock_wait: float = 0,
        workers: int | None = None,
    ) -> Self:
        """Open a database for writing, or create it; see `Iqdb.open_with`."""
        return await cls._opened(workers, Iqdb.open_with, path, config, lock_wait=lock_wait)

    @classmethod
    async def open_existing(
        cls,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        fsync: FsyncPolicy | str = "always",
        threads: int | None = None,
        auto_compact: int | Literal["auto"] | None = "auto",
        cache: CacheConfig | None = None,
        lock_wait: float = 0,
        files: FileSystem | None = None,
        workers: int | None = None,
    ) -> Self:
        """Open a database that is there; see `Iqdb.open_existing`."""
        return await cls._opened(
            workers,
            Iqdb.open_existing,
            path,
            read_only=read_only,
            fsync=fsync,
            threads=threads,
            auto_compact=auto_compact,
            cache=cache,
            lock_wait=lock_wait,
            files=files,
        )

    @classmethod
    async def create(
        cls, path: str | os.PathLike[str], config: IqdbConfig, *, workers: int | None = None
    ) -> Self:
        """Create a database where nothing is yet, and open it for writing; see `Iqdb.create`."""
        return await cls._opened(workers, Iqdb.create, path, config)

    @classmethod
    async def create_from(
        cls,
        path: str | os.PathLike[str],
        config: IqdbConfig,
        batches: Iterable[RecordBatch],
        *,
        on_duplicate: Literal["last", "error"] = "last",
        progress: Callable[[int], object] | None = None,
    ) -> BulkReport:
        """Create a database that holds the records of `batches`; see `Iqdb.create_from`."""
        return await run_alone(
            Iqdb.create_from, path, config, batches, on_duplicate=on_duplicate, progress=progress
        )

    @classmethod
    async def open_in_memory(
        cls,
        dim: int,
        metric: DistanceMetric | str = DistanceMetric.COSINE,
        *,
        workers: int | None = None,
    ) -> Self:
        """Return a new database that lives in memory and ends with its handle."""
        return await cls._opened(workers, Iqdb.open_in_memory, dim, metric)

    @classmethod
    async def open_in_memory_with(cls, config: IqdbConfig, *, workers: int | None = None) -> Self:
        """Return a new database in memory with a whole configuration."""
        return await cls._opened(workers, Iqdb.open_in_memory_with, config)

    @classmethod
    async def _opened(cls, workers: int | None, work: Callable[..., Iqdb], *args: Any, **kwargs: Any) -> Self:
        checked = worker_count(workers)
        # Without its task nobody has the handle: it must not hold the lock of the file.
        db = await run_alone(work, *args, unclaimed=_close_unclaimed, **kwargs)
        return cls(db, workers=checked)

    # --- Facts, at once -------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The file, with symbolic links followed, or "<memory>"."""
        return self._db.path

    @property
    def read_only(self) -> bool:
        """Whether the handle was opened for reading only."""
        return self._db.read_only

    @property
    def format_version(self) -> int:
        """The version of the snapshot's format: 3, or 1 or 2 of a database of iqdb 1.x, held in memory."""
        return self._db.format_version

    @property
    def dim(self) -> int:
        """Components of a vector."""
        return self._db.dim

    @property
    def metric(self) -> DistanceMetric:
        """The distance."""
        return self._db.metric

    @property
    def config(self) -> IqdbConfig:
        """The configuration: what the file says, and the settings of this handle."""
        return self._db.config

    def __len__(self) -> int:
        return len(self._db)

    @property
    def is_empty(self) -> bool:
        """Whether there is no record."""
        return self._db.is_empty

    def __repr__(self) -> str:
        return f"<Async{repr(self._db)[1:]}"

    # --- Writing --------------------------------------------------------------------------------

    async def upsert(self, id: VectorId, vector: ArrayLike, metadata: Metadata | None = None) -> None:
        """Store one record; see `Iqdb.upsert`."""
        await self._threads.write(self._db.upsert, id, vector, metadata)

    async def upsert_many(
        self,
        ids: Sequence[VectorId] | NDArray[Any],
        vectors: ArrayLike,
        metadata: Sequence[Metadata | None] | None = None,
    ) -> int:
        """Store many records at once, all or none; see `Iqdb.upsert_many`."""
        return await self._threads.write(self._db.upsert_many, ids, vectors, metadata)

    async def upsert_batch(self, batch: RecordBatch) -> int:
        """Store the records of a batch at once; see `Iqdb.upsert_batch`."""
        return await self._threads.write(self._db.upsert_batch, batch)

    @overload
    async def delete(self, id: VectorId) -> bool: ...
    @overload
    async def delete(self, id: Sequence[VectorId]) -> int: ...
    async def delete(self, id: VectorId | Sequence[VectorId]) -> bool | int:
        """Remove one record, or those of a list of ids; see `Iqdb.delete`."""
        work: Callable[[Any], bool | int] = self._db.delete
        return await self._threads.write(work, id)

    async def delete_many(self, ids: Iterable[VectorId]) -> int:
        """Remove records, all at once, and return how many were there."""
        return await self._threads.write(self._db.delete_many, ids)

    async def bulk_load(
        self,
        batches: Iterable[RecordBatch],
        *,
        on_duplicate: Literal["last", "error"] = "last",
        progress: Callable[[int], object] | None = None,
    ) -> BulkReport:
        """Store any number of records, all or none; see `Iqdb.bulk_load`."""
        return await self._threads.write(
            self._db.bulk_load, batches, on_duplicate=on_duplicate, progress=progress
        )

    # --- Reading --------------------------------------------------------------------------------

    async def contains(self, id: VectorId) -> bool:
        """Return whether there is a record with an id."""
        return await self._threads.read(self._db.__contains__, id)

    async def get(self, id: VectorId) -> tuple[NDArray[np.float32], dict[str, MetadataValue] | None] | None:
        """Return a record's vector (a float32 copy) and metadata, or None when it is absent."""
        return await self._threads.read(self._db.get, id)

    async def vector_bytes(self, id: VectorId) -> bytes | None:
        """Return a record's vector as `4 * dim` bytes of float32, or None when it is absent."""
        return await self._threads.read(self._db.vector_bytes, id)

    async def metadata(self, id: VectorId) -> dict[str, MetadataValue] | None:
        """Return a record's metadata; None when it has none or is absent."""
        return await self._threads.read(self._db.metadata, id)

    async def info(self) -> dict[str, Any]:
        """Return counts and settings as plain values."""
        return await self._threads.read(self._db.info)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied, as `Iqdb` does."""
        self._db.__reduce__()

    async def metadata_keys(self) -> list[str]:
        """Return the keys that metadata has; see `Iqdb.metadata_keys`."""
        return await self._threads.read(self._db.metadata_keys)

    async def batches(
        self,
        *,
        filter: Filter | str | None = None,
        batch_rows: int = 16_384,
        vectors: bool = True,
    ) -> AsyncGenerator[RecordBatch, None]:
        """Yield all records, or those that meet a filter, in insertion order; see `Iqdb.batches`."""
        steps = Steps(self._db.batches(filter=filter, batch_rows=batch_rows, vectors=vectors))
        try:
            while (batch := await self._threads.read(steps.next)) is not None:
                yield batch
        finally:
            steps.close()

    async def ids(self) -> AsyncGenerator[VectorId, None]:
        """Yield all ids in insertion order."""
        async with aclosing(self.batches(vectors=False)) as batches:
            async for batch in batches:
                for record_id in batch.ids.to_list():
                    yield record_id

    # --- Upkeep ---------------------------------------------------------------------------------

    async def compact(self, *, compression: Compression | str | None = None) -> FoldReport:
        """Fold the log and everything replaced or deleted into a new snapshot; see `Iqdb.compact`."""
        return await self._threads.write(self._db.compact, compression=compression)

    async def flush(self) -> FoldReport:
        """Fold the log into the snapshot, so that the database is one file; `compact` as it stands."""
        return await self._threads.write(self._db.flush)

    async def refresh(self) -> bool:
        """Bring a read-only handle up to what is on disk now; see `Iqdb.refresh`."""
        return await self._threads.write(self._db.refresh)

    async def close(self, compact: bool = True) -> None:  # noqa: FBT001, FBT002 - as of `Iqdb`
        """Compact the database, unless told not to, and release it, after all writes called before.

        Searches at work finish undisturbed, those that have not begun find the handle closed. A second
        call does nothing. See `Iqdb.close` for the rest.
        """
        await self._threads.close(self._db.close, compact)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(compact=error is None)


def _close_unclaimed(db: Iqdb) -> None:
    db.close(compact=False)
