"""Search over a view: the snapshot through its index, the delta exactly, and both merged.

Hits are ordered by distance, then by place in insertion order, whichever of the two they come from.
Nothing here imports NumPy; the delta and filters bring it along when there are any.
"""

from __future__ import annotations

from array import array
from itertools import repeat
from typing import TYPE_CHECKING

from iqdb_core import _kernels
from iqdb_core.bitmap import count_ones, rows_of
from iqdb_core.errors import DimensionMismatchError, InvalidVectorError, StructureError
from iqdb_core.hits import Hit, make_hit
from iqdb_core.index.topk import TopK
from iqdb_core.storage.layout import VECTORS

if TYPE_CHECKING:
    from iqdb_core.index.protocol import Buffer
    from iqdb_core.search_request import Request
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.view import Base, View

# Where fewer than one row in this many is a candidate, compressed vectors are decoded for these alone.
_FEW_CANDIDATES = 64


def vector_buffer(vector: object, dim: int, where: str) -> Buffer:
    """Return one vector as a float32[1, dim] buffer, C-contiguous, all components finite.

    A float32 buffer (NumPy array, `array("f")`, memoryview) is used as it is; everything else that
    looks like numbers is converted.

    Raises:
        DimensionMismatchError, InvalidVectorError: it is no such vector; the error names `where`.
    """
    try:
        view = memoryview(vector)  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        view = None
    if view is None or view.format != "f" or view.ndim != 1 or not view.c_contiguous:
        return _converted(vector, dim, where)
    if len(view) != dim:
        if not len(view):
            raise InvalidVectorError("is empty", where=where)
        raise DimensionMismatchError(dim, len(view), where=where)
    bad = _kernels.check_finite(view)
    if bad >= 0:
        raise InvalidVectorError(f"holds {view[bad]}", where=where, component=bad)
    return view.cast("B").cast("f", (1, dim))


def _converted(vector: object, dim: int, where: str) -> Buffer:
    if isinstance(vector, (list, tuple)):
        try:
            values = array("f", vector)
        except (TypeError, OverflowError):
            pass
        else:
            if _kernels.check_finite(values) < 0:
                return vector_buffer(values, dim, where)
    from iqdb_core.sources import one_vector

    return one_vector(vector, dim, where)


def query_block(queries: Buffer, n_queries: int, dim: int) -> Buffer:
    """Return queries in a float32 buffer as float32[n_queries, dim], all components finite.

    Raises:
        DimensionMismatchError, InvalidVectorError: it is no such buffer.
    """
    view = memoryview(queries)
    if not view.c_contiguous or view.format != "f" or n_queries < 0:
        raise InvalidVectorError("expected a contiguous float32 buffer", where="queries")
    if view.nbytes != 4 * n_queries * dim:
        found = view.nbytes // (4 * n_queries) if n_queries else view.nbytes // 4
        raise DimensionMismatchError(dim, found, where="queries")
    if n_queries == 0:
        return view
    flat = view.cast("B").cast("f")
    bad = _kernels.check_finite(flat)
    if bad >= 0:
        query, component = divmod(bad, dim)
        raise InvalidVectorError(f"holds {flat[bad]}", where=f"query {query}", component=component)
    return flat.cast("B").cast("f", (n_queries, dim))


def search_base(view: View, queries: Buffer, n_queries: int, request: Request, threads: int) -> TopK | None:
    """Search the snapshot; None when it has no record that is still seen."""
    if not view.n_base:
        return None
    mask = view.base_candidates(request.condition)
    return search_candidates(view, mask, queries, n_queries, request, threads)


def search_candidates(
    view: View, mask: Buffer | None, queries: Buffer, n_queries: int, request: Request, threads: int
) -> TopK | None:
    """Search those rows of the snapshot that `View.base_candidates` gave."""
    k = min(request.k, view.n_base)
    if k == 0 or n_queries == 0:
        return None
    base = view.base
    vectors = base.vectors()
    if vectors.block_crcs is None:
        _decode(base.snapshot, mask, threads)
    out = TopK(n_queries, k)
    try:
        damaged = base.index.search(
            vectors,
            queries,
            out,
            mask=mask,
            max_distance=request.max_distance,
            exact=request.exact,
            parameters=request.parameters,
            threads=threads,
        )
    except (TypeError, ValueError) as error:
        # The queries were checked, so a kernel can only have refused arrays of the file.
        raise unusable_index(base, error) from error
    if damaged >= 0:
        raise base.snapshot.section(VECTORS).damaged_block(damaged)
    return out


def _decode(snapshot: Snapshot, mask: Buffer | None, threads: int) -> None:
    """Decode the compressed vectors of all candidates; of few candidates just those."""
    if mask is not None and count_ones(mask, snapshot.n_rows) * _FEW_CANDIDATES < snapshot.n_rows:
        snapshot.ensure_vectors(rows_of(bytes(mask), snapshot.n_rows))
        return
    snapshot.ensure_vectors(threads=threads)


def unusable_index(base: Base, reason: object) -> StructureError:
    """Return the error that reports arrays of an index that are verified and contradict each other."""
    kind = base.index.kind.value
    expected = 'arrays that agree with the records; "iqdb optimize" builds it anew'
    return StructureError(base.snapshot.path, f"the index {kind}", expected, f"unusable ({reason})")


def search_delta(view: View, queries: Buffer, n_queries: int, request: Request, threads: int) -> TopK | None:
    """Search the delta; None when it has no record."""
    delta = view.delta
    if delta is None or delta.n_live == 0:
        return None
    return delta.search(
        queries,
        n_queries,
        request.k,
        metric_tag=view.base.snapshot.metric,
        condition=request.condition,
        max_distance=request.max_distance,
        threads=threads,
    )


def search(view: View, queries: Buffer, n_queries: int, request: Request, threads: int) -> list[list[Hit]]:
    """Return the hits of each query.

    Args:
        view: what to search.
        queries: f32[n_queries, dim], C-contiguous and finite.
        n_queries: the number of queries.
        request: k and the rest.
        threads: threads to use.

    Raises:
        DamagedError: a block of the file that the answer depends on is damaged.
    """
    base_out = search_base(view, queries, n_queries, request, threads)
    delta_out = search_delta(view, queries, n_queries, request, threads)
    return merged(view, base_out, delta_out, n_queries, request.k)


def merged(
    view: View, base_out: TopK | None, delta_out: TopK | None, n_queries: int, k: int
) -> list[list[Hit]]:
    """Return the hits of each query, from what was found in the snapshot and in the delta."""
    if delta_out is None:
        if base_out is None:
            return [[] for _ in range(n_queries)]
        return [_base_hits(view, base_out, query) for query in range(n_queries)]
    return [_merged_hits(view, base_out, delta_out, query, k) for query in range(n_queries)]


def nearest(view: View, query: object, k: object, ef: object, n_probes: object) -> list[Hit] | None:
    """Return the hits of one query in a view that is whole, or None when it takes `search` to tell."""
    base = view.base
    found = base.nearest(query, k, ef, n_probes)
    if found is None:
        return None
    rows, distances = found
    return list(map(make_hit, base.ids(rows), distances, repeat(base.snapshot), rows))


def _base_hits(view: View, out: TopK, query: int) -> list[Hit]:
    base = view.base
    start = query * out.k
    stop = start + out.counts[query]
    rows = out.rows[start:stop]
    distances = out.distances[start:stop]
    return list(map(make_hit, base.ids(rows), distances, repeat(base.snapshot), rows))


def _merged_hits(view: View, base_out: TopK | None, delta_out: TopK, query: int, k: int) -> list[Hit]:
    delta = view.delta
    assert delta is not None
    start = query * delta_out.k
    stop = start + delta_out.counts[query]
    # Places are distinct, so the comparison never gets beyond them.
    found = [
        (distance, int(delta.places[row]), row, True)
        for distance, row in zip(delta_out.distances[start:stop], delta_out.rows[start:stop], strict=True)
    ]
    if base_out is not None:
        start = query * base_out.k
        stop = start + base_out.counts[query]
        found += [
            (distance, row, row, False)
            for distance, row in zip(base_out.distances[start:stop], base_out.rows[start:stop], strict=True)
        ]
        found.sort()
        del found[k:]
    snapshot = view.base.snapshot
    return [
        make_hit(delta.id_at(row), distance, delta, row)
        if in_delta
        else make_hit(snapshot.id_at(row), distance, snapshot, row)
        for distance, _, row, in_delta in found
    ]
