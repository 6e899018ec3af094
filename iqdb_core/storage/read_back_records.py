"""Reading records of any kind back: any ids in any order, metadata. See `read_back`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqdb_core import _kernels
from iqdb_core.digest import digest_of_parts, sequence_sum
from iqdb_core.errors import StructureError
from iqdb_core.records import Ids
from iqdb_core.storage.columns import GroupView
from iqdb_core.storage.layout import ID_BYTES, ID_KINDS, ID_OFFSETS, ID_ORDER, IDS, META_DATA, VECTORS
from iqdb_core.storage.read_back import ReadBack, vector_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.storage.stored_section import StoredSection

_STEP_ROWS = 1 << 16


def read_records(
    sections: dict[str, StoredSection], start: int, stop: int, group: tuple[int, ...] | None
) -> ReadBack:
    """Read rows start..stop.

    Args:
        sections: all sections of the file.
        start: the first row.
        stop: the last one + 1.
        group: the number, the first byte and the last + 1 of the metadata group that these rows are.

    Raises:
        FileIOError, DamagedError: see `read_back`.
    """
    vectors = sections[VECTORS]
    metadata = None
    if group is not None:
        number, begin, end = group
        name = f"metadata group {number}"
        view = GroupView(sections[META_DATA].read(begin, end), vectors.path, name)
        if view.n_rows != stop - start:
            raise StructureError(vectors.path, name, f"{stop - start} rows", view.n_rows)
        metadata = view.to_columns()
    hashes = np.empty((stop - start, 2), np.uint64)
    for first, last, raw in vector_pieces(vectors, start, stop):
        values = np.frombuffer(raw, np.float32).reshape(last - first, vectors.entry.shape1)
        _kernels.hash_vectors(values, hashes[first - start : last - start])
    ids = _read_ids(sections, start, stop)
    return ReadBack(digest_of_parts(ids, hashes, metadata), sequence_sum(ids, np.arange(start, stop)))


def are_in_order(sections: dict[str, StoredSection], n_rows: int) -> bool:
    """Say whether every record is found by its id. There is at least one.

    Raises:
        StructureError: the order names a row that is not there.
    """
    order = None
    if ID_ORDER in sections:
        order = np.frombuffer(sections[ID_ORDER].read_all(), np.uint32)
        if int(order.max()) >= n_rows:
            path = sections[ID_ORDER].path
            raise StructureError(path, "the order of the ids", f"rows below {n_rows}", int(order.max()))
    if IDS not in sections:
        return _are_found(sections, order)
    # Strictly ascending values are different ones: then the order names every row once, too.
    ids = np.frombuffer(sections[IDS].read_all(), np.uint64)
    return _kernels.ids_ascend(ids if order is None else ids[order], None)


def _read_ids(sections: dict[str, StoredSection], start: int, stop: int) -> Ids:
    if IDS in sections:
        return Ids.from_u64(np.frombuffer(sections[IDS].read(8 * start, 8 * stop), np.uint64))
    kinds = np.frombuffer(sections[ID_KINDS].read(start, stop), np.uint8)
    offsets = np.frombuffer(sections[ID_OFFSETS].read(8 * start, 8 * stop + 8), np.uint64)
    data = np.frombuffer(sections[ID_BYTES].read(int(offsets[0]), int(offsets[-1])), np.uint8)
    # Not normalised: where not all ids of the file are integers, these here may be.
    ids = Ids(None, kinds, offsets - offsets[0], data)
    problem = ids.first_problem()
    if problem is not None:
        row, reason = problem
        raise StructureError(sections[ID_KINDS].path, f"the id of row {start + row}", "an id", reason)
    return ids


def _are_found(sections: dict[str, StoredSection], order: NDArray[np.uint32] | None) -> bool:
    """Look every id up as a reader does."""
    kinds, offsets, data = (sections[name].read_all() for name in (ID_KINDS, ID_OFFSETS, ID_BYTES))
    n_rows = len(kinds)
    for start in range(0, n_rows, _STEP_ROWS):
        stop = min(start + _STEP_ROWS, n_rows)
        ends = np.frombuffer(offsets, np.uint64)[start : stop + 1]
        asked = kinds[start:stop], ends - ends[0], data[int(ends[0]) : int(ends[-1])]
        rows = np.empty(stop - start, np.int64)
        try:
            _kernels.lookup_var(kinds, offsets.cast("Q"), data, order, *asked, rows)
        except ValueError:
            return False
        if not np.array_equal(rows, np.arange(start, stop)):
            return False
    return True
