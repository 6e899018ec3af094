from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    ClosedError,
    Iqdb,
    ReadOnlyError,
    RecordBatch,
)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


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


def test_vector_bytes_and_metadata_agree_with_get(filled: Iqdb) -> None:
    for record_id in filled.ids():
        found = filled.get(record_id)
        assert found is not None
        assert filled.vector_bytes(record_id) == found[0].tobytes()
        assert filled.metadata(record_id) == found[1]
    assert filled.vector_bytes("nothing") is None
    assert filled.metadata("nothing") is None


@pytest.mark.parametrize("batch_rows", [1, 7, 100, 10**6])
def test_batches_give_every_record_in_insertion_order(
    filled: Iqdb, batch_rows: int, some_records: Any
) -> None:
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


def test_the_keys_of_all_metadata_are_known(tmp_path: Path) -> None:
    with Iqdb.open(tmp_path / "a.iqdb", dim=2) as db:
        assert db.metadata_keys() == []
        db.upsert_many([1, 2, 3], np.eye(3, 2), [{"b": 1}, None, {"a": "x", "b": None}])
        assert db.metadata_keys() == ["a", "b"]
        db.flush()
        db.upsert(4, [1, 1], {"c": True})
        assert db.metadata_keys() == ["a", "b", "c"]
    with pytest.raises(ClosedError):
        db.metadata_keys()
