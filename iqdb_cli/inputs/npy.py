"""Vectors from .npy files: 1-D (one record) or 2-D arrays of floats or integers, in any byte order.

float64 and integers become the nearest float32; a value that float32 cannot hold is refused. Values are
read into a few buffers that are used again and again: the file is never mapped or held whole.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from iqdb_cli.inputs.npy_checks import ended_early, numbered, read_checked_header
from iqdb_cli.inputs.npy_header import NpyHeaderError
from iqdb_cli.inputs.read_ahead import read_ahead
from iqdb_cli.inputs.reader import InputOptions, SourceBatch, numbered_ids, rows_per_batch
from iqdb_cli.inputs.sidecar import IdRows, MetadataRows, open_id_rows, open_metadata_rows
from iqdb_cli.inputs.source import BadInputError, ByteSource, place_of
from iqdb_core.errors import InvalidVectorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Buffers in turn: one with the consumer, one ready, one being filled.
RING: Final = 3
# Vectors alone go through three threads while they stay in a CPU's cache. With ids and metadata beside them
# the work of a batch lies elsewhere, and larger batches have less of it.
_PLAIN_BATCH_BYTES: Final = 2 * 1024 * 1024


class NpyReader:
    """One .npy source, with the ids and the metadata that go beside it. See `RecordReader`."""

    def __init__(self, source: ByteSource, options: InputOptions) -> None:
        """Check the header, and the size of a regular file against it.

        Raises:
            BadInputError: not an array that can become vectors, or not all of it.
        """
        self.name = source.name
        self.notes: list[str] = []
        self._source = source
        self._options = options
        self._done_rows = 0
        self._header = read_checked_header(source)
        self.dim = self._header.dim
        self.total_rows: int | None = self._header.rows
        self._ids: IdRows | None = open_id_rows(options.ids_path, self.name, self._header.rows)
        self._metadata: MetadataRows | None = open_metadata_rows(options, self.name, self._header.rows)
        if self._ids is None:
            self.notes.append(numbered(self.name))

    def batches(self, first_id: int) -> Generator[SourceBatch]:
        """Yield the records; rows without an id of their own are numbered from `first_id`."""
        rows = rows_per_batch(self.dim, self._options.batch_rows)
        if self._ids is None and self._metadata is None:
            rows = min(rows, max(1, _PLAIN_BATCH_BYTES // (4 * self.dim)))
        return read_ahead(self._batches(first_id, rows), RING)

    def _batches(self, first_id: int, rows_at_once: int) -> Iterator[SourceBatch]:
        # A Fortran array of one row or column is laid out as its transpose is.
        if self._header.fortran_order and min(self._header.rows, self.dim) > 1:
            blocks = self._column_major(rows_at_once)
        else:
            blocks = self._row_major(rows_at_once)
        start = 0
        for vectors in blocks:
            stop = start + len(vectors)
            if self._ids is not None:
                ids = self._ids.take(len(vectors))
            else:
                ids = numbered_ids(first_id + start, stop - start)
            metadata = self._metadata.take(len(vectors)) if self._metadata is not None else None
            yield SourceBatch(ids, vectors, metadata, start, self.name)
            start = stop
            self._done_rows = stop
        for beside in (self._ids, self._metadata):
            if beside is not None:
                beside.finish()
        self._refuse_rest()

    def _row_major(self, rows_at_once: int) -> Iterator[NDArray[np.float32]]:
        header = self._header
        rows_at_once = min(rows_at_once, max(1, header.rows))
        ring = [np.empty((rows_at_once, self.dim), np.float32) for _ in range(RING)]
        direct = header.dtype == "<f4" and np.dtype("<f4").isnative
        raw = np.empty(0 if direct else (rows_at_once, self.dim), header.dtype)
        for number, start in enumerate(range(0, header.rows, rows_at_once)):
            out = ring[number % RING][: min(rows_at_once, header.rows - start)]
            target = out if direct else raw[: len(out)]
            self._fill(target, start)
            # Whoever takes the vectors checks them; only a conversion hides what stood in the file.
            if not direct:
                _convert(target, out)
                self._check_finite(out, target, start)
            yield out

    def _fill(self, target: NDArray[np.generic], start: int) -> None:
        view = target.data.cast("B")
        got = self._source.readinto(view)
        if got != len(view):
            whole = start + got // (self.dim * self._header.item_bytes)
            raise ended_early(self.name, whole, self._header.rows)

    def _column_major(self, rows_at_once: int) -> Iterator[NDArray[np.float32]]:
        header = self._header
        source = self._source
        if not source.is_regular:
            source.spool()
            self._check_spooled()
        base = source.position
        item = header.item_bytes
        rows_at_once = min(rows_at_once, header.rows)
        ring = [np.empty((rows_at_once, self.dim), np.float32) for _ in range(RING)]
        columns = np.empty((self.dim, rows_at_once), header.dtype)
        for number, start in enumerate(range(0, header.rows, rows_at_once)):
            count = min(rows_at_once, header.rows - start)
            for component in range(self.dim):
                view = columns[component, :count].data.cast("B")
                if source.pread_into(view, base + (component * header.rows + start) * item) != len(view):
                    raise BadInputError(self.name, f"has become shorter while row {start:,} was read")
            out = ring[number % RING][:count]
            raw = columns[:, :count].T
            _convert(raw, out)
            self._check_finite(out, raw, start)
            yield out

    def _check_spooled(self) -> None:
        assert self._source.size_bytes is not None
        try:
            self._header.check_data_bytes(self._source.size_bytes)
        except NpyHeaderError as error:
            raise BadInputError(self.name, str(error)) from None

    def _check_finite(self, vectors: NDArray[np.float32], raw: NDArray[np.generic], start: int) -> None:
        from iqdb_core import _kernels

        if self._header.kind != "f":
            return  # float32 has room for every integer
        bad = _kernels.check_finite(vectors.data)
        if bad < 0:
            return
        row, component = divmod(bad, self.dim)
        value = raw[row, component]
        reason = f"value {value} is not finite"
        if np.isfinite(value):
            reason = f"value {value} is too large for float32"
        raise InvalidVectorError(reason, where=place_of(self.name, row=start + row), component=component)

    def _refuse_rest(self) -> None:
        if self._source.size_bytes is None and self._source.read(1):
            raise BadInputError(self.name, "goes on after the array, expected its end")

    def fraction(self) -> float | None:
        """Return how much of the source has been read."""
        return self._done_rows / max(1, self._header.rows)

    def close(self) -> None:
        """Release the files."""
        self._source.close()
        for beside in (self._ids, self._metadata):
            if beside is not None:
                beside.close()


def _convert(raw: NDArray[np.generic], out: NDArray[np.float32]) -> None:
    # What overflows becomes infinite and is found by the check for finite values.
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, raw, casting="unsafe")
