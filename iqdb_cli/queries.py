"""Query vectors: .npy or JSON lines, from a file or stdin, in batches and without NumPy."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from iqdb_cli.inputs.npy_header import NpyHeader, NpyHeaderError, read_npy_header
from iqdb_cli.inputs.source import NPY_MAGIC, PARQUET_MAGIC, BadInputError, ByteSource, place_of
from iqdb_core.errors import DimensionMismatchError, InvalidVectorError

# A batch is large enough for the kernels to work at full speed, and small beside any database.
MAX_BATCH_BYTES = 16 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
_READ_BYTES = 256 * 1024
_VECTOR_FIELDS = ("vector", "embedding")


class QueryBatch(NamedTuple):
    """Some queries in a row: `values` holds `n_queries` x dim float32; `first` is the number of the first."""

    values: array[float]
    n_queries: int
    first: int


def read_queries(path: str, dim: int, *, field: str | None = None, limit: int = 4096) -> Iterator[QueryBatch]:
    """Read query vectors.

    Args:
        path: a file, or "-" for stdin.
        dim: the dimension that every query must have.
        field: the field of JSON objects that holds the vector; guessed when None.
        limit: the most queries in one batch.

    Yields:
        Batches in the order of the source; at least one query in all.

    Raises:
        Error: the source cannot be read, is empty or is no vectors, or a query has another dimension or
            a component that is NaN or infinite. The message names the file and the row or line.
    """
    with ByteSource(path) as source:
        limit = max(1, min(limit, MAX_BATCH_BYTES // (4 * dim)))
        head = source.peek(len(NPY_MAGIC))
        if not head:
            raise BadInputError(source.name, "is empty, expected query vectors as .npy or JSON lines")
        if head == NPY_MAGIC:
            yield from _read_npy(source, dim, limit)
        elif head.startswith(PARQUET_MAGIC):
            raise BadInputError(source.name, "is Parquet; queries are .npy or JSON lines")
        else:
            yield from _read_lines(source, dim, field, limit)


def check_query(values: array[float], dim: int, where: str) -> None:
    """Refuse one query that has another dimension or a component that is NaN or infinite."""
    if len(values) != dim:
        raise DimensionMismatchError(dim, len(values), where=where)
    component = _first_non_finite(values)
    if component >= 0:
        raise InvalidVectorError(_non_finite_text(values[component]), where=where, component=component)


def _first_non_finite(values: array[float]) -> int:
    from iqdb_core import _kernels

    return int(_kernels.check_finite(values))


def _non_finite_text(value: float) -> str:
    return f"a component is {'NaN' if value != value else 'infinite as float32'}"  # noqa: PLR0124 - NaN


def _read_npy(source: ByteSource, dim: int, limit: int) -> Iterator[QueryBatch]:
    try:
        header = read_npy_header(source)
        if source.size_bytes is not None:
            header.check_data_bytes(source.size_bytes - header.data_offset)
        if header.rows == 0:
            raise BadInputError(source.name, "holds no vectors (it has 0 rows)")
        if header.dim != dim:
            raise DimensionMismatchError(dim, header.dim, where=source.name)
        blocks = (
            _npy_by_columns(source, header) if header.fortran_order else _npy_by_rows(source, header, limit)
        )
        first = 0
        for values in blocks:
            _check_rows(values, dim, source.name, first)
            yield QueryBatch(values, len(values) // dim, first)
            first += len(values) // dim
        # A pipe shows only here that it holds more than its header declares.
        source.read(1)
        header.check_data_bytes(source.offset - header.data_offset)
    except NpyHeaderError as error:
        raise BadInputError(source.name, str(error)) from None


def _npy_by_rows(source: ByteSource, header: NpyHeader, limit: int) -> Iterator[array[float]]:
    row_bytes = header.dim * header.item_bytes
    for start in range(0, header.rows, limit):
        count = min(limit, header.rows - start)
        yield header.to_float32(_read_data(source, count * row_bytes, header))


def _npy_by_columns(source: ByteSource, header: NpyHeader) -> Iterator[array[float]]:
    values = header.to_float32(_read_data(source, header.data_bytes, header))
    rows = array("f")
    for row in range(header.rows):
        rows += values[row :: header.rows]
    yield rows


def _read_data(source: ByteSource, size: int, header: NpyHeader) -> bytes:
    # Read piece by piece: from a pipe, a declared size is no reason to allocate.
    parts, missing = [], size
    while missing:
        part = source.read(min(missing, _READ_BYTES))
        if not part:
            header.check_data_bytes(source.offset - header.data_offset)
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _check_rows(values: array[float], dim: int, name: str, first: int) -> None:
    position = _first_non_finite(values)
    if position >= 0:
        row, component = divmod(position, dim)
        raise InvalidVectorError(
            _non_finite_text(values[position]), where=place_of(name, row=first + row), component=component
        )


def _read_lines(source: ByteSource, dim: int, field: str | None, limit: int) -> Iterator[QueryBatch]:
    values, first, count = array("f"), 0, 0
    for number, line in iter_lines(source):
        vector = _parse_line(line, source.name, number, field)
        check_query(vector, dim, place_of(source.name, line=number))
        values += vector
        count += 1
        if count == limit:
            yield QueryBatch(values, count, first)
            values, first, count = array("f"), first + count, 0
    if count:
        yield QueryBatch(values, count, first)
    elif first == 0:
        raise BadInputError(source.name, "holds no query vectors")


def iter_lines(source: ByteSource) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers from 1, without their line ends.

    Raises:
        BadInputError: a line is longer than 64 MiB.
    """
    rest, number = bytearray(), 0
    view = memoryview(bytearray(_READ_BYTES))
    while got := source.readinto_some(view):
        *lines, tail = bytes(view[:got]).split(b"\n")
        if lines:
            lines[0] = bytes(rest) + lines[0]
            rest.clear()
        rest += tail
        if len(rest) > MAX_LINE_BYTES:
            raise BadInputError(source.name, f"is longer than {MAX_LINE_BYTES} bytes", line=number + 1)
        for line in lines:
            number += 1
            if stripped := line.strip():
                yield number, stripped
    if stripped := bytes(rest).strip():
        yield number + 1, stripped


def _parse_line(line: bytes, name: str, number: int, field: str | None) -> array[float]:
    def refuse(reason: str, hint: str = "") -> NoReturn:
        raise BadInputError(name, reason, line=number, hint=hint) from None

    try:
        value = parse_json(line)
    except ValueError as error:
        refuse(f"is not JSON ({error})")
    if isinstance(value, dict):
        value = _vector_field(value, field, refuse)
    if not isinstance(value, list):
        refuse(f"is {_json_kind(value)}, expected an array of numbers or an object that holds one")
    if not value:
        refuse("is an empty vector")
    if not set(map(type, value)) <= {int, float}:
        component, item = next((i, x) for i, x in enumerate(value) if type(x) not in {int, float})
        hint = "write one query a line" if isinstance(item, list) else ""
        refuse(f"component {component} is {_json_kind(item)}, expected a number", hint)
    try:
        return array("f", value)
    except OverflowError:
        refuse("a component is beyond float32")


def parse_json(line: bytes) -> Any:
    """Return the value of one line of JSON, read strictly.

    Raises:
        ValueError: it is not UTF-8 or not JSON, or an object has a key twice.
    """
    try:
        return _decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.pos + 1}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} occurs twice")
            seen.add(key)
    return result


_decode = json.JSONDecoder(object_pairs_hook=_object_without_repeats, parse_constant=_refuse_constant).decode


def _vector_field(record: dict[str, Any], field: str | None, refuse: Any) -> Any:
    if field is not None:
        if field not in record:
            refuse(f"has no field {field!r}")
        return record[field]
    for name in _VECTOR_FIELDS:
        if name in record:
            return record[name]
    candidates = [key for key, value in record.items() if isinstance(value, list)]
    if len(candidates) != 1:
        found = ", ".join(map(repr, candidates)) or "none"
        refuse(f"cannot tell which field is the vector (arrays: {found})", "--vector-field says which")
    return record[candidates[0]]


def _json_kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
