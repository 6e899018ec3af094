"""Putting the sections of a snapshot together: each in its place, their checksums, the table, the header.

What the sections hold is their writers' business: `SnapshotWriter` for records of any kind,
`PlainWriter` for those of a plain array. The header is written last, so an unfinished file never passes
for a snapshot. Nothing here imports NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from iqdb_core._kernels import crc32c
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    BLOCK_LOG2,
    CODEC_NAMES,
    CODEC_NONE,
    COMPRESSIBLE_SECTIONS,
    CONFIG,
    HEADER_BYTES,
    HEADER_CRC_OFFSET,
    INDEX_KIND_TAGS,
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
from iqdb_core.storage.section_stream import DirectOutput, FileSink, MemorySink, SectionStream, Spool
from iqdb_core.storage.structure import encode_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray

    from iqdb_core.storage.digest_value import ContentDigest
    from iqdb_core.storage.section_stream import Bytes

_CODEC_TAGS = {name: tag for tag, name in CODEC_NAMES.items()}


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
    kept_rows: NDArray[Any] | None


class _Placed(NamedTuple):
    """The sections that have their place, so that more can follow."""

    entries: list[SectionEntry]
    tables: list[bytes]
    end: int
    id_encoding: int
    digest: ContentDigest
    n_rows: int


class SnapshotAssembly:
    """One snapshot while its sections are written: `finish` puts them in their places.

    Vectors go straight to theirs behind the header; the other sections wait in spools until the vectors
    have ended.

    Attributes:
        vectors: the section of the vectors.
    """

    def __init__(
        self,
        sink: OpenFile | bytearray,
        config: Mapping[str, Any],
        database_id: bytes,
        files: FileSystem = OS_FILES,
        *,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        """Begin a snapshot.

        Args:
            sink: a new, empty file open for writing (see `FileSystem.create_temporary`), or an empty
                bytearray for a database in memory.
            config: the stored configuration as plain values: compression, dim, index, metric, provenance.
            database_id: 16 bytes.
            files: the file layer.
            pool: threads that compress.
        """
        self._config = dict(config)
        self._database_id = database_id
        self._dim = int(config["dim"])
        codec, _, level = str(config["compression"]).partition(":")
        self._codec = _CODEC_TAGS[codec]
        self._level = int(level or 0)
        self._pool = pool
        self._spools: list[Spool] = []
        self._spool_files = files if isinstance(sink, OpenFile) else None
        self._path = sink.path if isinstance(sink, OpenFile) else "<memory>"
        self._sink = FileSink(sink, files) if isinstance(sink, OpenFile) else MemorySink(sink)
        self._vectors_output = DirectOutput(self._sink, HEADER_BYTES)
        self.vectors = self._stream(VECTORS, "f32", self._vectors_output)
        self._placed: _Placed | None = None

    @property
    def memory(self) -> bytearray:
        """The image of a snapshot in memory; a new object after `add_section`."""
        assert isinstance(self._sink, MemorySink)
        return self._sink.buffer

    def new_spool(self) -> Spool:
        """Return a place for bytes that wait; it goes with the assembly."""
        spool = Spool(self._spool_files, self._path)
        self._spools.append(spool)
        return spool

    def section(self, name: str, dtype: str) -> SectionStream:
        """Begin a section that waits in a spool."""
        return self._stream(name, dtype, self.new_spool())

    def finish(
        self,
        streams: list[tuple[SectionStream, tuple[int, ...]]],
        n_rows: int,
        id_encoding: int,
        digest: ContentDigest,
    ) -> Header:
        """Put the vectors, the sections given with their shapes and the configuration in their places.

        Raises:
            FileIOError: the system refused to write; the file is of no further use.
        """
        config = self.section(CONFIG, "u8")
        encoded = encode_config(self._config)
        config.append(encoded)
        streams = [(self.vectors, (n_rows, self._dim)), *streams, (config, (len(encoded),))]
        parts = [stream.finish(shape) for stream, shape in streams]
        self._vectors_output.flush()
        end = HEADER_BYTES
        entries: list[SectionEntry] = []
        for (stream, _), (entry, _) in zip(streams, parts, strict=True):
            entries.append(entry._replace(offset=end))
            if isinstance(stream.output, Spool):
                stream.output.copy_to(self._sink, end)
                stream.output.close()
            end = padded(end + entry.stored_bytes)
        tables = [table for _, table in parts]
        self._placed = _Placed(entries, tables, end, id_encoding, digest, n_rows)
        return self._write_tables(self._placed)

    def add_sections(
        self, contents: Mapping[str, tuple[str, tuple[int, ...], Bytes]], *, flags: int, step: int
    ) -> Header:
        """Put more sections behind those of a finished snapshot, in the order given.

        Between `finish` and this the file is a complete snapshot without them. Nothing may have it open
        while it is extended.

        Args:
            contents: name -> (dtype, shape, bytes).
            flags: of every one of the sections.
            step: bytes written at once.
        """
        done = self._placed
        assert done is not None, "finish comes first"
        if isinstance(self._sink, MemorySink):
            # Whoever has looked at the image may still hold views of it, and then it cannot grow.
            self._sink.buffer = bytearray(self._sink.buffer)
        entries = list(done.entries)
        tables = list(done.tables)
        end = done.end
        for name, (dtype, shape, raw) in contents.items():
            output = DirectOutput(self._sink, end)
            stream = SectionStream(name, dtype, self._database_id, output, flags=flags)
            for start in range(0, len(raw), step):
                stream.append(raw[start : start + step])
            entry, table = stream.finish(shape)
            output.flush()
            entries.append(entry._replace(offset=end))
            tables.append(table)
            stop = end + entry.stored_bytes
            end = padded(stop)
            self._sink.write(bytes(end - stop), stop)  # the tables stood here before
        return self._write_tables(done._replace(entries=entries, tables=tables, end=end))

    def close(self) -> None:
        """Let go of scratch files. The sink is the caller's."""
        for spool in self._spools:
            spool.close()

    def _write_tables(self, placed: _Placed) -> Header:
        """Write what follows the sections, and the header last."""
        checksums = bytearray()
        entries: list[SectionEntry] = []
        for entry, table in zip(placed.entries, placed.tables, strict=True):
            entries.append(entry._replace(checksums_offset=placed.end + len(checksums)))
            checksums += table.ljust(padded(len(table), 8), b"\0")
        checksums += bytes(padded(len(checksums)) - len(checksums))
        table = encode_section_table(entries)
        table_offset = placed.end + len(checksums)
        self._sink.write(checksums + table, placed.end)
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
            section_table_crc=crc32c(table),
            n_rows=placed.n_rows,
            dim=self._dim,
            metric=METRIC_TAGS[self._config["metric"]],
            index_kind=INDEX_KIND_TAGS[self._config["index"]["kind"]],
            id_encoding=placed.id_encoding,
            block_log2=BLOCK_LOG2,
            content_digest=placed.digest.to_bytes(),
            header_crc=0,
        )
        header = header._replace(header_crc=crc32c(encode_header(header)[:HEADER_CRC_OFFSET]))
        self._sink.write(encode_header(header), 0)
        return header

    def _stream(self, name: str, dtype: str, output: Spool | DirectOutput) -> SectionStream:
        codec = self._codec if name in COMPRESSIBLE_SECTIONS else CODEC_NONE
        return SectionStream(
            name, dtype, self._database_id, output, codec=codec, level=self._level, pool=self._pool
        )
