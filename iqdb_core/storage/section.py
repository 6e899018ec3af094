"""One section of a mapped snapshot: bytes that are verified, and decoded, when they are first used."""

from __future__ import annotations

import mmap
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from iqdb_core._kernels import crc32c, verify_blocks
from iqdb_core.errors import ChecksumError, ClosedError, FileIOError, StructureError
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    BLOCK_LOG2,
    CODEC_NONE,
    DTYPE_BY_TAG,
    SectionEntry,
    encode_section_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_PAIR = struct.Struct("<QQ")
_BLOCK_NUMBER = struct.Struct("<Q")
_SPARE_BYTES = BLOCK_BYTES - 1
# Below this many bytes to verify or decode, starting threads costs more than it saves.
_THREADED_BYTES = 8 << 20


def block_prefix(database_id: bytes, name: str) -> int:
    """Return the value with which every block checksum of a section begins."""
    return crc32c(database_id + encode_section_name(name))


class Blocks(NamedTuple):
    """What a kernel needs to verify blocks itself, fused with their use.

    Attributes:
        crcs: u32 per block, mapped; the table itself is verified.
        verified: a byte per block, shared by all users of the section; 1 once it was verified.
        prefix: the value with which the checksums begin.
    """

    crcs: memoryview
    verified: bytearray
    prefix: int


class Section:
    """A named array of a snapshot. Nothing of it is touched before it is asked for.

    Safe to use from several threads: verifying or decoding a block twice is harmless, and a block
    is marked only when that is done.
    """

    __slots__ = (
        "_blocks",
        "_chunks",
        "_file",
        "_lock",
        "_path",
        "_prefix",
        "_stored",
        "dtype",
        "entry",
        "name",
        "raw_bytes",
        "shape",
    )

    def __init__(self, entry: SectionEntry, file: memoryview, database_id: bytes, path: str) -> None:
        self.entry = entry
        self.name = entry.name
        self.dtype = DTYPE_BY_TAG[entry.dtype]
        self.shape = (entry.shape0,) if entry.ndim == 1 else (entry.shape0, entry.shape1)
        self.raw_bytes = entry.raw_bytes
        self._path = path
        self._file = file
        self._stored = file[entry.offset : entry.offset + entry.stored_bytes]
        self._prefix = block_prefix(database_id, entry.name)
        self._blocks: Blocks | None = None
        self._chunks: _Chunks | None = None
        self._lock = threading.Lock()

    @property
    def compressed(self) -> bool:
        """True when the section is stored in compressed chunks."""
        return self.entry.codec != CODEC_NONE

    def blocks(self) -> Blocks:
        """Return the block checksums of the stored bytes. Their table is verified the first time."""
        blocks = self._blocks
        if blocks is None:
            entry = self.entry
            count = (entry.stored_bytes + _SPARE_BYTES) >> BLOCK_LOG2
            table = self._file[entry.checksums_offset : entry.checksums_offset + 4 * count]
            found = crc32c(table)
            if found != entry.checksums_crc:
                raise ChecksumError(
                    self._path,
                    f"block checksums of section {self.name}",
                    entry.checksums_offset,
                    expected=entry.checksums_crc,
                    found=found,
                )
            with self._lock:
                # One `verified` for all users: the first one that gets here makes it.
                blocks = self._blocks = self._blocks or Blocks(
                    table.cast("I"), bytearray(count), self._prefix
                )
        return blocks

    def verify(self, start: int, stop: int, *, threads: int = 1) -> None:
        """Verify the stored bytes start..stop, in whole blocks, those that were not verified yet.

        Raises:
            ChecksumError: a block is damaged.
        """
        if start >= stop:
            return
        blocks = self._blocks or self.blocks()
        first = start >> BLOCK_LOG2
        last = (stop + _SPARE_BYTES) >> BLOCK_LOG2
        if blocks.verified.find(0, first, last) < 0:
            return
        if stop - start < _THREADED_BYTES:
            threads = 1
        bad = verify_blocks(self._stored, blocks.crcs, blocks.verified, blocks.prefix, first, last, threads)
        if bad >= 0:
            raise self.damaged_block(bad)

    def trust(self) -> None:
        """Take every block as verified: for a caller that compared them all a moment ago, in the same file.

        Raises:
            ChecksumError: the table of checksums is damaged.
        """
        verified = self.blocks().verified
        verified[:] = b"\1" * len(verified)

    def damaged_block(self, block: int) -> ChecksumError:
        """Return the error that reports a block whose checksum is wrong."""
        blocks = self.blocks()
        offset = block << BLOCK_LOG2
        seed = crc32c(_BLOCK_NUMBER.pack(block), blocks.prefix)
        return ChecksumError(
            self._path,
            f"block {block} of section {self.name}",
            self.entry.offset + offset,
            expected=blocks.crcs[block],
            found=crc32c(self._stored[offset : offset + BLOCK_BYTES], seed),
        )

    def read(self, start: int, stop: int, *, threads: int = 1) -> memoryview:
        """Return the raw bytes start..stop, verified and decoded. No copy is made.

        Raises:
            ChecksumError, StructureError: the bytes, or the chunks that hold them, are damaged.
        """
        if not 0 <= start <= stop <= self.raw_bytes:
            raise StructureError(
                self._path,
                f"a reference into section {self.name}",
                f"a range within its {self.raw_bytes} bytes",
                f"{start}..{stop}",
            )
        if self.entry.codec == CODEC_NONE:
            self.verify(start, stop, threads=threads)
            return self._stored[start:stop]
        return self._decoder().read(self, start, stop, threads)

    def unverified(self) -> memoryview:
        """Return all raw bytes of an uncompressed section, for callers that verify by `blocks`."""
        assert self.entry.codec == CODEC_NONE
        return self._stored

    def decoded(self) -> memoryview:
        """Return the memory that chunks of a compressed section are decoded into, by `read`."""
        return self._decoder().raw

    def array(self, *, threads: int = 1) -> memoryview:
        """Return the whole section, verified and decoded, as an array of its type and shape.

        An empty section gives an empty one-dimensional array.
        """
        return self.shaped(self.read(0, self.raw_bytes, threads=threads))

    def shaped(self, raw: memoryview) -> memoryview:
        """View all raw bytes of the section as an array of its type and shape."""
        # The type is only known at run time, which the annotations of `cast` do not provide for.
        code: Any = self.dtype.code
        array: memoryview = raw.cast(code, self.shape) if raw else raw.cast(code)
        return array

    def _decoder(self) -> _Chunks:
        chunks = self._chunks
        if chunks is None:
            with self._lock:
                if self._chunks is None:
                    self._chunks = _Chunks(self, self._stored, self._path)
                chunks = self._chunks
        return chunks


class Sections(dict[str, Section]):
    """The sections of one snapshot by name, until it is closed."""

    def __init__(self, path: str, sections: Iterable[Section]) -> None:
        super().__init__((section.name, section) for section in sections)
        self.path = path

    def part(self, name: str) -> Section:
        """Return a section that must be there.

        Raises:
            ClosedError: the snapshot was closed.
        """
        try:
            return self[name]
        except KeyError:
            if not self:
                raise ClosedError(self.path) from None
            raise

    def close(self) -> None:
        """Let go of the file. What was handed out stays valid."""
        self.clear()


class _Chunks:
    """The chunks of a compressed section, decoded one by one into anonymous memory.

    The memory is reserved as a whole and only pages of chunks that were decoded are ever occupied. The
    section is passed to what needs it: if each referred to the other, the memory would stay after a close
    until the garbage collector happens to run.
    """

    __slots__ = ("_chunk_bytes", "_count", "_decoded", "_offsets_at", "_path", "_stored", "raw")

    def __init__(self, section: Section, stored: memoryview, path: str) -> None:
        self._stored = stored
        self._path = path
        self._chunk_bytes = section.entry.chunk_bytes
        self._count = -(-section.raw_bytes // self._chunk_bytes)
        self._offsets_at = section.entry.stored_bytes - 8 * (self._count + 1)
        self._decoded = bytearray(self._count)
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            self.raw = memoryview(mmap.mmap(-1, section.raw_bytes, flags))
        except (OSError, ValueError, OverflowError) as error:
            cause = error if isinstance(error, OSError) else OSError(12, str(error))
            raise FileIOError(path, f"reserve {section.raw_bytes} bytes of memory for it", cause) from error

    def read(self, section: Section, start: int, stop: int, threads: int) -> memoryview:
        if start < stop:
            first = start // self._chunk_bytes
            last = -(-stop // self._chunk_bytes)
            if self._decoded.find(0, first, last) >= 0:
                todo = [chunk for chunk in range(first, last) if not self._decoded[chunk]]
                self._decode_all(section, todo, threads if stop - start >= _THREADED_BYTES else 1)
        return self.raw[start:stop]

    def _decode_all(self, section: Section, todo: list[int], threads: int) -> None:
        if threads <= 1:
            self._decode(section, todo)
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(threads) as pool:
            # Interleaved parts, so that every thread walks through the file in order.
            for done in [pool.submit(self._decode, section, todo[part::threads]) for part in range(threads)]:
                done.result()

    def _decode(self, section: Section, todo: Iterable[int]) -> None:
        from iqdb_core.storage.codecs import decompress_chunk

        for chunk in todo:
            start, stop = self._stored_range(section, chunk)
            section.verify(start, stop)
            stored = self._stored[start:stop]
            raw_start = chunk * self._chunk_bytes
            raw_bytes = min(self._chunk_bytes, section.raw_bytes - raw_start)
            if len(stored) == raw_bytes:
                self.raw[raw_start : raw_start + raw_bytes] = stored
            else:
                try:
                    raw = decompress_chunk(section.entry.codec, stored, raw_bytes)
                except ValueError as error:
                    raise self._wrong(section, chunk, f"a chunk of {raw_bytes} bytes", str(error)) from error
                self.raw[raw_start : raw_start + raw_bytes] = raw
            self._decoded[chunk] = 1

    def _stored_range(self, section: Section, chunk: int) -> tuple[int, int]:
        """Return where a chunk's stored bytes are. Offsets are checked when they are used."""
        at = self._offsets_at + 8 * chunk
        section.verify(at, at + 16)
        start, stop = _PAIR.unpack_from(self._stored, at)
        most = min(self._chunk_bytes, section.raw_bytes - chunk * self._chunk_bytes)
        if not start < stop <= self._offsets_at or stop - start > most:
            raise self._wrong(
                section, chunk, f"1..{most} bytes before {self._offsets_at}", f"{start}..{stop}"
            )
        if (chunk == 0 and start != 0) or (chunk == self._count - 1 and (stop + 7) & -8 != self._offsets_at):
            raise self._wrong(section, chunk, "chunks without a hole", f"{start}..{stop}")
        return start, stop

    def _wrong(self, section: Section, chunk: int, expected: str, found: object) -> StructureError:
        return StructureError(self._path, f"chunk {chunk} of section {section.name}", expected, found)
