"""The streaming writer of snapshot format 3.

Memory is bounded by one batch, one metadata group and, where ids do not ascend, the ids. Vectors go
straight to their place behind the header; the other sections wait in spools until the vectors have
ended. The header is written last, so an unfinished file never passes for a snapshot.

The bytes depend on the records, their order, the configuration and the database id, and on nothing
else: not on how the records were cut into batches, nor on threads, nor on history.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from iqdb_core import _kernels
from iqdb_core.digest import digest_of_parts
from iqdb_core.errors import DimensionMismatchError, InvalidParameterError
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.id_sections import IdSections
from iqdb_core.storage.layout import (
    BLOCK_LOG2,
    CODEC_NAMES,
    CODEC_NONE,
    COMPRESSIBLE_SECTIONS,
    CONFIG,
    FLAG_DERIVED,
    HEADER_BYTES,
    HEADER_CRC_OFFSET,
    INDEX_KIND_TAGS,
    MAX_ROWS,
    METRIC_TAGS,
    SNAPSHOT_MAGIC,
    SNAPSHOT_VERSION,
    VECTORS,
    Header,
    SectionEntry,
    encode_header,
    encode_section_table,
    padded,
)
from iqdb_core.storage.metadata_sections import MetadataSections
from iqdb_core.storage.section_stream import (
    DirectOutput,
    FileSink,
    MemorySink,
    SectionStream,
    Spool,
    as_bytes,
)
from iqdb_core.storage.structure import encode_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from iqdb_core.records import RecordBatch
    from iqdb_core.storage.snapshot import Snapshot

_CODEC_TAGS = {name: tag for tag, name in CODEC_NAMES.items()}
# From this many bytes on, writing in a second thread while this one sums up pays for the hand-over.
_OVERLAP_BYTES = 1 << 18
_COPY_BYTES = 8 << 20


class SnapshotSummary(NamedTuple):
    """What was written.

    Attributes:
        identity: the number by which a log names this snapshot.
        digest: the content digest in the header.
        n_rows: the number of records.
        file_bytes: the length of the file.
        kept_rows: None when all ids are distinct, as they must be. Otherwise i64: which rows to keep,
            in their order, so that every id keeps the place of its first record and the content of
            its last. The file can then be read, to write another one, but must not be put in place.
    """

    identity: int
    digest: ContentDigest
    n_rows: int
    file_bytes: int
    kept_rows: NDArray[np.int64] | None


class _Finished(NamedTuple):
    """The sections of a finished snapshot, so that more can follow."""

    entries: list[SectionEntry]
    tables: list[bytes]
    end: int
    id_encoding: int
    digest: ContentDigest


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
        self._config = dict(config)
        self._database_id = database_id
        self._threads = threads
        self._dim = int(config["dim"])
        self._n_rows = 0
        self._digest = ContentDigest()
        self._hashed = True
        codec, _, level = str(config["compression"]).partition(":")
        self._codec = _CODEC_TAGS[codec]
        self._level = int(level or 0)
        self._pool = ThreadPoolExecutor(max(threads, 2), "iqdb-write")
        self._spools: list[Spool] = []
        self._spool_files = files if isinstance(sink, OpenFile) else None
        self._path = sink.path if isinstance(sink, OpenFile) else "<memory>"
        self._files = files
        self._sink = FileSink(sink, files) if isinstance(sink, OpenFile) else MemorySink(sink)
        self._vectors_output = DirectOutput(self._sink, HEADER_BYTES)
        self._vectors = self._stream(VECTORS, "f32", self._vectors_output)
        self._ids = IdSections(self._spooled, self._new_spool)
        self._metadata = MetadataSections(self._spooled)
        self._finished: _Finished | None = None

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
        config = self._spooled(CONFIG, "u8")
        encoded = encode_config(self._config)
        config.append(encoded)
        streams: list[tuple[SectionStream, tuple[int, ...]]] = [
            (self._vectors, (self._n_rows, self._dim)),
            *ids.streams,
            *self._metadata.finish(),
            (config, (len(encoded),)),
        ]
        header = self._write_sections(streams, ids.encoding, digest)
        if sync and ids.kept_rows is None and isinstance(self._sink, FileSink):
            self._files.sync(self._sink.file)
        return SnapshotSummary(header.identity, digest, self._n_rows, header.file_bytes, ids.kept_rows)

    def add_index(self, arrays: Mapping[str, NDArray[Any]], *, derived: bool = True) -> SnapshotSummary:
        """Put the arrays of an index behind the records of a finished snapshot, in the order given.

        Between `finish` and this the file is a complete snapshot without its index: what an index is
        built from. Nothing may have it open while it is extended. Sections that are not `derived` are for
        readers that must know them.
        """
        done = self._finished
        assert done is not None, "finish comes first"
        if isinstance(self._sink, MemorySink):
            # Whoever has looked at the image may still hold views of it, and then it cannot grow.
            self._sink.buffer = bytearray(self._sink.buffer)
        entries = list(done.entries)
        tables = list(done.tables)
        end = done.end
        for name, array in arrays.items():
            output = DirectOutput(self._sink, end)
            dtype = f"{array.dtype.kind}{8 * array.dtype.itemsize}"
            stream = SectionStream(
                name, dtype, self._database_id, output, flags=FLAG_DERIVED if derived else 0
            )
            raw = as_bytes(np.ascontiguousarray(array).data)
            for start in range(0, len(raw), _COPY_BYTES):
                stream.append(raw[start : start + _COPY_BYTES])
            entry, table = stream.finish(array.shape)
            output.flush()
            entries.append(entry._replace(offset=end))
            tables.append(table)
            stop = end + entry.stored_bytes
            end = padded(stop)
            self._sink.write(bytes(end - stop), stop)  # the tables stood here before
        header = self._write_tables(entries, tables, end, done.id_encoding, done.digest)
        return SnapshotSummary(header.identity, done.digest, self._n_rows, header.file_bytes, None)

    @property
    def memory(self) -> bytearray:
        """The image of a snapshot in memory; a new object after `add_index`."""
        assert isinstance(self._sink, MemorySink)
        return self._sink.buffer

    def close(self) -> None:
        """Let go of scratch files and threads. The sink is the caller's."""
        self._pool.shutdown()
        for spool in self._spools:
            spool.close()

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

    def _write_sections(
        self,
        streams: list[tuple[SectionStream, tuple[int, ...]]],
        id_encoding: int,
        digest: ContentDigest,
    ) -> Header:
        """Put every section in its place, then the checksums, the table and the header."""
        parts = [stream.finish(shape) for stream, shape in streams]
        self._vectors_output.flush()
        end = HEADER_BYTES
        placed: list[SectionEntry] = []
        for (stream, _), (entry, _) in zip(streams, parts, strict=True):
            placed.append(entry._replace(offset=end))
            if isinstance(stream.output, Spool):
                stream.output.copy_to(self._sink, end)
                stream.output.close()
            end = padded(end + entry.stored_bytes)
        tables = [table for _, table in parts]
        self._finished = _Finished(placed, tables, end, id_encoding, digest)
        return self._write_tables(placed, tables, end, id_encoding, digest)

    def _write_tables(
        self,
        placed: list[SectionEntry],
        tables: list[bytes],
        end: int,
        id_encoding: int,
        digest: ContentDigest,
    ) -> Header:
        """Write what follows the sections, and the header last."""
        checksums = bytearray()
        entries: list[SectionEntry] = []
        for entry, table in zip(placed, tables, strict=True):
            entries.append(entry._replace(checksums_offset=end + len(checksums)))
            checksums += table.ljust(padded(len(table), 8), b"\0")
        checksums += bytes(padded(len(checksums)) - len(checksums))
        table = encode_section_table(entries)
        table_offset = end + len(checksums)
        self._sink.write(checksums + table, end)
        header = Header(
            magic=SNAPSHOT_MAGIC,
            version=SNAPSHOT_VERSION,
            header_bytes=HEADER_BYTES,
            file_bytes=table_offset + len(table),
            feature_compat=0,
            feature_ro_compat=0,
            feature_incompat=0,
            database_id=self._database_id,
            section_table_offset=table_offset,
            section_count=len(entries),
            section_table_crc=_kernels.crc32c(table),
            n_rows=self._n_rows,
            dim=self._dim,
            metric=METRIC_TAGS[self._config["metric"]],
            index_kind=INDEX_KIND_TAGS[self._config["index"]["kind"]],
            id_encoding=id_encoding,
            block_log2=BLOCK_LOG2,
            content_digest=digest.to_bytes(),
            header_crc=0,
        )
        header = header._replace(header_crc=_kernels.crc32c(encode_header(header)[:HEADER_CRC_OFFSET]))
        self._sink.write(encode_header(header), 0)
        return header

    def _new_spool(self) -> Spool:
        spool = Spool(self._spool_files, self._path)
        self._spools.append(spool)
        return spool

    def _spooled(self, name: str, dtype: str) -> SectionStream:
        return self._stream(name, dtype, self._new_spool())

    def _stream(self, name: str, dtype: str, output: Spool | DirectOutput) -> SectionStream:
        codec = self._codec if name in COMPRESSIBLE_SECTIONS else CODEC_NONE
        return SectionStream(
            name, dtype, self._database_id, output, codec=codec, level=self._level, pool=self._pool
        )
