from __future__ import annotations

import errno
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    DamagedError,
    DatabaseExistsError,
    DimensionMismatchError,
    DuplicateIdError,
    FileIOError,
    Ids,
    InvalidParameterError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    MetadataColumns,
    RecordBatch,
)
from iqdb_core import bulk as bulk_module
from iqdb_core.storage.snapshot_writer import SnapshotWriter

CONFIG = IqdbConfig(dim=4, metric="euclidean", database_id=bytes(16), auto_compact=None)


def names_in(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def batch(ids: Any, value: float = 0, first_row: int = 0, *, metadata: bool = True) -> RecordBatch:
    ids = list(ids)
    vectors = np.full((len(ids), 4), value, np.float32) + np.arange(len(ids))[:, None]
    columns = (
        MetadataColumns.from_dicts([{"v": value, "i": i} for i in range(len(ids))]) if metadata else None
    )
    return RecordBatch(Ids.from_list(ids), vectors, columns, first_row)


def records(db: Iqdb) -> list[Any]:
    return [(i, db.vector_bytes(i), db.metadata(i)) for i in db.ids()]


def load_into(kind: str, directory: Path, before: Any, batches: Any, **settings: Any) -> Any:
    """Bulk load over given records; return the report and the records afterwards."""
    if kind == "new":
        report = Iqdb.create_from(directory / "a.iqdb", CONFIG, batches, **settings)
        with Iqdb.open_existing(directory / "a.iqdb", read_only=True) as db:
            return report, records(db)
    memory = kind == "memory"
    with Iqdb.open_in_memory_with(CONFIG) if memory else Iqdb.create(directory / "a.iqdb", CONFIG) as db:
        for part in before:
            db.upsert_batch(part)
            if len(before) > 1:
                db.compact()
        report = db.bulk_load(batches, **settings)
        result = records(db)
    if not memory:
        with Iqdb.open_existing(directory / "a.iqdb", read_only=True) as again:
            assert records(again) == result
        assert names_in(directory) == ["a.iqdb"]
    return report, result


@pytest.fixture(params=["file", "memory", "new"])
def load(request: Any, tmp_path: Path) -> Any:
    """Bulk load into a database without records, in every way there is."""
    return lambda batches, **settings: load_into(request.param, tmp_path, [], batches, **settings)


@pytest.fixture(params=["file", "memory"])
def load_over(request: Any, tmp_path: Path) -> Any:
    """Bulk load over given records."""
    return lambda before, batches, **settings: load_into(request.param, tmp_path, before, batches, **settings)


def expected_records(batches: Any) -> list[Any]:
    with Iqdb.open_in_memory_with(CONFIG) as db:
        for part in batches:
            db.upsert_batch(part)
        return records(db)


def test_records_of_all_batches_are_loaded_in_order(load: Any) -> None:
    batches = [
        batch(range(100)),
        batch(["a", b"b"], 5, 100),
        batch([], 0, 102),
        batch(range(200, 300), 9, 102),
    ]
    seen: list[int] = []
    report, found = load(iter(batches), progress=seen.append)
    assert found == expected_records(batches)
    assert (report.rows_read, report.rows_added, report.rows_replaced, report.n_rows) == (202, 202, 0, 202)
    assert seen == [100, 102, 102, 202]
    assert len(report.digest) == 32
    assert report.to_dict()["n_rows"] == 202


def test_of_records_with_one_id_the_last_wins_at_the_place_of_the_first(load: Any) -> None:
    batches = [batch(range(1000)), batch([5, 5, "x", 7], 50), batch(range(900, 1100), 70), batch(["x"], 90)]
    report, found = load(batches)
    assert found == expected_records(batches)
    assert (report.rows_read, report.rows_added, report.rows_replaced) == (1205, 1101, 0)


@pytest.mark.parametrize("parts", [1, 2])
def test_loading_replaces_records_that_are_there(load_over: Any, parts: int) -> None:
    before = [batch(range(1000)), batch(["b"], 3)][:parts]
    batches = [batch([999, 3, "new", "b"], 30), batch([3, 1001], 60)]
    report, found = load_over(before, batches)
    assert found == expected_records([*before, *batches])
    n_old = sum(map(len, before))
    assert (report.rows_read, report.n_rows) == (6, len(found))
    assert report.rows_added == len(found) - n_old
    assert report.rows_replaced == (2 if parts == 1 else 3)


def test_a_load_comes_behind_writes_that_are_only_in_the_log(tmp_path: Path) -> None:
    with Iqdb.create(tmp_path / "a.iqdb", CONFIG) as db:
        db.upsert_batch(batch(range(10)))
        db.compact()
        db.delete([3, 4])
        db.upsert(5, [1, 2, 3, 4], {"logged": True})
        db.upsert("logged", [1, 2, 3, 4])
        before = records(db)
        report = db.bulk_load([batch([100, 101])])
        assert records(db)[:-2] == before
        assert (report.rows_added, report.n_rows) == (2, 11)
        assert names_in(tmp_path) == ["a.iqdb"]
        db.upsert("after", [0] * 4)
    with Iqdb.open_existing(tmp_path / "a.iqdb", read_only=True) as again:
        assert list(again.ids()) == [0, 1, 2, 5, 6, 7, 8, 9, "logged", 100, 101, "after"]


def test_on_duplicate_error_refuses_an_id_that_the_source_has_twice(load: Any, tmp_path: Path) -> None:
    batches = [batch([1, 2]), batch([3, 2], 0, 2)]
    with pytest.raises(DuplicateIdError, match="id 2 occurs more than once") as caught:
        load(batches, on_duplicate="error")
    assert caught.value.record_id == 2
    assert caught.value.row in (1, 3)
    assert all(".tmp" not in name for name in names_in(tmp_path))


def test_on_duplicate_error_still_replaces_records_of_the_database(load_over: Any) -> None:
    report, found = load_over([batch([1, 2])], [batch([2, 3], 7)], on_duplicate="error")
    assert (report.rows_added, report.rows_replaced) == (1, 1)
    assert found == expected_records([batch([1, 2]), batch([2, 3], 7)])


def test_an_unknown_rule_for_duplicates_is_refused(load: Any) -> None:
    with pytest.raises(InvalidParameterError, match="on_duplicate"):
        load([], on_duplicate="first")


def failing_source() -> Any:
    yield batch(range(10))
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        (failing_source, KeyboardInterrupt, None),
        (
            lambda: [batch(range(3)), RecordBatch(Ids.from_list([9]), np.zeros((1, 5), np.float32))],
            DimensionMismatchError,
            None,
        ),
        (
            lambda: [
                RecordBatch(
                    Ids.from_list([8, 9]), np.array([[0] * 4, [0, np.nan, 0, 0]], np.float32), None, 10
                )
            ],
            InvalidVectorError,
            r"record 11: holds nan \(component 1\)",
        ),
        (lambda: [batch([1]), None], AttributeError, None),
    ],
)
def test_a_load_that_fails_changes_nothing_and_leaves_nothing(
    tmp_path: Path, batches: Any, error: type[BaseException], message: str | None
) -> None:
    with Iqdb.create(tmp_path / "a.iqdb", CONFIG) as db:
        db.upsert_batch(batch(range(5)))
        before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
        with pytest.raises(error, match=message):
            db.bulk_load(batches())
        assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before
        assert len(db) == 5
        db.upsert(77, [0] * 4)
    (tmp_path / "a.iqdb").unlink()
    with pytest.raises(error, match=message):
        Iqdb.create_from(tmp_path / "b.iqdb", CONFIG, batches())
    assert names_in(tmp_path) == []


def test_create_from_refuses_a_path_that_is_taken_even_at_the_last_moment(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"

    def source() -> Any:
        yield batch(range(5))
        path.write_bytes(b"mine")

    with pytest.raises(DatabaseExistsError):
        Iqdb.create_from(path, CONFIG, source())
    assert names_in(tmp_path) == ["a.iqdb"]
    with pytest.raises(DatabaseExistsError):
        Iqdb.create_from(path, CONFIG, [])
    assert path.read_bytes() == b"mine"


def test_nothing_is_at_the_path_while_a_new_database_is_loaded(tmp_path: Path) -> None:
    def source() -> Any:
        assert not (tmp_path / "a.iqdb").exists()
        yield batch(range(5))
        assert not (tmp_path / "a.iqdb").exists()

    Iqdb.create_from(tmp_path / "a.iqdb", CONFIG, source())
    with Iqdb.open_existing(tmp_path / "a.iqdb") as db:
        assert len(db) == 5


def test_create_from_makes_the_file_that_writes_and_a_compaction_would(tmp_path: Path) -> None:
    batches = [batch(range(1000)), batch(["a", "b"], 3)]
    Iqdb.create_from(tmp_path / "a.iqdb", CONFIG, batches)
    with Iqdb.create(tmp_path / "b.iqdb", CONFIG) as db:
        for part in batches:
            db.upsert_batch(part)
    assert (tmp_path / "a.iqdb").read_bytes() == (tmp_path / "b.iqdb").read_bytes()


def test_searches_see_the_old_state_during_a_load_and_the_new_one_after_it() -> None:
    with Iqdb.open_in_memory_with(CONFIG) as db:
        db.upsert(1, [0] * 4)

        def source() -> Any:
            for number in range(3):
                assert [hit.id for hit in db.search([0] * 4, 10)] == [1]
                yield batch([10 + number])

        db.bulk_load(source())
        assert len(db.search([0] * 4, 10)) == 4


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("name", ["create", "write", "sync", "sync_data", "rename", "sync_directory"])
def test_a_disk_that_fails_during_a_load_costs_no_record(
    tmp_path: Path, failing_files: Any, name: str, duplicates: bool
) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.create_from(path, CONFIG, [batch(range(100))])
    with Iqdb.open_existing(path, files=failing_files) as db:
        db.upsert("logged", [0] * 4)
        failing_files.arm(name, error=errno.ENOSPC)
        with pytest.raises(FileIOError):
            db.bulk_load([batch(["x", "y"]), batch(["x"] if duplicates else ["z"])])
        failing_files.fail = None
        db.close(compact=False)
    with Iqdb.open_existing(path) as db:
        assert list(db.ids())[:101] == [*range(100), "logged"]
        # Only where the new file had its name already are the loaded records there, and then all.
        assert len(db) == 101 if name != "sync_directory" else len(db) in (103, 104)
    assert names_in(tmp_path) == ["a.iqdb"]


def test_a_load_that_would_lose_a_record_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.create_from(path, CONFIG, [batch(range(100))])
    image = path.read_bytes()
    original = SnapshotWriter.append_rows
    with Iqdb.open_existing(path) as db:
        with monkeypatch.context() as patch:
            patch.setattr(
                SnapshotWriter, "append_rows", lambda self, s, start, stop: original(self, s, start, stop - 1)
            )
            with pytest.raises(DamagedError):
                db.bulk_load([batch(["x"])])
        with monkeypatch.context() as patch:
            patch.setattr(bulk_module, "_complement", lambda kept, _: kept[:0])
            with pytest.raises(DamagedError):
                db.bulk_load([batch([5])])
    assert path.read_bytes() == image
    assert names_in(tmp_path) == ["a.iqdb"]


def test_the_memory_of_a_load_is_bounded_by_the_batch_and_not_the_source(tmp_path: Path) -> None:
    config = IqdbConfig(dim=256, database_id=bytes(16))
    buffer = np.ones((1000, 256), np.float32)

    def source() -> Any:
        for start in range(0, 40_000, 1000):
            buffer[:, 0] = start
            yield RecordBatch(
                Ids.from_u64(np.arange(start, start + 1000, dtype=np.uint64)), buffer, None, start
            )

    Iqdb.create_from(tmp_path / "warm.iqdb", config, [])
    tracemalloc.start()
    try:
        Iqdb.create_from(tmp_path / "a.iqdb", config, source())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20  # the source has 39 MiB
