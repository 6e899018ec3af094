"""The metadata groups of a damaged snapshot.

A group says itself how many rows and bytes it has, and `meta.rows` and `meta.groups` say it too, so one of
both is enough to find the next. Within a damaged group a record's metadata is kept when no byte that it is
made of is damaged. It is kept whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from iqdb_core.errors import ChecksumError, DamagedError
from iqdb_core.records import MetadataColumns
from iqdb_core.storage.columns import GroupView
from iqdb_core.storage.columns_layout import GROUP_HEADER, GROUP_HEADER_BYTES
from iqdb_core.storage.layout import GROUP_ROWS, META_DATA, META_GROUPS, META_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from iqdb_core.salvage.sections import SalvagedSection
    from iqdb_core.types import Metadata


class Group(NamedTuple):
    """Rows first..last and where their metadata are in `meta.data`; stop is -1 where that is unknown."""

    first_row: int
    last_row: int
    start: int
    stop: int


def find_groups(sections: Mapping[str, SalvagedSection], n_rows: int) -> list[Group]:
    """Return the groups in their order; together they have all rows, also where it is not known how many."""
    data = sections[META_DATA]
    rows = _numbers(sections[META_ROWS], n_rows)
    starts = _numbers(sections[META_GROUPS], data.entry.raw_bytes)
    count = len(rows) - 1
    rows[0], rows[count], starts[0], starts[count] = 0, n_rows, 0, data.entry.raw_bytes
    known_rows = [row for row in rows if row is not None]
    known_starts = [start for start in starts if start is not None]
    if known_rows != sorted(set(known_rows)) or known_starts != sorted(set(known_starts)):
        return _in_pieces(0, n_rows)
    for number in range(count):
        row, start = rows[number], starts[number]
        if row is None or start is None:
            continue
        head = _head(data, start)
        if head is not None:
            # Both say the same, or nothing that follows can be relied upon.
            rows[number + 1] = row + head[0] if rows[number + 1] is None else rows[number + 1]
            starts[number + 1] = start + head[1] if starts[number + 1] is None else starts[number + 1]
    groups: list[Group] = []
    first, begin = 0, 0
    reached = 0  # the number of the group that begins at row `first`
    for number in range(1, count + 1):
        row, start = rows[number], starts[number]
        if row is None:
            continue
        if not first < row <= n_rows:
            return _in_pieces(0, n_rows)
        if number == reached + 1 and start is not None and begin >= 0 and row - first <= GROUP_ROWS:
            groups.append(Group(first, row, begin, start))
        else:
            groups += _in_pieces(first, row)
        first, begin, reached = row, -1 if start is None else start, number
    return groups


def _in_pieces(first: int, last: int) -> list[Group]:
    """Return rows of which nothing is known, a bounded number at once."""
    return [Group(row, min(row + GROUP_ROWS, last), 0, -1) for row in range(first, last, GROUP_ROWS)]


def _numbers(section: SalvagedSection, most: int) -> list[int | None]:
    """Return the numbers of a section, None where they are lost or cannot be right."""
    count = section.entry.shape0
    lost = section.lost_items(0, count, 8).tolist()
    values = np.frombuffer(section.raw(0, 8 * count), np.uint64).tolist()
    return [None if gone or value > most else value for value, gone in zip(values, lost, strict=True)]


def _head(data: SalvagedSection, start: int) -> tuple[int, int] | None:
    """Return how many rows and bytes the group at `start` says it has."""
    if data.lost(start, start + GROUP_HEADER_BYTES):
        return None
    n_rows, _, _, _, blob_bytes = GROUP_HEADER.unpack(data.raw(start, start + GROUP_HEADER_BYTES))
    if not 0 < n_rows <= GROUP_ROWS or not blob_bytes >= GROUP_HEADER_BYTES:
        return None
    return n_rows, blob_bytes


def read_group(data: SalvagedSection, group: Group, path: str) -> tuple[MetadataColumns, NDArray[np.bool_]]:
    """Return the metadata of a group's rows, and for which of them it is proved."""
    n_rows = group.last_row - group.first_row
    nothing = MetadataColumns.none(n_rows), np.zeros(n_rows, np.bool_)
    if not group.start <= group.stop <= data.entry.raw_bytes:
        return nothing

    def ensure(start: int, stop: int) -> None:
        if data.lost(group.start + start, group.start + stop):
            raise ChecksumError(path, "metadata", data.entry.offset)

    try:
        view = GroupView(data.raw(group.start, group.stop), path, "metadata group", ensure)
        if view.n_rows != n_rows:
            return nothing
        if not data.lost(group.start, group.stop):
            return view.to_columns(), np.ones(n_rows, np.bool_)
    except DamagedError:
        return nothing
    known = np.zeros(n_rows, np.bool_)
    mappings: list[Metadata | None] = [None] * n_rows
    for row in range(n_rows):
        try:
            mappings[row] = view.row(row)
        except DamagedError:
            continue
        known[row] = True
    return MetadataColumns.from_dicts(mappings), known
