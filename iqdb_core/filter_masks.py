"""Filters over a snapshot's metadata, group by group, as row bitmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqdb_core.filters_eval import evaluate_group

if TYPE_CHECKING:
    from iqdb_core.filters import Filter
    from iqdb_core.storage.snapshot import Snapshot


def snapshot_mask(snapshot: Snapshot, condition: Filter) -> bytearray:
    """Return the bitmap of the rows whose metadata meets a filter.

    Only the columns that the filter names are verified and decoded.

    Raises:
        DamagedError: metadata that the filter needs is damaged.
    """
    n_rows = snapshot.n_rows
    if not snapshot.has_metadata:
        byte = 0xFF if condition.matches(None) else 0
        return bytearray([byte]) * ((n_rows + 7) >> 3)
    matches = np.empty(n_rows, np.bool_)
    keys = condition.keys()
    for first, last, group in snapshot.groups():
        group.check_keys(keys)
        matches[first:last] = evaluate_group(condition, group)
    return bytearray(np.packbits(matches, bitorder="little"))
