"""Search results as arrays, for bulk work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core.search import search_base, search_delta
from iqdb_core.storage.layout import ID_ENCODING_U64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.index.topk import TopK
    from iqdb_core.search_request import Request
    from iqdb_core.view import View


def search_arrays(
    view: View, queries: NDArray[np.float32], request: Request, threads: int
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return ids and distances of the hits of each query; see `Iqdb.search_arrays`."""
    n_queries = len(queries)
    width = min(request.k, view.n_records)
    base = search_base(view, queries, n_queries, request, threads) if n_queries else None
    delta = search_delta(view, queries, n_queries, request, threads) if n_queries else None
    if base is not None and delta is None:
        rows, distances = _arrays(base, n_queries)
        return _base_ids(view, rows), distances
    # Delta rows are numbered behind the snapshot's, to go through the merge as one kind of row.
    n_base_rows = view.base.snapshot.n_rows
    parts = []
    if base is not None:
        rows, distances = _arrays(base, n_queries)
        parts.append((rows, distances, rows))
    if delta is not None:
        assert view.delta is not None
        rows, distances = _arrays(delta, n_queries)
        # Unused slots are row -1: they take the last place here and are infinitely far away.
        parts.append((np.where(rows < 0, -1, rows + n_base_rows), distances, view.delta.places[rows]))
    if not parts:
        return _no_ids(view, (n_queries, width)), np.full((n_queries, width), np.inf)
    rows, distances, places = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    order = np.lexsort((places, distances), axis=1)[:, :width]
    rows = np.take_along_axis(rows, order, axis=1)
    distances = np.take_along_axis(distances, order, axis=1)
    return _merged_ids(view, rows, n_base_rows), distances


def search_arrays_of_one(
    view: View, queries: object, k: object, ef: object, n_probes: object
) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    """Return what `search_arrays` would of a single query over all records, by the shortest way.

    None says to ask `search_arrays`, or that the arguments have to be checked.
    """
    if not isinstance(queries, np.ndarray) or queries.ndim != 2 or len(queries) != 1:
        return None
    base = view.base
    found = base.nearest(queries[0], k, ef, n_probes)
    if found is None:
        return None
    rows, distances = found
    if base.snapshot.header.id_encoding == ID_ENCODING_U64:
        ids: NDArray[Any] = np.array(base.ids(rows), np.uint64)
    else:
        ids = _objects(base.ids(rows))
    return ids[np.newaxis], np.array(distances)[np.newaxis]


def _arrays(out: TopK, n_queries: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    shape = (n_queries, out.k)
    return np.frombuffer(out.rows, np.int64).reshape(shape), np.frombuffer(out.distances).reshape(shape)


def _no_ids(view: View, shape: tuple[int, int]) -> NDArray[Any]:
    if view.base.snapshot.header.id_encoding == ID_ENCODING_U64:
        return np.zeros(shape, np.uint64)
    return np.full(shape, None, object)


def _base_ids(view: View, rows: NDArray[np.int64]) -> NDArray[Any]:
    snapshot = view.base.snapshot
    missing = rows < 0
    ids = _no_ids(view, rows.shape)
    found = snapshot.ids_at(rows[~missing])
    ids[~missing] = _objects(found) if isinstance(found, list) else found
    return ids


def _merged_ids(view: View, rows: NDArray[np.int64], n_base_rows: int) -> NDArray[Any]:
    delta = view.delta
    assert delta is not None
    in_delta = rows >= n_base_rows
    ids = _base_ids(view, np.where(in_delta, -1, rows))
    new = [delta.id_at(row) for row in (rows[in_delta] - n_base_rows).tolist()]
    if ids.dtype == np.uint64 and not all(type(record_id) is int for record_id in new):
        ids = ids.astype(object)
        ids[rows < 0] = None
    ids[in_delta] = _objects(new) if ids.dtype == object else np.fromiter(new, np.uint64, len(new))
    return ids


def _objects(values: list[Any]) -> NDArray[Any]:
    # Assigned one by one: NumPy would make fixed-width strings of a list, and those lose zero bytes.
    array = np.empty(len(values), object)
    array[:] = values
    return array
