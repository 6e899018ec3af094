"""From ids to rows of one snapshot: lazily at first, at a kernel's speed when asked often."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from iqdb_core import _kernels
from iqdb_core.errors import StructureError
from iqdb_core.storage.layout import (
    ID_BYTES,
    ID_ENCODING_U64,
    ID_KIND_BYTES,
    ID_KIND_INT,
    ID_KIND_STR,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
)

if TYPE_CHECKING:
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.types import VectorId

_ID_SECTIONS = (IDS, ID_KINDS, ID_OFFSETS, ID_BYTES, ID_ORDER)
# What one lazy search costs is about what verifying this many bytes does: when the lazy searches have
# cost as much as verifying everything would, everything is verified, and the kernel searches.
_BYTES_PER_SEARCH = 100_000
_FEWEST_SEARCHES = 16


class IdLookup:
    """Finds the rows of ids. Safe to use from several threads."""

    __slots__ = ("_columns", "_order", "_remaining", "_snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        stored = sum(snapshot.sections[name].raw_bytes for name in _ID_SECTIONS if name in snapshot.sections)
        self._remaining = max(_FEWEST_SEARCHES, stored // _BYTES_PER_SEARCH)
        self._columns: tuple[memoryview, ...] = ()
        self._order: memoryview | None = None

    def find(self, record_id: VectorId) -> int:
        """Return the row of an id, or -1.

        Raises:
            DamagedError: the stored ids that it takes to tell are damaged.
        """
        if not self._columns:
            if self._remaining > 0 or not self._snapshot.n_rows:
                self._remaining -= 1
                return self._snapshot.find(record_id)
            self._verify()
        row = array("q", (-1,))
        try:
            if len(self._columns) == 1:
                if isinstance(record_id, int):
                    _kernels.lookup_u64(self._columns[0], self._order, array("Q", (record_id,)), row)
            else:
                kind, raw = _stored_form(record_id)
                ends = array("Q", (0, len(raw)))
                kinds, offsets, data = self._columns
                _kernels.lookup_var(kinds, offsets, data, self._order, bytes((kind,)), ends, raw, row)
        except ValueError as error:
            raise StructureError(
                self._snapshot.path, "ids", "offsets and rows in range", str(error)
            ) from error
        return row[0]

    def _verify(self) -> None:
        snapshot = self._snapshot
        self._order = snapshot.array(ID_ORDER) if ID_ORDER in snapshot.sections else None
        if snapshot.header.id_encoding == ID_ENCODING_U64:
            self._columns = (snapshot.array(IDS),)
        else:
            self._columns = tuple(map(snapshot.array, (ID_KINDS, ID_OFFSETS, ID_BYTES)))


def _stored_form(record_id: VectorId) -> tuple[int, bytes]:
    if isinstance(record_id, str):
        return ID_KIND_STR, record_id.encode()
    if isinstance(record_id, bytes):
        return ID_KIND_BYTES, record_id
    return ID_KIND_INT, record_id.to_bytes(8, "little")
