"""Ids and metadata in files beside a .npy source, one for each of its rows, read in step with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.lib import format as npy_format

from iqdb_cli.ids import id_from_json
from iqdb_cli.inputs.reader import BATCH_BYTES
from iqdb_cli.inputs.source import BadInputError, ByteSource, InputKind, kind_of, place_of
from iqdb_cli.queries import iter_lines, parse_json
from iqdb_core.errors import InvalidIdError
from iqdb_core.records import Ids, MetadataColumns
from iqdb_core.types import MAX_ID_BYTES, VectorId

if TYPE_CHECKING:
    from iqdb_cli.inputs.reader import InputOptions


class IdRows(Protocol):
    """Ids, row by row."""

    def take(self, count: int) -> Ids:
        """Return the ids of the next `count` rows."""
        ...

    def finish(self) -> None:
        """Refuse what is left over."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class MetadataRows(Protocol):
    """Metadata, row by row."""

    def take(self, count: int) -> MetadataColumns:
        """Return the metadata of the next `count` rows."""
        ...

    def finish(self) -> None:
        """Refuse what is left over."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def open_id_rows(path: str | None, beside: str, rows: int) -> IdRows | None:
    """Open the file with the ids of the `rows` rows of the source named `beside`.

    Raises:
        BadInputError: it holds no ids, or not that many.
    """
    if path is None:
        return None
    source = ByteSource(path)
    try:
        if kind_of(source, None) is InputKind.JSONL:
            return JsonlIds(source, beside, rows)
        return NpyIds(source, beside, rows)
    except BaseException:
        source.close()
        raise


def open_metadata_rows(options: InputOptions, beside: str, rows: int) -> MetadataRows | None:
    """Open the file with the metadata of the `rows` rows of the source named `beside`.

    Raises:
        BadInputError: it holds no metadata, or not that much.
    """
    if options.metadata_path is None:
        return None
    source = ByteSource(options.metadata_path)
    try:
        kind = kind_of(source, None)
        if kind is InputKind.JSONL:
            from iqdb_cli.inputs.jsonl import iter_metadata

            return ChunkedMetadata(source, iter_metadata(source, options), beside, rows)
        if kind is InputKind.PARQUET:
            from iqdb_cli.inputs.parquet import ParquetSource, iter_metadata_table

            table = ParquetSource(source)
            _check_count(source.name, table.n_rows, beside, rows)
            return ChunkedMetadata(source, iter_metadata_table(table, options), beside, rows)
    except BaseException:
        source.close()
        raise
    source.close()
    raise BadInputError(source.name, "is .npy, expected metadata as JSON lines or Parquet")


def _count_error(name: str, found: int, beside: str, rows: int) -> BadInputError:
    return BadInputError(name, f"holds {found:,} rows, expected {rows:,}, as {beside} has")


def _check_count(name: str, found: int, beside: str, rows: int) -> None:
    if found != rows:
        raise _count_error(name, found, beside, rows)


class NpyIds:
    """Ids from a one-dimensional .npy array: integers, or text or bytes of fixed width."""

    def __init__(self, source: ByteSource, beside: str, rows: int) -> None:
        """Check the header; see `open_id_rows`."""
        self._source = source
        self._row = 0
        shape, self._dtype = self._read_header()
        if len(shape) != 1:
            raise BadInputError(source.name, f"holds an array of shape {shape}, expected one dimension")
        _check_count(source.name, shape[0], beside, rows)
        size_bytes = shape[0] * self._dtype.itemsize
        if source.size_bytes is not None and source.size_bytes - source.offset != size_bytes:
            found = source.size_bytes - source.offset
            raise BadInputError(source.name, f"holds {found} bytes of data, its header declares {size_bytes}")

    def _read_header(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        source = self._source
        if source.peek(1) == b"":
            raise BadInputError(source.name, "is empty, expected a .npy array of ids")
        try:
            version = npy_format.read_magic(source)  # type: ignore[arg-type]
            if version == (1, 0):
                shape, _, dtype = npy_format.read_array_header_1_0(source)  # type: ignore[arg-type]
            elif version == (2, 0):
                shape, _, dtype = npy_format.read_array_header_2_0(source)  # type: ignore[arg-type]
            else:
                raise BadInputError(source.name, f"has .npy version {version}, expected 1.0 or 2.0")
        except (ValueError, SyntaxError, TokenError, TypeError, RecursionError, MemoryError) as error:
            problem = str(error).split("\n", 1)[0]
            raise BadInputError(source.name, f"is no .npy array of ids: {problem}") from None
        if dtype.hasobject or dtype.fields is not None or dtype.kind not in "iuUS" or dtype.itemsize == 0:
            reason = f"has element type {dtype}, expected integers, text (U) or bytes (S)"
            if dtype.hasobject:
                reason = "holds pickled Python objects, which are never read; expected an array of ids"
            raise BadInputError(source.name, reason)
        if dtype.itemsize > MAX_ID_BYTES * (4 if dtype.kind == "U" else 1):
            raise BadInputError(source.name, f"has ids of up to {dtype}, the limit is {MAX_ID_BYTES} bytes")
        return shape, dtype

    def take(self, count: int) -> Ids:
        """Return the ids of the next `count` rows.

        Raises:
            InvalidIdError: one of them is negative or empty.
        """
        # Wide elements can be mostly padding: few of them are held at a time as they stand in the file.
        step = max(1, BATCH_BYTES // self._dtype.itemsize)
        return Ids.concat(self._take_some(min(step, count - start)) for start in range(0, count, step))

    def _take_some(self, count: int) -> Ids:
        name, first = self._source.name, self._row
        raw = self._source.read(count * self._dtype.itemsize)
        if len(raw) < count * self._dtype.itemsize:
            found = first + len(raw) // self._dtype.itemsize
            raise BadInputError(name, f"ends after {found:,} whole rows, its header declares more")
        values = np.frombuffer(raw, self._dtype)
        self._row += count
        if self._dtype.kind == "i":
            negative = np.flatnonzero(values < 0)
            if len(negative):
                row = int(negative[0])
                reason = "an integer id lies in 0..2^64-1"
                raise InvalidIdError(int(values[row]), reason, where=place_of(name, row=first + row))
        if self._dtype.kind in "iu":
            return Ids.from_u64(values.astype(np.uint64))
        if self._dtype.kind == "U":
            # NumPy would pass them to Python, which answers with an error of its own inside.
            points = np.frombuffer(raw, np.dtype(np.uint32).newbyteorder(self._dtype.byteorder))
            beyond = np.flatnonzero(points > sys.maxunicode)
            if len(beyond):
                row = first + int(beyond[0]) * 4 // self._dtype.itemsize
                raise BadInputError(name, "holds text that is no Unicode", row=row)
        texts = values.tolist()
        return Ids.from_list(texts, where=lambda row: place_of(name, row=first + row))

    def finish(self) -> None:
        """Refuse bytes after the array."""
        if self._source.read(1):
            raise BadInputError(self._source.name, "goes on after the array, expected its end")

    def close(self) -> None:
        """Release the file."""
        self._source.close()


class JsonlIds:
    """Ids as JSON lines: an integer, a string or `{"hex": "..."}` each."""

    def __init__(self, source: ByteSource, beside: str, rows: int) -> None:
        self._source = source
        self._beside = beside
        self._rows = rows
        self._found = 0
        self._lines = iter_lines(source)

    def take(self, count: int) -> Ids:
        """Return the ids of the next `count` lines."""
        values = [self._parse(number, line) for number, line in islice(self._lines, count)]
        self._found += len(values)
        if len(values) < count:
            raise _count_error(self._source.name, self._found, self._beside, self._rows)
        return Ids.from_list(values)

    def _parse(self, number: int, line: bytes) -> VectorId:
        name = self._source.name
        try:
            value = parse_json(line)
        except ValueError as error:
            raise BadInputError(name, f"is not JSON ({error})", line=number) from None
        return id_from_json(value, place_of(name, line=number))

    def finish(self) -> None:
        """Refuse lines that are left over."""
        rest = sum(1 for _ in self._lines)
        if rest:
            raise _count_error(self._source.name, self._found + rest, self._beside, self._rows)

    def close(self) -> None:
        """Release the file."""
        self._source.close()


class ChunkedMetadata:
    """Metadata that comes in chunks of a size of its own."""

    def __init__(
        self,
        source: ByteSource,
        chunks: Iterator[MetadataColumns],
        beside: str,
        rows: int,
    ) -> None:
        self._source = source
        self._chunks = chunks
        self._beside = beside
        self._rows = rows
        self._found = 0
        self._rest: MetadataColumns | None = None

    def take(self, count: int) -> MetadataColumns:
        """Return the metadata of the next `count` rows."""
        parts: list[MetadataColumns] = []
        missing = count
        while missing:
            chunk = self._rest if self._rest is not None else next(self._chunks, None)
            if chunk is None:
                raise _count_error(self._source.name, self._found, self._beside, self._rows)
            used = min(missing, chunk.n_rows)
            parts.append(chunk if used == chunk.n_rows else chunk.slice(0, used))
            self._rest = None if used == chunk.n_rows else chunk.slice(used, chunk.n_rows)
            missing -= used
            self._found += used
        return MetadataColumns.concat(parts)

    def finish(self) -> None:
        """Refuse rows that are left over."""
        rest = self._rest.n_rows if self._rest is not None else 0
        rest += sum(chunk.n_rows for chunk in self._chunks)
        if rest:
            raise _count_error(self._source.name, self._found + rest, self._beside, self._rows)

    def close(self) -> None:
        """Release the file."""
        self._source.close()
