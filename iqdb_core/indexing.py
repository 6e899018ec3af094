"""Building or updating the index of a snapshot that is being written, from the records it holds already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core.bitmap import unpack
from iqdb_core.config import IqdbConfig
from iqdb_core.errors import StructureError
from iqdb_core.index import index_class
from iqdb_core.search import unusable_index
from iqdb_core.storage.layout import FLAG_DERIVED
from iqdb_core.types import IndexKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from iqdb_core.index.protocol import IndexArrays
    from iqdb_core.new_snapshot import NewSnapshot
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.storage.snapshot_writer import SnapshotSummary, SnapshotWriter
    from iqdb_core.view import Base, View

# Settings that a search reads and no build does: changing one leaves the arrays of an index as they are.
SEARCH_SETTINGS: Final = frozenset({"ef_search", "filter_widen", "n_probes", "pq_refine_factor"})

_COMPARED_BYTES: Final = 1 << 20


def built_alike(settings: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two index configurations, as plain dicts, are the same but for what a search reads."""
    names = {*settings, *others} - SEARCH_SETTINGS
    return all(name in settings and name in others and settings[name] == others[name] for name in names)


class SnapshotVectors:
    """The vectors of a snapshot for building an index; a `VectorReader`.

    Attributes:
        n_rows: number of rows.
        dim: components of a vector.
    """

    def __init__(self, snapshot: Snapshot, threads: int) -> None:
        self.n_rows = snapshot.n_rows
        self.dim = snapshot.dim
        self._snapshot = snapshot
        self._threads = threads

    def slabs(self, rows_per_slab: int) -> Iterator[NDArray[np.float32]]:
        """Yield f32[up to rows_per_slab, dim], in row order, verified."""
        for start in range(0, self.n_rows, rows_per_slab):
            stop = min(start + rows_per_slab, self.n_rows)
            yield self._snapshot.vectors_slice(start, stop, threads=self._threads)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return f32[len(rows), dim], verified; without a copy where the rows follow one another."""
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        first, last = int(rows[0]), int(rows[-1])
        if last - first + 1 == len(rows) and (len(rows) == 1 or bool((np.diff(rows) == 1).all())):
            return self._snapshot.vectors_slice(first, last + 1, threads=self._threads)
        self._snapshot.ensure_vectors(rows.tolist(), threads=self._threads)
        everything = np.asarray(self._snapshot.vectors().buffer)
        return np.ascontiguousarray(everything[rows])


class Origin:
    """Where the rows of a new snapshot come from, and the index that has them.

    Attributes:
        base: the old snapshot and its index.
        rows: i64[new n_rows]: the old row with the same vector, ascending, or -1.
    """

    def __init__(self, base: Base, rows: NDArray[np.int64]) -> None:
        self.base = base
        self.rows = rows

    @classmethod
    def of_view(cls, view: View) -> Origin:
        """Return the origin of a view's records, in insertion order."""
        n_rows = view.base.snapshot.n_rows
        kept = np.arange(n_rows) if view.live is None else np.flatnonzero(unpack(view.live, 0, n_rows))
        if view.delta is None:
            return cls(view.base, kept)
        places = view.delta.places[view.delta.live_rows()]
        order = np.argsort(np.concatenate([kept, places]), kind="stable")
        rows = np.concatenate([kept, np.full(len(places), -1)])[order]
        return cls(view.base, rows)

    def then(self, n_new: int) -> Origin:
        """Return the origin of these rows and of so many new ones behind them."""
        rows = np.concatenate([self.rows, np.full(n_new, -1)])
        return Origin(self.base, rows)

    def take(self, rows: NDArray[np.int64]) -> Origin:
        """Return the origin of some of the rows."""
        return Origin(self.base, self.rows[rows])

    def unchanged_arrays(self) -> IndexArrays:
        """Return the stored arrays of the index when the new rows are just the old ones, else none."""
        n_rows = self.base.snapshot.n_rows
        if len(self.rows) != n_rows or not np.array_equal(self.rows, np.arange(n_rows)):
            return {}
        sections = self.base.snapshot.sections.items()
        return {name: np.asarray(part.array()) for name, part in sections if part.entry.flags & FLAG_DERIVED}

    def updated(self, config: IqdbConfig, vectors: SnapshotVectors, threads: int) -> IndexArrays:
        """Return the arrays of the old index brought up to the new rows.

        Raises:
            DamagedError: the old index cannot be used.
        """
        try:
            return self.base.index.update(config, vectors, self.rows, threads)
        except (TypeError, ValueError) as error:
            # Kernels refuse arrays only, and the new records are valid.
            raise unusable_index(self.base, error) from error


def add_index(
    writer: SnapshotWriter,
    new: NewSnapshot,
    summary: SnapshotSummary,
    config: dict[str, Any],
    origin: Origin | None,
    threads: int,
) -> SnapshotSummary:
    """Put the index that the configuration asks for into a finished snapshot.

    Args:
        writer: has finished `new`.
        new: the snapshot, not installed yet.
        summary: what `finish` returned.
        config: the stored configuration of the new snapshot.
        origin: where its rows come from, when the old index is of the same configuration; None: build anew.
        threads: threads to use; the result does not depend on it.
    """
    settings = IqdbConfig.from_dict(config)
    kind = index_class(IndexKind(config["index"]["kind"]))
    snapshot = new.open(new.path)
    try:
        vectors = SnapshotVectors(snapshot, threads)
        if origin is None:
            arrays = kind.build(settings, vectors, threads)
        else:
            # What was never trained has nothing stored, and `update` may make something of it.
            arrays = origin.unchanged_arrays() or origin.updated(settings, vectors, threads)
    finally:
        snapshot.close()
    if not arrays:
        return summary
    summary = writer.add_index(arrays)
    if new.file is None:
        new.memory = writer.memory
    else:
        _prove_index(new, config["index"], arrays, threads)
    return summary


def _prove_index(new: NewSnapshot, settings: Mapping[str, Any], arrays: IndexArrays, threads: int) -> None:
    """Check the index as it stands in the file against what was built, and against the records beside it.

    Every row is in it once, and every code is that of its row: exact search may go by codes, and then it
    is only as right as they are.

    Raises:
        StructureError: the index leaves out, doubles or misrepresents a record.
    """
    from iqdb_core.index.check import Stored, check_index

    snapshot = new.open(new.path)
    try:
        sections = snapshot.sections
        stored = {}
        for name, array in arrays.items():
            if name not in sections:
                raise StructureError(new.path, f"section {name}", "part of the index", "missing")
            stored[name] = np.asarray(sections[name].array())
            if not _same_bytes(stored[name], np.ascontiguousarray(array)):
                raise StructureError(new.path, f"section {name}", "what was built", "something else")
        checked = check_index(
            str(settings["kind"]),
            Stored(
                settings=settings,
                metric=snapshot.metric,
                n_rows=snapshot.n_rows,
                dim=snapshot.dim,
                arrays=stored,
                damaged=frozenset(),
                vectors=SnapshotVectors(snapshot, threads),
                thorough=False,
                threads=threads,
            ),
        )
        if checked.faults:
            fault = checked.faults[0]
            raise StructureError(
                new.path,
                f"section {fault.array}",
                'what agrees with the records; "iqdb optimize" builds it anew',
                f"an array that {fault.problem}",
            )
    finally:
        snapshot.close()


def _same_bytes(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    left, right = one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)
    return all(
        np.array_equal(left[start : start + _COMPARED_BYTES], right[start : start + _COMPARED_BYTES])
        for start in range(0, len(left), _COMPARED_BYTES)
    )
