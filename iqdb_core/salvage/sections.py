"""One section of a damaged snapshot: which of its bytes are proved, and these bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqdb_core import _kernels
from iqdb_core.errors import ChecksumError
from iqdb_core.storage.codecs import decompress_chunk
from iqdb_core.storage.layout import BLOCK_BYTES, CODEC_NONE, SectionEntry, encode_section_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.storage.files import FileSystem, OpenFile

_WINDOW_BYTES = 4 << 20
_KEPT_CHUNKS = 64


class SalvagedSection:
    """A section, read piece by piece. Bytes whose block has no right checksum are never given out.

    Attributes:
        entry: where it is.
        granule: raw bytes that are whole or lost together: those of a block, or of a chunk.
    """

    def __init__(
        self,
        entry: SectionEntry,
        seed: int,
        checksums_crc: int | None,
        file: OpenFile,
        files: FileSystem,
        *,
        trusted: bool = False,
    ) -> None:
        """Read the section through and compare its blocks.

        Args:
            entry: where it is; its `checksums_crc` is not looked at.
            seed: crc32c of the database id.
            checksums_crc: what the table of block checksums must have; None when that is not known.
            file: the snapshot.
            files: the file layer.
            trusted: there are no checksums; take what is in the file, for something else proves it.
        """
        self.entry = entry
        self.path = file.path
        self._file = file
        self._files = files
        self._chunks: dict[int, bytes | None] = {}
        count = -(-entry.stored_bytes // BLOCK_BYTES)
        self._good = np.zeros(count, np.bool_)
        self.damaged_table = False
        self._check(seed, checksums_crc, trusted=trusted)
        self.granule = BLOCK_BYTES if entry.codec == CODEC_NONE else entry.chunk_bytes
        self._offsets: list[int] = []
        self._offsets_at = 0
        if entry.codec != CODEC_NONE:
            n_chunks = -(-entry.raw_bytes // entry.chunk_bytes)
            self._offsets_at = entry.stored_bytes - 8 * (n_chunks + 1)

    def _check(self, seed: int, checksums_crc: int | None, *, trusted: bool) -> None:
        entry, count = self.entry, len(self._good)
        prefix = _kernels.crc32c(encode_section_name(entry.name), seed)
        found = np.zeros(count, np.uint32)
        there = np.zeros(count, np.bool_)
        for start in range(0, entry.stored_bytes, _WINDOW_BYTES):
            size = min(_WINDOW_BYTES, entry.stored_bytes - start)
            data = self._files.read(self._file, size, entry.offset + start)
            first = start // BLOCK_BYTES
            # A block that the end of the file cuts is not there.
            whole = -(-size // BLOCK_BYTES) if len(data) == size else len(data) // BLOCK_BYTES
            _kernels.crc32c_blocks(data[: whole * BLOCK_BYTES], prefix, first, found[first : first + whole])
            there[first : first + whole] = True
        if trusted:
            self._good = there
            return
        raw = self._files.read(self._file, 4 * count, entry.checksums_offset)
        table = np.zeros(count, np.uint32)
        known = len(raw) // 4
        table[:known] = np.frombuffer(raw[: 4 * known], np.uint32)
        self._good = there & (table == found)
        self._good[known:] = False
        if checksums_crc is None or _kernels.crc32c(table.view(np.uint8)) == checksums_crc:
            return
        self.damaged_table = True
        # With the checksums that the data have in place of those that differ: if this is the table that the
        # file's section table means, then the data are right and the table was wrong.
        if there.all() and _kernels.crc32c(found.view(np.uint8)) == checksums_crc:
            self._good = there

    @property
    def whole(self) -> bool:
        """Whether every stored byte is proved."""
        return bool(self._good.all())

    def damaged_ranges(self, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """Return where in the file the stored bytes start..stop are not proved, as (start, stop)."""
        entry = self.entry
        stop = entry.stored_bytes if stop is None else stop
        if start >= stop:
            return []
        first = start // BLOCK_BYTES
        bad = np.flatnonzero(~self._good[first : -(-stop // BLOCK_BYTES)]) + first
        ranges: list[tuple[int, int]] = []
        for block in bad.tolist():
            begin = entry.offset + block * BLOCK_BYTES
            end = entry.offset + min((block + 1) * BLOCK_BYTES, entry.stored_bytes)
            if ranges and ranges[-1][1] == begin:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((begin, end))
        return ranges

    def damage_of(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return where in the file that is because of which the raw bytes start..stop are lost."""
        if self.entry.codec == CODEC_NONE:
            return self.damaged_ranges(start, stop)
        found: set[tuple[int, int]] = set()
        for chunk in range(start // self.granule, -(-stop // self.granule)):
            if self._chunk(chunk) is not None:
                continue
            place = self.stored_range(chunk)
            if place is None:
                at = self._offsets_at + 8 * chunk
                place = at, at + 16
            offset = self.entry.offset
            found.update(self.damaged_ranges(*place) or [(offset + place[0], offset + place[1])])
        return sorted(found)

    def lost_granules(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Say of each granule from that of raw byte `start` to that before `stop` whether it is lost."""
        first, last = start // self.granule, -(-stop // self.granule)
        if self.entry.codec == CODEC_NONE:
            return ~self._good[first:last]
        return np.array([self._chunk(chunk) is None for chunk in range(first, last)], np.bool_)

    def lost(self, start: int, stop: int) -> bool:
        """Whether any of the raw bytes start..stop is lost; also where they lie outside the section."""
        if not 0 <= start <= stop <= self.entry.raw_bytes:
            return True
        return start < stop and bool(self.lost_granules(start, stop).any())

    def lost_items(self, first: int, last: int, width: int, reach: int | None = None) -> NDArray[np.bool_]:
        """Say of each item first..last, of `width` raw bytes, whether any of its bytes is lost.

        Args:
            first: number of the first item.
            last: one behind the last.
            width: bytes from one item to the next.
            reach: bytes of an item, if it reaches into the next one.
        """
        if first >= last:
            return np.zeros(0, np.bool_)
        reach = width if reach is None else reach
        begins = np.arange(first, last, dtype=np.int64) * width
        ends = begins + reach
        lost = self.lost_granules(int(begins[0]), int(ends[-1]))
        before = np.concatenate([[0], np.cumsum(lost)])
        base = int(begins[0]) // self.granule
        result: NDArray[np.bool_] = (
            before[-(-ends // self.granule) - base] > before[begins // self.granule - base]
        )
        return result

    def raw(self, start: int, stop: int) -> memoryview:
        """Return the raw bytes start..stop, with anything in place of those that are lost."""
        if start >= stop:
            return memoryview(b"")
        if self.entry.codec == CODEC_NONE:
            data = self._files.read(self._file, stop - start, self.entry.offset + start)
            return memoryview(data.ljust(stop - start, b"\0"))
        size = self.entry.chunk_bytes
        first = start // size
        parts = bytearray()
        for chunk in range(first, -(-stop // size)):
            parts += self._chunk(chunk) or bytes(self._chunk_bytes(chunk))
        return memoryview(parts)[start - first * size : stop - first * size]

    def read(self, start: int, stop: int) -> memoryview:
        """Return the raw bytes start..stop.

        Raises:
            ChecksumError: not all of them are proved.
        """
        if self.lost(start, stop):
            raise ChecksumError(self.path, f"section {self.entry.name}", self.entry.offset)
        return self.raw(start, stop)

    def _chunk_bytes(self, chunk: int) -> int:
        return min(self.entry.chunk_bytes, self.entry.raw_bytes - chunk * self.entry.chunk_bytes)

    def _proved(self, start: int, stop: int) -> bool:
        return bool(self._good[start // BLOCK_BYTES : -(-stop // BLOCK_BYTES)].all())

    def stored_range(self, chunk: int) -> tuple[int, int] | None:
        """Return where the stored bytes of a chunk are in the section, if that can be known."""
        at = self._offsets_at + 8 * chunk
        if not self._proved(at, at + 16):
            return None
        pair = self._files.read(self._file, 16, self.entry.offset + at)
        start, stop = int.from_bytes(pair[:8], "little"), int.from_bytes(pair[8:], "little")
        if not start < stop <= self._offsets_at or stop - start > self._chunk_bytes(chunk):
            return None
        return start, stop

    def _chunk(self, chunk: int) -> bytes | None:
        """Return a decoded chunk, None when it is lost."""
        if chunk not in self._chunks:
            if len(self._chunks) >= _KEPT_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
            self._chunks[chunk] = self._decoded(chunk)
        return self._chunks[chunk]

    def _decoded(self, chunk: int) -> bytes | None:
        place = self.stored_range(chunk)
        if place is None or not self._proved(*place):
            return None
        stored = self._files.read(self._file, place[1] - place[0], self.entry.offset + place[0])
        try:
            return bytes(decompress_chunk(self.entry.codec, stored, self._chunk_bytes(chunk)))
        except ValueError:
            return None
