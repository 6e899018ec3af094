from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqdb_core import Iqdb


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(array: Any, name: Any = "vectors.npy") -> Any:
        path = tmp_path / name
        np.save(path, np.asarray(array))
        return path

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Any:
    def write(columns: Any, name: Any = "records.parquet") -> Any:
        path = tmp_path / name
        pq.write_table(pa.table(columns), path)
        return path

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(path: Any) -> Any:
    """Return the records of a database, in order, as plain values."""
    with Iqdb.open_existing(path, read_only=True) as db:
        records = []
        for batch in db.batches():
            mappings = [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
            records += zip(batch.ids.to_list(), batch.vectors.tolist(), mappings, strict=True)
        return records


def test_a_database_that_does_not_exist_is_created_with_the_dimension_of_the_data(
    iqdb: Any, save: Any, tmp_path: Path
) -> None:
    db = tmp_path / "new.iqdb"
    outcome = iqdb("import", db, save([[1.0, 2.0], [3.0, 4.0]]), "--metric", "euclidean")
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout == b""
    assert "2 rows in" in outcome.stderr
    assert "2 added, 0 replaced; the database holds 2" in outcome.stderr
    assert "row numbers as ids" in outcome.stderr
    assert content(db) == [(0, [1.0, 2.0], None), (1, [3.0, 4.0], None)]
    with Iqdb.open_existing(db, read_only=True) as handle:
        assert (handle.dim, handle.metric.value) == (2, "euclidean")


def test_nothing_but_the_database_is_left_behind(iqdb: Any, save: Any, tmp_path: Path) -> None:
    folder = tmp_path / "only"
    folder.mkdir()
    assert iqdb("import", folder / "new.iqdb", save([[1.0]]), "--metric", "dot").status == 0
    assert names(folder) == ["new.iqdb"]


def test_the_settings_of_a_new_database_can_be_given(iqdb: Any, save: Any, tmp_path: Path) -> None:
    db = tmp_path / "new.iqdb"
    settings = ["--metric", "dot", "--compression", "zstd:5", "--model", "m1", "--database-id", "0f" * 16]
    assert iqdb("import", db, save([[1.0]]), *settings, "--index", "flat").status == 0
    with Iqdb.open_existing(db, read_only=True) as handle:
        assert str(handle.config.compression) == "zstd:5"
        assert handle.config.provenance == {"model": "m1"}
        assert handle.config.database_id == bytes.fromhex("0f" * 16)


def test_the_same_import_gives_the_same_bytes(iqdb: Any, save: Any, tmp_path: Path) -> None:
    source = save(np.random.default_rng(3).standard_normal((500, 6)).astype(np.float32))
    files = [tmp_path / "a.iqdb", tmp_path / "b.iqdb"]
    for db, threads in zip(files, ("1", "3"), strict=True):
        args = ["--metric", "dot", "--database-id", "ab" * 16, "--threads", threads]
        assert iqdb("import", db, source, *args).status == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_without_a_metric_a_missing_database_is_not_found(iqdb: Any, save: Any, tmp_path: Path) -> None:
    outcome = iqdb("import", tmp_path / "absent.iqdb", save([[1.0]]))
    assert outcome.status == 3
    assert "no such database" in outcome.stderr
    assert "--metric" in outcome.stderr
    assert not (tmp_path / "absent.iqdb").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--metric", "cosine"),
        ("--compression", "lz4"),
        ("--model", "m1"),
        ("--database-id", "ff" * 16),
        ("--index", "hnsw"),
    ],
)
def test_settings_that_contradict_the_database_are_refused(
    iqdb: Any, save: Any, database: Path, option: Any, value: Any
) -> None:
    before = database.read_bytes()
    outcome = iqdb("import", database, save(np.zeros((1, 8))), option, value)
    assert outcome.status == 2
    assert value in outcome.stderr
    assert database.read_bytes() == before


def test_settings_that_agree_with_the_database_are_accepted(iqdb: Any, save: Any, database: Path) -> None:
    args = ["--metric", "euclidean", "--compression", "none", "--index", "flat"]
    assert iqdb("import", database, save(np.zeros((1, 8))), *args).status == 0


def test_importing_twice_replaces(iqdb: Any, save: Any, tmp_path: Path) -> None:
    db, source = tmp_path / "new.iqdb", save([[1.0, 2.0], [3.0, 4.0]])
    assert iqdb("import", db, source, "--metric", "dot").status == 0
    outcome = iqdb("import", db, save([[5.0, 6.0], [7.0, 8.0], [9.0, 0.0]]))
    assert "1 added, 2 replaced; the database holds 3" in outcome.stderr
    assert content(db) == [(0, [5.0, 6.0], None), (1, [7.0, 8.0], None), (2, [9.0, 0.0], None)]


def test_records_that_stay_keep_their_place_and_metadata(
    iqdb: Any, save: Any, database: Path, vectors: Any
) -> None:
    assert iqdb("import", database, save(np.full((2, 8), 9.0)), "--first-id", "100").status == 0
    records = content(database)
    assert [record[0] for record in records] == list(range(200))
    assert records[99][1] == vectors[99].tolist()
    assert records[100] == (100, [9.0] * 8, None)
    assert records[98][2] == {"word": "wort-98", "n": 98, "even": True, "weight": 24.5}


def test_sources_are_taken_in_order_and_numbered_through(iqdb: Any, save: Any, tmp_path: Path) -> None:
    db = tmp_path / "new.iqdb"
    lines = tmp_path / "more.jsonl"
    lines.write_text('{"vector": [5, 6]}\n')
    outcome = iqdb("import", db, save([[1.0, 2.0], [3.0, 4.0]]), lines, "--metric", "dot", "--first-id", "7")
    assert outcome.status == 0, outcome.stderr
    assert [(record[0], record[1]) for record in content(db)] == [(7, [1, 2]), (8, [3, 4]), (9, [5, 6])]


def test_standard_input_is_a_source(iqdb: Any, tmp_path: Path) -> None:
    db = tmp_path / "new.iqdb"
    lines = b'{"id": "a", "vector": [1, 2]}\n{"id": "b", "vector": [3, 4]}\n'
    assert iqdb("import", db, "-", "--metric", "dot", stdin=lines).status == 0
    assert [record[0] for record in content(db)] == ["a", "b"]


def test_formats_are_told_apart_by_their_first_bytes(
    iqdb: Any, save: Any, parquet: Any, tmp_path: Path
) -> None:
    array, table = save([[1.0, 2.0]]), parquet({"id": ["p"], "v": [[3.0, 4.0]]})
    for name, source in (("a.iqdb", array), ("b.iqdb", table)):
        outcome = iqdb("import", tmp_path / name, "-", "--metric", "dot", stdin=source.read_bytes())
        assert outcome.status == 0, outcome.stderr
    plain = tmp_path / "plain"
    plain.write_text("1, 2\n")
    outcome = iqdb("import", tmp_path / "c.iqdb", plain, "--metric", "dot")
    assert outcome.status == 4
    assert "begins with '1, 2" in outcome.stderr
    assert "--input-format" in outcome.stderr


def test_a_format_can_be_named(iqdb: Any, tmp_path: Path) -> None:
    source = tmp_path / "records.data"
    source.write_text('{"vector": [1]}\n')
    db = tmp_path / "new.iqdb"
    assert iqdb("import", db, source, "--metric", "dot", "--input-format", "jsonl").status == 0
    outcome = iqdb("import", db, source, "--input-format", "npy")
    assert outcome.status == 4
    assert "does not begin as a .npy file does" in outcome.stderr


def test_ids_and_metadata_come_from_files_beside(iqdb: Any, save: Any, tmp_path: Path) -> None:
    db = tmp_path / "new.iqdb"
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text('{"a": 1}\nnull\n')
    ids = save(["x", "y"], "ids.npy")
    args = ["--metric", "dot", "--ids", ids, "--metadata", metadata]
    assert iqdb("import", db, save([[1.0], [2.0]]), *args).status == 0
    assert content(db) == [("x", [1.0], {"a": 1}), ("y", [2.0], None)]


def test_parquet_columns_are_chosen(iqdb: Any, parquet: Any, tmp_path: Path) -> None:
    source = parquet({"key": ["x", "y"], "v": [[1.0], [2.0]], "w": [[3.0], [4.0]], "a": [1, 2], "b": [3, 4]})
    db = tmp_path / "new.iqdb"
    outcome = iqdb("import", db, source, "--metric", "dot")
    assert outcome.status == 4
    assert "could be the vector" in outcome.stderr
    assert not db.exists()
    args = ["--vector-column", "w", "--id-column", "key", "--columns", "b"]
    assert iqdb("import", db, source, "--metric", "dot", *args).status == 0
    assert content(db) == [("x", [3.0], {"b": 3}), ("y", [4.0], {"b": 4})]


def test_no_metadata_contradicts_a_choice_of_metadata(iqdb: Any, save: Any, tmp_path: Path) -> None:
    outcome = iqdb("import", tmp_path / "a.iqdb", save([[1.0]]), "--no-metadata", "--columns", "a")
    assert outcome.status == 2


LINES = b'{"id": 1, "vector": [1]}\n{"id": 2, "vector": [2]}\n{"id": 1, "vector": [3]}\n'


def test_of_records_with_one_id_the_last_wins_at_the_place_of_the_first(iqdb: Any, tmp_path: Path) -> None:
    db = tmp_path / "new.iqdb"
    outcome = iqdb("import", db, "-", "--metric", "dot", stdin=LINES)
    assert outcome.status == 0
    assert "3 rows in" in outcome.stderr
    assert "2 added, 0 replaced, 1 with an id that came again later; the database holds 2" in outcome.stderr
    assert content(db) == [(1, [3.0], None), (2, [2.0], None)]


def test_duplicate_ids_can_be_an_error(iqdb: Any, tmp_path: Path) -> None:
    db = tmp_path / "new.iqdb"
    outcome = iqdb("import", db, "-", "--metric", "dot", "--on-duplicate", "error", stdin=LINES)
    assert outcome.status == 4
    assert "standard input, line 1: id 1 occurs more than once" in outcome.stderr
    assert not db.exists()


def test_a_duplicate_id_is_named_with_its_source_and_line(iqdb: Any, save: Any, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"id": 4, "vector": [1]}\n\n\n{"id": 7, "vector": [1]}\n')
    vectors, db = save(np.zeros((3, 1))), tmp_path / "new.iqdb"
    # The rows of the array are numbered 0 to 2 and then, behind two lines, 5 to 7.
    outcome = iqdb("import", db, vectors, lines, vectors, "--metric", "dot", "--on-duplicate", "error")
    assert outcome.status == 4
    assert f"{lines}, line 4: id 7 occurs more than once" in outcome.stderr


def test_replacing_a_record_of_the_database_is_no_duplicate(iqdb: Any, database: Path) -> None:
    lines = json.dumps({"id": 5, "vector": [0.5] * 8}).encode()
    assert iqdb("import", database, "-", "--on-duplicate", "error", stdin=lines).status == 0


def test_a_source_without_records_is_refused_unless_that_is_allowed(
    iqdb: Any, save: Any, database: Path
) -> None:
    before = database.read_bytes()
    source = save(np.zeros((0, 8)))
    outcome = iqdb("import", database, source)
    assert outcome.status == 4
    assert "holds no records" in outcome.stderr
    assert database.read_bytes() == before
    assert iqdb("import", database, source, "--allow-empty").status == 0
    assert len(content(database)) == 200


def test_a_late_error_leaves_everything_as_it_was(
    iqdb: Any, save: Any, database: Path, tmp_path: Path
) -> None:
    before = database.read_bytes()
    array = np.zeros((5000, 8), np.float32)
    array[4321, 3] = np.nan
    outcome = iqdb("import", database, save(array))
    assert outcome.status == 4
    assert "vectors.npy, row 4,321" in outcome.stderr
    assert outcome.stderr.count("\n") <= 2
    assert database.read_bytes() == before
    fresh = tmp_path / "folder" / "new.iqdb"
    fresh.parent.mkdir()
    assert iqdb("import", fresh, save(array), "--metric", "dot").status == 4
    assert names(fresh.parent) == []


@pytest.mark.parametrize(
    ("exists", "number", "status", "said"),
    [
        (True, signal.SIGINT, 130, b"interrupted"),
        (False, signal.SIGINT, 130, b"interrupted"),
        (True, signal.SIGTERM, 143, b"terminated"),
        (False, signal.SIGTERM, 143, b"terminated"),
    ],
)
def test_an_interrupt_leaves_everything_as_it_was(
    iqdb: Any, database: Path, tmp_path: Path, exists: Any, number: int, status: int, said: bytes
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    db = folder / "db.iqdb"
    if exists:
        db.write_bytes(database.read_bytes())
    before = db.read_bytes() if exists else None
    fifo = tmp_path / "records.jsonl"
    os.mkfifo(fifo)
    args = [] if exists else ["--metric", "dot"]
    command = [*iqdb.command("import", db, fifo), *args]
    line = json.dumps({"vector": [0.5] * 8}).encode() + b"\n"
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, env=iqdb.environment()) as process,
        fifo.open("wb", buffering=0) as out,
    ):
        out.write(line * 70_000)
        wait_for_temporary(folder, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert said in err
    assert b"Traceback" not in err
    assert names(folder) == (["db.iqdb"] if exists else [])
    assert (db.read_bytes() if exists else None) == before


def wait_for_temporary(folder: Any, process: Any) -> None:
    waited = threading.Event()
    for _ in range(600):
        if any(".tmp" in name for name in names(folder)):
            return
        assert process.poll() is None
        waited.wait(0.05)
    raise AssertionError("no temporary file appeared")


def test_a_locked_database_is_refused_before_the_source_is_read(iqdb: Any, save: Any, database: Path) -> None:
    source = save(np.zeros((1, 8)))
    with Iqdb.open_existing(database):
        outcome = iqdb.process("import", database, source)
    assert outcome.status == 5


def test_writes_in_the_log_are_folded_in(iqdb: Any, save: Any, database: Path) -> None:
    with Iqdb.open_existing(database) as handle:
        handle.upsert("logged", [0.25] * 8, {"a": 1})
        handle.close(compact=False)
    assert iqdb("import", database, save(np.zeros((1, 8)))).status == 0
    assert content(database)[-1] == ("logged", [0.25] * 8, {"a": 1})
    assert not Path(f"{database}.wal").exists()


def test_memory_does_not_grow_with_the_source(iqdb: Any, tmp_path: Path) -> None:
    peaks = []
    for rows in (1_000, 250_000):
        source = tmp_path / f"{rows}.npy"
        array = np.lib.format.open_memmap(source, mode="w+", dtype=np.float32, shape=(rows, 128))
        array.flush()
        words = iqdb.command("import", tmp_path / f"{rows}.iqdb", source, "--metric", "dot")
        code = (
            "import resource, subprocess, sys\n"
            "subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)\n"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=iqdb.environment(), capture_output=True, check=True
        )
        peaks.append(int(done.stdout) * (1 if sys.platform == "darwin" else 1024))
    # 128 MB of vectors through buffers of 8 MiB.
    assert peaks[1] - peaks[0] < 64 << 20


@pytest.mark.parametrize("text", ['[\n{"id": 1, "vector": [1]}\n]\n', '[{"id": 1, "vector": [1]}]'])
@pytest.mark.parametrize("name", ["a.json", "-"])
def test_one_array_of_records_gets_the_command_that_makes_lines_of_it(
    iqdb: Any, tmp_path: Path, text: str, name: str
) -> None:
    source = tmp_path / name if name != "-" else "-"
    if name != "-":
        (tmp_path / name).write_text(text)
    outcome = iqdb("import", tmp_path / "db.iqdb", source, "--metric", "dot", stdin=text.encode())
    assert outcome.status == 4
    assert "line 1: is " in outcome.stderr
    assert outcome.stderr.endswith('; "jq -c .[]" makes lines of an array\n')
    assert not (tmp_path / "db.iqdb").exists()


def test_a_column_named_id_that_cannot_hold_ids_is_told(iqdb: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1.5], "v": pa.array([[1.0, 2.0]])}), path)
    outcome = iqdb("import", tmp_path / "db.iqdb", path, "--metric", "dot")
    assert outcome.status == 0
    told = "vectors from column 'v', row numbers as ids (no integers, text or bytes: id (double))\n"
    assert outcome.stderr.startswith(f"{path}: {told}")


def test_a_field_named_id_that_is_none_is_refused_without_a_wrong_note(iqdb: Any, tmp_path: Path) -> None:
    outcome = iqdb(
        "import", tmp_path / "db.iqdb", "-", "--metric", "dot", stdin=b'{"id": 1.5, "vector": [1]}\n'
    )
    assert outcome.status == 4
    assert "record numbers as ids" not in outcome.stderr
    assert "an id is an integer from 0" in outcome.stderr
