"""Writing a section as a stream: chunks, block checksums, and where the bytes wait meanwhile."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Protocol

from iqdb_core._kernels import crc32c, crc32c_blocks
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    CODEC_NONE,
    DTYPE_BY_NAME,
    WRITTEN_CHUNK_BYTES,
    SectionEntry,
    padded,
)
from iqdb_core.storage.section import block_prefix

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from iqdb_core.storage.files import FileSystem, OpenFile

Bytes = bytes | bytearray | memoryview

_SPOOL_BYTES = 8 << 20
"""What a section may hold in memory before it goes on in a scratch file."""
WRITE_BYTES = 1 << 18
"""How much one call writes, at a multiple of it: few calls, and no more than stays in a CPU's cache."""
_COMPRESSED_TOGETHER = 32


class Output(Protocol):
    """Where the stored bytes of a section go, one after the other."""

    def append(self, data: Bytes) -> None:
        """Take bytes, which the caller may change afterwards."""


class Sink(Protocol):
    """The snapshot that is being written: a file or a buffer."""

    def write(self, data: Bytes, offset: int) -> None:
        """Write at an offset; what lies before it and was never written is zero."""


class FileSink:
    """A snapshot written to a new, empty file."""

    def __init__(self, file: OpenFile, files: FileSystem) -> None:
        self.file = file
        self.files = files

    def write(self, data: Bytes, offset: int) -> None:
        """Write at an offset."""
        self.files.write(self.file, data, offset)


class MemorySink:
    """A snapshot written to a growing buffer."""

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer

    def write(self, data: Bytes, offset: int) -> None:
        """Write at an offset."""
        if offset > len(self.buffer):
            self.buffer.extend(bytes(offset - len(self.buffer)))
        self.buffer[offset : offset + len(data)] = data


class DirectOutput:
    """A section that is written to its place in the sink at once, in pieces that begin at their multiples."""

    def __init__(self, sink: FileSink | MemorySink, offset: int) -> None:
        self._sink = sink
        self._end = offset
        self._buffer = bytearray()

    def append(self, data: Bytes) -> None:
        """Write what fills pieces, and keep the rest until more comes."""
        view = memoryview(data)
        while True:
            missing = WRITE_BYTES - (self._end + len(self._buffer)) % WRITE_BYTES
            if len(view) < missing:
                self._buffer += view
                return
            if self._buffer:
                self._buffer += view[:missing]
                self.flush()
            else:
                self._write(view[:missing])
            view = view[missing:]

    def flush(self) -> None:
        """Write what was kept."""
        if self._buffer:
            self._write(self._buffer)
            self._buffer = bytearray()

    def _write(self, data: Bytes) -> None:
        self._sink.write(data, self._end)
        self._end += len(data)


class Spool:
    """Bytes that wait for their place: in memory, and from some size on in a nameless file."""

    def __init__(self, files: FileSystem | None, path: str) -> None:
        self._files = files
        self._path = path
        self._memory = bytearray()
        self._file: OpenFile | None = None
        self._file_bytes = 0

    def __len__(self) -> int:
        return self._file_bytes + len(self._memory)

    def append(self, data: Bytes) -> None:
        """Take bytes."""
        self._memory += data
        if self._files is not None and len(self._memory) >= _SPOOL_BYTES:
            if self._file is None:
                self._file = self._files.create_spool(self._path)
            self._flush()

    def view(self) -> memoryview:
        """Return all bytes, from a mapping when they are in a file. Ends the appending."""
        if self._file is None:
            return memoryview(self._memory)
        assert self._files is not None
        self._flush()
        return memoryview(self._files.map_read(self._file, self._file_bytes))

    def copy_to(self, sink: Sink, offset: int) -> None:
        """Write all bytes to their place, without holding more than a buffer of them."""
        if self._file is not None:
            assert self._files is not None
            self._flush()
            for start in range(0, self._file_bytes, _SPOOL_BYTES):
                size = min(_SPOOL_BYTES, self._file_bytes - start)
                sink.write(self._files.read(self._file, size, start), offset + start)
        elif self._memory:
            sink.write(self._memory, offset)

    def close(self) -> None:
        """Drop the bytes."""
        self._memory = bytearray()
        if self._file is not None:
            assert self._files is not None
            self._files.close(self._file)
            self._file = None

    def _flush(self) -> None:
        if self._memory and self._file is not None:
            assert self._files is not None
            self._files.write(self._file, self._memory, self._file_bytes)
            self._file_bytes += len(self._memory)
            self._memory = bytearray()


class BlockChecksums:
    """The block checksums of bytes that come in pieces of any size."""

    def __init__(self, prefix: int) -> None:
        self._prefix = prefix
        self._partial = bytearray()
        self._crcs = array("I")

    def update(self, data: Bytes) -> None:
        """Take the bytes that follow."""
        view = memoryview(data)
        if self._partial:
            missing = BLOCK_BYTES - len(self._partial)
            self._partial += view[:missing]
            view = view[missing:]
            if len(self._partial) < BLOCK_BYTES:
                return
            self._sum(self._partial)
            self._partial = bytearray()
        whole = len(view) & -BLOCK_BYTES
        if whole:
            self._sum(view[:whole])
        self._partial += view[whole:]

    def extend(self, crcs: array[int]) -> None:
        """Take the checksums of the blocks that follow; nothing but a last block may be short."""
        assert not self._partial
        self._crcs += crcs

    def finish(self) -> bytes:
        """Return the table, with the last, short block in it."""
        if self._partial:
            self._sum(self._partial)
            self._partial = bytearray()
        return self._crcs.tobytes()

    def _sum(self, data: Bytes) -> None:
        crcs = array("I", bytes(4 * -(-len(data) // BLOCK_BYTES)))
        crc32c_blocks(data, self._prefix, len(self._crcs), crcs)
        self._crcs += crcs


class SectionStream:
    """One section that is being written, from its raw bytes to its entry in the section table."""

    def __init__(
        self,
        name: str,
        dtype: str,
        database_id: bytes,
        output: Output,
        *,
        codec: int = CODEC_NONE,
        level: int = 0,
        flags: int = 0,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.name = name
        self.output = output
        self.raw_bytes = 0
        self.stored_bytes = 0
        self._dtype = DTYPE_BY_NAME[dtype]
        self._codec = codec
        self._level = level
        self._flags = flags
        self._pool = pool
        self._prefix = block_prefix(database_id, name)
        self._checksums = BlockChecksums(self._prefix)
        self._pending = bytearray()
        self._chunk_offsets = array("Q", [0])

    @property
    def compressed(self) -> bool:
        """True when the output gets compressed chunks rather than the raw bytes."""
        return self._codec != CODEC_NONE

    def append(self, data: Bytes) -> None:
        """Take the raw bytes that follow. Nothing of `data` is kept."""
        self.raw_bytes += len(data)
        if self._codec == CODEC_NONE:
            self._store(data)
            return
        self._pending += data
        together = WRITTEN_CHUNK_BYTES * _COMPRESSED_TOGETHER
        whole = len(self._pending) // together * together
        if whole:
            self._compress(memoryview(self._pending)[:whole])
            self._pending = self._pending[whole:]

    def start(self, data: Bytes, pool: ThreadPoolExecutor) -> Future[None]:
        """Take the raw bytes that follow, and write them in another thread while this one sums them up.

        Only for a section that is not compressed. `data` must stay as it is until the result is there,
        and nothing may be appended before.
        """
        assert self._codec == CODEC_NONE
        self.raw_bytes += len(data)
        self.stored_bytes += len(data)
        writing = pool.submit(self.output.append, data)
        try:
            self._checksums.update(data)
        except BaseException:
            writing.exception()  # nobody else can wait until `data` is free
            raise
        return writing

    def placed(self, size: int, crcs: array[int]) -> None:
        """Count bytes that follow and stand in their place already, with the checksums of their blocks.

        Only for a section that is not compressed, and from the beginning of a block on.
        """
        assert self._codec == CODEC_NONE
        self.raw_bytes += size
        self.stored_bytes += size
        self._checksums.extend(crcs)

    def block_checksums(self, data: Bytes, start: int) -> array[int]:
        """Return the checksums of the blocks that `data` is, from byte `start` of the section on."""
        crcs = array("I", bytes(4 * -(-len(data) // BLOCK_BYTES)))
        crc32c_blocks(data, self._prefix, start // BLOCK_BYTES, crcs)
        return crcs

    def finish(self, shape: tuple[int, ...]) -> tuple[SectionEntry, bytes]:
        """End the section; return its entry, which does not know its place yet, and its checksums."""
        codec = self._codec if self.raw_bytes else CODEC_NONE
        if codec != CODEC_NONE:
            if self._pending:
                self._compress(memoryview(self._pending))
                self._pending = bytearray()
            end = self._chunk_offsets[-1]
            self._store(bytes(padded(end, 8) - end))
            self._store(self._chunk_offsets.tobytes())
        table = self._checksums.finish()
        entry = SectionEntry(
            name=self.name,
            dtype=self._dtype.tag,
            codec=codec,
            flags=self._flags,
            ndim=len(shape),
            chunk_bytes=WRITTEN_CHUNK_BYTES if codec != CODEC_NONE else 0,
            shape0=shape[0],
            shape1=shape[1] if len(shape) == 2 else 1,
            offset=0,
            stored_bytes=self.stored_bytes,
            raw_bytes=self.raw_bytes,
            checksums_offset=0,
            checksums_crc=crc32c(table),
        )
        return entry, table

    def _compress(self, raw: memoryview) -> None:
        chunks = [
            raw[start : start + WRITTEN_CHUNK_BYTES] for start in range(0, len(raw), WRITTEN_CHUNK_BYTES)
        ]
        compress = self._compress_one
        results = map(compress, chunks) if self._pool is None else self._pool.map(compress, chunks)
        for stored in results:
            self._store(stored)
            self._chunk_offsets.append(self._chunk_offsets[-1] + len(stored))

    def _compress_one(self, raw: memoryview) -> Bytes:
        from iqdb_core.storage.codecs import compress_chunk

        stored = compress_chunk(self._codec, self._level, raw)
        # A chunk that does not shrink is stored as it is; readers know it by its length.
        return stored if len(stored) < len(raw) else raw

    def _store(self, data: Bytes) -> None:
        self.stored_bytes += len(data)
        self._checksums.update(data)
        self.output.append(data)


def as_bytes(data: memoryview) -> memoryview:
    """View a C-contiguous array as bytes, an empty one included."""
    return data.cast("B") if data.nbytes else memoryview(b"")


__all__ = [
    "BlockChecksums",
    "Bytes",
    "DirectOutput",
    "FileSink",
    "MemorySink",
    "SectionStream",
    "Sink",
    "Spool",
    "as_bytes",
]
