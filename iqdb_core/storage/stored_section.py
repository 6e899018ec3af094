"""A section of a finished file, read with plain reads.

Nothing here is shared with the writer but the layout, so that reading back proves something.
"""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

from iqdb_core import _kernels
from iqdb_core.errors import ChecksumError, StructureError
from iqdb_core.storage.codecs import decompress_chunk
from iqdb_core.storage.layout import BLOCK_BYTES, CODEC_NONE, SectionEntry
from iqdb_core.storage.section import block_prefix

if TYPE_CHECKING:
    from iqdb_core.storage.files import FileSystem, OpenFile

_STEP_BYTES = 1 << 20


class StoredSection:
    """One section, read piece by piece from the file. Every block of a piece is verified."""

    def __init__(self, entry: SectionEntry, database_id: bytes, file: OpenFile, files: FileSystem) -> None:
        self.entry = entry
        self.path = file.path
        self._file = file
        self._files = files
        self._prefix = block_prefix(database_id, entry.name)
        n_blocks = -(-entry.stored_bytes // BLOCK_BYTES)
        table = files.read(file, 4 * n_blocks, entry.checksums_offset)
        found = _kernels.crc32c(table)
        if found != entry.checksums_crc:
            raise ChecksumError(
                self.path,
                f"block checksums of section {entry.name}",
                entry.checksums_offset,
                expected=entry.checksums_crc,
                found=found,
            )
        self._crcs = memoryview(table).cast("I")
        self._chunk_offsets: list[int] = []
        if entry.codec != CODEC_NONE:
            n_chunks = -(-entry.raw_bytes // entry.chunk_bytes)
            at = entry.stored_bytes - 8 * (n_chunks + 1)
            self._chunk_offsets = self._stored(at, entry.stored_bytes).cast("Q").tolist()
            chunks_end = self._chunk_offsets[-1]
            ascending = all(a < b for a, b in pairwise(self._chunk_offsets))
            if self._chunk_offsets[0] != 0 or not ascending or (chunks_end + 7) & -8 != at:
                raise StructureError(
                    self.path, f"chunk offsets of section {entry.name}", f"ascending from 0 to {at}", "others"
                )

    def read(self, start: int, stop: int, buffer: bytearray | None = None) -> memoryview:
        """Return the raw bytes start..stop, in `buffer` where that helps and is large enough."""
        if not 0 <= start <= stop <= self.entry.raw_bytes:
            raise StructureError(
                self.path,
                f"a reference into section {self.entry.name}",
                f"a range within its {self.entry.raw_bytes} bytes",
                f"{start}..{stop}",
            )
        if self.entry.codec == CODEC_NONE:
            return self._stored(start, stop, buffer)
        if start == stop:
            return memoryview(b"")
        chunk_bytes = self.entry.chunk_bytes
        first = start // chunk_bytes
        raw = bytearray()
        for chunk in range(first, -(-stop // chunk_bytes)):
            stored = self._stored(self._chunk_offsets[chunk], self._chunk_offsets[chunk + 1])
            size = min(chunk_bytes, self.entry.raw_bytes - chunk * chunk_bytes)
            try:
                raw += stored if len(stored) == size else decompress_chunk(self.entry.codec, stored, size)
            except ValueError as error:
                where = f"chunk {chunk} of section {self.entry.name}"
                raise StructureError(self.path, where, f"a chunk of {size} bytes", str(error)) from error
        return memoryview(raw)[start - first * chunk_bytes : stop - first * chunk_bytes]

    def read_all(self) -> memoryview:
        """Return all raw bytes."""
        return self.read(0, self.entry.raw_bytes)

    def verify_all(self) -> None:
        """Verify every block without keeping any."""
        for start in range(0, self.entry.stored_bytes, _STEP_BYTES):
            self._stored(start, min(start + _STEP_BYTES, self.entry.stored_bytes))

    def _stored(self, start: int, stop: int, buffer: bytearray | None = None) -> memoryview:
        first = start // BLOCK_BYTES
        begin = first * BLOCK_BYTES
        end = min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, self.entry.stored_bytes)
        if start >= stop:
            return memoryview(b"")
        if buffer is None or len(buffer) < end - begin:
            buffer = bytearray(end - begin)
        data = memoryview(buffer)[: end - begin]
        if self._files.read_into(self._file, data, self.entry.offset + begin) < len(data):
            raise StructureError(self.path, f"section {self.entry.name}", f"{end} bytes", "an early end")
        found = array("I", bytes(4 * -(-len(data) // BLOCK_BYTES)))
        _kernels.crc32c_blocks(data, self._prefix, first, found)
        expected = self._crcs[first : first + len(found)]
        if memoryview(found) != expected:
            wrong = next(i for i, crc in enumerate(expected) if crc != found[i])
            block = first + wrong
            raise ChecksumError(
                self.path,
                f"block {block} of section {self.entry.name}",
                self.entry.offset + block * BLOCK_BYTES,
                expected=expected[wrong],
                found=found[wrong],
            )
        return data[start - begin : stop - begin]
