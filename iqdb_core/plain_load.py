"""Creating a database from a plain array of vectors, without NumPy.

Float32 vectors stand in a .npy file as they stand in a snapshot: they are read, digested and written as
they are. The bytes are those that `bulk` writes for the same records.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from iqdb_core import _kernels
from iqdb_core.errors import InvalidVectorError
from iqdb_core.new_snapshot import NewSnapshot
from iqdb_core.opening import HandleSettings, check_buildable, check_free, database_id, install_new
from iqdb_core.reports import BulkReport
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES
from iqdb_core.storage.layout import BLOCK_BYTES, HEADER_BYTES, ID_ENCODING_U64, IDS
from iqdb_core.storage.section_stream import WRITE_BYTES, FileSink
from iqdb_core.storage.snapshot_assembly import SnapshotAssembly, SnapshotSummary
from iqdb_core.types import MAX_ROWS

if TYPE_CHECKING:
    import os
    from array import array
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from iqdb_core.config import IqdbConfig
    from iqdb_core.storage.files import FileSystem

# Few calls, and what is read is still in a CPU's cache when it is written.
_PIECE_BYTES = 2 << 20
_PIECES_AHEAD = 2
_MAX_PIECE_BYTES = 8 << 20


class PlainVectors(Protocol):
    """float32[n_rows, dim] in a regular file: little-endian, row after row.

    Attributes:
        n_rows: the number of vectors.
        dim: their components.
    """

    n_rows: int
    dim: int

    def read_into(self, buffer: memoryview, row: int) -> None:
        """Fill `buffer` with the bytes of the vectors from `row` on, or raise what is in the way.

        Called from several threads.
        """
        ...

    def where(self, row: int) -> str:
        """Return how messages name a row."""
        ...


def create_from_plain(
    path: str | os.PathLike[str],
    config: IqdbConfig,
    source: PlainVectors,
    *,
    first_id: int = 0,
    progress: Callable[[int], object] | None = None,
    files: FileSystem = OS_FILES,
) -> BulkReport:
    """Create a database of the vectors of a file, with ascending integers as ids, or nothing at all.

    Args:
        path: where nothing may be yet.
        config: of a flat index and without compression.
        source: the vectors.
        first_id: the id of the first.
        progress: is told the number of records taken so far.
        files: the file layer.

    Raises:
        DatabaseExistsError: something stands at the path.
        InvalidVectorError: a component is not finite; the error names it.
        FileIOError: the system refused.
        Error: what `source` raises.
    """
    real = check_free(path, files)
    check_buildable(config)
    settings = HandleSettings.of(config)
    with NewSnapshot(real, files) as new:
        stored = config.stored_dict()
        with _PlainLoad(new, stored, database_id(config), source, first_id, settings.threads) as load:
            summary = load.run(progress)
        new.prove(summary, summary.digest, load.sequence, source.n_rows, settings.threads)
        install_new(new, real, settings, files).close()
    return BulkReport(source.n_rows, source.n_rows, 0, source.n_rows, summary.digest.hex())


def is_loadable(dim: int) -> bool:
    """Say whether vectors of so many components can be loaded in this way."""
    return 4 * dim * _piece_rows(dim) <= _MAX_PIECE_BYTES


def _piece_rows(dim: int) -> int:
    """Return how many rows go together: so many that each piece begins a block of the section."""
    aligned = BLOCK_BYTES // math.gcd(BLOCK_BYTES, 4 * dim)
    return max(1, _PIECE_BYTES // (4 * dim * aligned)) * aligned


class _Piece(NamedTuple):
    """Rows that stand in their place: their digest and order, the checksums of their blocks, their ids."""

    digest: ContentDigest
    sequence: int
    size: int
    crcs: array[int]
    ids: memoryview


class _PlainLoad:
    """One load.

    A piece of the source is read, digested and written by one thread, so that its bytes stay in one CPU's
    cache. This thread puts together in order what the others have found out.
    """

    def __init__(
        self,
        new: NewSnapshot,
        config: Mapping[str, Any],
        database_id: bytes,
        source: PlainVectors,
        first_id: int,
        threads: int,
    ) -> None:
        assert first_id + source.n_rows <= 2**64
        assert source.n_rows <= MAX_ROWS
        assert new.file is not None
        self.sequence = 0
        self._source = source
        self._first_id = first_id
        self._threads = threads
        self._writing = threading.Lock()
        self._sink = FileSink(new.file, new.files)
        self._assembly = SnapshotAssembly(new.sink, config, database_id, new.files)
        self._pool = ThreadPoolExecutor(threads, "iqdb-load")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._assembly.close()

    def run(self, progress: Callable[[int], object] | None) -> SnapshotSummary:
        """Write the whole snapshot."""
        n_rows = self._source.n_rows
        ids = self._assembly.section(IDS, "u64")
        digest = ContentDigest()
        for done, piece in self._pieces():
            self._assembly.vectors.placed(piece.size, piece.crcs)
            ids.append(piece.ids)
            digest = digest.plus(piece.digest)
            self.sequence = (self.sequence + piece.sequence) % 2**64
            if progress is not None:
                progress(done)
        header = self._assembly.finish([(ids, (n_rows,))], n_rows, ID_ENCODING_U64, digest)
        return SnapshotSummary(header.identity, digest, n_rows, header.file_bytes, None)

    def _pieces(self) -> Iterator[tuple[int, _Piece]]:
        """Yield (rows so far, piece) in order. A piece is valid until the next one is asked for."""
        n_rows = self._source.n_rows
        step = _piece_rows(self._source.dim)
        depth = self._threads + _PIECES_AHEAD
        buffers = [bytearray((4 * self._source.dim + 8) * min(step, n_rows)) for _ in range(depth)]
        waiting: deque[tuple[int, Future[_Piece]]] = deque()
        for number, first in enumerate(range(0, n_rows, step)):
            if len(waiting) == depth:
                yield _done(waiting)
            stop = min(first + step, n_rows)
            buffer = memoryview(buffers[number % depth])
            waiting.append((stop, self._pool.submit(self._read, first, stop, buffer)))
        while waiting:
            yield _done(waiting)

    def _read(self, first: int, stop: int, buffer: memoryview) -> _Piece:
        dim = self._source.dim
        vectors_end = 4 * dim * (stop - first)
        raw = buffer[-vectors_end:]
        ids = buffer[: 8 * (stop - first)]
        self._source.read_into(raw, first)
        _kernels.number_ids(self._first_id + first, ids.cast("Q"))
        values = raw.cast("f")
        bad, low, high, sequence = _kernels.digest_plain(values, dim, ids.cast("Q"), first)
        if bad >= 0:
            row, component = divmod(bad, dim)
            where = self._source.where(first + row)
            raise InvalidVectorError(f"holds {values[bad]}", where=where, component=component)
        place = 4 * dim * first
        crcs = self._assembly.vectors.block_checksums(raw, place)
        with self._writing:  # the system lets one thread write to a file at a time, and others spin
            self._write(raw, HEADER_BYTES + place)
        return _Piece(ContentDigest(low, high), sequence, len(raw), crcs, ids)

    def _write(self, raw: memoryview, offset: int) -> None:
        """Write in parts that end at their multiples: that is how the system keeps them together."""
        start = 0
        while start < len(raw):
            stop = start + WRITE_BYTES - (offset + start) % WRITE_BYTES
            self._sink.write(raw[start:stop], offset + start)
            start = stop


def _done(waiting: deque[tuple[int, Future[_Piece]]]) -> tuple[int, _Piece]:
    stop, piece = waiting.popleft()
    return stop, piece.result()
