"""The index kinds behind one protocol: arrays in, arrays out; no file, no lock, no filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iqdb_core.types import IndexKind

if TYPE_CHECKING:
    from iqdb_core.index.protocol import Index

# The kinds that this release can build.
SUPPORTED_INDEX_KINDS: Final[tuple[IndexKind, ...]] = (IndexKind.FLAT, IndexKind.HNSW, IndexKind.IVF)


def index_class(kind: IndexKind) -> type[Index]:
    """Return the class that implements an index kind. The only place that chooses one.

    Raises:
        InvalidConfigError: this release describes the kind but does not implement it.
    """
    if kind not in SUPPORTED_INDEX_KINDS:
        from iqdb_core.errors import InvalidConfigError

        kinds = ", ".join(supported.value for supported in SUPPORTED_INDEX_KINDS)
        raise InvalidConfigError("index", kind.value, f"a kind that this release builds: {kinds}")
    if kind is IndexKind.HNSW:
        from iqdb_core.index.hnsw import HnswIndex

        return HnswIndex
    if kind is IndexKind.IVF:
        from iqdb_core.index.ivf import IvfIndex

        return IvfIndex
    from iqdb_core.index.flat import FlatIndex

    return FlatIndex
