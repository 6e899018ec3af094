"""What callers hand over, checked completely and turned into arrays: vectors, ids, whole batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core import _kernels
from iqdb_core.errors import (
    DimensionMismatchError,
    InvalidIdError,
    InvalidMetadataError,
    InvalidVectorError,
)
from iqdb_core.records import Ids, MetadataColumns, RecordBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def one_vector(value: object, dim: int, where: str) -> NDArray[np.float32]:
    """Return one vector as float32[1, dim], C-contiguous and finite.

    Args:
        value: a sequence or array of `dim` numbers.
        dim: the database's dimension.
        where: names the vector in errors.

    Raises:
        DimensionMismatchError, InvalidVectorError: it is no such vector.
    """
    array = _numbers(value, where)
    if array.ndim != 1:
        raise InvalidVectorError(f"expected one dimension, found {array.ndim}", where=where)
    return finite_vectors(array.reshape(1, -1), dim, lambda _: where)


def many_vectors(
    value: object, dim: int, where: Callable[[int], str], *, what: str = "vectors"
) -> NDArray[np.float32]:
    """Return vectors as float32[n, dim], C-contiguous and finite.

    Args:
        value: a two-dimensional array, or a sequence of vectors; may be empty.
        dim: the database's dimension.
        where: names a row in errors.
        what: names the whole in errors.

    Raises:
        DimensionMismatchError, InvalidVectorError: a row is no such vector; the error names it.
    """
    if isinstance(value, (list, tuple)) and value:
        _check_rows(value, dim, where)
    array = _numbers(value, what)
    if array.ndim == 1 and array.size == 0:
        return np.empty((0, dim), np.float32)
    if array.ndim != 2:
        raise InvalidVectorError(f"expected two dimensions, found {array.ndim}", where=what)
    return finite_vectors(array, dim, where)


def finite_vectors(array: NDArray[Any], dim: int, where: Callable[[int], str]) -> NDArray[np.float32]:
    """Return numbers[n, columns] as float32[n, dim], C-contiguous and finite; shared where possible."""
    if array.shape[1] != dim:
        if array.shape[1] == 0 and len(array):
            raise InvalidVectorError("is empty", where=where(0))
        if len(array):
            raise DimensionMismatchError(dim, array.shape[1], where=where(0))
        return np.empty((0, dim), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = np.ascontiguousarray(array, np.float32)
    if not vectors.size:
        return vectors
    bad = _kernels.check_finite(vectors)
    if bad >= 0:
        row, component = divmod(bad, dim)
        original = array[row, component]
        too_large = array.dtype.kind != "f" or np.isfinite(original)
        reason = f"holds {original}" + (", which float32 cannot hold" if too_large else "")
        raise InvalidVectorError(reason, where=where(row), component=component)
    return vectors


def _check_rows(rows: list[object] | tuple[object, ...], dim: int, where: Callable[[int], str]) -> None:
    """Find rows of another length, which NumPy would only report without saying where."""
    for row, vector in enumerate(rows):
        try:
            size = len(vector)  # type: ignore[arg-type]
        except TypeError:
            reason = f"expected a vector, not {type(vector).__name__}"
            raise InvalidVectorError(reason, where=where(row)) from None
        if size != dim:
            if size == 0:
                raise InvalidVectorError("is empty", where=where(row))
            raise DimensionMismatchError(dim, size, where=where(row))


def _numbers(value: object, where: str) -> NDArray[Any]:
    if isinstance(value, (str, bytes, bytearray)):
        raise InvalidVectorError(f"expected numbers, not {type(value).__name__}", where=where)
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidVectorError(f"expected numbers ({error})", where=where) from None
    if array.size and array.dtype.kind not in "fiub":
        raise InvalidVectorError(f"expected numbers, not {array.dtype}", where=where)
    return array


def many_ids(value: object, where: Callable[[int], str]) -> Ids:
    """Return ids, given as a sequence or a one-dimensional array.

    Raises:
        InvalidIdError: one of them is no id; the error names it.
    """
    if isinstance(value, Ids):
        return value
    if isinstance(value, np.ndarray):
        if value.ndim != 1:
            raise InvalidIdError(value.shape, "ids are a one-dimensional array")
        if value.dtype.kind == "u":
            return Ids.from_u64(np.array(value, np.uint64))
        if value.dtype.kind == "i":
            negative = np.flatnonzero(value < 0)
            if len(negative):
                row = int(negative[0])
                reason = "an integer id lies in 0..2^64-1"
                raise InvalidIdError(int(value[row]), reason, where=where(row))
            return Ids.from_u64(value.astype(np.uint64))
        return Ids.from_list(value.tolist(), where=where)
    if isinstance(value, (str, bytes)):
        raise InvalidIdError(value, "expected a sequence of ids, not one id")
    if isinstance(value, (list, tuple, range)):
        return Ids.from_list(value, where=where)
    try:
        listed = list(value)  # type: ignore[call-overload]
    except TypeError:
        raise InvalidIdError(value, "expected a sequence of ids") from None
    return Ids.from_list(listed, where=where)


def record_batch(ids: object, vectors: object, metadata: object, dim: int) -> RecordBatch:
    """Return a batch of distinct ids, completely checked; of equal ids the last one's record is kept.

    Raises:
        VectorIndexError: ids, vectors or metadata are not acceptable or differ in number.
    """

    def where(row: int) -> str:
        return f"record {row}"

    checked_ids = many_ids(ids, where)
    checked_vectors = many_vectors(vectors, dim, where)
    if len(checked_ids) != len(checked_vectors):
        raise InvalidVectorError(f"{len(checked_vectors)} vectors for {len(checked_ids)} ids")
    columns = None
    if isinstance(metadata, MetadataColumns):
        columns = metadata
    elif metadata is not None:
        if isinstance(metadata, (str, bytes, dict)):
            raise InvalidMetadataError(None, "expected a list with one mapping, or None, for each record")
        columns = MetadataColumns.from_dicts(list(metadata), where=where)  # type: ignore[call-overload]
    if columns is not None and columns.n_rows != len(checked_ids):
        raise InvalidMetadataError(None, f"{columns.n_rows} mappings for {len(checked_ids)} ids")
    return distinct(RecordBatch(checked_ids, checked_vectors, columns))


def checked_batch(batch: RecordBatch, dim: int) -> RecordBatch:
    """Return a batch whose ids and metadata are valid by construction with its vectors checked too.

    Raises:
        DimensionMismatchError, InvalidVectorError: a vector is not acceptable; the error names it.
    """
    vectors = finite_vectors(batch.vectors, dim, batch.where)
    if vectors is batch.vectors:
        return batch
    return RecordBatch(batch.ids, vectors, batch.metadata, batch.first_row)


def distinct(batch: RecordBatch) -> RecordBatch:
    """Return the batch with each id once: at the place of its first, with the record of its last."""
    keep = batch.ids.last_wins()
    return batch if keep is None else batch.take(keep)
