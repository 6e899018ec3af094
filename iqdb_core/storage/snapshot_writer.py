"""The streaming writer of snapshot format 3.

Memory is bounded by one batch, one metadata group and, where ids do not ascend, the ids.

The bytes depend on the records, their order, the configuration and the database id, and on nothing
else: not on how the records were cut into batches, nor on threads, nor on history.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from iqdb_core import _kernels
from iqdb_core.digest import digest_of_parts
from iqdb_core.errors import DimensionMismatchError, InvalidParameterError
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.id_sections import IdSections
from iqdb_core.storage.layout import FLAG_DERIVED, MAX_ROWS
from iqdb_core.storage.metadata_sections import MetadataSections
from iqdb_core.storage.section_stream import as_bytes
from iqdb_core.storage.snapshot_assembly import SnapshotAssembly, SnapshotSummary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from iqdb_core.records import RecordBatch
    from iqdb_core.storage.layout import Header
    from iqdb_core.storage.section_stream import SectionStream
    from iqdb_core.storage.snapshot import Snapshot

# From this many bytes on, writing in a second thread while this one sums up pays for the hand-over.
_OVERLAP_BYTES = 1 << 18
_COPY_BYTES = 8 << 20


class SnapshotWriter:
    """Writes one snapshot: `append` any number of times, then `finish`; `close` in any case.

    Not for use from several threads at once.
    """

    def __init__(
        self,
        sink: OpenFile | bytearray,
        config: Mapping[str, Any],
        database_id: bytes,
        files: FileSystem = OS_FILES,
        *,
        threads: int = 1,
    ) -> None:
        """Begin a snapshot.

        Args:
            sink: a new, empty file open for writing (see `FileSystem.create_temporary`), or an empty
                bytearray for a database in memory.
            config: the stored configuration as plain values: compression, dim, index, metric, provenance.
            database_id: 16 bytes.
            files: the file layer.
            threads: how many threads may hash and compress.
        """
        self._threads = threads
        self._dim = int(config["dim"])
        self._n_rows = 0
        self._digest = ContentDigest()
        self._hashed = True
        self._pool = ThreadPoolExecutor(max(threads, 2), "iqdb-write")
        self._file = sink if isinstance(sink, OpenFile) else None
        self._files = files
        self._assembly = SnapshotAssembly(sink, config, database_id, files, pool=self._pool)
        self._vectors: SectionStream = self._assembly.vectors
        self._ids = IdSections(self._assembly.section, self._assembly.new_spool)
        self._metadata = MetadataSections(self._assembly.section)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def n_rows(self) -> int:
        """The number of records taken so far."""
        return self._n_rows

    @property
    def hashed_digest(self) -> ContentDigest:
        """The content digest of the records taken by `append` so far, without the copied ones."""
        return self._digest

    def append(self, batch: RecordBatch) -> None:
        """Take records. Nothing of the batch is kept, so its arrays may be reused afterwards.

        The records must be valid: ids, finite vectors, metadata. Ids may repeat (see `finish`).

        Raises:
            DimensionMismatchError, InvalidParameterError: wrong dimension, or too many records.
            FileIOError: the system refused to write; the file is of no further use.
        """
        self._check(len(batch), batch.vectors.shape[1])
        if not len(batch):
            return
        vectors = np.ascontiguousarray(batch.vectors, np.float32)
        hashes = np.empty((len(batch), 2), np.uint64)
        written = self._start_vectors(vectors)
        try:
            _kernels.hash_vectors(vectors, hashes, threads=max(1, self._threads - 1))
            digest = digest_of_parts(batch.ids, hashes, batch.metadata)
            self._ids.append(batch.ids)
            self._metadata.append(batch.metadata, len(batch))
        finally:
            written.result()
        self._digest = self._digest.plus(digest)
        self._n_rows += len(batch)

    def append_rows(self, snapshot: Snapshot, start: int, stop: int) -> None:
        """Copy the records of rows start..stop of a snapshot, verified but not hashed.

        Whole metadata groups that keep their borders are copied as they are. After this `finish`
        must be told the digest; reading the file back is what proves it.
        """
        self._check(stop - start, snapshot.dim)
        if start >= stop:
            return
        self._hashed = False
        step = max(1, _COPY_BYTES // (4 * self._dim))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            self._start_vectors(snapshot.vectors_slice(first, last, threads=self._threads)).result()
        for first in range(start, stop, _COPY_BYTES // 64):
            self._ids.append(snapshot.ids_slice(first, min(first + _COPY_BYTES // 64, stop)))
        self._metadata.append_rows(snapshot, start, stop)
        self._n_rows += stop - start

    def finish(self, digest: ContentDigest | None = None, *, sync: bool = False) -> SnapshotSummary:
        """Write everything that is still to be written, the header last.

        Args:
            digest: the content digest of all records; needed after `append_rows`.
            sync: also make the file durable before returning, unless ids repeat. Not needed when
                `sync_and_read_back` follows.

        Returns:
            What was written. Look at `kept_rows` before the file is used.

        Raises:
            FileIOError: the system refused to write; the file is of no further use.
        """
        assert digest is not None or self._hashed, "append_rows needs the digest from the caller"
        digest = self._digest if digest is None else digest
        ids = self._ids.finish(self._n_rows)
        streams = [*ids.streams, *self._metadata.finish()]
        header = self._assembly.finish(streams, self._n_rows, ids.encoding, digest)
        if sync and ids.kept_rows is None and self._file is not None:
            self._files.sync(self._file)
        return self._summary(header, digest, ids.kept_rows)

    def add_index(self, arrays: Mapping[str, NDArray[Any]], *, derived: bool = True) -> SnapshotSummary:
        """Put the arrays of an index behind the records of a finished snapshot, in the order given.

        Between `finish` and this the file is a complete snapshot without its index: what an index is
        built from. Nothing may have it open while it is extended. Sections that are not `derived` are for
        readers that must know them.
        """
        contents = {
            name: (
                f"{array.dtype.kind}{8 * array.dtype.itemsize}",
                array.shape,
                as_bytes(np.ascontiguousarray(array).data),
            )
            for name, array in arrays.items()
        }
        flags = FLAG_DERIVED if derived else 0
        header = self._assembly.add_sections(contents, flags=flags, step=_COPY_BYTES)
        return self._summary(header, ContentDigest.from_bytes(header.content_digest), None)

    @property
    def memory(self) -> bytearray:
        """The image of a snapshot in memory; a new object after `add_index`."""
        return self._assembly.memory

    def close(self) -> None:
        """Let go of scratch files and threads. The sink is the caller's."""
        self._pool.shutdown()
        self._assembly.close()

    def _summary(
        self, header: Header, digest: ContentDigest, kept_rows: NDArray[np.int64] | None
    ) -> SnapshotSummary:
        return SnapshotSummary(header.identity, digest, self._n_rows, header.file_bytes, kept_rows)

    def _check(self, count: int, dim: int) -> None:
        if dim != self._dim:
            raise DimensionMismatchError(self._dim, dim)
        if self._n_rows + count > MAX_ROWS:
            raise InvalidParameterError("number of records", self._n_rows + count, f"at most {MAX_ROWS}")

    def _start_vectors(self, vectors: NDArray[np.float32]) -> Future[None]:
        """Begin to write vectors in a second thread; write at once where that is too little work for one."""
        raw = as_bytes(vectors.data)
        if len(raw) >= _OVERLAP_BYTES and not self._vectors.compressed:
            return self._vectors.start(raw, self._pool)
        self._vectors.append(raw)
        done: Future[None] = Future()
        done.set_result(None)
        return done


__all__ = ["SnapshotSummary", "SnapshotWriter"]
