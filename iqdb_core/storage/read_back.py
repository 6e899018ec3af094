"""Reading a finished snapshot back, to prove what it holds before it replaces another one.

The file is read with plain reads, in bounded memory, by code that shares nothing with the writer but
the layout: every checksum is verified, and the content digest and the order of the records computed anew
from ids, vectors and metadata as they stand in the file. Only records that are more than vectors with
integer ids need NumPy here.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from iqdb_core import _kernels
from iqdb_core.errors import StructureError
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
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
)
from iqdb_core.storage.stored_section import StoredSection
from iqdb_core.storage.structure import check_config, check_header, check_section_table

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        rows = sections[META_ROWS].read_all().cast("Q").tolist()
        blobs = sections[META_GROUPS].read_all().cast("Q").tolist()
        ends = (header.n_rows, sections[META_DATA].entry.raw_bytes)
        for name, bounds, end in zip((META_ROWS, META_GROUPS), (rows, blobs), ends, strict=True):
            if bounds[0] != 0 or bounds[-1] != end or any(a >= b for a, b in pairwise(bounds)):
                raise StructureError(path, name, f"ascending from 0 to {end}", "something else")
    else:
        rows = [*range(0, header.n_rows, _STEP_ROWS), header.n_rows]
        blobs = []

    def read_part(part: int) -> ReadBack:
        start, stop = rows[part], rows[part + 1]
        if IDS in sections and not blobs:
            return _read_plain(sections, start, stop)
        from iqdb_core.storage.read_back_records import read_records

        return read_records(sections, start, stop, (part, *blobs[part : part + 2]) if blobs else None)

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


def vector_pieces(vectors: StoredSection, start: int, stop: int) -> Iterator[tuple[int, int, memoryview]]:
    """Yield (first row, last row + 1, bytes) of pieces of rows start..stop; each replaces the last."""
    row_bytes = 4 * vectors.entry.shape1
    step = max(1, _STEP_BYTES // row_bytes)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        yield first, last, vectors.read(first * row_bytes, last * row_bytes, _buffers.buffer)


def _read_plain(sections: dict[str, StoredSection], start: int, stop: int) -> ReadBack:
    """Read vectors with integer ids and nothing else."""
    dim = sections[VECTORS].entry.shape1
    ids = sections[IDS].read(8 * start, 8 * stop).cast("Q")
    total, order = ContentDigest(), 0
    for first, last, raw in vector_pieces(sections[VECTORS], start, stop):
        bad, low, high, sequence = _kernels.digest_plain(
            raw.cast("f"), dim, ids[first - start : last - start], first
        )
        if bad >= 0:
            where = f"component {bad % dim} of row {first + bad // dim}"
            raise StructureError(sections[VECTORS].path, where, "a finite number", "another")
        total = total.plus(ContentDigest(low, high))
        order += sequence
    return ReadBack(total, order % 2**64)


def _check_order(sections: dict[str, StoredSection], n_rows: int, path: str) -> None:
    """Make sure that every record is found by its id: the digest does not cover the order of the ids."""
    if not n_rows:
        return
    if IDS in sections and ID_ORDER not in sections:
        right = _integers_ascend(sections[IDS])
    else:
        from iqdb_core.storage.read_back_records import are_in_order

        right = are_in_order(sections, n_rows)
    if not right:
        raise StructureError(path, "the order of the ids", "different ids, ascending", "others")


def _integers_ascend(section: StoredSection) -> bool:
    """Strictly ascending ids are different ones."""
    last = None
    for start in range(0, section.entry.raw_bytes, 8 * _STEP_ROWS):
        stop = min(start + 8 * _STEP_ROWS, section.entry.raw_bytes)
        ids = section.read(start, stop).cast("Q")
        if not _kernels.ids_ascend(ids, last):
            return False
        last = ids[-1]
    return True
