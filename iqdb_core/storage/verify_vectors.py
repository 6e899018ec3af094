"""The vectors of a snapshot, checked and hashed for the content digest, each of them read once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from iqdb_core import _kernels
from iqdb_core.errors import ChecksumError, StructureError
from iqdb_core.storage.layout import VECTORS
from iqdb_core.storage.verify import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from iqdb_core.storage.stored_section import StoredSection
    from iqdb_core.storage.verify_blocks import SectionBlocks
    from iqdb_core.storage.verify_report import Finding

_PIECE_BYTES = 1 << 20

Odd: TypeAlias = tuple[int, float] | None
"""The first component that is no finite number, counted from the first row in question, and what it is."""


class VectorCheck:
    """What is to be found out about vectors, range by range, from any thread."""

    def __init__(
        self,
        dim: int,
        blocks: SectionBlocks | None,
        section: StoredSection | None,
        finding: Callable[..., Finding],
    ) -> None:
        """Prepare to read.

        Args:
            dim: components of a vector.
            blocks: the blocks of the section where they were not looked at before, to be checked on the way.
            section: the section otherwise; None where it cannot be read.
            finding: makes a finding of a section's name, a place in it, a problem, an effect and a range.
        """
        self._dim = dim
        self._blocks = blocks
        self._section = section
        self._finding = finding

    def check(self, start: int, stop: int, hashes: NDArray[np.uint64]) -> tuple[bool, Finding | None]:
        """Hash rows start..stop into u64[stop - start][2].

        Returns:
            Whether all of them could be read, and what is wrong beyond checksums.
        """
        if self._blocks is None:
            complete, odd, finding = self._decoded(start, stop, hashes)
        else:
            complete, odd, finding = *self._read(self._blocks, start, hashes), None
        if not complete or odd is None:
            return complete, finding
        row, component = start + odd[0] // self._dim, odd[0] % self._dim
        problem = f"component {component} is {odd[1]}, expected a finite number"
        effect, at, width = "distances to it mean nothing", 4 * self._dim * row, 4 * self._dim
        return True, self._finding(VECTORS, f"row {row}", problem, effect, at, at + width)

    def _read(self, blocks: SectionBlocks, start: int, hashes: NDArray[np.uint64]) -> tuple[bool, Odd]:
        complete, odd = True, None
        step = max(1, _PIECE_BYTES // (4 * self._dim))
        for first in range(0, len(hashes), step):
            right, found = blocks.check_rows(start + first, hashes[first : first + step])
            complete = complete and right
            if odd is None and found is not None:
                odd = first * self._dim + found[0], found[1]
        return complete, odd

    def _decoded(self, start: int, stop: int, hashes: NDArray[np.uint64]) -> tuple[bool, Odd, Finding | None]:
        if self._section is None:
            return False, None, None
        try:
            raw = self._section.read(4 * self._dim * start, 4 * self._dim * stop)
        except ChecksumError:
            return False, None, None
        except StructureError as error:
            effect = f"searches that come to rows {start} to {stop - 1} fail"
            return False, None, self._finding(VECTORS, "", problem_of(error), effect)
        values = np.frombuffer(raw, np.float32).reshape(stop - start, self._dim)
        place = int(_kernels.check_finite(values))
        _kernels.hash_vectors(values, hashes)
        return True, None if place < 0 else (place, values.reshape(-1)[place]), None
