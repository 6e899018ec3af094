"""The results of a search as JSON lines, CSV or .npy; tables and Arrow have modules of their own."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iqdb_cli.exit_codes import UsageError
from iqdb_cli.ids import format_id, id_to_json, metadata_to_json, to_json
from iqdb_cli.npy_output import npy_preamble
from iqdb_cli.output import Output, OutputFormat

if TYPE_CHECKING:
    from iqdb_core.hits import Hit
    from iqdb_core.types import MetadataValue


class HitWriter(ABC):
    """Takes the hits of one query after the other.

    Attributes:
        out: where the results go.
        with_metadata: whether metadata is written; if not, none is decoded.
        with_vectors: whether `write` is given vectors.
        columns: the metadata keys that are written, in this order; None is all.
    """

    columns: Sequence[str] | None = None

    def __init__(self, out: Output, *, with_metadata: bool, with_vectors: bool) -> None:
        self.out = out
        self.with_metadata = with_metadata
        self.with_vectors = with_vectors

    @abstractmethod
    def write(self, query: int, hits: Sequence[Hit], vectors: Sequence[bytes]) -> None:
        """Take the hits of query number `query` (from 0), nearest first, with their float32 vectors."""

    def finish(self) -> None:
        """Write what needs the end of the results to be known. Not called after an error."""
        return

    def metadata_of(self, hit: Hit) -> dict[str, MetadataValue] | None:
        """Return the part of a hit's metadata that is written."""
        metadata = hit.metadata
        if metadata is None or self.columns is None:
            return metadata
        return {key: metadata[key] for key in self.columns if key in metadata}


class JsonLinesWriter(HitWriter):
    """One JSON object a line and hit: query, rank, id, distance, metadata and, if asked for, vector."""

    def write(self, query: int, hits: Sequence[Hit], vectors: Sequence[bytes]) -> None:
        """Write a line for each hit."""
        for rank, hit in enumerate(hits, 1):
            fields: dict[str, Any] = {
                "query": query,
                "rank": rank,
                "id": id_to_json(hit.id),
                "distance": hit.distance,
            }
            if self.with_metadata:
                fields["metadata"] = metadata_to_json(self.metadata_of(hit))
            line = to_json(fields)
            if self.with_vectors:
                line = f'{line[:-1]}, "vector": {vector_json(vectors[rank - 1])}}}'
            self.out.write_line(line)


class CsvWriter(HitWriter):
    """A line a hit behind a header line; ids as typed on the command line, metadata as one JSON cell."""

    def __init__(self, out: Output, *, with_metadata: bool, with_vectors: bool) -> None:
        super().__init__(out, with_metadata=with_metadata, with_vectors=with_vectors)
        import csv
        import io

        self._text = io.StringIO()
        self._row = csv.writer(self._text, lineterminator="\n").writerow
        columns = ["query", "rank", "id", "distance"]
        self._row(columns + ["metadata"] * with_metadata + ["vector"] * with_vectors)
        self._pass_on()

    def write(self, query: int, hits: Sequence[Hit], vectors: Sequence[bytes]) -> None:
        """Write a line for each hit."""
        for rank, hit in enumerate(hits, 1):
            cells = [query, rank, format_id(hit.id), repr(hit.distance)]
            if self.with_metadata:
                metadata = metadata_to_json(self.metadata_of(hit))
                cells.append("" if metadata is None else to_json(metadata))
            if self.with_vectors:
                cells.append(vector_json(vectors[rank - 1]))
            self._row(cells)
        self._pass_on()

    def _pass_on(self) -> None:
        self.out.write(self._text.getvalue().encode("utf-8"))
        self._text.seek(0)
        self._text.truncate()


class NpyWriter(HitWriter):
    """One structured array with the fields query (u4), rank (u4), id (u8) and distance (f8).

    It is written when all hits are known, because the header holds their number.
    """

    _ROW = struct.Struct("<IIQd")
    _DTYPE = (("query", "<u4"), ("rank", "<u4"), ("id", "<u8"), ("distance", "<f8"))

    def __init__(self, out: Output, *, with_metadata: bool, with_vectors: bool) -> None:
        super().__init__(out, with_metadata=with_metadata, with_vectors=with_vectors)
        if with_vectors:
            raise UsageError("--format npy holds no vectors; use jsonl, parquet or arrow with --with-vectors")
        self._rows = bytearray()

    def write(self, query: int, hits: Sequence[Hit], vectors: Sequence[bytes]) -> None:
        """Keep 24 bytes a hit."""
        del vectors
        for rank, hit in enumerate(hits, 1):
            if not isinstance(hit.id, int):
                raise UsageError(f"npy holds integer ids only, not {format_id(hit.id)}; use another --format")
            self._rows += self._ROW.pack(query, rank, hit.id, hit.distance)

    def finish(self) -> None:
        """Write the array."""
        self.out.write(npy_preamble(self._DTYPE, (len(self._rows) // self._ROW.size,)))
        self.out.write(self._rows)


def hit_writer(
    output_format: OutputFormat,
    out: Output,
    *,
    with_metadata: bool = True,
    with_vectors: bool = False,
    columns: Sequence[str] | None = None,
) -> HitWriter:
    """Return the writer of a format. Only what the format needs is imported."""
    writer: type[HitWriter]
    if output_format is OutputFormat.JSONL:
        writer = JsonLinesWriter
    elif output_format is OutputFormat.CSV:
        writer = CsvWriter
    elif output_format is OutputFormat.NPY:
        writer = NpyWriter
    elif output_format is OutputFormat.TABLE:
        from iqdb_cli.table import TableWriter

        writer = TableWriter
    else:
        from iqdb_cli.output_arrow import ARROW_WRITERS

        writer = ARROW_WRITERS[output_format]
    made = writer(out, with_metadata=with_metadata, with_vectors=with_vectors)
    made.columns = columns
    return made


def vector_json(vector: bytes) -> str:
    """Return float32 bytes as a JSON array; each number is the shortest that reads back as the same."""
    from iqdb_core import _kernels

    text: bytes = _kernels.format_f32_json(memoryview(vector).cast("f"))
    return text.decode("ascii")
