"""The block checksums of all sections of a snapshot, compared as fast as the file can be read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core import _kernels
from iqdb_core.storage.layout import BLOCK_BYTES, CODEC_NONE, VECTORS, Header, SectionEntry
from iqdb_core.storage.section import block_prefix
from iqdb_core.storage.verify_report import Finding
from iqdb_core.threads import share_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.storage.verify import Verifier

# Large enough to keep a disk busy, small enough to be still in the cache when it is summed.
_WINDOW_BYTES = 1 << 20


class _Buffers(threading.local):
    """One buffer a thread: fresh memory for each piece would cost more than its checksums."""

    def __init__(self) -> None:
        self._data = bytearray(_WINDOW_BYTES + 2 * BLOCK_BYTES)

    def bytes(self, size: int) -> memoryview:
        """Return memory for so many bytes, which the next call returns again."""
        if len(self._data) < size:
            self._data = bytearray(size)
        return memoryview(self._data)[:size]


_buffers = _Buffers()


class SectionBlocks:
    """The blocks of one section.

    Attributes:
        entry: the section.
        bad: the numbers of the blocks whose checksum is wrong, as far as they were looked at.
        table_is_wrong: whether nothing is known of the blocks, because their checksums are damaged.
    """

    def __init__(self, verifier: Verifier, header: Header, entry: SectionEntry) -> None:
        self.entry = entry
        self.count = -(-entry.stored_bytes // BLOCK_BYTES)
        self._verifier = verifier
        self._prefix = block_prefix(header.database_id, entry.name)
        table = verifier.files.read(verifier.file, 4 * self.count, entry.checksums_offset)
        verifier.report.checked_bytes += len(table)
        self.table_is_wrong = _kernels.crc32c(table) != entry.checksums_crc
        self.bad = set(range(self.count)) if self.table_is_wrong else set()
        self._crcs: NDArray[Any] = np.frombuffer(b"" if self.table_is_wrong else table, np.uint32)
        self._guard = threading.Lock()

    def check(self, start: int) -> None:
        """Read a window of the section and compare the checksums of its blocks."""
        size = min(_WINDOW_BYTES, self.entry.stored_bytes - start)
        first, data, got = self._read(start, start + size)
        found = np.empty(-(-got // BLOCK_BYTES), np.uint32)
        _kernels.crc32c_blocks(data[:got], self._prefix, first, found)
        self._note(first, size, found != self._crcs[first : first + len(found)])
        self._verifier.advance(size)

    def check_rows(self, first_row: int, hashes: NDArray[np.uint64]) -> tuple[bool, tuple[int, float] | None]:
        """Read vectors, the rows of an uncompressed section, and look at everything that is in them at once.

        Args:
            first_row: where they begin.
            hashes: u64[n][2]: the hashes of so many rows are put here.

        Returns:
            Whether all blocks are right, without which the rest means nothing; and which component, counted
            from the first row, is the first that is no finite number, with what it is instead.
        """
        dim = self.entry.shape1
        start, stop = 4 * dim * first_row, 4 * dim * (first_row + len(hashes))
        first, data, got = self._read(start, stop)
        if got < len(data):
            self._note(first, len(data), np.zeros(0, np.bool_))
            return False, None
        wrong = np.empty(-(-got // BLOCK_BYTES), np.bool_)
        offset = start - first * BLOCK_BYTES
        crcs = self._crcs[first : first + len(wrong)]
        place = _kernels.check_vectors(data, self._prefix, first, crcs, offset, dim, wrong, hashes)
        if wrong.any():
            self._note(first, got, wrong)
            return False, None
        if place < 0:
            return True, None
        at = offset + 4 * place
        return True, (place, np.frombuffer(data[at : at + 4], np.float32)[0])

    def findings(self, header: Header) -> list[Finding]:
        """Return what is wrong."""
        from iqdb_core.storage.verify import effect_of

        entry, path = self.entry, self._verifier.path
        part = f"section {entry.name}"
        if self.table_is_wrong:
            effect = "no block of the section can be trusted: " + effect_of(entry, header, 0, self.count)
            length = 4 * self.count
            where = f"{part}: block checksums"
            return [Finding(path, where, entry.checksums_offset, length, "checksum wrong", effect)]
        found = []
        for first, stop in runs(self.bad):
            offset = first * BLOCK_BYTES
            length = min(stop * BLOCK_BYTES, entry.stored_bytes) - offset
            what = f"block {first}" if stop == first + 1 else f"blocks {first} to {stop - 1}"
            effect = effect_of(entry, header, first, stop)
            place = entry.offset + offset
            found.append(Finding(path, f"{part}: {what}", place, length, "checksum wrong", effect))
        return found

    def _read(self, start: int, stop: int) -> tuple[int, memoryview, int]:
        """Return the number of the first block of some bytes, all of their blocks, and how much was there."""
        first = start // BLOCK_BYTES
        end = min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, self.entry.stored_bytes)
        data = _buffers.bytes(end - first * BLOCK_BYTES)
        at = self.entry.offset + first * BLOCK_BYTES
        return first, data, self._verifier.files.read_into(self._verifier.file, data, at)

    def _note(self, first: int, size: int, wrong: NDArray[np.bool_]) -> None:
        """Take down which of the blocks that hold so many bytes are wrong."""
        bad = [first + int(block) for block in np.flatnonzero(wrong)]
        # Where the file became shorter while it was read, nothing is right.
        bad += range(first + len(wrong), first + -(-size // BLOCK_BYTES))
        if bad:
            with self._guard:
                self.bad.update(bad)


def check_blocks(
    verifier: Verifier, header: Header, entries: list[SectionEntry], *, with_vectors: bool
) -> list[SectionBlocks]:
    """Check every block of every section; of the vectors, unless with them, only that they can be checked.

    Nothing is added to the report but what was read.
    """
    sections = [SectionBlocks(verifier, header, entry) for entry in entries]
    windows = []
    for section in sections:
        verifier.report.checked_bytes += 0 if section.table_is_wrong else section.entry.stored_bytes
        if section.table_is_wrong:
            verifier.advance(section.entry.stored_bytes)
        elif with_vectors or not read_with_records(section):
            windows += [(section, start) for start in range(0, section.entry.stored_bytes, _WINDOW_BYTES)]
    share_out(verifier.threads, windows, lambda window: window[0].check(window[1]), "iqdb-verify")
    return sections


def read_with_records(section: SectionBlocks) -> bool:
    """Whether these are vectors whose blocks can be checked as the records are, instead of twice."""
    return section.entry.name == VECTORS and section.entry.codec == CODEC_NONE and not section.table_is_wrong


def runs(blocks: set[int]) -> list[tuple[int, int]]:
    """Return maximal ranges of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if found and found[-1][1] == block:
            found[-1] = (found[-1][0], block + 1)
        else:
            found.append((block, block + 1))
    return found
