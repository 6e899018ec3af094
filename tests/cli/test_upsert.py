from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqdb_core import Iqdb


def lines(*records: Any) -> Any:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def record(number: Any, value: Any = 0.5) -> Any:
    return {"id": number, "vector": [value] * 8}


def test_records_are_inserted_and_replaced_through_the_log(iqdb: Any, database: Path) -> None:
    before = database.read_bytes()
    outcome = iqdb("upsert", database, stdin=lines(record(5), {**record("new"), "a": 1}))
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout == b""
    assert "2 rows in" in outcome.stderr
    assert "acknowledged; the database holds 201" in outcome.stderr
    assert database.read_bytes() == before
    assert Path(f"{database}.wal").exists()
    with Iqdb.open_existing(database, read_only=True) as handle:
        assert handle.get("new")[1] == {"a": 1}
        assert handle.get(5)[0].tolist() == [0.5] * 8
        assert handle.get(5)[1] is None
        assert handle.get(6)[1]["n"] == 6


@pytest.mark.parametrize("kind", ["npy", "parquet", "jsonl"])
def test_every_format_is_accepted_from_a_file_and_from_a_pipe(
    iqdb: Any, database: Path, tmp_path: Path, kind: Any
) -> None:
    path = tmp_path / f"records.{kind}"
    if kind == "npy":
        np.save(path, np.full((3, 8), 0.5))
    elif kind == "parquet":
        pq.write_table(pa.table({"id": [0, 1, 2], "v": [[0.5] * 8] * 3}), path)
    else:
        path.write_bytes(lines(record(0), record(1), record(2)))
    assert iqdb("upsert", database, path).status == 0
    assert iqdb("upsert", database, "-", stdin=path.read_bytes()).status == 0
    with Iqdb.open_existing(database, read_only=True) as handle:
        assert len(handle) == 200
        assert handle.get(2)[0].tolist() == [0.5] * 8


def test_what_was_acknowledged_before_a_bad_line_is_kept(iqdb: Any, database: Path) -> None:
    good = [record(1000 + number) for number in range(25)]
    stdin = lines(*good) + b'{"id": 2000, "vector": [1, 2]}\n' + lines(record(3000))
    outcome = iqdb("upsert", database, "--batch-size", "10", stdin=stdin)
    assert outcome.status == 4
    note, error = outcome.stderr.splitlines()[-2:]
    assert note == "iqdb: 25 records acknowledged and kept; stopped there:"
    assert error.startswith("iqdb: standard input, line 26")
    assert "2 components, expected 8" in error
    with Iqdb.open_existing(database, read_only=True) as handle:
        assert len(handle) == 225
        assert 1024 in handle
        assert 3000 not in handle


def test_the_number_of_records_that_there_were_is_said_where_it_is_known(
    iqdb: Any, database: Path, tmp_path: Path
) -> None:
    array = np.zeros((30, 8))
    array[12, 3] = np.inf
    np.save(tmp_path / "v.npy", array)
    outcome = iqdb("upsert", database, tmp_path / "v.npy", "--first-id", "500", "--batch-size", "5")
    assert outcome.status == 4
    assert "10 of 30 records acknowledged and kept" in outcome.stderr
    assert "row 12" in outcome.stderr
    with Iqdb.open_existing(database, read_only=True) as handle:
        assert 509 in handle
        assert 510 not in handle


def test_each_batch_is_one_frame(iqdb: Any, database: Path) -> None:
    records = [record(number) for number in range(10)]
    sizes = []
    for batch_size in ("1", "10"):
        path = database.with_name(f"{batch_size}.iqdb")
        path.write_bytes(database.read_bytes())
        assert iqdb("upsert", path, "--batch-size", batch_size, stdin=lines(*records)).status == 0
        sizes.append(Path(f"{path}.wal").stat().st_size)
    assert sizes[0] > sizes[1]


def test_an_id_that_comes_twice_has_its_last_record(iqdb: Any, database: Path) -> None:
    assert iqdb("upsert", database, stdin=lines(record(7, 0.1), record(7, 0.25))).status == 0
    with Iqdb.open_existing(database, read_only=True) as handle:
        assert len(handle) == 200
        assert handle.get(7)[0].tolist() == [0.25] * 8


def test_a_missing_database_is_not_found_and_not_created(iqdb: Any, tmp_path: Path) -> None:
    outcome = iqdb("upsert", tmp_path / "absent.iqdb", stdin=lines(record(1)))
    assert outcome.status == 3
    assert not (tmp_path / "absent.iqdb").exists()


def test_an_empty_source_is_refused_unless_that_is_allowed(iqdb: Any, database: Path) -> None:
    outcome = iqdb("upsert", database, "--input-format", "jsonl")
    assert outcome.status == 4
    assert "holds no records" in outcome.stderr
    assert not Path(f"{database}.wal").exists()


def test_another_dimension_is_refused_before_anything_is_written(iqdb: Any, database: Path) -> None:
    outcome = iqdb("upsert", database, stdin=b'{"id": 1, "vector": [1, 2, 3]}\n')
    assert outcome.status == 4
    assert "has 3 components, the database has dimension 8" in outcome.stderr
    assert not Path(f"{database}.wal").exists()


def test_a_batch_is_acknowledged_while_the_pipe_is_open_and_survives_an_interrupt(
    iqdb: Any, database: Path
) -> None:
    command = iqdb.command("upsert", database, "--batch-size", "2")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=iqdb.environment()
    ) as process:
        process.stdin.write(lines(record(1000), record(1001), record(1002)))
        process.stdin.flush()
        wait_for_record(database, 1002)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
        process.stdin.close()
        assert process.wait(30) == 130
    assert b"iqdb: 3 records acknowledged and kept; stopped there:\niqdb: interrupted\n" in err
    with Iqdb.open_existing(database, read_only=True) as handle:
        assert 1002 in handle


def wait_for_record(database: Path, record_id: Any) -> None:
    for _ in range(600):
        with Iqdb.open_existing(database, read_only=True) as handle:
            if record_id in handle:
                return
        time.sleep(0.05)
    raise AssertionError("the record never came")
