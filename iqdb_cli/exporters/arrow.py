"""Records as Arrow batches, with the roles of the columns marked (see inputs/arrow_roles.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from iqdb_cli.exporters.survey import Survey
from iqdb_cli.inputs.arrow_columns import MIXED_ID_FIELDS
from iqdb_cli.inputs.arrow_roles import role_metadata
from iqdb_core.column_type import ColumnType
from iqdb_core.record_ids import BYTES, INT, STR
from iqdb_core.records import Column, Ids, MetadataColumns, RecordBatch, StringValues

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ARROW_TYPES = {
    ColumnType.NULL: pa.bool_(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.INT64: pa.int64(),
    ColumnType.FLOAT64: pa.float64(),
    ColumnType.STRING: pa.large_string(),
}
_ID_TYPES = {INT: pa.uint64(), BYTES: pa.large_binary(), STR: pa.large_string()}


class ArrowLayout:
    """The schema for a set of records, and the way from records to batches of it."""

    def __init__(self, survey: Survey, dim: int, *, vectors: bool = True, ids: bool = True) -> None:
        """Choose the columns: ids and vectors if wanted, one for each key and type, and marks."""
        self._dim = dim
        self._ids = ids
        self._vectors = vectors
        self._keys = sorted(survey.columns)
        # Without a column of metadata, nothing would tell an empty mapping from none.
        self._has_metadata = survey.any_mapping and (survey.any_without or not self._keys)
        self._id_type = self._choose_id_type(survey)
        self.schema = pa.schema(self._fields())

    @staticmethod
    def _choose_id_type(survey: Survey) -> Any:
        if len(survey.id_kinds) == 1:
            return _ID_TYPES[next(iter(survey.id_kinds))]
        if not survey.id_kinds:
            return pa.uint64()
        kinds = zip(MIXED_ID_FIELDS, (INT, STR, BYTES), strict=True)
        return pa.struct([pa.field(name, _ID_TYPES[kind]) for name, kind in kinds])

    def _fields(self) -> list[Any]:
        fields = []
        if self._ids:
            fields.append(pa.field("id", self._id_type, nullable=False, metadata=role_metadata("id")))
        if self._vectors:
            vector = pa.list_(pa.field("item", pa.float32(), nullable=False), self._dim)
            fields.append(pa.field("vector", vector, nullable=False, metadata=role_metadata("vector")))
        taken = {field.name for field in fields} | {"id", "vector"}
        if self._has_metadata:
            taken.add("has_metadata")
            marks = role_metadata("has_metadata")
            fields.append(pa.field("has_metadata", pa.bool_(), nullable=False, metadata=marks))
        for key, column_type in self._keys:
            name = _free_name(key, column_type, taken)
            taken.add(name)
            marks = role_metadata("metadata", key, column_type)
            fields.append(pa.field(name, _ARROW_TYPES[column_type], metadata=marks))
        return fields

    def metadata_names(self) -> list[str]:
        """Return the names of all columns but the vectors'."""
        return [name for name in self.schema.names if name != "vector"]

    def batch(self, records: RecordBatch) -> Any:
        """Return records as one Arrow batch of the schema."""
        count = len(records)
        arrays = []
        if self._ids:
            arrays.append(_ids_array(records.ids, self._id_type))
        if self._vectors:
            flat = np.ascontiguousarray(records.vectors, np.float32).reshape(-1)
            field = self.schema.field("vector").type
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field))
        if self._has_metadata:
            arrays.append(_has_metadata_array(records.metadata, count))
        found: dict[tuple[str, ColumnType], Column] = {}
        if records.metadata is not None:
            found = {(column.key, column.type): column for column in records.metadata.columns}
        for key in self._keys:
            column = found.get(key)
            arrow_type = _ARROW_TYPES[key[1]]
            arrays.append(pa.nulls(count, arrow_type) if column is None else _column_array(column, count))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _free_name(key: str, column_type: ColumnType, taken: set[str]) -> str:
    # A dot would make Parquet's path of the column ambiguous; an empty name has no path at all.
    if key and key not in taken and "." not in key:
        return key
    stem = f"{key.replace('.', '_') or 'empty'} ({column_type.label})"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem} {number}", number + 1
    return name


def _has_metadata_array(metadata: MetadataColumns | None, count: int) -> Any:
    if metadata is None:
        return pa.array(np.zeros(count, np.bool_))
    if metadata.has_metadata is None:
        return pa.array(np.ones(count, np.bool_))
    return pa.array(metadata.has_metadata)


def _ids_array(ids: Ids, arrow_type: Any) -> Any:
    if not pa.types.is_struct(arrow_type):
        if ids.u64 is not None:
            return pa.array(ids.u64, type=arrow_type)
        _, offsets, data = ids.as_var()
        return _strings_array(StringValues(offsets, data), arrow_type, None)
    kinds, offsets, data = ids.as_var()
    strings = StringValues(offsets, data)
    children = []
    for field, kind in zip(arrow_type, (INT, STR, BYTES), strict=True):
        rows = np.flatnonzero(kinds == kind)
        part = strings.take(rows)
        if kind == INT:
            values = np.zeros(len(kinds), np.uint64)
            values[rows] = np.frombuffer(part.data.tobytes(), "<u8")
            children.append(pa.array(values, mask=kinds != INT))
        else:
            children.append(_strings_array(part, field.type, rows, len(kinds)))
    return pa.StructArray.from_arrays(children, fields=list(arrow_type))


def _column_array(column: Column, count: int) -> Any:
    arrow_type = _ARROW_TYPES[column.type]
    if not isinstance(column.values, np.ndarray):
        return _strings_array(column.values.plain(), arrow_type, column.rows, count)
    values = column.values
    if column.type is ColumnType.NULL:
        values = np.ones(len(values), np.bool_)
    if column.rows is None:
        return pa.array(values, type=arrow_type)
    spread = np.zeros(count, values.dtype)
    spread[column.rows] = values
    absent = np.ones(count, np.bool_)
    absent[column.rows] = False
    return pa.array(spread, type=arrow_type, mask=absent)


def _strings_array(
    strings: StringValues, arrow_type: Any, rows: NDArray[np.integer] | None, count: int = 0
) -> Any:
    if rows is None:
        offsets, validity, count = strings.offsets, None, len(strings)
    else:
        lengths = np.zeros(count, np.int64)
        lengths[rows] = strings.lengths
        offsets = np.zeros(count + 1, np.uint64)
        np.cumsum(lengths, out=offsets[1:])
        present = np.zeros(count, np.bool_)
        present[rows] = True
        validity = pa.py_buffer(np.packbits(present, bitorder="little"))
    buffers = [
        validity,
        pa.py_buffer(np.ascontiguousarray(offsets).view(np.int64)),
        pa.py_buffer(np.ascontiguousarray(strings.data)),
    ]
    return pa.Array.from_buffers(arrow_type, count, buffers)
