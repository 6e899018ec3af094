"""Reading a finished snapshot back, to prove what it holds before it replaces another one.

The file is read with plain reads, in bounded memory, by code that shares nothing with the writer but
the layout: every checksum is verified, and the content digest and the order of the records computed anew
from ids, vectors and metadata as they stand in the file.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from iqdb_core import _kernels
from iqdb_core.digest import digest_of_parts, sequence_sum
from iqdb_core.errors import ChecksumError, StructureError
from iqdb_core.records import Ids
from iqdb_core.storage.codecs import decompress_chunk
from iqdb_core.storage.columns import GroupView
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    CODEC_NONE,
    CONFIG,
    HEADER_BYTES,
    ID_BYTES,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
    META_DATA,
    META_GROUPS,
    META_ROWS,
    VECTORS,
    SectionEntry,
)
from iqdb_core.storage.section import block_prefix
from iqdb_core.storage.structure import check_config, check_header, check_section_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.records import MetadataColumns

_STEP_BYTES = 1 << 20
_STEP_ROWS = 1 << 16


class ReadBack(NamedTuple):
    """What a file holds.

    Attributes:
        digest: the content digest of its records, whatever their order.
        sequence: the `sequence_sum` of their ids in the order in which they stand.
    """

    digest: ContentDigest
    sequence: int


class _Buffers(threading.local):
    """One buffer a thread, for vectors on their way from the file into the hash."""

    def __init__(self) -> None:
        self.buffer = bytearray(_STEP_BYTES + 2 * BLOCK_BYTES)


_buffers = _Buffers()


def sync_and_read_back(file: OpenFile, files: FileSystem = OS_FILES, *, threads: int = 1) -> ReadBack:
    """Make a finished snapshot durable and read it back meanwhile; return what it really holds.

    Raises:
        FileIOError: the system could not make it durable, or not read it.
        DamagedError: a leaf of it says what is wrong with what was written.
    """
    with ThreadPoolExecutor(1, "iqdb-sync") as pool:
        synced = pool.submit(files.sync, file)
        found = read_back(file, files, threads=threads)
        synced.result()
    return found


def read_back(file: OpenFile, files: FileSystem = OS_FILES, *, threads: int = 1) -> ReadBack:
    """Verify every block of a snapshot and compute its content digest, and the order, from its records.

    Raises:
        FileIOError: the system refused to read.
        DamagedError: a leaf of it says what is wrong.
    """
    path = file.path
    file_bytes = files.status(file).st_size
    header = check_header(files.read(file, HEADER_BYTES, 0), file_bytes, path)
    table_bytes = file_bytes - header.section_table_offset
    table = files.read(file, table_bytes, header.section_table_offset)
    sections = {
        entry.name: StoredSection(entry, header.database_id, file, files)
        for entry in check_section_table(table, header, path)
    }
    config = sections[CONFIG]
    check_config(bytes(config.read(0, config.entry.raw_bytes)), header, path)
    read = {VECTORS, IDS, ID_KINDS, ID_OFFSETS, ID_BYTES, ID_ORDER, META_ROWS, META_GROUPS, META_DATA}
    for name, section in sections.items():
        if name not in read:
            section.verify_all()
    _check_order(sections, header.n_rows, path)

    if META_ROWS in sections:
        rows = np.frombuffer(sections[META_ROWS].read_all(), np.uint64).tolist()
        blobs = np.frombuffer(sections[META_GROUPS].read_all(), np.uint64).tolist()
        ends = (header.n_rows, sections[META_DATA].entry.raw_bytes)
        for name, bounds, end in zip((META_ROWS, META_GROUPS), (rows, blobs), ends, strict=True):
            if bounds[0] != 0 or bounds[-1] != end or any(a >= b for a, b in pairwise(bounds)):
                raise StructureError(path, name, f"ascending from 0 to {end}", "something else")
    else:
        rows = [*range(0, header.n_rows, _STEP_ROWS), header.n_rows]
        blobs = []

    def read_part(part: int) -> ReadBack:
        start, stop = rows[part], rows[part + 1]
        metadata = None
        if blobs:
            name = f"metadata group {part}"
            view = GroupView(sections[META_DATA].read(blobs[part], blobs[part + 1]), path, name)
            if view.n_rows != stop - start:
                raise StructureError(path, name, f"{stop - start} rows", view.n_rows)
            metadata = view.to_columns()
        return _read_rows(sections, start, stop, metadata)

    parts = range(len(rows) - 1)
    if threads > 1 and len(parts) > 1:
        with ThreadPoolExecutor(threads, "iqdb-read") as pool:
            found = list(pool.map(read_part, parts))
    else:
        found = [read_part(part) for part in parts]
    total = ContentDigest()
    for digest, _ in found:
        total = total.plus(digest)
    return ReadBack(total, sum(sequence for _, sequence in found) % 2**64)


def _read_rows(
    sections: dict[str, StoredSection], start: int, stop: int, metadata: MetadataColumns | None
) -> ReadBack:
    vectors = sections[VECTORS]
    dim = vectors.entry.shape1
    hashes = np.empty((stop - start, 2), np.uint64)
    buffer = _buffers.buffer
    step = max(1, _STEP_BYTES // (4 * dim))
    for first in range(start, stop, step):
        last = min(first + step, stop)
        raw = vectors.read(first * 4 * dim, last * 4 * dim, buffer)
        values = np.frombuffer(raw, np.float32).reshape(last - first, dim)
        _kernels.hash_vectors(values, hashes[first - start : last - start])
    ids = _read_ids(sections, start, stop)
    return ReadBack(digest_of_parts(ids, hashes, metadata), sequence_sum(ids, np.arange(start, stop)))


def _read_ids(sections: dict[str, StoredSection], start: int, stop: int) -> Ids:
    if IDS in sections:
        return Ids.from_u64(np.frombuffer(sections[IDS].read(8 * start, 8 * stop), np.uint64))
    kinds = np.frombuffer(sections[ID_KINDS].read(start, stop), np.uint8)
    offsets = np.frombuffer(sections[ID_OFFSETS].read(8 * start, 8 * stop + 8), np.uint64)
    data = np.frombuffer(sections[ID_BYTES].read(int(offsets[0]), int(offsets[-1])), np.uint8)
    # Not normalised: where not all ids of the file are integers, these here may be.
    ids = Ids(None, kinds, offsets - offsets[0], data)
    problem = ids.first_problem()
    if problem is not None:
        row, reason = problem
        raise StructureError(sections[ID_KINDS].path, f"the id of row {start + row}", "an id", reason)
    return ids


def _check_order(sections: dict[str, StoredSection], n_rows: int, path: str) -> None:
    """Make sure that every record is found by its id: the digest does not cover the order of the ids."""
    if not n_rows:
        return
    order = np.frombuffer(sections[ID_ORDER].read_all(), np.uint32) if ID_ORDER in sections else None
    if order is not None and int(order.max()) >= n_rows:
        raise StructureError(path, "the order of the ids", f"rows below {n_rows}", int(order.max()))
    right = _integers_ascend(sections[IDS], order) if IDS in sections else _are_found(sections, order)
    if not right:
        raise StructureError(path, "the order of the ids", "different ids, ascending", "others")


def _integers_ascend(section: StoredSection, order: NDArray[np.uint32] | None) -> bool:
    """Strictly ascending values are different ones: then the order names every row once, too."""
    if order is not None:
        ids = np.frombuffer(section.read_all(), np.uint64)[order]
        return bool(np.all(ids[1:] > ids[:-1]))
    last = -1
    for start in range(0, section.entry.raw_bytes, 8 * _STEP_ROWS):
        stop = min(start + 8 * _STEP_ROWS, section.entry.raw_bytes)
        ids = np.frombuffer(section.read(start, stop), np.uint64)
        if int(ids[0]) <= last or not bool(np.all(ids[1:] > ids[:-1])):
            return False
        last = int(ids[-1])
    return True


def _are_found(sections: dict[str, StoredSection], order: NDArray[np.uint32] | None) -> bool:
    """Look every id up as a reader does."""
    kinds, offsets, data = (sections[name].read_all() for name in (ID_KINDS, ID_OFFSETS, ID_BYTES))
    n_rows = len(kinds)
    for start in range(0, n_rows, _STEP_ROWS):
        stop = min(start + _STEP_ROWS, n_rows)
        ends = np.frombuffer(offsets, np.uint64)[start : stop + 1]
        asked = kinds[start:stop], ends - ends[0], data[int(ends[0]) : int(ends[-1])]
        rows = np.empty(stop - start, np.int64)
        try:
            _kernels.lookup_var(kinds, offsets.cast("Q"), data, order, *asked, rows)
        except ValueError:
            return False
        if not np.array_equal(rows, np.arange(start, stop)):
            return False
    return True


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
        self._crcs = np.frombuffer(table, np.uint32)
        self._chunk_offsets: list[int] = []
        if entry.codec != CODEC_NONE:
            n_chunks = -(-entry.raw_bytes // entry.chunk_bytes)
            at = entry.stored_bytes - 8 * (n_chunks + 1)
            self._chunk_offsets = np.frombuffer(self._stored(at, entry.stored_bytes), np.uint64).tolist()
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
        found = np.empty(-(-len(data) // BLOCK_BYTES), np.uint32)
        _kernels.crc32c_blocks(data, self._prefix, first, found)
        wrong = np.flatnonzero(found != self._crcs[first : first + len(found)])
        if len(wrong):
            block = first + int(wrong[0])
            raise ChecksumError(
                self.path,
                f"block {block} of section {self.entry.name}",
                self.entry.offset + block * BLOCK_BYTES,
                expected=int(self._crcs[block]),
                found=int(found[wrong[0]]),
            )
        return data[start - begin : stop - begin]
