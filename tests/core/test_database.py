from __future__ import annotations

import math
import os
import pickle
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    BatchTooLargeError,
    ChecksumError,
    ClosedError,
    ConfigConflictError,
    DatabaseExistsError,
    DatabaseNotFoundError,
    DimensionMismatchError,
    DistanceMetric,
    FileIOError,
    Filter,
    FsyncPolicy,
    Hit,
    HnswConfig,
    Ids,
    InvalidConfigError,
    InvalidFilterError,
    InvalidIdError,
    InvalidMetadataError,
    InvalidParameterError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    LogDamagedError,
    LogMismatchError,
    NotADatabaseError,
    ReadOnlyError,
    RecordBatch,
    SnapshotMissingError,
    TruncatedError,
)

METRICS = ["cosine", "dot", "euclidean", "manhattan", "hamming"]


def numpy_distances(metric: str, rows: Any, query: Any) -> Any:
    """Return the distances that the design defines, in float64."""
    a, b = np.asarray(rows, np.float64), np.asarray(query, np.float64)
    if metric == "cosine":
        norms = np.sqrt((a * a).sum(1) * (b * b).sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(norms == 0, 1.0, 1 - a @ b / norms)
    if metric == "dot":
        return -(a @ b)
    if metric == "euclidean":
        return np.sqrt(((a - b) ** 2).sum(1))
    if metric == "manhattan":
        return np.abs(a - b).sum(1)
    bits = np.asarray(rows, np.float32).view(np.uint32) != np.asarray(query, np.float32).view(np.uint32)
    return bits.sum(1).astype(np.float64)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def some_records(n: int, dim: int = 6, seed: int = 0) -> tuple[list[Any], Any, list[Any]]:
    rng = np.random.default_rng(seed)
    kinds = [lambda i: i, lambda i: f"id {i}", lambda i: b"\0%d" % i]
    ids = [kinds[i % 3](i) for i in range(n)]
    metadata = [
        None if i % 5 == 0 else {"n": i, "half": i / 2, "even": i % 2 == 0, "name": f"n{i % 7}", "none": None}
        for i in range(n)
    ]
    return ids, rng.integers(-3, 4, (n, dim)).astype(np.float32), metadata


@pytest.fixture(params=["file", "memory", "reopened", "folded"])
def filled(request: Any, tmp_path: Path) -> Any:
    """A database of 300 records in each state that a search may meet."""
    ids, vectors, metadata = some_records(300)
    config = IqdbConfig(dim=6, metric="euclidean", auto_compact=None)
    db = (
        Iqdb.open_in_memory_with(config)
        if request.param == "memory"
        else Iqdb.open_with(tmp_path / "a.iqdb", config)
    )
    db.upsert_many(ids[:200], vectors[:200], metadata[:200])
    if request.param == "folded":
        db.compact()
    db.upsert_many(ids[200:], vectors[200:], metadata[200:])
    if request.param == "reopened":
        db.close(compact=False)
        db = Iqdb.open_existing(tmp_path / "a.iqdb", auto_compact=None)
    yield db
    db.close()


# --- Opening and creating -----------------------------------------------------------------------


def test_open_creates_and_then_opens_the_same_database(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, 3, "dot") as db:
        assert (db.dim, db.metric, len(db), db.is_empty) == (3, DistanceMetric.DOT, 0, True)
        db.upsert(1, [1, 2, 3], {"a": 1})
    with Iqdb.open(path, 3, DistanceMetric.DOT) as db:
        assert len(db) == 1
        assert not db.is_empty
        assert db.path == str(path)
        assert not db.read_only
        vector, metadata = db.get(1) or (None, None)
        assert vector is not None
        assert vector.dtype == np.float32
        assert vector.tolist() == [1, 2, 3]
        assert metadata == {"a": 1}
    assert names_in(tmp_path) == ["a.iqdb"]


@pytest.mark.parametrize(("dim", "metric", "field"), [(4, "dot", "dim"), (3, "cosine", "metric")])
def test_a_contradicting_open_is_refused_and_says_what_the_file_has(
    tmp_path: Path, dim: int, metric: str, field: str
) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 3, "dot").close()
    with pytest.raises(ConfigConflictError) as caught:
        Iqdb.open(path, dim, metric)
    assert caught.value.field == field
    assert caught.value.hint
    # The refused handle has let go of the lock.
    Iqdb.open(path, 3, "dot").close()


def test_reopening_with_another_index_configuration_is_a_conflict_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 3).close()
    with pytest.raises(ConfigConflictError, match="index") as caught:
        Iqdb.open_with(path, IqdbConfig(dim=3, index=HnswConfig()))
    assert "import" in caught.value.hint


def test_provenance_compression_and_id_of_the_file_are_not_contradicted_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    made = IqdbConfig(dim=3, compression="lz4", provenance={"model": "x"}, database_id=bytes(16))
    Iqdb.open_with(path, made).close()
    for settings in ({"provenance": {"model": "y"}}, {"compression": "zstd"}, {"database_id": b"\1" * 16}):
        with pytest.raises(ConfigConflictError):
            Iqdb.open_with(path, IqdbConfig(dim=3, **settings))
    with Iqdb.open_with(path, IqdbConfig(dim=3, provenance={"model": "x"})) as db:
        assert db.config.compression == made.compression
        assert db.config.provenance == {"model": "x"}
        assert db.config.database_id == bytes(16)


def test_create_refuses_whatever_stands_at_the_path_and_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    path.write_bytes(b"mine")
    with pytest.raises(DatabaseExistsError):
        Iqdb.create(path, IqdbConfig(dim=3))
    with pytest.raises(NotADatabaseError):
        Iqdb.open(path, 3)
    assert path.read_bytes() == b"mine"
    assert names_in(tmp_path) == ["a.iqdb"]


def test_a_database_of_the_same_records_configuration_and_id_is_the_same_file(tmp_path: Path) -> None:
    ids, vectors, metadata = some_records(100)
    images = []
    for name, batch, threads in (("a", 100, 1), ("b", 7, 2)):
        config = IqdbConfig(dim=6, database_id=bytes(16), compression="zstd:3", threads=threads)
        with Iqdb.create(tmp_path / name, config) as db:
            for start in range(0, 100, batch):
                stop = start + batch
                db.upsert_many(ids[start:stop], vectors[start:stop], metadata[start:stop])
        images.append((tmp_path / name).read_bytes())
    assert images[0] == images[1]


def test_opening_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(DatabaseNotFoundError):
            Iqdb.open_existing(tmp_path / "a.iqdb", read_only=read_only)
        with pytest.raises(NotADatabaseError, match="directory"):
            Iqdb.open_existing(tmp_path, read_only=read_only)
    assert names_in(tmp_path) == []


def test_creating_in_a_directory_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileIOError, match="No such file"):
        Iqdb.open(tmp_path / "no" / "a.iqdb", 3)


def test_an_index_kind_that_cannot_be_built_yet_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="hnsw"):
        Iqdb.create(tmp_path / "a.iqdb", IqdbConfig(dim=3, index=HnswConfig()))
    assert names_in(tmp_path) == []


def test_a_fifo_is_refused_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.iqdb")
    for read_only in (False, True):
        with pytest.raises(NotADatabaseError, match="FIFO"):
            Iqdb.open_existing(tmp_path / "a.iqdb", read_only=read_only)


# --- Writing ------------------------------------------------------------------------------------


def test_upsert_replaces_and_delete_removes(filled: Iqdb) -> None:
    assert len(filled) == 300
    filled.upsert(0, [9] * 6, {"new": True})
    assert len(filled) == 300
    vector, metadata = filled.get(0) or (None, None)
    assert vector is not None
    assert vector.tolist() == [9] * 6
    assert metadata == {"new": True}
    assert filled.delete("id 1") is True
    assert filled.delete("id 1") is False
    assert filled.get("id 1") is None
    assert "id 1" not in filled
    assert 0 in filled
    assert filled.delete([0, 0, 3, "nothing"]) == 2
    assert len(filled) == 297
    assert filled.delete([]) == 0


def test_ids_of_different_kinds_are_different_records() -> None:
    with Iqdb.open_in_memory(1, "euclidean") as db:
        db.upsert_many([1, "1", b"1", b"\x01\0\0\0\0\0\0\0"], [[1], [2], [3], [4]])
        for record_id, expected in ((1, 1), ("1", 2), (b"1", 3), (b"\x01\0\0\0\0\0\0\0", 4)):
            found = db.get(record_id)
            assert found is not None
            assert found[0].tolist() == [expected]


def test_the_last_record_of_an_id_wins_within_a_batch_at_the_place_of_the_first() -> None:
    with Iqdb.open_in_memory(1, "euclidean") as db:
        assert db.upsert_many([1, 2, 1], [[1], [2], [3]], [{"a": 1}, None, {"a": 3}]) == 2
        assert list(db.ids()) == [1, 2]
        found = db.get(1)
        assert found is not None
        assert (found[0].tolist(), found[1]) == ([3], {"a": 3})


def test_a_replaced_record_keeps_its_place_and_a_deleted_one_comes_back_at_the_end(filled: Iqdb) -> None:
    ids = list(filled.ids())
    filled.upsert(ids[10], [0] * 6)
    filled.upsert(ids[250], [0] * 6)
    assert list(filled.ids()) == ids
    filled.delete([ids[10], ids[250]])
    filled.upsert(ids[250], [0] * 6)
    filled.upsert(ids[10], [0] * 6)
    expected = [i for n, i in enumerate(ids) if n not in (10, 250)] + [ids[250], ids[10]]
    assert list(filled.ids()) == expected
    filled.compact()
    assert list(filled.ids()) == expected


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


def test_legacy_6_nothing_is_logged_before_it_is_validated(tmp_path: Path) -> None:
    with Iqdb.open(tmp_path / "a.iqdb", 2) as db:
        db.upsert(1, [1, 2])
        before = (tmp_path / "a.iqdb.wal").read_bytes()
        for record in [(1, [1]), (1, [1, math.inf]), (-1, [1, 2]), (b"", [1, 2]), (1, [1, 2], {"a": 2**63})]:
            with pytest.raises(
                (InvalidVectorError, DimensionMismatchError, InvalidIdError, InvalidMetadataError)
            ):
                db.upsert(*record)
        assert (tmp_path / "a.iqdb.wal").read_bytes() == before


def test_legacy_22_an_empty_byte_id_is_refused_at_the_door() -> None:
    with Iqdb.open_in_memory(1) as db:
        for call in (
            lambda: db.upsert(b"", [1]),
            lambda: db.upsert_many([b""], [[1]]),
            lambda: db.delete(b""),
            lambda: db.get(b""),
        ):
            with pytest.raises(InvalidIdError, match="empty"):
                call()


def test_legacy_9_a_batch_that_does_not_fit_into_a_frame_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    text = "x" * (16 * 2**20)
    with Iqdb.open(path, 1) as db:
        db.upsert(1, [1])
        with pytest.raises(BatchTooLargeError):
            db.upsert_many(range(17), [[1]] * 17, [{"a": text}] * 17)
        db.upsert(2, [1], {"a": text})
        db.close(compact=False)
    with Iqdb.open_existing(path) as db:
        assert list(db.ids()) == [1, 2]


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


# --- Searching ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_agrees_with_numpy_and_orders_ties_by_insertion(metric: str) -> None:
    ids, vectors, metadata = some_records(300)
    vectors[17] = 0
    with Iqdb.open_in_memory_with(IqdbConfig(dim=6, metric=metric, auto_compact=None)) as db:
        db.upsert_many(ids[:150], vectors[:150], metadata[:150])
        db.compact()
        db.upsert_many(ids[150:], vectors[150:], metadata[150:])
        replaced = np.array([3, 100, 160])
        vectors[replaced] = vectors[[4, 101, 161]]
        db.upsert_many([ids[i] for i in replaced], vectors[replaced])
        gone = [5, 155]
        db.delete([ids[i] for i in gone])
        kept = np.setdiff1d(np.arange(300), gone)
        for query in vectors[::37]:
            expected = numpy_distances(metric, vectors[kept], query)
            order = kept[np.argsort(np.round(expected, 9), kind="stable")][:20]
            hits = db.search(query, 20)
            np.testing.assert_allclose(
                [hit.distance for hit in hits], np.sort(expected)[:20], rtol=1e-12, atol=1e-12
            )
            assert [hit.id for hit in hits] == [ids[i] for i in order]


def test_single_batch_buffer_and_array_searches_give_the_same_hits(filled: Iqdb) -> None:
    _, vectors, _ = some_records(40, seed=1)
    filled.delete([0, "id 1", 201])
    filled.upsert(3, vectors[0])
    for settings in ({}, {"filter": "n > 100 and even = true"}, {"max_distance": 4.5}, {"exact": True}):
        single = [filled.search(query, 7, **settings) for query in vectors]
        assert filled.search_batch(vectors, 7, **settings) == single
        assert filled.search_buffers(array("f", vectors.ravel()), 40, 7, **settings) == single
        ids, distances = filled.search_arrays(vectors, 7, **settings)
        assert ids.shape == distances.shape == (40, 7)
        for row, hits in enumerate(single):
            count = len(hits)
            assert ids[row, :count].tolist() == [hit.id for hit in hits]
            assert distances[row, :count].tolist() == [hit.distance for hit in hits]
            assert np.isinf(distances[row, count:]).all()
            assert all(missing is None for missing in ids[row, count:])


def test_search_arrays_gives_integers_where_all_ids_are() -> None:
    with Iqdb.open_in_memory(1, "euclidean") as db:
        db.upsert_many([2**64 - 1, 5], [[0], [1]])
        db.compact()
        ids, distances = db.search_arrays([[0]], 5)
        assert (ids.dtype, ids.tolist(), distances.tolist()) == (np.uint64, [[2**64 - 1, 5]], [[0, 1]])
        db.upsert(7, [2])
        ids, _ = db.search_arrays([[0]], 3)
        assert (ids.dtype, ids.tolist()) == (np.uint64, [[2**64 - 1, 5, 7]])
        ids, distances = db.search_arrays([[0]], 3, max_distance=1.5)
        assert (ids.tolist(), distances.tolist()) == ([[2**64 - 1, 5, 0]], [[0, 1, math.inf]])
        db.upsert("text", [3])
        ids, _ = db.search_arrays([[0]], 4)
        assert ids.tolist() == [[2**64 - 1, 5, 7, "text"]]
        assert db.search_arrays(np.empty((0, 1)), 3)[0].shape == (0, 3)


@pytest.mark.parametrize("k", [299, 300, 301, 2**63, 2**64 - 1, 2**70])
def test_misleading_4_k_beyond_the_number_of_records_gives_them_all(filled: Iqdb, k: int) -> None:
    assert len(filled.search([0] * 6, k)) == min(k, 300)
    assert len(filled.search([0] * 6, k, filter="even = true")) == len(
        [i for i in range(300) if i % 2 == 0 and i % 5]
    )
    assert filled.search_arrays([[0] * 6], k)[0].shape == (1, min(k, 300))


@pytest.mark.parametrize("k", [0, -1, 1.0, "1", None, True])
def test_a_k_that_is_no_positive_integer_is_refused(filled: Iqdb, k: Any) -> None:
    for search in (filled.search, lambda q, k: filled.search_batch([q], k)):
        with pytest.raises(InvalidParameterError, match="k is"):
            search([0] * 6, k)


def test_numpy_integers_are_accepted_as_k(filled: Iqdb) -> None:
    assert len(filled.search([0] * 6, np.int32(3))) == 3


@pytest.mark.parametrize(("name", "value"), [("ef", 64), ("n_probes", 8)])
def test_misleading_8_a_parameter_that_the_index_kind_does_not_have_is_refused(
    filled: Iqdb, name: str, value: int
) -> None:
    with pytest.raises(InvalidParameterError, match="flat has no such parameter"):
        filled.search([0] * 6, 3, **{name: value})


def test_misleading_6_huge_vectors_have_finite_distances_in_the_right_order() -> None:
    rows = np.array([[1e20, 0], [0, 1e20], [1e20, 1e20], [3e38, -3e38]], np.float32)
    for metric in ("cosine", "euclidean", "dot", "manhattan"):
        with Iqdb.open_in_memory(2, metric) as db:
            db.upsert_many(range(4), rows)
            hits = db.search(rows[2], 4)
            assert [hit.id for hit in hits] == np.argsort(
                numpy_distances(metric, rows, rows[2]), kind="stable"
            ).tolist()
            assert all(math.isfinite(hit.distance) for hit in hits)
    with Iqdb.open_in_memory(2, "cosine") as db:
        db.upsert_many(range(4), rows)
        assert db.search(rows[0], 1)[0].distance == 0.0


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ([0] * 5, DimensionMismatchError),
        ([], DimensionMismatchError),
        (np.zeros((1, 6)), InvalidVectorError),
        ([0, 0, 0, 0, 0, math.nan], InvalidVectorError),
        ([0, 0, 0, 0, 0, 1e39], InvalidVectorError),
        (np.full(6, np.inf, np.float32), InvalidVectorError),
        ("abcdef", InvalidVectorError),
        (b"abcdef", InvalidVectorError),
        (None, InvalidVectorError),
        ([None] * 6, InvalidVectorError),
    ],
    ids=range(10),
)
def test_a_query_that_is_no_vector_is_refused(filled: Iqdb, query: Any, error: type[Exception]) -> None:
    with pytest.raises((error, InvalidVectorError), match=r"query|empty"):
        filled.search(query, 3)


def test_a_batch_of_queries_names_the_bad_one(filled: Iqdb) -> None:
    queries = np.zeros((3, 6), np.float32)
    queries[2, 4] = np.nan
    with pytest.raises(InvalidVectorError, match=r"query 2: holds nan \(component 4\)"):
        filled.search_batch(queries, 3)
    with pytest.raises(InvalidVectorError, match=r"query 2: holds nan \(component 4\)"):
        filled.search_buffers(queries, 3, 3)
    with pytest.raises(DimensionMismatchError):
        filled.search_buffers(queries[:2], 3, 3)
    assert filled.search_batch([], 3) == []
    assert filled.search_buffers(array("f"), 0, 3) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda v: v,
        lambda v: v.astype(np.float64),
        lambda v: v.astype(">f4"),
        lambda v: np.repeat(v, 2)[::2],
        lambda v: v.tolist(),
        lambda v: tuple(v.tolist()),
        lambda v: array("f", v),
        lambda v: array("d", v),
        memoryview,
        lambda v: v.astype(np.int64),
    ],
    ids=range(10),
)
def test_queries_are_accepted_in_every_numeric_form(filled: Iqdb, make: Any) -> None:
    query = np.arange(6, dtype=np.float32)
    assert filled.search(make(query), 5) == filled.search(query.copy(), 5)


@pytest.mark.parametrize(
    "expression", ["n > 50", "even = true and name = 'n3'", "none is null", "not n > 50", "n = -1"]
)
def test_misleading_3_a_filtered_search_gives_the_smaller_of_k_and_the_matches(
    filled: Iqdb, expression: str
) -> None:
    condition = Filter.parse(expression)
    everything = filled.search([0] * 6, 10**6)
    matching = [hit for hit in everything if condition.matches(hit.metadata)]
    for k in (1, 10, 1000):
        assert filled.search([0] * 6, k, filter=expression) == matching[:k]
        assert filled.search_with([0] * 6, k, condition) == matching[:k]
        assert filled.search_batch_with([[0] * 6], k, condition) == [matching[:k]]


def test_filters_see_writes_and_deletes_at_once(filled: Iqdb) -> None:
    assert filled.search([0] * 6, 5, filter="tag = 'x'") == []
    filled.upsert_many(range(1000, 1600), np.zeros((600, 6)), [{"tag": "x"}] * 600)
    filled.upsert(0, [0] * 6, {"tag": "x"})
    assert len(filled.search([0] * 6, 1000, filter="tag = 'x'")) == 601
    filled.delete([0, *range(1000, 1599)])
    assert [hit.id for hit in filled.search([0] * 6, 1000, filter="tag = 'x'")] == [1599]
    filled.upsert(1599, [0] * 6, {"tag": "y"})
    assert filled.search([0] * 6, 5, filter="tag = 'x'") == []


@pytest.mark.parametrize("wrong", ["n >", {"n": 1}, 7, ["n"]])
def test_what_is_no_filter_is_refused(filled: Iqdb, wrong: Any) -> None:
    with pytest.raises(InvalidFilterError):
        filled.search([0] * 6, 5, filter=wrong)


def test_max_distance_keeps_the_hits_at_it_and_nearer(filled: Iqdb) -> None:
    everything = filled.search([0] * 6, 300)
    limit = everything[40].distance
    assert filled.search([0] * 6, 300, max_distance=limit) == [h for h in everything if h.distance <= limit]
    assert filled.search([0] * 6, 300, max_distance=-1) == []
    assert filled.search([0] * 6, 3, max_distance=math.inf) == everything[:3]
    for wrong in (math.nan, "1", None.__class__):
        with pytest.raises(InvalidParameterError, match="max_distance"):
            filled.search([0] * 6, 3, max_distance=wrong)


def test_an_empty_database_gives_no_hits() -> None:
    with Iqdb.open_in_memory(2) as db:
        assert db.search([1, 2], 5) == []
        assert db.search([1, 2], 5, filter="a = 1") == []
        assert db.search_batch([[1, 2]] * 3, 5) == [[], [], []]
        assert db.search_arrays([[1, 2]] * 3, 5)[0].shape == (3, 0)
        db.upsert(1, [1, 2])
        db.compact()
        db.delete(1)
        assert db.search([1, 2], 5) == []
        db.compact()
        assert db.search([1, 2], 5) == []


def test_a_hit_is_plain_data_that_goes_through_dicts_and_pickle(filled: Iqdb) -> None:
    for hit in filled.search([0] * 6, 20):
        assert Hit.from_dict(hit.to_dict()) == hit
        assert pickle.loads(pickle.dumps(hit)) == hit
        assert hash(Hit(hit.id, hit.distance, hit.metadata)) == hash(hit)
        assert repr(hit.id) in repr(hit)
        assert hit != Hit(hit.id, hit.distance + 1, hit.metadata)
        assert hit != "hit"
    assert Hit(1, 0.5) != Hit("1", 0.5)


def test_hits_can_be_asked_for_metadata_after_the_database_was_changed_and_closed(tmp_path: Path) -> None:
    with Iqdb.open(tmp_path / "a.iqdb", 1, "euclidean") as db:
        db.upsert_many([1, 2], [[1], [2]], [{"a": 1}, {"a": 2}])
        db.compact()
        db.upsert(3, [3], {"a": 3})
        hits = db.search([0], 3)
        db.delete([1, 3])
        db.compact()
    assert [hit.metadata for hit in hits] == [{"a": 1}, {"a": 2}, {"a": 3}]


# --- Reading ------------------------------------------------------------------------------------


def test_vector_bytes_and_metadata_agree_with_get(filled: Iqdb) -> None:
    for record_id in filled.ids():
        found = filled.get(record_id)
        assert found is not None
        assert filled.vector_bytes(record_id) == found[0].tobytes()
        assert filled.metadata(record_id) == found[1]
    assert filled.vector_bytes("nothing") is None
    assert filled.metadata("nothing") is None


@pytest.mark.parametrize("batch_rows", [1, 7, 100, 10**6])
def test_batches_give_every_record_in_insertion_order(filled: Iqdb, batch_rows: int) -> None:
    ids, vectors, metadata = some_records(300)
    filled.delete(ids[50])
    filled.upsert(ids[60], [5] * 6, {"x": 1})
    vectors[60], metadata[60] = 5, {"x": 1}
    expected = [i for i in range(300) if i != 50]
    batches = list(filled.batches(batch_rows=batch_rows))
    assert max(map(len, batches)) <= batch_rows
    joined = RecordBatch.concat(batches)
    assert joined.ids.to_list() == [ids[i] for i in expected]
    np.testing.assert_array_equal(joined.vectors, vectors[expected])
    assert joined.metadata is not None
    assert joined.metadata.to_dicts() == [metadata[i] for i in expected]
    slim = RecordBatch.concat(list(filled.batches(batch_rows=batch_rows, vectors=False)))
    assert slim.ids.to_list() == joined.ids.to_list()
    some = RecordBatch.concat(list(filled.batches(batch_rows=batch_rows, filter="n >= 100 or x = 1")))
    assert some.ids.to_list() == [ids[i] for i in expected if (i >= 100 and i % 5) or i == 60]


def test_batches_are_of_one_moment_whatever_is_written_meanwhile(filled: Iqdb) -> None:
    ids = list(filled.ids())
    seen = []
    for number, batch in enumerate(filled.batches(batch_rows=10)):
        seen += batch.ids.to_list()
        filled.delete(ids[299 - number])
        filled.upsert(f"new {number}", [0] * 6)
        filled.upsert(ids[number + 100], [0] * 6)
        if number == 5:
            filled.compact()
    assert seen == ids


def test_a_read_only_handle_sees_the_log_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, 1, "euclidean") as db:
        db.upsert(1, [1])
        before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
        with Iqdb.open_existing(path, read_only=True) as reader:
            assert reader.read_only
            assert list(reader.ids()) == [1]
            for write in (
                lambda: reader.upsert(2, [2]),
                lambda: reader.upsert_many([2], [[2]]),
                lambda: reader.delete(1),
                lambda: reader.delete("nothing"),
                reader.compact,
                reader.flush,
                lambda: reader.bulk_load([]),
            ):
                with pytest.raises(ReadOnlyError):
                    write()
        assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_refresh_brings_a_read_only_handle_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, 1) as db, Iqdb.open_existing(path, read_only=True) as reader:
        assert reader.refresh() is False
        db.upsert(1, [1])
        assert len(reader) == 0
        assert reader.refresh() is True
        assert len(reader) == 1
        assert reader.refresh() is False
        db.compact()
        assert reader.refresh() is True
        db.upsert(2, [1])
        db.compact()
        assert (len(reader), reader.refresh(), len(reader)) == (1, True, 2)
        assert db.refresh() is False


# --- Closing ------------------------------------------------------------------------------------


def test_a_closed_handle_says_so_and_closing_twice_is_fine(tmp_path: Path) -> None:
    db = Iqdb.open(tmp_path / "a.iqdb", 1)
    db.close()
    db.close()
    for call in (
        lambda: db.search([1], 1),
        lambda: db.upsert(1, [1]),
        lambda: db.delete(1),
        lambda: db.get(1),
        lambda: len(db),
        lambda: db.dim,
        lambda: list(db.ids()),
        db.compact,
        db.optimize,
        db.refresh,
        db.info,
    ):
        with pytest.raises(ClosedError):
            call()
    assert "closed" in repr(db)


def test_leaving_the_context_by_an_exception_keeps_every_write_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with pytest.raises(KeyError), Iqdb.open(path, 1) as db:  # noqa: PT012 - the block is what is tested
        db.upsert(1, [1])
        raise KeyError
    assert names_in(tmp_path) == ["a.iqdb", "a.iqdb.wal"]
    with Iqdb.open(path, 1) as db:
        assert list(db.ids()) == [1]
    assert names_in(tmp_path) == ["a.iqdb"]


def test_a_handle_that_is_forgotten_gives_its_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    db = Iqdb.open(path, 1)
    db.upsert(1, [1])
    del db
    with Iqdb.open(path, 1) as again:
        assert list(again.ids()) == [1]


def test_optimize_reports_that_flat_has_nothing_to_rebuild(filled: Iqdb) -> None:
    report = filled.optimize()
    assert (report.index, report.changed) == ("flat", False)
    assert report.to_dict()["reason"]


def test_info_counts(filled: Iqdb) -> None:
    facts = filled.info()
    assert facts["n_records"] == 300
    filled.compact()
    facts = filled.info()
    assert (facts["snapshot_rows"], facts["delta_rows"], facts["log_bytes"]) == (300, 0, 0)
    assert facts["config"]["metric"] == "euclidean"


# --- Ways in which 1.x lost data ----------------------------------------------------------------


def written(path: Path, count: int) -> bytes:
    """Make a database with `count` logged records and return its log."""
    with Iqdb.open(path, 2, "euclidean") as db:
        for i in range(count):
            db.upsert(i, [i, i])
        db.close(compact=False)
    return (path.parent / (path.name + ".wal")).read_bytes()


def ids_of(path: Path) -> list[Any]:
    with Iqdb.open_existing(path, read_only=True) as db:
        return list(db.ids())


def test_legacy_1_records_written_after_a_torn_tail_are_kept(tmp_path: Path) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    whole = written(path, 5)
    for cut in range(1, 40, 7):
        log.write_bytes(whole[:-cut])
        assert ids_of(path) == [0, 1, 2, 3]
        with Iqdb.open(path, 2, "euclidean") as db:
            db.upsert(100, [1, 1])
            db.close(compact=False)
        assert ids_of(path) == [0, 1, 2, 3, 100]
        with Iqdb.open(path, 2, "euclidean") as db:
            db.delete(100)
            db.close(compact=False)


def test_legacy_2_a_log_shorter_than_its_header_is_made_anew(tmp_path: Path) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    whole = written(path, 1)
    for size in (0, 1, 11, 63):
        log.write_bytes(b"" if size == 0 else whole[:size] if size < 8 else bytes(size))
        assert ids_of(path) == []
        with Iqdb.open(path, 2, "euclidean") as db:
            db.upsert(100, [1, 1])
            db.close(compact=False)
        assert ids_of(path) == [100]


@pytest.mark.parametrize("count", [8, 16, 32, 40, 4096])
def test_legacy_3_zero_bytes_at_the_tail_are_no_frame(tmp_path: Path, count: int) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    log_bytes = written(path, 3)
    log.write_bytes(log_bytes + bytes(count))
    assert ids_of(path) == [0, 1, 2]
    with Iqdb.open(path, 2, "euclidean") as db:
        db.upsert(100, [1, 1])
        db.close(compact=False)
    assert ids_of(path) == [0, 1, 2, 100]


def test_legacy_5_another_databases_log_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "a.iqdb", tmp_path / "b.iqdb"
    written(path, 2)
    (tmp_path / "a.iqdb.wal").write_bytes(written(other, 3))
    for read_only in (True, False):
        with pytest.raises(LogMismatchError):
            Iqdb.open_existing(path, read_only=read_only)


def test_legacy_11_a_flipped_bit_before_valid_frames_is_reported(tmp_path: Path) -> None:
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    damaged = bytearray(written(path, 100))
    damaged[64 + 50] ^= 1
    log.write_bytes(damaged)
    for read_only in (True, False):
        with pytest.raises(LogDamagedError) as caught:
            Iqdb.open_existing(path, read_only=read_only)
        assert caught.value.frame == 0
    assert log.read_bytes() == damaged


def test_legacy_12_a_bare_file_name_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Iqdb.open("a.iqdb", 1) as db:
        db.upsert(1, [1])
        db.compact()
        monkeypatch.chdir("/")
        db.upsert(2, [1])
    assert ids_of(tmp_path / "a.iqdb") == [1, 2]
    assert names_in(tmp_path) == ["a.iqdb"]


def test_legacy_13_creating_never_destroys(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    written(path, 2)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    with pytest.raises(DatabaseExistsError):
        Iqdb.create(path, IqdbConfig(dim=2))
    with pytest.raises(DatabaseExistsError):
        Iqdb.create_from(path, IqdbConfig(dim=2), [])
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_legacy_14_no_way_to_open_ignores_a_log_that_holds_records(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    written(path, 2)
    for handle in (
        lambda: Iqdb.open_existing(path, read_only=True),
        lambda: Iqdb.open_existing(path, fsync=FsyncPolicy.NEVER),
        lambda: Iqdb.open(path, 2, "euclidean"),
        lambda: Iqdb.open_with(path, IqdbConfig(dim=2, metric="euclidean")),
    ):
        db = handle()
        assert len(db) == 2
        db.close(compact=False)


def test_legacy_16_trailing_and_missing_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    whole = path.read_bytes()
    for image in (whole + b"\0", whole[:-1], whole[:5000]):
        path.write_bytes(image)
        with pytest.raises(TruncatedError):
            Iqdb.open_existing(path, read_only=True)


def test_legacy_20_a_flipped_bit_in_the_header_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    damaged = bytearray(path.read_bytes())
    damaged[88] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ChecksumError):
        Iqdb.open_existing(path, read_only=True)


def test_legacy_23_a_missing_snapshot_is_no_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    log = written(path, 2)
    path.unlink()
    for handle in (
        lambda: Iqdb.open(path, 2, "euclidean"),
        lambda: Iqdb.create(path, IqdbConfig(dim=2)),
        lambda: Iqdb.open_existing(path),
        lambda: Iqdb.open_existing(path, read_only=True),
        lambda: Iqdb.create_from(path, IqdbConfig(dim=2), []),
    ):
        with pytest.raises(SnapshotMissingError, match=r"a\.iqdb\.wal"):
            handle()
    assert (tmp_path / "a.iqdb.wal").read_bytes() == log


# --- Damage -------------------------------------------------------------------------------------


def test_a_damaged_vector_is_reported_by_the_search_that_needs_it_and_by_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, 512, "euclidean") as db:
        db.upsert_many(range(10), np.eye(10, 512), [{"n": i} for i in range(10)])
    damaged = bytearray(path.read_bytes())
    damaged[4096 + 2048 * 5] ^= 1
    path.write_bytes(damaged)
    with Iqdb.open_existing(path, read_only=True) as db:
        with pytest.raises(ChecksumError, match="vectors"):
            db.search(np.zeros(512), 3)
        with pytest.raises(ChecksumError):
            db.search_arrays(np.zeros((1, 512)), 3)
        with pytest.raises(ChecksumError):
            db.get(5)
        assert len(db.search(np.zeros(512), 3, filter="n < 3")) == 3
        assert db.get(0) is not None
        assert db.metadata(5) == {"n": 5}
