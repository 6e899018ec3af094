"""The persisted arrays of the kind `hnsw`, and a stored graph opened over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iqdb_core import _kernels
from iqdb_core.index.bits import BIT_TAG
from iqdb_core.index.codes import MODEL_HEAD
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from iqdb_core.index.protocol import ArrayReader, StoredArray

MODEL: Final = "hnsw.model"
CODES: Final = "hnsw.codes"
LENGTHS: Final = "hnsw.lengths"
COARSE: Final = "hnsw.coarse"
COARSE_LENGTHS: Final = "hnsw.coarse-lengths"
NORMS: Final = "hnsw.norms"
BOUNDS: Final = "hnsw.bounds"
LINKS: Final = "hnsw.links"
ENTRIES: Final = "hnsw.entries"
VALUES: Final = "hnsw.values"
BITS: Final = "hnsw.bits"

NO_ROW: Final = 0xFFFFFFFF  # in place of a neighbour

_ARRAYS: Final = (MODEL, CODES, LENGTHS, NORMS, BOUNDS, LINKS, ENTRIES, COARSE, COARSE_LENGTHS, VALUES, BITS)


class OpenGraph:
    """The arrays of a snapshot's graph and the kernel's view of them.

    Attributes:
        arrays: what is stored.
        codes: the name of the codes among them.
        degree: places for the neighbours of a node.
        stored: the kernel's view.
    """

    __slots__ = ("arrays", "codes", "degree", "stored")

    def __init__(self, metric: int, dim: int, arrays: dict[str, StoredArray]) -> None:
        self.arrays = arrays
        self.codes = CODES if metric != BIT_TAG else BITS
        links = arrays[LINKS].buffer
        self.degree = links.shape[1] if links.ndim == 2 and links.shape else 0
        self.stored = _kernels.StoredGraph(
            metric,
            dim,
            self.whole(MODEL if metric != BIT_TAG else VALUES),
            arrays[self.codes].buffer,
            self.whole(LENGTHS) if metric != BIT_TAG else None,
            arrays[LINKS].buffer,
            self.whole(ENTRIES),
            self.whole(NORMS) if NORMS in arrays else None,
            code_blocks=arrays[self.codes].blocks,
            link_blocks=arrays[LINKS].blocks,
            coarse=arrays[COARSE].buffer if COARSE in arrays else None,
            coarse_lengths=self.whole(COARSE_LENGTHS) if COARSE in arrays else None,
            coarse_blocks=arrays[COARSE].blocks if COARSE in arrays else None,
        )

    @classmethod
    def of(cls, metric: int, reader: ArrayReader) -> OpenGraph | None:
        """Return the graph that a snapshot has; None when an array of it is missing."""
        found = {name: reader(name) for name in _ARRAYS}
        arrays = {name: stored for name, stored in found.items() if stored is not None}
        if COARSE_LENGTHS not in arrays:
            arrays.pop(COARSE, None)
        if metric == BIT_TAG:
            arrays = {name: arrays[name] for name in (VALUES, BITS, LINKS, ENTRIES) if name in arrays}
            if len(arrays) < 4:
                return None
            return cls(metric, arrays[VALUES].buffer.nbytes // 8, arrays)
        needed = {MODEL, CODES, LENGTHS, LINKS, ENTRIES}
        if metric == DistanceMetric.DOT.tag:
            needed.add(NORMS)
        if not needed <= arrays.keys():
            return None
        return cls(metric, len(arrays[MODEL].buffer) - MODEL_HEAD, arrays)

    @property
    def has_bounds(self) -> bool:
        """Whether there are bounds of all rows."""
        return BOUNDS in self.arrays and self.arrays[BOUNDS].buffer.shape == (
            2,
            len(self.arrays[CODES].buffer),
        )

    def whole(self, name: str) -> memoryview:
        """Return an array, all of it verified."""
        return self.arrays[name].verified()
