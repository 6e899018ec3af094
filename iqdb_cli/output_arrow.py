"""The results of a search as Parquet or an Arrow stream. This module imports pyarrow."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from iqdb_cli.hit_formats import HitWriter
from iqdb_cli.ids import format_id, metadata_to_json, to_json
from iqdb_cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from iqdb_core.hits import Hit
    from iqdb_core.types import VectorId


class _ColumnWriter(HitWriter):
    """Keeps the hits as columns, because the type of the id column is known only at the end."""

    def __init__(self, out: Output, *, with_metadata: bool, with_vectors: bool) -> None:
        super().__init__(out, with_metadata=with_metadata, with_vectors=with_vectors)
        self._queries = array("q")
        self._ranks = array("q")
        self._distances = array("d")
        self._ids: list[VectorId] = []
        self._metadata: list[str | None] = []
        self._vectors = bytearray()

    def write(self, query: int, hits: Sequence[Hit], vectors: Sequence[bytes]) -> None:
        """Keep the hits."""
        for rank, hit in enumerate(hits, 1):
            self._queries.append(query)
            self._ranks.append(rank)
            self._ids.append(hit.id)
            self._distances.append(hit.distance)
            if self.with_metadata:
                metadata = metadata_to_json(self.metadata_of(hit))
                self._metadata.append(None if metadata is None else to_json(metadata))
        for vector in vectors:
            self._vectors += vector

    def _table(self) -> Any:
        columns = {
            "query": pa.array(self._queries, pa.uint32()),
            "rank": pa.array(self._ranks, pa.uint32()),
            "id": _id_array(self._ids),
            "distance": pa.array(self._distances, pa.float64()),
        }
        if self.with_metadata:
            columns["metadata"] = pa.array(self._metadata, pa.string())
        if self.with_vectors:
            values = pa.Array.from_buffers(
                pa.float32(), len(self._vectors) // 4, [None, pa.py_buffer(self._vectors)]
            )
            dim = len(values) // len(self._ids) if self._ids else 0
            columns["vector"] = pa.FixedSizeListArray.from_arrays(values, max(dim, 1))
        return pa.table(columns)


class ParquetWriter(_ColumnWriter):
    """A Parquet file with a row a hit; metadata is a column of JSON texts."""

    def finish(self) -> None:
        """Write the file."""
        from pyarrow import parquet

        sink = pa.BufferOutputStream()
        parquet.write_table(self._table(), sink, compression="zstd")
        self.out.write(sink.getvalue())


class ArrowWriter(_ColumnWriter):
    """An Arrow IPC stream with a row a hit; metadata is a column of JSON texts."""

    def finish(self) -> None:
        """Write the stream."""
        table = self._table()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        self.out.write(sink.getvalue())


ARROW_WRITERS: dict[OutputFormat, type[HitWriter]] = {
    OutputFormat.PARQUET: ParquetWriter,
    OutputFormat.ARROW: ArrowWriter,
}


def _id_array(ids: list[VectorId]) -> Any:
    """Integers are uint64, texts string and bytes binary; mixed ids are their typed forms."""
    kinds = {type(record_id) for record_id in ids}
    if kinds <= {int}:
        return pa.array(ids, pa.uint64())
    if kinds == {bytes}:
        return pa.array(ids, pa.binary())
    if kinds == {str}:
        return pa.array(ids, pa.string())
    return pa.array([format_id(record_id) for record_id in ids], pa.string())
