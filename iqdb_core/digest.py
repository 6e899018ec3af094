"""The content digest of records: which records these are, whatever their order and their file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from iqdb_core import _kernels
from iqdb_core.storage.digest_value import ContentDigest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.records import Ids, MetadataColumns, RecordBatch

__all__ = ["ContentDigest", "batch_digest", "digest_of_parts", "record_hashes"]


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
