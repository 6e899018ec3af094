"""Several sources as one stream of records."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

from iqdb_cli.exit_codes import UsageError
from iqdb_cli.inputs.reader import InputOptions, RecordReader, SourceBatch
from iqdb_cli.inputs.source import BadInputError, ByteSource, InputKind, kind_of, place_of
from iqdb_core.errors import DimensionMismatchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.config import IqdbConfig


class _Run(NamedTuple):
    """Records that follow one another in a source, the first of them record `start` of all."""

    start: int
    source: str
    first: int  # its row from 0, or its line from 1
    lines: NDArray[np.uint64] | None  # where there are blank lines between the records
    by_line: bool

    def goes_on_with(self, other: _Run) -> bool:
        """Return whether the records of `other` follow in the same source."""
        same = self.source == other.source and self.lines is None and other.lines is None
        return same and other.first - self.first == other.start - self.start

    def place(self, number: int) -> str:
        """Return how messages name one of the records."""
        offset = number - self.start
        at = self.first + offset if self.lines is None else int(self.lines[offset])
        return place_of(self.source, line=at) if self.by_line else place_of(self.source, row=at)


class Inputs:
    """Opened sources that agree in their dimension.

    Attributes:
        dim: components of every vector.
        total_rows: records in all sources, None when only reading tells.
        rows_read: records handed out so far.
    """

    def __init__(self, paths: Sequence[str], options: InputOptions, *, dim: int | None = None) -> None:
        """Open all sources and look at their headers.

        Args:
            paths: files, or "-" for standard input.
            options: how records are found in them.
            dim: the dimension that they must have; None takes the first source's.

        Raises:
            Error: a source cannot be read, or has another dimension.
        """
        if list(paths).count("-") > 1:
            raise UsageError("standard input can be one source only")
        self.rows_read = 0
        self._runs: list[_Run] = []
        self._readers: list[RecordReader] = []
        self._weights: list[int | None] = []
        self._reading = 0
        try:
            for path in paths:
                self._open(path, options, len(paths))
                reader = self._readers[-1]
                _check_dim(reader, self._readers[0].dim if dim is None else dim)
        except BaseException:
            self.close()
            raise
        self.dim = self._readers[0].dim
        counts = [reader.total_rows for reader in self._readers]
        self.total_rows = None if None in counts else sum(count or 0 for count in counts)

    def _open(self, path: str, options: InputOptions, n_sources: int) -> None:
        source = ByteSource(path)
        try:
            reader = _open_reader(source, options, n_sources)
        except BaseException:
            source.close()
            raise
        self._readers.append(reader)
        self._weights.append(source.size_bytes)

    @property
    def config(self) -> IqdbConfig | None:
        """The configuration of the only source when that is a database, else None."""
        return getattr(self._readers[0], "config", None) if len(self._readers) == 1 else None

    @property
    def notes(self) -> list[str]:
        """What was decided about columns and ids, as sentences for the user."""
        return [note for reader in self._readers for note in reader.notes]

    def batches(self, first_id: int = 0, *, allow_empty: bool = False) -> Generator[SourceBatch]:
        """Yield the records of all sources in order; see `RecordReader.batches`.

        Records without an id are numbered through all sources, from `first_id`.

        Raises:
            Error: a source holds something that cannot become records, or none at all.
        """
        for number, reader in enumerate(self._readers):
            self._reading = number
            count = 0
            with contextlib.closing(reader.batches(first_id)) as batches:
                for batch in batches:
                    if not len(batch):
                        continue
                    self._remember(batch)
                    self.rows_read += len(batch)
                    count += len(batch)
                    yield batch
            if count == 0 and not allow_empty:
                raise BadInputError(reader.name, "holds no records", hint="--allow-empty takes it")
            first_id += count
        self._reading = len(self._readers)

    def _remember(self, batch: SourceBatch) -> None:
        """Keep where the batch's records stand in their source, in next to no memory."""
        lines = batch.lines
        first = batch.first_row if lines is None else int(lines[0])
        blank_lines = lines is not None and int(lines[-1]) - first != len(batch) - 1
        run = _Run(self.rows_read, batch.source, first, lines if blank_lines else None, lines is not None)
        if not (self._runs and self._runs[-1].goes_on_with(run)):
            self._runs.append(run)

    def place_of_record(self, number: int) -> str:
        """Return how messages name a record that was handed out, counted from 0 through all sources."""
        run = self._runs[bisect_right(self._runs, number, key=lambda run: run.start) - 1]
        return run.place(number)

    def fraction(self) -> float | None:
        """Return how much of all sources has been read, None when that cannot be known."""
        done = total = 0.0
        for number, (reader, weight) in enumerate(zip(self._readers, self._weights, strict=True)):
            part = reader.fraction()
            if part is None or weight is None:
                return None
            total += weight
            if number <= self._reading:
                done += weight * (part if number == self._reading else 1.0)
        return done / total if total else None

    def close(self) -> None:
        """Release all sources."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_dim(reader: RecordReader, expected: int) -> None:
    if reader.dim != expected:
        raise DimensionMismatchError(expected, reader.dim, where=reader.name)


def _open_reader(source: ByteSource, options: InputOptions, n_sources: int) -> RecordReader:
    kind = kind_of(source, options.kind)
    beside = options.ids_path is not None or options.metadata_path is not None
    if beside and kind is not InputKind.NPY:
        raise UsageError(f"{source.name}: --ids and --metadata go with .npy, this is {kind.value}")
    if beside and n_sources > 1:
        raise UsageError("--ids and --metadata go with one source, not with several")
    # Each format costs imports that the others do not need.
    if kind is InputKind.NPY:
        from iqdb_cli.inputs.npy import NpyReader

        return NpyReader(source, options)
    if kind is InputKind.PARQUET:
        from iqdb_cli.inputs.parquet import ParquetReader

        return ParquetReader(source, options)
    if kind is InputKind.IQDB:
        from iqdb_cli.inputs.database import DatabaseReader

        return DatabaseReader(source, options)
    from iqdb_cli.inputs.jsonl import JsonlReader

    return JsonlReader(source, options)
