"""Records from JSON lines: one object a line, strictly JSON.

A thread reads and parses ahead (the parser needs no interpreter lock) while records are written.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from iqdb_cli.inputs import guess
from iqdb_cli.inputs.guess import Field, FieldKind
from iqdb_cli.inputs.options import MAX_BATCH_ROWS, InputOptions
from iqdb_cli.inputs.read_ahead import read_ahead
from iqdb_cli.inputs.reader import SourceBatch, numbered_ids
from iqdb_cli.inputs.source import BadInputError, ByteSource
from iqdb_cli.queries import parse_json
from iqdb_core import _kernels
from iqdb_core.column_type import ColumnType
from iqdb_core.records import Column, Ids, MetadataColumns, StringValues, Values
from iqdb_core.types import MAX_DIM

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_BYTES: Final = 4 * 1024 * 1024
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
METADATA_FIELD: Final = "metadata"
# Batches at a time: one with the consumer, one ready, one being parsed.
DEPTH: Final = 3


class Chunk(NamedTuple):
    """Whole lines, the last one perhaps without its line end when `final`."""

    data: bytes
    first_line: int
    final: bool


class LineReader:
    """Cuts a source into chunks of whole lines."""

    def __init__(self, source: ByteSource, enough_lines: int) -> None:
        """Prepare.

        Args:
            source: where the bytes are.
            enough_lines: from a pipe, a chunk is complete with so many lines: a slow producer must not
                have to fill a whole chunk before anything is done.
        """
        self._source = source
        self._enough = None if source.is_regular else enough_lines
        self._view = memoryview(bytearray(CHUNK_BYTES))
        self._rest = b""
        self._line = 1
        self._ended = False
        if source.peek(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            source.read(len(BYTE_ORDER_MARK))

    def next_chunk(self) -> Chunk | None:
        """Return the next chunk, None at the end.

        Raises:
            BadInputError: a line is longer than 64 MiB.
        """
        parts = [self._rest]
        size = len(self._rest)
        n_lines = self._rest.count(b"\n")
        while not self._ended:
            if n_lines and (size >= CHUNK_BYTES or (self._enough is not None and n_lines >= self._enough)):
                break
            if size > MAX_LINE_BYTES:
                reason = f"is longer than {MAX_LINE_BYTES:,} bytes"
                raise BadInputError(self._source.name, reason, line=self._line)
            got = self._source.readinto_some(self._view[: max(CHUNK_BYTES - size, CHUNK_BYTES // 4)])
            self._ended = got == 0
            part = bytes(self._view[:got])
            parts.append(part)
            size += got
            n_lines += part.count(b"\n")
        data = b"".join(parts)
        if self._ended:
            self._rest = b""
            return self._chunk(data, n_lines, final=True) if data else None
        cut = data.rindex(b"\n") + 1
        self._rest = data[cut:]
        return self._chunk(data[:cut], n_lines, final=False)

    def _chunk(self, data: bytes, n_lines: int, *, final: bool) -> Chunk:
        chunk = Chunk(data, self._line, final)
        self._line += n_lines
        return chunk


class LineParser:
    """Parses chunks with the same settings, which are those of `_kernels.parse_jsonl`."""

    def __init__(self, name: str, **settings: Any) -> None:
        self._name = name
        self._settings = settings

    def parse(self, chunk: Chunk) -> Iterator[_kernels.JsonlBatch]:
        """Yield the records of a chunk; those before a bad line come before its error.

        Raises:
            BadInputError: a line cannot become a record.
        """
        data, line = memoryview(chunk.data), chunk.first_line
        while data:
            try:
                parsed = self._call(data, line, final=chunk.final)
            except _kernels.JsonlError as error:
                if error.line > line:
                    yield from self._lines_before(data, line, error.line)
                reason = error.reason.removeprefix("the line ").removeprefix("the record ")
                column = error.column if error.column > 1 else None
                raise BadInputError(self._name, reason, line=error.line, column=column) from None
            if parsed.n_rows:
                yield parsed
            if parsed.consumed_bytes == 0:
                raise BadInputError(self._name, "is not a whole line", line=line)
            data = data[parsed.consumed_bytes :]
            line += parsed.n_lines

    def _lines_before(self, data: memoryview, line: int, stop: int) -> Iterator[_kernels.JsonlBatch]:
        raw = bytes(data)
        end = 0
        for _ in range(stop - line):
            end = raw.index(b"\n", end) + 1
        parsed = self._call(data[:end], line, final=False)
        if parsed.n_rows:
            yield parsed

    def _call(self, data: memoryview, line: int, *, final: bool) -> _kernels.JsonlBatch:
        return _kernels.parse_jsonl(
            data, first_line=line, final=final, max_line_bytes=MAX_LINE_BYTES, **self._settings
        )


class JsonlReader:
    """One source of JSON lines. See `RecordReader`."""

    def __init__(self, source: ByteSource, options: InputOptions) -> None:
        """Read the first record and decide about the fields.

        Raises:
            BadInputError: there is none, or no clear choice of fields.
        """
        self.name = source.name
        self.notes: list[str] = []
        self.total_rows: int | None = None
        self._source = source
        self._options = options
        self._lines = LineReader(source, options.batch_rows)
        self._total_bytes = source.size_bytes
        self._done_bytes = 0
        self._first = self._lines.next_chunk()
        record, self._first_line = self._first_record()
        self._choose_fields(record)
        self.dim = self._find_dim(record)

    def _first_record(self) -> tuple[dict[str, Any], int]:
        while (chunk := self._first) is not None:
            for number, line in enumerate(chunk.data.split(b"\n"), chunk.first_line):
                if line.strip():
                    return self._parse_first(line, number), number
            self._first = self._lines.next_chunk()
        raise BadInputError(self.name, "holds no records, expected one JSON object a line")

    def _parse_first(self, line: bytes, number: int) -> dict[str, Any]:
        # One array over many lines is what other programs write.
        hint = '"jq -c .[]" makes lines of an array' if line.lstrip().startswith(b"[") else ""
        try:
            record = parse_json(line)
        except ValueError as error:
            reason = f"is not JSON: {error}, expected one JSON object a line"
            raise BadInputError(self.name, reason, line=number, hint=hint) from None
        if not isinstance(record, dict):
            reason = f"is of type {_kind_text(record)}, expected an object with a vector"
            if isinstance(record, list) and not any(isinstance(item, dict) for item in record):
                hint = 'a vector alone is written {"vector": [...]}'
            raise BadInputError(self.name, reason, line=number, hint=hint)
        for key in record:
            try:
                key.encode()
            except UnicodeEncodeError:
                # What follows takes keys as UTF-8, which has no half of a surrogate pair.
                raise BadInputError(
                    self.name, f"has a key that is not Unicode text: {key!r}", line=number
                ) from None
        return record

    def _choose_fields(self, record: dict[str, Any]) -> None:
        options, name = self._options, self.name
        fields = [_describe(key, value) for key, value in record.items()]
        self._vector = guess.choose_vector(
            fields, options.vector_field, name, guess.FIELDS, prefer_names=True
        )
        self._id = guess.choose_id(fields, options.id_field, name, guess.FIELDS, self._vector)
        self._metadata = options.metadata_field
        if self._metadata is None and not options.no_metadata:
            # A null too: the first record may be the one without metadata. Columns that are fields of
            # the record itself are not looked for in there.
            nested = record.get(METADATA_FIELD, 0)
            flat = any(column in record for column in options.columns or ())
            if (nested is None or isinstance(nested, dict)) and not flat:
                self._metadata = METADATA_FIELD
        self._note_choice(fields)

    def _note_choice(self, fields: list[Field]) -> None:
        options, name = self._options, self.name
        chosen = []
        if options.vector_field is None:
            chosen.append(f"vectors from field {self._vector!r}")
        if self._id is None:
            # A field of that name is read all the same, and refused with its place.
            if not any(field.name in guess.ID_NAMES for field in fields):
                chosen.append("record numbers as ids")
        elif options.id_field is None:
            chosen.append(f"ids from field {self._id!r}")
        if self._metadata is not None and options.metadata_field is None:
            chosen.append(f"metadata from field {self._metadata!r}")
        if chosen:
            self.notes.append(f"{name}: {', '.join(chosen)}")
        if self._scalars_only:
            taken = {self._vector, self._id}
            _, left_out = guess.choose_metadata(fields, None, name, guess.FIELDS, taken)
            if left_out:
                listed = ", ".join(str(field) for field in left_out)
                self.notes.append(f"{name}: not read as metadata: {listed}")

    @property
    def _scalars_only(self) -> bool:
        """Whether every remaining scalar field is metadata, and other fields are passed over."""
        return self._metadata is None and not self._options.no_metadata and self._options.columns is None

    def _find_dim(self, record: dict[str, Any]) -> int:
        dim = len(record[self._vector])
        if not 1 <= dim <= MAX_DIM:
            found = f"field {self._vector!r} holds {dim} numbers"
            raise BadInputError(self.name, f"{found}, expected 1 to {MAX_DIM}", line=self._first_line)
        return dim

    def batches(self, first_id: int) -> Generator[SourceBatch]:
        """Yield the records; those without an id field are numbered from `first_id`."""
        return read_ahead(self._batches(first_id), DEPTH)

    def _batches(self, next_id: int) -> Iterator[SourceBatch]:
        options = self._options
        columns = None if options.columns is None else list(options.columns)
        # The usual name even where the first record has no id: a later one with an id is then an error,
        # and not a record with a number for an id and its id among the metadata.
        usual = None if columns is not None and guess.ID_NAMES[0] in columns else guess.ID_NAMES[0]
        parser = LineParser(
            self.name,
            id_field=self._id or (usual if usual not in {self._vector, self._metadata} else None),
            vector_field=self._vector,
            metadata_field=self._metadata,
            columns=columns,
            no_metadata=options.no_metadata,
            scalars_only=self._scalars_only,
            dim=self.dim,
            max_rows=min(options.batch_rows, MAX_BATCH_ROWS),
        )
        chunk, self._first = self._first, None
        while chunk is not None:
            for parsed in parser.parse(chunk):
                self._check_ids(parsed)
                ids = _ids_of(parsed, next_id)
                next_id += parsed.n_rows
                yield self._batch(parsed, ids)
            self._done_bytes = self._source.offset
            chunk = self._lines.next_chunk()

    def _check_ids(self, parsed: _kernels.JsonlBatch) -> None:
        """Refuse a batch that has ids where the first record had none, or the other way round."""
        if parsed.has_ids != (self._id is not None):
            what = "has an id, the first record has none" if parsed.has_ids else f"has no field {self._id!r}"
            raise BadInputError(self.name, what, line=int(parsed.row_lines[0]))

    def _batch(self, parsed: _kernels.JsonlBatch, ids: Ids) -> SourceBatch:
        vectors = np.frombuffer(parsed.vectors, np.float32).reshape(parsed.n_rows, self.dim)
        lines = np.frombuffer(parsed.row_lines, np.uint64)
        return SourceBatch(ids, vectors, _metadata_of(parsed), 0, self.name, lines)

    def fraction(self) -> float | None:
        """Return how much of the source has been read."""
        return None if not self._total_bytes else self._done_bytes / self._total_bytes

    def close(self) -> None:
        """Release the file."""
        self._source.close()


def _describe(key: str, value: Any) -> Field:
    if isinstance(value, list) and value and all(type(item) in (int, float) for item in value):
        return Field(key, FieldKind.VECTOR, f"{len(value)} number{'' if len(value) == 1 else 's'}")
    if isinstance(value, str) or type(value) is int:
        return Field(key, FieldKind.ID_OR_SCALAR, _kind_text(value))
    if isinstance(value, dict):
        special = {"hex": FieldKind.ID, "float": FieldKind.SCALAR}
        only = next(iter(value)) if len(value) == 1 else ""
        return Field(key, special.get(only, FieldKind.OTHER), _kind_text(value))
    if value is None or isinstance(value, (bool, float)):
        return Field(key, FieldKind.SCALAR, _kind_text(value))
    return Field(key, FieldKind.OTHER, "array")


def _kind_text(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def _ids_of(parsed: _kernels.JsonlBatch, first_id: int) -> Ids:
    if not parsed.has_ids:
        return numbered_ids(first_id, parsed.n_rows)
    if parsed.ids_all_u64:
        return Ids.from_u64(np.frombuffer(parsed.ids_u64, np.uint64))
    return Ids.from_var(
        np.frombuffer(parsed.id_kinds, np.uint8),
        np.frombuffer(parsed.id_offsets, np.uint64),
        np.frombuffer(parsed.id_bytes, np.uint8),
    )


def _metadata_of(parsed: _kernels.JsonlBatch) -> MetadataColumns | None:
    """Return the metadata of a batch, None when no record has a mapping."""
    has: NDArray[np.bool_] = np.frombuffer(parsed.has_metadata, np.bool_)
    if not has.any():
        return None
    columns = []
    for key, tag, rows, values, offsets in parsed.columns:
        column_type = ColumnType(tag)
        row_numbers = np.frombuffer(rows, np.uint32)
        columns.append(Column(key, column_type, row_numbers, _values_of(column_type, rows, values, offsets)))
    return MetadataColumns.build(parsed.n_rows, has, columns)


def _values_of(
    column_type: ColumnType, rows: memoryview, values: memoryview, offsets: memoryview | None
) -> Values:
    if column_type is ColumnType.STRING:
        assert offsets is not None
        return StringValues(np.frombuffer(offsets, np.uint64), np.frombuffer(values, np.uint8))
    if column_type is ColumnType.NULL:
        return np.zeros(len(rows), np.bool_)
    return np.frombuffer(values, _DTYPES[column_type])


_DTYPES: Final = {ColumnType.BOOL: np.bool_, ColumnType.INT64: np.int64, ColumnType.FLOAT64: np.float64}


def iter_metadata(source: ByteSource, options: InputOptions) -> Iterator[MetadataColumns]:
    """Yield the metadata of lines that hold nothing else: an object each, or null for none."""
    lines = LineReader(source, MAX_BATCH_ROWS)
    columns = None if options.columns is None else list(options.columns)
    parser = LineParser(source.name, columns=columns, max_rows=MAX_BATCH_ROWS)
    while (chunk := lines.next_chunk()) is not None:
        for parsed in parser.parse(chunk):
            yield _metadata_of(parsed) or MetadataColumns.none(parsed.n_rows)
