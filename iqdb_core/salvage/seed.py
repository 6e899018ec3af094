"""The database id's part in block checksums, found without the id.

Every block checksum begins with crc32c(database_id), one number for the whole file, and a CRC is an affine
function of what it begins with. So each whole block gives that number back, and blocks that agree on it prove
one another, though the header that has the id is gone.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from iqdb_core._kernels import crc32c

if TYPE_CHECKING:
    from collections.abc import Iterable

_BITS = 32


def seed_of_block(name: bytes, number: int, data: bytes, checksum: int) -> int | None:
    """Return the value of crc32c(database_id) with which a block has its checksum; None if there is none.

    Args:
        name: the section's name, as it enters the checksum (24 bytes).
        number: the block's number.
        data: its bytes.
        checksum: what it should have.
    """
    behind = name + number.to_bytes(8, "little") + data
    constant = crc32c(behind, 0)
    columns = [crc32c(behind, 1 << bit) ^ constant for bit in range(_BITS)]
    return _solved(columns, checksum ^ constant)


def _solved(columns: list[int], target: int) -> int | None:
    """Return x such that the exclusive or of the columns at its bits is `target` (Gaussian elimination)."""
    pivots: list[tuple[int, int]] = []
    for bit, column in enumerate(columns):
        vector, combination = column, 1 << bit
        for pivot, pivot_combination in pivots:
            if vector ^ pivot < vector:
                vector ^= pivot
                combination ^= pivot_combination
        if vector:
            pivots.append((vector, combination))
            pivots.sort(reverse=True)
    x = 0
    for pivot, combination in pivots:
        if target ^ pivot < target:
            target ^= pivot
            x ^= combination
    return None if target else x


def agreed_seed(found: Iterable[int | None]) -> int | None:
    """Return the seed on which at least two blocks agree, and more than on any other."""
    counts = Counter(seed for seed in found if seed is not None).most_common(2)
    if not counts or counts[0][1] < 2 or (len(counts) > 1 and counts[1][1] == counts[0][1]):
        return None
    return counts[0][0]
