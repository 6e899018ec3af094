"""Tables for a terminal.

Of rich only the width of characters is used: its tables take longer to import than a search takes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, set_cell_size

from iqdb_cli import terminal
from iqdb_cli.hit_formats import HitWriter
from iqdb_cli.ids import format_id
from iqdb_cli.output import Output

if TYPE_CHECKING:
    from iqdb_core.hits import Hit
    from iqdb_core.types import MetadataValue, VectorId

# Metadata gets columns of its own while each has this much room; else it is one column of key=value.
MIN_COLUMN_WIDTH = 8
MAX_METADATA_COLUMNS = 6
MAX_ID_WIDTH = 24
# No cell shows more than this, and rich need not measure a text of megabytes.
MAX_CELL_CHARS = 400
_GAP = 2
_SHOWN_COMPONENTS = 3


class Column(NamedTuple):
    """A column before its width is known. One that may not be cut is as wide as its widest cell."""

    name: str
    cells: Sequence[str]
    right: bool = False
    may_be_cut: bool = False

    @property
    def natural_width(self) -> int:
        """The width that shows everything."""
        return max(map(cell_len, (self.name, *self.cells)))


class TableWriter(HitWriter):
    """A table a query, as wide as the terminal; long cells end in an ellipsis."""

    def __init__(self, out: Output, *, with_metadata: bool, with_vectors: bool) -> None:
        super().__init__(out, with_metadata=with_metadata, with_vectors=with_vectors)
        self._held: tuple[int, Sequence[Hit], Sequence[bytes]] | None = None
        self._single = True

    def write(self, query: int, hits: Sequence[Hit], vectors: Sequence[bytes]) -> None:
        """Show the hits of the query before; whether there are several queries decides about headings."""
        if self._held is not None:
            self._single = False
            self._show(*self._held)
        self._held = (query, hits, vectors)

    def finish(self) -> None:
        """Show the hits of the last query."""
        if self._held is not None:
            self._show(*self._held)

    def _show(self, query: int, hits: Sequence[Hit], vectors: Sequence[bytes]) -> None:
        if not self._single:
            self.out.write_line(f"query {query}")
        if hits:
            shown = [self.metadata_of(hit) if self.with_metadata else None for hit in hits]
            self.out.write_line(hit_table(hits, shown, vectors))
        else:
            self.out.write_line("no hits")
        if not self._single:
            self.out.write_line("")


def hit_table(
    hits: Sequence[Hit],
    metadata: Sequence[Mapping[str, MetadataValue] | None],
    vectors: Sequence[bytes] = (),
) -> str:
    """Return a table of hits, at least one, at most as wide as the terminal.

    Args:
        hits: the hits, nearest first.
        metadata: what is shown of the metadata of each.
        vectors: the float32 vector of each, or none of them.
    """
    integers = all(isinstance(hit.id, int) for hit in hits)
    columns = [
        Column("rank", [str(rank) for rank in range(1, len(hits) + 1)], right=True),
        Column("id", [cell(format_id(hit.id), MAX_ID_WIDTH) for hit in hits], right=integers),
        Column("distance", distance_cells([hit.distance for hit in hits]), right=True),
    ]
    if vectors:
        columns.append(Column("vector", [vector_text(vector) for vector in vectors]))
    width = terminal.width()
    room = width - sum(column.natural_width + _GAP for column in columns) + _GAP
    columns += _metadata_columns(metadata, room)
    return _render_columns(columns, width)


def _metadata_columns(all_metadata: Sequence[Mapping[str, MetadataValue] | None], room: int) -> list[Column]:
    keys = list(dict.fromkeys(key for metadata in all_metadata for key in metadata or ()))
    if not keys:
        return []
    if len(keys) <= MAX_METADATA_COLUMNS:
        columns = [_metadata_column(key, all_metadata) for key in keys]
        if sum(_GAP + min(column.natural_width, MIN_COLUMN_WIDTH) for column in columns) <= room:
            return columns
    return [Column("metadata", [cell(_pairs(metadata)) for metadata in all_metadata], may_be_cut=True)]


def _metadata_column(key: str, all_metadata: Sequence[Mapping[str, MetadataValue] | None]) -> Column:
    values = [metadata[key] for metadata in all_metadata if metadata and key in metadata]
    return Column(
        cell(key),
        [
            cell(value_text(metadata[key])) if metadata and key in metadata else ""
            for metadata in all_metadata
        ],
        right=all(type(value) in {int, float} for value in values),
        may_be_cut=True,
    )


def _render_columns(columns: Sequence[Column], width: int) -> str:
    widths = _column_widths(columns, width)
    heading = _line([column.name for column in columns], columns, widths)
    # No line is longer than the rule, so that copying a table copies no blanks.
    rule = "─" * min(width, sum(widths) + _GAP * (len(widths) - 1))
    rows = zip(*(column.cells for column in columns), strict=True)
    return "\n".join([terminal.bold(heading), rule, *(_line(row, columns, widths) for row in rows)])


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    parts = []
    for text, column, width in zip(cells, columns, widths, strict=True):
        shown = text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
        blanks = " " * (width - cell_len(shown))
        parts.append(blanks + shown if column.right else shown + blanks)
    return (" " * _GAP).join(parts).rstrip()


def _column_widths(columns: Sequence[Column], width: int) -> list[int]:
    """Give columns that may be cut an equal share, and what narrow ones leave to the wide ones."""
    widths = [column.natural_width for column in columns]
    room = (
        width
        - _GAP * (len(columns) - 1)
        - sum(widths[i] for i, column in enumerate(columns) if not column.may_be_cut)
    )
    flexible = sorted((i for i, column in enumerate(columns) if column.may_be_cut), key=lambda i: widths[i])
    for position, i in enumerate(flexible):
        share = max(1, room // (len(flexible) - position))
        widths[i] = min(widths[i], share)
        room -= widths[i]
    return widths


def record_lines(
    record_id: VectorId, metadata: Mapping[str, MetadataValue] | None, vector: bytes
) -> Iterator[str]:
    """Yield one record line by line: the whole metadata, long values wrapped."""
    rows = [("id", format_id(record_id)), ("vector", vector_text(vector))]
    rows += [(key, value_text(value)) for key, value in (metadata or {}).items()]
    names = [cell(name) for name, _ in rows]
    indent = min(max(map(cell_len, names)), MAX_ID_WIDTH) + _GAP
    room = max(terminal.width() - indent, MIN_COLUMN_WIDTH)
    for name, (_, text) in zip(names, rows, strict=True):
        lines = [part for line in text.split("\n") for part in _wrapped(terminal.printable(line), room)]
        yield terminal.bold(name) + " " * max(1, indent - cell_len(name)) + lines[0]
        for line in lines[1:]:
            yield " " * indent + line


def _wrapped(text: str, width: int) -> Iterator[str]:
    start = 0
    while True:
        # Only what can fit is measured: a text may have megabytes.
        line = text[start : start + width + 1]
        if cell_len(line) <= width and start + len(line) == len(text):
            yield line
            return
        end = len(line)
        while cell_len(line[:end]) > width:
            end -= 1
        blank = line.rfind(" ", 1, end + 1)
        cut = blank if blank > 0 else max(1, end)
        yield line[:cut]
        start += cut + (line[cut : cut + 1] == " ")


def aligned(rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: int = 0) -> list[str]:
    """Return rows as lines with aligned columns; the columns in `right` are numbers."""
    cells = [[terminal.printable(text) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = [
            " " * (widths[i] - cell_len(text)) + text
            if i in right
            else text + " " * (widths[i] - cell_len(text))
            for i, text in enumerate(row)
        ]
        lines.append((" " * indent + "  ".join(padded)).rstrip())
    return lines


def cell(text: str, limit: int = MAX_CELL_CHARS) -> str:
    """Return text that stays on one line and cannot steer the terminal."""
    shown = terminal.printable(text[: limit + 1].replace("\n", "\\n"))
    return shown if len(text) <= limit else shown[: limit - 1] + "…"


def distance_cells(distances: Sequence[float]) -> list[str]:
    """Return distances with the same number of decimals, so that they align at the point."""
    if any(abs(distance) >= 1e9 for distance in distances):
        return [f"{distance:.6e}" for distance in distances]
    decimals = 0 if all(distance == int(distance) for distance in distances) else 6
    return [f"{distance:.{decimals}f}" for distance in distances]


def value_text(value: MetadataValue) -> str:
    """Return a metadata value as people read it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return str(value)


def _pairs(metadata: Mapping[str, MetadataValue] | None) -> str:
    return " ".join(f"{key}={value_text(value)}" for key, value in (metadata or {}).items())


def vector_text(vector: bytes) -> str:
    """Return the beginning of a float32 vector and its dimension."""
    dim = len(vector) // 4
    shown = struct.unpack_from(f"={min(dim, _SHOWN_COMPONENTS)}f", vector)
    numbers = ", ".join(f"{value:.4g}" for value in shown)
    return f"[{numbers}]" if dim <= _SHOWN_COMPONENTS else f"[{numbers}, …] ({dim})"
