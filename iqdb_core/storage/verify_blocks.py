"""The block checksums of all sections of a snapshot, compared as fast as the file can be read."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core import _kernels
from iqdb_core.storage.layout import BLOCK_BYTES, Header, SectionEntry
from iqdb_core.storage.section import block_prefix

if TYPE_CHECKING:
    from iqdb_core.storage.verify import Verifier

# Large enough to keep a disk busy, small enough to be still in the cache when it is summed.
_WINDOW_BYTES = 1 << 20


class _Buffers(threading.local):
    """One buffer a thread: fresh memory for each piece would cost more than its checksums."""

    def __init__(self) -> None:
        self.data = memoryview(bytearray(_WINDOW_BYTES))
        self.sums = np.empty(_WINDOW_BYTES // BLOCK_BYTES, np.uint32)


def check_blocks(verifier: Verifier, header: Header, entries: list[SectionEntry]) -> dict[str, set[int]]:
    """Check every block of every section, report the bad ones and return them by the section's name."""
    from iqdb_core.storage.verify import effect_of

    bad: dict[str, set[int]] = {}
    buffers = _Buffers()

    def window(entry: SectionEntry, crcs: Any, prefix: int, start: int) -> list[int]:
        """Return which blocks of one piece of a section are bad."""
        size = min(_WINDOW_BYTES, entry.stored_bytes - start)
        data = buffers.data[:size]
        got = verifier.files.read_into(verifier.file, data, entry.offset + start)
        first = start // BLOCK_BYTES
        expected = crcs[first : first + _WINDOW_BYTES // BLOCK_BYTES]
        found = buffers.sums[: len(expected)]
        # Where the file became shorter while it was read, nothing is right.
        whole = -(-got // BLOCK_BYTES)
        _kernels.crc32c_blocks(data[:got], prefix, first, found[:whole])
        wrong = found != expected
        wrong[whole:] = True
        verifier.advance(size)
        return [first + int(block) for block in np.flatnonzero(wrong)]

    with ThreadPoolExecutor(verifier.threads, "iqdb-verify") as pool:
        for entry in entries:
            blocks = bad[entry.name] = set()
            count = -(-entry.stored_bytes // BLOCK_BYTES)
            table = verifier.files.read(verifier.file, 4 * count, entry.checksums_offset)
            verifier.report.checked_bytes += len(table)
            if _kernels.crc32c(table) != entry.checksums_crc:
                blocks.update(range(count))
                verifier.found(
                    f"section {entry.name}: block checksums",
                    entry.checksums_offset,
                    len(table),
                    "checksum wrong",
                    "no block of the section can be trusted: " + effect_of(entry, header, 0, count),
                )
                verifier.advance(entry.stored_bytes)
                continue
            crcs = np.frombuffer(table, np.uint32)
            prefix = block_prefix(header.database_id, entry.name)
            starts = range(0, entry.stored_bytes, _WINDOW_BYTES)
            for wrong in pool.map(lambda s, e=entry, c=crcs, p=prefix: window(e, c, p, s), starts):
                blocks.update(wrong)
            verifier.report.checked_bytes += entry.stored_bytes
            for first, stop in runs(blocks):
                offset = first * BLOCK_BYTES
                length = min(stop * BLOCK_BYTES, entry.stored_bytes) - offset
                what = f"block {first}" if stop == first + 1 else f"blocks {first} to {stop - 1}"
                verifier.found(
                    f"section {entry.name}: {what}",
                    entry.offset + offset,
                    length,
                    "checksum wrong",
                    effect_of(entry, header, first, stop),
                )
    return bad


def runs(blocks: set[int]) -> list[tuple[int, int]]:
    """Return maximal ranges of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if found and found[-1][1] == block:
            found[-1] = (found[-1][0], block + 1)
        else:
            found.append((block, block + 1))
    return found
