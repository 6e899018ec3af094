"""Vectors as .npy, with ids and metadata in files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from iqdb_cli.exit_codes import UsageError
from iqdb_cli.exporters.survey import Survey
from iqdb_core.record_ids import BYTES, INT, STR

if TYPE_CHECKING:
    from iqdb_cli.exporters.parquet import ParquetRecordWriter
    from iqdb_cli.output import Output
    from iqdb_core.records import Ids, RecordBatch

WRITE_BYTES: Final = 8 * 1024 * 1024


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Return the bytes before the values of a C-ordered .npy array, version 1.0."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    padding = -(10 + len(text) + 1) % 64
    body = text.encode("latin-1") + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def write_vectors(
    batches: Iterable[RecordBatch], survey: Survey, dim: int, out: Output
) -> Iterator[RecordBatch]:
    """Write the vectors of all records as f32[n, dim], and yield each batch once it is written."""
    out.write(npy_header("<f4", (survey.n_rows, dim)))
    for records in batches:
        out.write(np.ascontiguousarray(records.vectors, "<f4").data.cast("B"))
        yield records


class IdWriter:
    """Ids as a one-dimensional .npy array."""

    def __init__(self, survey: Survey, out: Output) -> None:
        """Choose the element type and write the header.

        Raises:
            UsageError: such an array cannot hold these ids.
        """
        self._out = out
        self._dtype = np.dtype(_dtype_of(survey, out.name))
        out.write(npy_header(self._dtype.str, (survey.n_rows,)))

    def write(self, ids: Ids) -> None:
        """Write the ids of a batch."""
        values: Any = ids.u64 if ids.u64 is not None else ids.to_list()
        step = max(1, WRITE_BYTES // self._dtype.itemsize)
        for start in range(0, len(ids), step):
            piece = np.array(values[start : start + step], self._dtype)
            self._out.write(piece.tobytes())


class SidecarWriter:
    """Ids and metadata in files beside the vectors, each in the format that its name's ending says."""

    def __init__(self, survey: Survey, dim: int, ids: Output | None, metadata: Output | None) -> None:
        """Begin the files.

        Args:
            survey: what occurs in the records.
            dim: components of a vector.
            ids: where ids go: .npy, else JSON lines. None leaves them out.
            metadata: where metadata goes: .parquet, else JSON lines. None leaves it out.

        Raises:
            UsageError: the ids do not go into a .npy array.
        """
        self._ids_out = ids
        self._ids: IdWriter | None = None
        if ids is not None and ids.name.lower().endswith(".npy"):
            self._ids = IdWriter(survey, ids)
        self._metadata_out = metadata
        self._parquet: ParquetRecordWriter | None = None
        if metadata is not None and metadata.name.lower().endswith((".parquet", ".pq")):
            from iqdb_cli.exporters.arrow import ArrowLayout
            from iqdb_cli.exporters.parquet import ParquetRecordWriter

            layout = ArrowLayout(survey, dim, vectors=False, ids=False)
            if not layout.schema.names:
                raise UsageError(f"{metadata.name}: no record has metadata; name the file .jsonl")
            self._parquet = ParquetRecordWriter(layout, metadata)

    def write(self, records: RecordBatch) -> None:
        """Write what belongs to a batch of records."""
        from iqdb_cli.exporters.jsonl import write_ids, write_metadata

        if self._ids is not None:
            self._ids.write(records.ids)
        elif self._ids_out is not None:
            write_ids(records.ids, self._ids_out)
        if self._parquet is not None:
            self._parquet.write(records)
        elif self._metadata_out is not None:
            write_metadata(records.metadata, len(records), self._metadata_out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error the files are thrown away; Parquet's footer would only be one more write.
        if self._parquet is not None and kind is None:
            self._parquet.finish()


def _dtype_of(survey: Survey, name: str) -> str:
    kinds = survey.id_kinds
    if kinds <= {INT}:
        return "<u8"
    if len(kinds) > 1:
        raise UsageError(f"{name}: a .npy array cannot hold ids of several kinds; name the file .jsonl")
    if survey.ids_end_in_zero:
        reason = "a .npy array would drop the zero at the end of an id"
        raise UsageError(f"{name}: {reason}; name the file .jsonl")
    assert kinds in ({STR}, {BYTES})
    return f"<U{survey.id_characters}" if kinds == {STR} else f"|S{survey.id_characters}"
