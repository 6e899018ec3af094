"""The index kinds behind one protocol: arrays in, arrays out; no file, no lock, no filter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqdb_core.config import IndexKind
    from iqdb_core.index.protocol import Index


def index_class(kind: IndexKind) -> type[Index]:
    """Return the class that implements an index kind. The only place that chooses one.

    Raises:
        InvalidConfigError: this release describes the kind but does not implement it.
    """
    from iqdb_core.config import require_supported_kind

    require_supported_kind(kind)
    from iqdb_core.index.flat import FlatIndex

    return FlatIndex
