"""Records from Parquet files: one column of vectors, one of ids, the other scalar ones as metadata.

Batches are read within row groups, so that a huge row group takes no more memory than a small one; and
row groups are decoded by several threads, because decoding is what an import of Parquet waits for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from iqdb_cli.inputs import guess
from iqdb_cli.inputs.arrow_columns import describe_field, ids_of, vectors_of
from iqdb_cli.inputs.arrow_roles import MetadataRole, Roles, roles_of
from iqdb_cli.inputs.options import MAX_BATCH_ROWS, InputOptions
from iqdb_cli.inputs.read_ahead import read_ahead
from iqdb_cli.inputs.reader import BATCH_BYTES, SourceBatch, numbered_ids, rows_per_batch
from iqdb_cli.inputs.source import BadInputError, ByteSource, place_of
from iqdb_core.errors import FileIOError
from iqdb_core.records import MetadataColumns
from iqdb_core.types import MAX_DIM, MAX_ROWS

if TYPE_CHECKING:
    from iqdb_core.column_type import ColumnType

MAX_WORKERS: Final = 4
# Batches of one worker at a time, the one in the making and the one in use included.
DEPTH: Final = 3
READ_BYTES: Final = 1024 * 1024


@contextlib.contextmanager
def parquet_errors(source: str) -> Iterator[None]:
    """Turn what Arrow raises about a file into one line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise FileIOError(source, "read", error) from None
        problem = str(error).split("\n", 1)[0].strip() or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            problem = "the name of a column is not UTF-8"
        raise BadInputError(source, f"cannot be read as Parquet: {problem}") from None


class ParquetSource:
    """A Parquet file that several threads can read at the same time, each through its own handle."""

    def __init__(self, source: ByteSource) -> None:
        """Read the footer.

        Raises:
            BadInputError: this is no whole Parquet file.
        """
        self.name = source.name
        self._source = source
        if source.peek(1) == b"":
            raise BadInputError(self.name, "is empty, expected a Parquet file")
        if not source.is_regular or source.position:
            source.spool()
        first = self.open()
        with parquet_errors(self.name):
            self.schema = first.schema_arrow
            self.metadata = first.metadata
        self.n_rows: int = self.metadata.num_rows
        if not 0 <= self.n_rows <= MAX_ROWS:
            raise BadInputError(self.name, f"declares {self.n_rows} rows, expected at most {MAX_ROWS}")

    def open(self) -> Any:
        """Return a new handle of pyarrow on the file."""
        with parquet_errors(self.name):
            # The path again where there is one; a spooled pipe has no name but its descriptor.
            path = self._source.path
            if path == "-" or not os.path.isfile(path):  # noqa: PTH113
                path = f"/dev/fd/{self._source.fileno()}"
            return pq.ParquetFile(pa.OSFile(path), pre_buffer=False, buffer_size=READ_BYTES)

    def group_starts(self) -> list[int]:
        """Return the number of the first row of each row group, and the number of rows."""
        sizes = [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]
        starts = list(accumulate(sizes, initial=0))
        if starts[-1] != self.n_rows or any(size < 0 for size in sizes):
            raise BadInputError(
                self.name, f"its row groups hold {starts[-1]} rows, its footer declares {self.n_rows}"
            )
        return starts

    def bytes_per_row(self) -> int:
        """Return about how many bytes a row takes when decoded, at least 1.

        All columns count, be they read or not: pyarrow ends the process when it is asked for the metadata of
        a single column and they are damaged.
        """
        with parquet_errors(self.name):
            groups = map(self.metadata.row_group, range(self.metadata.num_row_groups))
            total = sum(group.total_byte_size for group in groups)
        return max(1, int(total) // max(1, self.n_rows))

    def read_group(self, file: Any, group: int, columns: list[str], rows: int) -> Iterator[Any]:
        """Yield a row group as Arrow batches of at most `rows` rows."""
        with parquet_errors(self.name):
            batches = file.iter_batches(
                batch_size=rows, row_groups=[group], columns=columns, use_threads=False
            )
        while True:
            with parquet_errors(self.name):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def close(self) -> None:
        """Release the file."""
        self._source.close()


class ParquetReader:
    """One Parquet source. See `RecordReader`."""

    def __init__(self, source: ByteSource, options: InputOptions) -> None:
        """Read the footer and decide about the columns.

        Raises:
            BadInputError: no whole Parquet file, or no clear choice of columns.
        """
        self.name = source.name
        self.notes: list[str] = []
        self._options = options
        self._file = ParquetSource(source)
        self._fields = [describe_field(field) for field in self._file.schema]
        self._roles = self._choose_roles()
        self.total_rows: int | None = self._file.n_rows
        self.dim = self._find_dim()
        self._done_rows = 0

    def _choose_roles(self) -> Roles:
        options, fields, name = self._options, self._fields, self.name
        given = roles_of(self._file.schema)
        if given is not None and given.vector is not None and not _says_otherwise(options):
            return given.without_metadata() if options.no_metadata else given
        vector = guess.choose_vector(fields, options.vector_field, name, guess.COLUMNS, prefer_names=False)
        record_id = guess.choose_id(fields, options.id_field, name, guess.COLUMNS, vector)
        self._note_choice(vector, record_id)
        metadata, left_out = _choose_metadata(self._file, options, {vector, record_id})
        if left_out:
            listed = ", ".join(str(field) for field in left_out)
            self.notes.append(f"{name}: not read as metadata: {listed}")
        return Roles(vector, record_id, metadata, None)

    def _note_choice(self, vector: str, record_id: str | None) -> None:
        options = self._options
        chosen = []
        if options.vector_field is None:
            chosen.append(f"vectors from column {vector!r}")
        if record_id is None:
            unfit = [str(field) for field in self._fields if field.name in guess.ID_NAMES]
            why = f" (no integers, text or bytes: {', '.join(unfit)})" if unfit else ""
            chosen.append(f"row numbers as ids{why}")
        elif options.id_field is None:
            chosen.append(f"ids from column {record_id!r}")
        if chosen:
            self.notes.append(f"{self.name}: {', '.join(chosen)}")

    def _find_dim(self) -> int:
        assert self._roles.vector is not None
        arrow_type = self._file.schema.field(self._roles.vector).type
        if pa.types.is_fixed_size_list(arrow_type):
            dim = int(arrow_type.list_size)
        else:
            dim = self._first_length(self._roles.vector)
        if not 1 <= dim <= MAX_DIM:
            found = f"column {self._roles.vector!r} holds vectors of {dim} components"
            raise BadInputError(self.name, f"{found}, expected 1 to {MAX_DIM}", row=0)
        return dim

    def _first_length(self, vector: str) -> int:
        starts = self._file.group_starts()
        for group, (start, stop) in enumerate(pairwise(starts)):
            if start == stop:
                continue
            batch = next(self._file.read_group(self._file.open(), group, [vector], 1), None)
            if batch is None:
                found = f"row group {group} holds 0 rows, the footer declares {stop - start}"
                raise BadInputError(self.name, found)
            column = batch.column(vector)
            if column.null_count:
                raise BadInputError(self.name, "vector is null", row=0)
            return len(column[0].values)
        raise BadInputError(self.name, "has no rows, expected records")

    def batches(self, first_id: int) -> Generator[SourceBatch]:
        """Yield the records; rows without an id column are numbered from `first_id`."""
        columns = self._roles.columns()
        per_row = self._file.bytes_per_row()
        # Text can outweigh the vectors; a batch stays near its size either way.
        rows = min(rows_per_batch(self.dim, self._options.batch_rows), max(1, 2 * BATCH_BYTES // per_row))
        starts = self._file.group_starts()
        groups = len(starts) - 1
        n_workers = min(groups, MAX_WORKERS, os.cpu_count() or 1)
        workers = [
            read_ahead(self._work(range(number, groups, n_workers), starts, columns, rows, first_id), DEPTH)
            for number in range(n_workers)
        ]
        try:
            for group in range(groups):
                yield from self._take_group(workers[group % n_workers], group, starts)
        finally:
            for worker in workers:
                worker.close()

    def _work(
        self, groups: range, starts: list[int], columns: list[str], rows: int, first_id: int
    ) -> Iterator[SourceBatch | None]:
        file = self._file.open()
        for group in groups:
            row = starts[group]
            for batch in self._file.read_group(file, group, columns, rows):
                yield self._convert(batch, row, first_id)
                row += batch.num_rows
            yield None

    def _take_group(
        self, worker: Iterator[SourceBatch | None], group: int, starts: list[int]
    ) -> Iterator[SourceBatch]:
        count = 0
        while (batch := next(worker)) is not None:
            count += len(batch)
            yield batch
            self._done_rows += len(batch)
        declared = starts[group + 1] - starts[group]
        if count != declared:
            found = f"row group {group} holds {count} rows, the footer declares {declared}"
            raise BadInputError(self.name, found)

    def _convert(self, batch: Any, row: int, first_id: int) -> SourceBatch:
        roles = self._roles
        assert roles.vector is not None
        with parquet_errors(self.name):  # of a dictionary's codes Arrow finds out only now
            vectors = vectors_of(batch.column(roles.vector), self.dim, self.name, row)
            if roles.record_id is None:
                ids = numbered_ids(first_id + row, batch.num_rows)
            else:
                ids = ids_of(batch.column(roles.record_id), self.name, row)
            metadata = metadata_of(batch, roles, self.name, row)
        return SourceBatch(ids, vectors, metadata, row, self.name)

    def fraction(self) -> float | None:
        """Return how much of the source has been read."""
        return self._done_rows / max(1, self._file.n_rows)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _says_otherwise(options: InputOptions) -> bool:
    """Return whether the user chose columns instead of leaving it to the marks in the file."""
    return bool(options.vector_field or options.id_field or options.columns)


def _choose_metadata(
    table: ParquetSource, options: InputOptions, taken: set[str | None]
) -> tuple[tuple[MetadataRole, ...], list[guess.Field]]:
    """Return the columns that become metadata, and those that are left out as unusable."""
    if options.no_metadata:
        return (), []
    fields = [describe_field(field) for field in table.schema]
    names, left_out = guess.choose_metadata(fields, options.columns, table.name, guess.COLUMNS, taken)
    return tuple(MetadataRole(name, name, None) for name in names), left_out


def metadata_of(batch: Any, roles: Roles, source: str, first_row: int) -> MetadataColumns | None:
    """Return the metadata in an Arrow batch; None when no column of it holds any.

    Raises:
        InvalidMetadataError: a value breaks the rules.
    """
    if not roles.metadata and roles.has_metadata is None:
        return None
    has = None
    if roles.has_metadata is not None:
        column = batch.column(roles.has_metadata)
        if not pa.types.is_boolean(column.type):
            raise BadInputError(source, f"column {roles.has_metadata!r} is {column.type}, expected bool")
        has = column.fill_null(False).to_numpy(zero_copy_only=False)
    columns: list[tuple[str, Any] | tuple[str, Any, ColumnType]] = []
    for role in roles.metadata:
        column = batch.column(role.column)
        columns.append((role.key, column) if role.type is None else (role.key, column, role.type))
    return MetadataColumns.from_arrow(
        columns,
        batch.num_rows,
        nulls="absent",
        has_metadata=has,
        where=lambda row: place_of(source, row=first_row + row),
    )


def iter_metadata_table(table: ParquetSource, options: InputOptions) -> Iterator[MetadataColumns]:
    """Yield the rows of a Parquet file that holds metadata alone."""
    roles = roles_of(table.schema)
    if roles is None or _says_otherwise(options):
        metadata, _ = _choose_metadata(table, options, set())
        roles = Roles(None, None, metadata, None)
    columns = roles.columns()
    rows = min(MAX_BATCH_ROWS, max(1, 2 * BATCH_BYTES // table.bytes_per_row()))
    row = 0
    file = table.open()
    for group in range(table.metadata.num_row_groups):
        for batch in table.read_group(file, group, columns, rows):
            with parquet_errors(table.name):
                found = metadata_of(batch, roles, table.name, row)
            yield found or MetadataColumns.none(batch.num_rows)
            row += batch.num_rows
