"""What every index kind implements, and the plain data that passes between it and the handle.

An index sees rows, vectors and a mask of candidate rows. It knows nothing of files, locks, ids,
metadata or filters: storage writes the named arrays that it emits, as sections flagged "derived", and
hands them back when the database is opened. Distances that an index returns are the canonical float64
distances of the stored vectors, so that every kind gives the same distance for the same record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from iqdb_core.config import IqdbConfig
    from iqdb_core.index.topk import TopK
    from iqdb_core.types import IndexKind

Buffer: TypeAlias = Any
"""Any object with the buffer protocol, C-contiguous: memoryview, bytearray, array or ndarray."""

ArrayReader: TypeAlias = "Callable[[str], StoredArray | None]"
"""Returns a named array of the snapshot, or None when the snapshot has none of that name."""

IndexArrays: TypeAlias = "Mapping[str, NDArray[Any]]"
"""What an index persists: one- or two-dimensional arrays by section name ("hnsw.links")."""


SingleSearch: TypeAlias = "Callable[[object, object, object, object], tuple[list[int], list[float]] | None]"
"""(query, k, ef, n_probes) -> rows and distances of the nearest; None: ask `Index.search`."""


class StoredArray(Protocol):
    """A persisted array of an index.

    Attributes:
        buffer: the array in its type and shape, for kernels that verify what they use by `blocks`.
        blocks: (crcs, verified, prefix) as in `VectorBlock`.
    """

    @property
    def buffer(self) -> memoryview: ...  # noqa: D102 - see the class
    @property
    def blocks(self) -> tuple[Buffer, Buffer, int]: ...  # noqa: D102

    def verified(self) -> memoryview:
        """Return the array, all of it verified."""

    def damaged(self, block: int) -> Exception:
        """Return the error that reports a block whose checksum is wrong."""


class VectorBlock(Protocol):
    """The stored vectors of one snapshot as kernels take them.

    Attributes:
        buffer: f32[n, dim].
        block_crcs: u32 checksum per 4 KiB of `buffer`, or None when the values are already verified.
        verified: u8 per block, 1 once its checksum was compared; shared by all searches.
        crc_prefix: the value with which the checksums begin.
    """

    @property
    def buffer(self) -> Buffer: ...  # noqa: D102 - see the class
    @property
    def block_crcs(self) -> Buffer | None: ...  # noqa: D102
    @property
    def verified(self) -> Buffer | None: ...  # noqa: D102
    @property
    def crc_prefix(self) -> int: ...  # noqa: D102


class VectorReader(Protocol):
    """All vectors of a snapshot that is being written, for building an index over them."""

    n_rows: int
    dim: int

    def slabs(self, rows_per_slab: int) -> Iterator[NDArray[Any]]:
        """Yield f32[up to rows_per_slab, dim], in row order, verified."""

    def take(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return f32[len(rows), dim], verified."""


class Index(Protocol):
    """One index over the rows of one snapshot. Immutable, and safe to search from many threads."""

    kind: ClassVar[IndexKind]
    parameters: ClassVar[frozenset[str]]
    """Names of the search parameters that this kind has, of `ef` and `n_probes`."""

    @classmethod
    def open(cls, settings: Mapping[str, Any], metric_tag: int, n_rows: int, arrays: ArrayReader) -> Index:
        """Return the index of a snapshot in time that does not depend on `n_rows`.

        `settings` is the index configuration as the file has it: `IndexConfig.to_dict`.

        Arrays are fetched when a search first needs them, so that a damaged one never stands in the
        way of exact search, export or a rebuild.
        """

    @classmethod
    def build(cls, config: IqdbConfig, vectors: VectorReader, threads: int) -> IndexArrays:
        """Return the arrays of a new index; the same for any number of threads and any CPU."""

    def update(
        self, config: IqdbConfig, vectors: VectorReader, origin: NDArray[Any], threads: int
    ) -> IndexArrays:
        """Return this index's arrays brought up to a new snapshot.

        Args:
            config: the configuration of the new snapshot, of the same kind.
            vectors: the vectors of the new snapshot.
            origin: i64[new n_rows], for each new row the row of this index that holds the same
                vector, ascending, or -1 when its vector is new or was replaced.
            threads: threads to use.
        """

    def search(
        self,
        vectors: VectorBlock,
        queries: Buffer,
        out: TopK,
        *,
        mask: Buffer | None,
        max_distance: float,
        exact: bool,
        parameters: Mapping[str, int],
        threads: int,
    ) -> int:
        """Find the nearest rows of each query, ordered by distance, then row.

        Args:
            vectors: the stored vectors.
            queries: f32[out.n_queries, dim], finite.
            out: receives the results; every list holds min(k, candidates within max_distance) hits.
            mask: u8 bits, 1 = candidate row (bit r & 7 of byte r >> 3); None = every row.
            max_distance: leave out rows farther than this.
            exact: scan every candidate.
            parameters: search parameters that the caller set, only names in `self.parameters`.
            threads: threads to use.

        Returns:
            -1, or the number of the first 4 KiB block of the vectors whose checksum is wrong; the
            results are then void.
        """
