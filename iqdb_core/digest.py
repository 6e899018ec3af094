"""The content digest of records: which records these are, whatever their order and their file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqdb_core import _kernels
from iqdb_core.storage.digest_value import ContentDigest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.records import Ids, MetadataColumns, RecordBatch

__all__ = ["ContentDigest", "batch_digest", "digest_of_parts", "record_hashes", "sequence_sum"]

_LOW_64 = (1 << 64) - 1


def record_hashes(batch: RecordBatch, *, threads: int = 1) -> NDArray[np.uint64]:
    """Return both hashes of each record, u64[n, 2]; their sums modulo 2^64 are the digest."""
    vector_hashes = np.empty((len(batch), 2), np.uint64)
    hashes = np.empty((len(batch), 2), np.uint64)
    vectors = np.ascontiguousarray(batch.vectors, np.float32)
    _kernels.hash_vectors(vectors, vector_hashes, threads=threads)
    _combine(batch.ids, vector_hashes, batch.metadata, hashes)
    return hashes


def batch_digest(batch: RecordBatch, *, threads: int = 1) -> ContentDigest:
    """Return the content digest of the records of a batch, whose ids must be distinct."""
    vector_hashes = np.empty((len(batch), 2), np.uint64)
    vectors = np.ascontiguousarray(batch.vectors, np.float32)
    _kernels.hash_vectors(vectors, vector_hashes, threads=threads)
    return digest_of_parts(batch.ids, vector_hashes, batch.metadata)


def digest_of_parts(
    ids: Ids, vector_hashes: NDArray[np.uint64], metadata: MetadataColumns | None
) -> ContentDigest:
    """Return the content digest of records whose vectors were hashed already, by `hash_vectors`."""
    return _combine(ids, vector_hashes, metadata, None)


def sequence_sum(ids: Ids, ranks: NDArray[np.int64]) -> int:
    """Return the sum modulo 2^64 of the ids' hashes, each times 2 rank + 1.

    Summed over all records it depends on their order, which the content digest does not: two records that
    change places change it, but for one case in 2^62. It is compared within one process and never stored.

    Args:
        ids: some ids.
        ranks: i64[len(ids)]: the place of each among all records, from 0.
    """
    hashes = np.empty((len(ids), 2), np.uint64)
    ids.hash(hashes)
    # Unsigned integers wrap around, which is what is wanted.
    weights = np.asarray(ranks).astype(np.uint64) * np.uint64(2) + np.uint64(1)
    return int(np.sum(hashes[:, 0] * weights, dtype=np.uint64)) & _LOW_64


def _combine(
    ids: Ids,
    vector_hashes: NDArray[np.uint64],
    metadata: MetadataColumns | None,
    out: NDArray[np.uint64] | None,
) -> ContentDigest:
    id_hashes = np.empty((len(ids), 2), np.uint64)
    ids.hash(id_hashes)
    metadata_hashes = np.zeros((len(ids), 2), np.uint64)
    if metadata is not None:
        metadata.hash(metadata_hashes)
    return ContentDigest(*_kernels.combine_digest(id_hashes, vector_hashes, metadata_hashes, out))
