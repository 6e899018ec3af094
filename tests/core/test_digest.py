from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core.digest import batch_digest, record_hashes
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage.digest_value import ContentDigest

if TYPE_CHECKING:
    from collections.abc import Sequence

MASK = 2**64 - 1
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5)
MAPPINGS = st.none() | st.dictionaries(st.text(max_size=3), VALUES, max_size=3)
IDS = st.integers(0, MASK) | st.binary(min_size=1, max_size=5) | st.text(min_size=1, max_size=5)


def oracle_value(value: Any) -> bytes:
    match value:
        case None:
            return b"\1"
        case bool():
            return b"\2" + bytes([value])
        case int():
            return b"\3" + struct.pack("<q", value)
        case float():
            return b"\4" + struct.pack("<d", value)
        case _:
            return b"\5" + value.encode()


def oracle_record(seed: int, record_id: Any, vector: np.ndarray, metadata: dict[str, Any] | None) -> int:
    """The record hash by the specification's words, with another implementation of XXH64."""

    def h(data: bytes) -> int:
        return xxhash.xxh64_intdigest(data, seed=seed)

    match record_id:
        case int():
            id_hash = h(b"\0" + struct.pack("<Q", record_id))
        case bytes():
            id_hash = h(b"\1" + record_id)
        case _:
            id_hash = h(b"\2" + record_id.encode())
    metadata_hash = 0
    if metadata is not None:
        metadata_hash = h(b"")
        for key, value in metadata.items():
            encoded = key.encode()
            metadata_hash += h(struct.pack("<I", len(encoded)) + encoded + oracle_value(value))
    return h(struct.pack("<QQQ", id_hash, h(vector.astype("<f4").tobytes()), metadata_hash & MASK))


def batch_of(ids: Sequence[Any], metadata: Sequence[Any] | None, dim: int = 5) -> RecordBatch:
    vectors = np.random.default_rng(len(ids)).standard_normal((len(ids), dim)).astype(np.float32)
    columns = None if metadata is None else MetadataColumns.from_dicts(metadata)
    return RecordBatch(Ids.from_list(ids), vectors, columns)


@given(st.lists(st.tuples(IDS, MAPPINGS), max_size=6))
def test_digest_is_the_sum_of_the_specified_record_hashes(rows: list[tuple[Any, Any]]) -> None:
    batch = batch_of([row[0] for row in rows], [row[1] for row in rows])
    expected = [
        [oracle_record(seed, record_id, vector, mapping) for seed in (0, 1)]
        for (record_id, mapping), vector in zip(rows, batch.vectors, strict=True)
    ]
    assert record_hashes(batch).tolist() == expected
    sums = [sum(column) & MASK for column in zip(*expected, strict=True)] or [0, 0]
    assert batch_digest(batch) == ContentDigest(*sums)


def test_a_batch_without_metadata_hashes_like_one_whose_records_have_none() -> None:
    without = batch_of(["a", 2, b"c"], None)
    assert batch_digest(without) == batch_digest(batch_of(["a", 2, b"c"], [None, None, None]))
    assert batch_digest(without) != batch_digest(batch_of(["a", 2, b"c"], [{}, None, None]))


def test_order_does_not_matter_but_which_record_has_what_does() -> None:
    batch = batch_of([1, 2, 3], [{"a": 1}, {"a": 2}, None])
    swapped = RecordBatch(batch.ids, batch.vectors[[1, 0, 2]], batch.metadata)
    assert batch_digest(batch.take(np.array([2, 0, 1]))) == batch_digest(batch)
    assert batch_digest(swapped) != batch_digest(batch)
    assert batch_digest(batch.slice(0, 1)).plus(batch_digest(batch.slice(1, 3))) == batch_digest(batch)


@pytest.mark.parametrize(("one", "two"), [(-0.0, 0.0), (1.0, 1), (True, 1), ("1", 1), (None, False)])
def test_bits_and_types_of_values_count(one: Any, two: Any) -> None:
    assert batch_digest(batch_of([1], [{"a": one}])) != batch_digest(batch_of([1], [{"a": two}]))
    vectors = np.array([[0.0, 1.0]], np.float32)
    negative = np.array([[-0.0, 1.0]], np.float32)
    ids = Ids.from_list([1])
    assert batch_digest(RecordBatch(ids, vectors)) != batch_digest(RecordBatch(ids, negative))
