from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    DimensionMismatchError,
    Ids,
    InvalidIdError,
    InvalidMetadataError,
    InvalidVectorError,
    Iqdb,
    RecordBatch,
)


@pytest.mark.parametrize(
    ("ids", "vectors", "metadata", "error", "where"),
    [
        ([1, -1], [[0], [0]], None, InvalidIdError, "record 1"),
        (np.array([1, -1]), [[0], [0]], None, InvalidIdError, "record 1"),
        ([1, ""], [[0], [0]], None, InvalidIdError, "record 1"),
        ("ab", [[0], [0]], None, InvalidIdError, "sequence"),
        (7, [[0]], None, InvalidIdError, "sequence"),
        (np.zeros((2, 1), int), [[0], [0]], None, InvalidIdError, "one-dimensional"),
        ([1, 2], [[0], [0, 1]], None, DimensionMismatchError, "record 1"),
        ([1, 2], [[0], []], None, InvalidVectorError, "record 1"),
        ([1, 2], np.zeros((2, 2)), None, DimensionMismatchError, "record 0"),
        ([1, 2], [[0], [math.nan]], None, InvalidVectorError, "record 1: holds nan"),
        ([1, 2], [[0], [1e39]], None, InvalidVectorError, "record 1: holds 1e"),
        ([1, 2], [["a"], ["b"]], None, InvalidVectorError, "numbers"),
        ([1, 2], [[None], [0]], None, InvalidVectorError, "numbers"),
        ([1, 2], [[1j], [0]], None, InvalidVectorError, "numbers"),
        ([1, 2], [0, 1], None, InvalidVectorError, "record 0"),
        ([1, 2], np.zeros(2), None, InvalidVectorError, "two dimensions"),
        ([1, 2], [[0]], None, InvalidVectorError, "1 vectors for 2 ids"),
        ([1, 2], [[0], [0]], [None], InvalidMetadataError, "1 mappings for 2 ids"),
        ([1, 2], [[0], [0]], [None, {"a": []}], InvalidMetadataError, "record 1"),
        ([1, 2], [[0], [0]], {"a": 1}, InvalidMetadataError, "list"),
    ],
)
def test_a_batch_with_one_bad_record_is_refused_whole_and_names_it(
    tmp_path: Path, ids: Any, vectors: Any, metadata: Any, error: type[Exception], where: str
) -> None:
    with Iqdb.open(tmp_path / "a.iqdb", 1) as db:
        with pytest.raises(error, match=where):
            db.upsert_many(ids, vectors, metadata)
        assert len(db) == 0
        assert not (tmp_path / "a.iqdb.wal").exists()


@pytest.mark.parametrize(
    "vectors",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2] / 2,
        np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        [[0, 1, 2], [3, 4, 5]],
        [np.arange(3.0), np.arange(3.0, 6.0)],
        ((0.0, 1.0, 2.0), (3.0, 4.0, 5.0)),
    ],
    ids=range(9),
)
def test_vectors_are_accepted_in_every_numeric_form(vectors: Any) -> None:
    with Iqdb.open_in_memory(3) as db:
        db.upsert_many(np.array([5, 6], np.int16), vectors)
        db.upsert(7, vectors[1])
        for record_id, expected in ((5, [0, 1, 2]), (6, [3, 4, 5]), (7, [3, 4, 5])):
            found = db.get(record_id)
            assert found is not None
            assert found[0].tolist() == expected


def test_the_caller_may_change_its_arrays_afterwards() -> None:
    vectors = np.ones((2, 3), np.float32)
    metadata = [{"a": 1}, {"a": 2}]
    with Iqdb.open_in_memory(3) as db:
        db.upsert_many([1, 2], vectors, metadata)
        db.upsert_batch(RecordBatch(Ids.from_list([3, 4]), vectors))
        db.upsert(5, vectors[0], metadata[0])
        vectors[:] = 7
        metadata[0]["a"] = 7
        for record_id in (1, 3, 5):
            found = db.get(record_id)
            assert found is not None
            assert found[0].tolist() == [1, 1, 1]
        assert db.metadata(1) == {"a": 1}
        assert db.metadata(5) == {"a": 1}
        hit = db.search([1, 1, 1], 1)[0]
        assert hit.metadata is not None
        hit.metadata["a"] = 9
        assert db.metadata(1) == {"a": 1}
