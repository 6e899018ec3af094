"""Arrow arrays to vectors and ids, without a Python object for each value.

Every function gets the number of the array's first row in its source, so that an error can name the
row that it found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqdb_cli.inputs.guess import Field, FieldKind
from iqdb_cli.inputs.source import place_of
from iqdb_core.errors import DimensionMismatchError, InvalidIdError, InvalidVectorError
from iqdb_core.record_ids import BYTES, STR
from iqdb_core.records import Ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

types = pa.types

# The children of the struct that holds ids of several kinds in one column (see exporters/arrow.py).
MIXED_ID_FIELDS = ("int", "text", "bytes")


def is_vector_type(arrow_type: Any) -> bool:
    """Whether values of the type are vectors: lists of floats, of fixed or variable length."""
    is_list = (
        types.is_list(arrow_type) or types.is_large_list(arrow_type) or types.is_fixed_size_list(arrow_type)
    )
    return bool(is_list and types.is_floating(arrow_type.value_type))


def is_text_type(arrow_type: Any) -> bool:
    """Whether values of the type are text."""
    return bool(types.is_string(arrow_type) or types.is_large_string(arrow_type))


def is_bytes_type(arrow_type: Any) -> bool:
    """Whether values of the type are bytes."""
    return bool(
        types.is_binary(arrow_type)
        or types.is_large_binary(arrow_type)
        or types.is_fixed_size_binary(arrow_type)
    )


def is_mixed_id_type(arrow_type: Any) -> bool:
    """Whether the type is the struct that holds ids of several kinds."""
    return types.is_struct(arrow_type) and {field.name for field in arrow_type} == set(MIXED_ID_FIELDS)


def describe_field(field: Any) -> Field:
    """Return what a column could be used for."""
    arrow_type = field.type
    if types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    if is_vector_type(arrow_type):
        kind = FieldKind.VECTOR
    elif types.is_integer(arrow_type) or is_text_type(arrow_type):
        kind = FieldKind.ID_OR_SCALAR
    elif is_bytes_type(arrow_type) or is_mixed_id_type(arrow_type):
        kind = FieldKind.ID
    elif types.is_boolean(arrow_type) or types.is_floating(arrow_type) or types.is_null(arrow_type):
        kind = FieldKind.SCALAR
    else:
        kind = FieldKind.OTHER
    return Field(field.name, kind, str(field.type))


def vectors_of(column: Any, dim: int, source: str, first_row: int) -> NDArray[np.float32]:
    """Return a column of float lists as f32[n, dim]; float32 lists are not copied.

    Raises:
        InvalidVectorError: a vector is null, or one of its components is null or (unless it is float32
            already) not finite.
        DimensionMismatchError: a vector has not `dim` components.
    """
    from iqdb_core import _kernels

    if column.null_count:
        row = first_row + _first_null(column)
        raise InvalidVectorError("vector is null", where=place_of(source, row=row))
    _check_lengths(column, dim, source, first_row)
    values = column.flatten()
    if values.null_count:
        row, component = divmod(_first_null(values), dim)
        where = place_of(source, row=first_row + row)
        raise InvalidVectorError("value is null", where=where, component=component)
    raw = values.to_numpy(zero_copy_only=True).reshape(len(column), dim)
    vectors: NDArray[np.float32] = raw
    if raw.dtype == np.float32:
        return vectors  # whoever takes them checks them; only a conversion hides what stood in the file
    # What overflows becomes infinite and is refused as such.
    with np.errstate(over="ignore"):
        vectors = raw.astype(np.float32)
    bad = _kernels.check_finite(vectors.data)
    if bad >= 0:
        row, component = divmod(bad, dim)
        value = raw[row, component]
        what = "too large for float32" if np.isfinite(value) else "not finite"
        where = place_of(source, row=first_row + row)
        raise InvalidVectorError(f"value {value} is {what}", where=where, component=component)
    return vectors


def _check_lengths(column: Any, dim: int, source: str, first_row: int) -> None:
    if types.is_fixed_size_list(column.type):
        lengths = np.full(min(1, len(column)), column.type.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
    wrong = np.flatnonzero(lengths != dim)
    if len(wrong):
        row = int(wrong[0])
        where = place_of(source, row=first_row + row)
        raise DimensionMismatchError(dim, int(lengths[row]), where=where)


def ids_of(column: Any, source: str, first_row: int) -> Ids:
    """Return a column of integers, text or bytes (or the struct of all three) as ids.

    Raises:
        InvalidIdError: one of them is null, negative, empty or too long.
    """
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        row = first_row + _first_null(column)
        raise InvalidIdError(None, "an id must not be null", where=place_of(source, row=row))
    if types.is_integer(column.type):
        return _integer_ids(column, source, first_row)
    if is_mixed_id_type(column.type):
        return _mixed_ids(column, source, first_row)
    text = is_text_type(column.type)
    column = column.cast(pa.large_string() if text else pa.large_binary())
    _, offsets_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + len(column) + 1]
    start, stop = (int(offsets[0]), int(offsets[-1])) if len(column) else (0, 0)
    data = np.frombuffer(data_buffer or b"", np.uint8)[start:stop]
    kinds = np.full(len(column), STR if text else BYTES, np.uint8)
    ids = Ids.from_var(kinds, (offsets - start).view(np.uint64), data)
    problem = ids.first_problem()
    if problem is not None:
        row, reason = problem
        found = bytes(data[int(offsets[row] - start) : int(offsets[row + 1] - start)][:32])
        raise InvalidIdError(found, reason, where=place_of(source, row=first_row + row))
    return ids


def _integer_ids(column: Any, source: str, first_row: int) -> Ids:
    values = column.to_numpy(zero_copy_only=True)
    if values.dtype.kind == "i":
        wrong = np.flatnonzero(values < 0)
        if len(wrong):
            row = int(wrong[0])
            where = place_of(source, row=first_row + row)
            raise InvalidIdError(int(values[row]), "an integer id lies in 0..2^64-1", where=where)
    return Ids.from_u64(np.ascontiguousarray(values.astype(np.uint64, copy=False)))


def _mixed_ids(column: Any, source: str, first_row: int) -> Ids:
    parts = [column.field(name).to_pylist() for name in MIXED_ID_FIELDS]
    values = []
    for row, found in enumerate(zip(*parts, strict=True)):
        present = [value for value in found if value is not None]
        if len(present) != 1:
            where = place_of(source, row=first_row + row)
            raise InvalidIdError(None, f"expected one kind of id, found {len(present)}", where=where)
        values.append(present[0])
    return Ids.from_list(values, where=lambda row: place_of(source, row=first_row + row))


def _first_null(column: Any) -> int:
    return int(np.argmin(column.is_valid().to_numpy(zero_copy_only=False)))
