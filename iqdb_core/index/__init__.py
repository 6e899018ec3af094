"""The index kinds behind one protocol: arrays in, arrays out; no file, no lock, no filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from iqdb_core.types import IndexKind

if TYPE_CHECKING:
    from iqdb_core.index.protocol import Index

SUPPORTED_INDEX_KINDS: Final = (IndexKind.FLAT, IndexKind.HNSW, IndexKind.IVF)


def index_class(kind: IndexKind) -> type[Index]:
    """Return the class that implements an index kind. The only place that chooses one."""
    if kind is IndexKind.HNSW:
        from iqdb_core.index.hnsw import HnswIndex

        return HnswIndex
    if kind is IndexKind.IVF:
        from iqdb_core.index.ivf import IvfIndex

        return IvfIndex
    from iqdb_core.index.flat import FlatIndex

    return FlatIndex
