"""`Iqdb`: the handle to one database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, overload

from iqdb_core import opening
from iqdb_core._kernels import copy_vector
from iqdb_core.lock_wait import check_lock_wait
from iqdb_core.search import vector_buffer
from iqdb_core.search_request import at_least_one, parsed_filter
from iqdb_core.searching import Searching
from iqdb_core.storage.files import OS_FILES
from iqdb_core.storage.layout import SNAPSHOT_VERSION
from iqdb_core.tuning import Tuning
from iqdb_core.types import DistanceMetric, validate_id, validate_metadata

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from iqdb_core.config import CacheConfig, Compression, FsyncPolicy, IqdbConfig
    from iqdb_core.filters import Filter
    from iqdb_core.records import RecordBatch
    from iqdb_core.reports import BulkReport, FoldReport
    from iqdb_core.storage.files import FileSystem
    from iqdb_core.store import Store
    from iqdb_core.types import Metadata, MetadataValue, VectorId


class Iqdb(Searching, Tuning):
    """A handle to one database, in a file or in memory.

    Handles are made by the class methods `open`, `open_with`, `open_existing`, `create`,
    `open_in_memory` and `open_in_memory_with`. One handle may be used from many threads: searches
    run in parallel and see every write that was acknowledged before they began, writes follow one
    another. Of all processes one may have a database open for writing, and any number for reading.
    A handle must not be used in a child process after `fork`: open the database there.

    As a context manager a handle is closed at the end: compacted and released, or, after an
    exception, released without compaction. Either way every acknowledged write is kept.
    """

    def __init__(self, store: Store) -> None:
        """Wrap an open store; use the class methods."""
        self._store = store

    # --- Opening --------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        dim: int,
        metric: DistanceMetric | str = DistanceMetric.COSINE,
        *,
        lock_wait: float = 0,
    ) -> Iqdb:
        """Open a database for writing, or create it when nothing is at the path.

        Args:
            path: the file. Its directory must exist. A symbolic link is followed.
            dim: components of a vector.
            metric: the distance, also by name.
            lock_wait: seconds to wait while another handle has it open for writing.

        Raises:
            InvalidParameterError: `lock_wait` is negative or not finite.
            ConfigConflictError: the file has another dimension or metric.
            LockedError: another handle has it open for writing.
            PersistError: a leaf says what else is wrong with the file.
        """
        from iqdb_core.config import IqdbConfig

        config = IqdbConfig(dim=dim, metric=DistanceMetric.parse(metric))
        return cls(opening.open_or_create(path, config, check_index=False, lock_wait=lock_wait))

    @classmethod
    def open_with(cls, path: str | os.PathLike[str], config: IqdbConfig, *, lock_wait: float = 0) -> Iqdb:
        """Open a database for writing, or create it, with a whole configuration; see `open`.

        Raises:
            ConfigConflictError: the file says otherwise in dimension, metric, index, compression
                (when the request names one), database id or provenance (in the keys that the
                request names).
            LockedError: another handle has it open for writing.
            PersistError: a leaf says what else is wrong with the file.
        """
        return cls(opening.open_or_create(path, config, check_index=True, lock_wait=lock_wait))

    @classmethod
    def open_existing(
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
    ) -> Iqdb:
        """Open a database that is there; dimension, metric and index are the file's.

        Args:
            path: the file.
            read_only: take no lock and write nothing. Such a handle sees the database as it is at
                this moment, until `refresh`. A database of iqdb 1.x can only be opened so; its records
                are read into memory (at most 8 GiB of them), and every search is exact.
            fsync: when a write reaches the disk.
            threads: threads that a search may use; None: `IQDB_NUM_THREADS`, else all cores.
            auto_compact: rows at which the handle compacts by itself; see `IqdbConfig`.
            cache: settings of a cache of search results; None is no cache.
            lock_wait: seconds to wait while another handle has it open for writing.
            files: replaces the file layer, for tests.

        Raises:
            DatabaseNotFoundError: nothing is at the path.
            InvalidParameterError: `lock_wait` is negative or not finite.
            LegacyFormatError: it is one of iqdb 1.x, and this is not for reading only.
            LockedError: another handle has it open for writing, and so wants this one.
            PersistError: a leaf says what else is wrong with the file.
        """
        settings = opening.HandleSettings(fsync, threads, auto_compact, cache)
        chosen = OS_FILES if files is None else files
        if read_only:
            check_lock_wait(lock_wait)
            return cls(opening.open_for_reading(path, settings, chosen))
        return cls(opening.open_for_writing(path, settings, chosen, lock_wait=lock_wait))

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: IqdbConfig) -> Iqdb:
        """Create a database where nothing is yet, durably, and open it for writing.

        Raises:
            DatabaseExistsError: something is at the path; it was not touched.
            FileIOError: the system refused, for example because the directory does not exist.
        """
        return cls(opening.create(path, config))

    @classmethod
    def create_from(
        cls,
        path: str | os.PathLike[str],
        config: IqdbConfig,
        batches: Iterable[RecordBatch],
        *,
        on_duplicate: Literal["last", "error"] = "last",
        progress: Callable[[int], object] | None = None,
    ) -> BulkReport:
        """Create a database that holds the records of `batches`, or leave nothing behind.

        See `bulk_load` for the arguments. The database is durable when this returns, and not open.

        Raises:
            DatabaseExistsError: something is at the path; it was not touched.
            DuplicateIdError: an id occurs twice and `on_duplicate` is "error".
            VectorIndexError: a vector is not acceptable.
        """
        from iqdb_core.bulk import create_from

        return create_from(path, config, batches, on_duplicate=on_duplicate, progress=progress)

    @classmethod
    def open_in_memory(cls, dim: int, metric: DistanceMetric | str = DistanceMetric.COSINE) -> Iqdb:
        """Return a new database that lives in memory and ends with its handle."""
        from iqdb_core.config import IqdbConfig

        return cls.open_in_memory_with(IqdbConfig(dim=dim, metric=DistanceMetric.parse(metric)))

    @classmethod
    def open_in_memory_with(cls, config: IqdbConfig) -> Iqdb:
        """Return a new database in memory with a whole configuration."""
        return cls(opening.open_in_memory(config))

    # --- Facts ----------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The file, with symbolic links followed, or "<memory>"."""
        return self._store.path

    @property
    def read_only(self) -> bool:
        """Whether the handle was opened for reading only."""
        return self._store.read_only

    @property
    def format_version(self) -> int:
        """The version of the snapshot's format: 3, or 1 or 2 of a database of iqdb 1.x, held in memory."""
        legacy = self._store.legacy
        return SNAPSHOT_VERSION if legacy is None else legacy.version

    @property
    def dim(self) -> int:
        """Components of a vector."""
        return self._store.view().base.snapshot.dim

    @property
    def metric(self) -> DistanceMetric:
        """The distance."""
        return DistanceMetric.from_tag(self._store.view().base.snapshot.metric)

    @property
    def config(self) -> IqdbConfig:
        """The configuration: what the file says, and the settings of this handle."""
        return self._store.config

    def __len__(self) -> int:
        return self._store.view().n_records

    @property
    def is_empty(self) -> bool:
        """Whether there is no record."""
        return self._store.view().n_records == 0

    def __contains__(self, record_id: object) -> bool:
        return self._store.locate(validate_id(record_id))[1] >= 0

    def __repr__(self) -> str:
        if self._store.closed:
            return f"<Iqdb {self.path!r}, closed>"
        return f"<Iqdb {self.path!r}, {len(self)} records, dim {self.dim}, {self.metric.value}>"

    def info(self) -> dict[str, Any]:
        """Return counts and settings as plain values."""
        from iqdb_core.info import info

        return info(self._store)

    def metadata_keys(self) -> list[str]:
        """Return the keys that metadata has, sorted; those of records since deleted may be among them.

        Raises:
            DamagedError: a part of the file that tells is damaged.
        """
        from iqdb_core.info import metadata_keys

        return metadata_keys(self._store)

    # --- Writing --------------------------------------------------------------------------------

    def upsert(self, id: VectorId, vector: ArrayLike, metadata: Metadata | None = None) -> None:
        """Store one record, replacing the one with the same id, which keeps its place.

        When this returns, searches see the record and, under `FsyncPolicy.ALWAYS`, it survives a
        power cut. After an error of the data nothing was changed; after one of the disk the handle
        accepts no more writes until the database is opened again.

        Args:
            id: an int in 0..2^64-1, non-empty bytes or a non-empty str.
            vector: `dim` finite numbers.
            metadata: a mapping of str to str, int (int64), float, bool or None, or no mapping.

        Raises:
            VectorIndexError: a leaf says what is not acceptable.
            PersistError: the record was not stored.
        """
        store = self._store
        record_id = validate_id(id)
        components = copy_vector(vector, store.dim)
        if components is None:
            components = vector_buffer(vector, store.dim, "vector").tobytes()
        store.upsert_one(record_id, components, None if metadata is None else validate_metadata(metadata))

    def upsert_many(
        self,
        ids: Sequence[VectorId] | NDArray[Any],
        vectors: ArrayLike,
        metadata: Sequence[Metadata | None] | None = None,
    ) -> int:
        """Store many records at once: all of them are stored, or none.

        Args:
            ids: n ids. Of records with one id the last one counts.
            vectors: n x `dim` finite numbers.
            metadata: n mappings, each may be None; None when no record has any.

        Returns:
            The number of distinct records stored.

        Raises:
            VectorIndexError: a leaf says which record is not acceptable; nothing was changed.
            BatchTooLargeError: the batch takes more than 256 MiB in the log; nothing was changed.
            PersistError: the records were not stored.
        """
        from iqdb_core.sources import record_batch

        batch = record_batch(ids, vectors, metadata, self.dim)
        self._store.upsert(batch)
        return len(batch)

    def upsert_batch(self, batch: RecordBatch) -> int:
        """Store the records of a batch at once, as `upsert_many` does.

        The vectors are copied; the arrays of ids and metadata must not be changed afterwards.
        """
        from iqdb_core.sources import checked_batch, distinct

        checked = distinct(checked_batch(batch, self.dim))
        self._store.upsert(checked)
        return len(checked)

    @overload
    def delete(self, id: VectorId) -> bool: ...
    @overload
    def delete(self, id: Sequence[VectorId]) -> int: ...
    def delete(self, id: VectorId | Sequence[VectorId]) -> bool | int:
        """Remove one record, or those of a list of ids. It is durable as an upsert is.

        Returns:
            For one id whether it was there, for a list how many were. Absent ids are no error.
        """
        if isinstance(id, (list, tuple, set, frozenset, range)):
            return self.delete_many(id)
        return self._store.delete([validate_id(id)]) == 1

    def delete_many(self, ids: Iterable[VectorId]) -> int:
        """Remove records, all at once, and return how many were there."""
        distinct = dict.fromkeys(validate_id(id_, f"id {i}") for i, id_ in enumerate(ids))
        return self._store.delete(list(distinct))

    def bulk_load(
        self,
        batches: Iterable[RecordBatch],
        *,
        on_duplicate: Literal["last", "error"] = "last",
        progress: Callable[[int], object] | None = None,
    ) -> BulkReport:
        """Store any number of records, all or none, in bounded memory and without the log.

        The records stream into a new snapshot that takes the place of the old one at the end;
        other writes wait meanwhile, searches see the old state.

        Args:
            batches: the records. Only one batch is used at a time, and nothing of it is kept.
            on_duplicate: when the source has an id twice: "last", the last record counts at the
                place of the first; "error", nothing is loaded. Records of the database are
                replaced in either case.
            progress: called after each batch with the number of records read.

        Raises:
            DuplicateIdError: an id occurs twice and `on_duplicate` is "error".
            VectorIndexError: a vector is not acceptable; the error names the record.
            PersistError: nothing was changed.
        """
        from iqdb_core.bulk import bulk_load

        return bulk_load(self._store, batches, on_duplicate=on_duplicate, progress=progress)

    # --- Reading --------------------------------------------------------------------------------

    def get(self, id: VectorId) -> tuple[NDArray[np.float32], dict[str, MetadataValue] | None] | None:
        """Return a record's vector (a float32 copy) and metadata, or None when it is absent."""
        import numpy as np

        view, row, in_delta = self._store.locate(validate_id(id))
        if row < 0:
            return None
        if in_delta:
            assert view.delta is not None
            return view.delta.vectors[row].copy(), view.delta.metadata_at(row)
        snapshot = view.base.snapshot
        vector = np.frombuffer(bytearray(snapshot.vector_bytes(row)), np.float32)
        return vector, snapshot.metadata_at(row)

    def vector_bytes(self, id: VectorId) -> bytes | None:
        """Return a record's vector as `4 * dim` bytes of float32, without NumPy, or None."""
        view, row, in_delta = self._store.locate(validate_id(id))
        if row < 0:
            return None
        if in_delta:
            assert view.delta is not None
            vector: bytes = view.delta.vectors[row].tobytes()
            return vector
        return bytes(view.base.snapshot.vector_bytes(row))

    def metadata(self, id: VectorId) -> dict[str, MetadataValue] | None:
        """Return a record's metadata; None when it has none or is absent."""
        view, row, in_delta = self._store.locate(validate_id(id))
        if row < 0:
            return None
        if in_delta:
            assert view.delta is not None
            return view.delta.metadata_at(row)
        return view.base.snapshot.metadata_at(row)

    def batches(
        self,
        *,
        filter: Filter | str | None = None,
        batch_rows: int = 16_384,
        vectors: bool = True,
    ) -> Iterator[RecordBatch]:
        """Yield all records, or those that meet a filter, in insertion order.

        What is yielded is the state at the first step, whatever is written meanwhile.

        Args:
            filter: a `Filter` or an expression.
            batch_rows: the most records in one batch.
            vectors: False leaves the vectors unread; the batches then have vectors[n, 0].
        """
        from iqdb_core.batches import batches

        rows = at_least_one("batch_rows", batch_rows)
        condition = parsed_filter(filter)
        view = self._store.lease()
        try:
            yield from batches(view, rows, condition, vectors=vectors)
        finally:
            self._store.release(view)

    def ids(self) -> Iterator[VectorId]:
        """Yield all ids in insertion order."""
        for batch in self.batches(vectors=False):
            yield from batch.ids.to_list()

    # --- Upkeep ---------------------------------------------------------------------------------

    def compact(self, *, compression: Compression | str | None = None) -> FoldReport:
        """Fold the log and everything replaced or deleted into a new snapshot.

        The new file is read back and compared with a content digest computed without it before it
        replaces the old one. When there is nothing to fold nothing is written.

        Args:
            compression: also change the compression, to "none", "lz4" or "zstd:LEVEL".

        Raises:
            PersistError: a leaf says why; the database is as it was.
        """
        from iqdb_core.fold import fold

        return fold(self._store, compression=compression)

    def flush(self) -> FoldReport:
        """Fold the log into the snapshot, so that the database is one file; `compact` as it stands."""
        return self.compact()

    def refresh(self) -> bool:
        """Bring a read-only handle up to what is on disk now, and say whether that was new.

        A handle opened for writing, or in memory, always sees the newest state.
        """
        store = self._store
        store.view()
        if not store.read_only:
            return False
        with store.write_lock:
            if self._store is not store:
                # Another thread was faster, but may have looked at the disk before this call.
                self.refresh()
                return True
            fresh = opening.refreshed(store)
            if fresh is None:
                return False
            fresh.take_cache(store)
            self._store = fresh
            return True

    def close(self, compact: bool = True) -> None:  # noqa: FBT001, FBT002 - the documented interface
        """Compact the database, unless told not to, and release it. A second call does nothing.

        Searches at work finish undisturbed, and hits can still be asked for their metadata. When
        the compaction fails the handle is released all the same, the records stay in the log, and
        the error is raised.
        """
        store = self._store
        with store.write_lock:
            if store.closed:
                return
            try:
                if compact and not store.read_only and not store.in_memory and not store.poisoned:
                    from iqdb_core.fold import fold

                    fold(store)
            finally:
                store.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a handle is a lock, a log and a map of this process."""
        raise TypeError(
            f"a handle cannot be pickled or copied; open {self.path!r} where it is wanted, "
            "with read_only=True beside a writer"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(compact=error is None)
