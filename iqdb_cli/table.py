"""Tables for a terminal. This module imports rich."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
# No cell shows more than this, and rich need not measure a text of megabytes.
MAX_CELL_CHARS = 400
_SHOWN_COMPONENTS = 3


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
        if not hits:
            self.out.write_line("no hits")
        else:
            extra = {"distance": distance_cells([hit.distance for hit in hits])}
            records = [
                (hit.id, hit.metadata if self.with_metadata else None, vectors[i] if vectors else None)
                for i, hit in enumerate(hits)
            ]
            self.out.write_line(record_table(records, extra).rstrip("\n"))
        if not self._single:
            self.out.write_line("")


def record_table(
    records: Sequence[tuple[VectorId, Mapping[str, MetadataValue] | None, bytes | None]],
    extra: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return a table of records: id, numeric columns of the caller's, vector if there is one, metadata."""
    width = terminal.width()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
    ids = [cell(format_id(record_id)) for record_id, _, _ in records]
    integers = all(isinstance(record_id, int) for record_id, _, _ in records)
    columns: list[tuple[str, Sequence[str]]] = [("id", ids)]
    table.add_column("id", justify="right" if integers else "left", no_wrap=True, overflow="ellipsis")
    for name, cells in (extra or {}).items():
        table.add_column(name, justify="right", no_wrap=True, min_width=max(map(len, cells), default=0))
        columns.append((name, cells))
    if any(vector is not None for _, _, vector in records):
        table.add_column("vector", no_wrap=True, overflow="ellipsis")
        columns.append(("vector", [_vector_cell(vector) for _, _, vector in records]))
    used = sum(2 + max(map(len, (name, *cells))) for name, cells in columns)
    columns += _metadata_columns(table, [metadata for _, metadata, _ in records], width - used)
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*(Text(text) for text in row))
    return render(table, width)


def _metadata_columns(
    table: Table, all_metadata: Sequence[Mapping[str, MetadataValue] | None], room: int
) -> list[tuple[str, Sequence[str]]]:
    keys = list(dict.fromkeys(key for metadata in all_metadata for key in metadata or ()))
    if not keys:
        return []
    fits = len(keys) <= MAX_METADATA_COLUMNS and all(len(key) <= 2 * MIN_COLUMN_WIDTH for key in keys)
    if fits and room >= len(keys) * (MIN_COLUMN_WIDTH + 2):
        columns = []
        for key in keys:
            values = [None if metadata is None else metadata.get(key, "") for metadata in all_metadata]
            numeric = all(value in ("", None) or type(value) in {int, float} for value in values)
            table.add_column(
                Text(cell(key)), justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis"
            )
            columns.append((key, [cell(_value_text(value)) for value in values]))
        return columns
    table.add_column("metadata", no_wrap=True, overflow="ellipsis")
    return [("metadata", [cell(_pairs(metadata)) for metadata in all_metadata])]


def key_value_table(rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), header: Sequence[str] = ()) -> str:
    """Return aligned rows without rules; the columns in `right` are numbers."""
    table = Table(box=None, pad_edge=False, show_header=bool(header), padding=(0, 2, 0, 0))
    first, *rest = [list(row) for row in rows]
    for i in range(len(first)):
        table.add_column(
            header[i] if header else "", justify="right" if i in right else "left", overflow="fold"
        )
    for row in [first, *rest]:
        table.add_row(*(Text(terminal.printable(text)) for text in row))
    return render(table, terminal.width())


def render(table: Table, width: int) -> str:
    """Return a table as text of at most `width` columns, in colour only on a terminal."""
    colour = terminal.stdout_is_terminal()
    console = Console(width=width, force_terminal=colour, no_color=None if colour else True, highlight=False)
    with console.capture() as capture:
        console.print(table)
    # Trailing blanks only make a copied table wider.
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def cell(text: str) -> str:
    """Return text that stays on one line and cannot steer the terminal."""
    return terminal.printable(text[:MAX_CELL_CHARS].replace("\n", "\\n"))


def distance_cells(distances: Sequence[float]) -> list[str]:
    """Return distances with the same number of decimals, so that they align at the point."""
    whole = all(distance == int(distance) for distance in distances)
    large = any(abs(distance) >= 1e9 for distance in distances)
    return [f"{distance:.6g}" if large else f"{distance:.0f}" if whole else f"{distance:.6f}" for distance in distances]


def _pairs(metadata: Mapping[str, MetadataValue] | None) -> str:
    return " ".join(f"{key}={_value_text(value)}" for key, value in (metadata or {}).items())


def _value_text(value: MetadataValue) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    return str(value)


def _vector_cell(vector: bytes | None) -> str:
    if vector is None:
        return ""
    dim = len(vector) // 4
    shown = struct.unpack_from(f"={min(dim, _SHOWN_COMPONENTS)}f", vector)
    numbers = ", ".join(f"{value:.4g}" for value in shown)
    return f"[{numbers}]" if dim <= _SHOWN_COMPONENTS else f"[{numbers}, ...] ({dim})"
