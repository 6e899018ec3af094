from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iqdb_core import Iqdb


def ids_of(path: Path) -> set[int]:
    with Iqdb.open_existing(path, read_only=True) as handle:
        return {record_id for record_id in range(200) if record_id in handle}


def test_deleted_records_are_gone_and_counted(iqdb: Any, database: Path) -> None:
    outcome = iqdb("delete", database, "5", "7", "5")
    assert (outcome.status, outcome.text, outcome.stderr) == (0, "deleted 2\n", "")
    assert ids_of(database) == set(range(200)) - {5, 7}
    assert (database.parent / "sample.iqdb.wal").exists()


def test_absent_ids_are_named_and_status_3_after_the_others_are_deleted(iqdb: Any, database: Path) -> None:
    outcome = iqdb("delete", database, "5", "1000", "text:6")
    assert (outcome.status, outcome.text) == (3, "deleted 1\n")
    assert outcome.stderr == (
        f"iqdb: {database}: no record has the id 1000\niqdb: {database}: no record has the id text:6\n"
    )
    assert ids_of(database) == set(range(200)) - {5}


def test_missing_ok_is_silent_about_absent_ids(iqdb: Any, database: Path) -> None:
    outcome = iqdb("delete", database, "5", "1000", "--missing-ok", "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert json.loads(outcome.text) == {"deleted": 1, "missing": 1}


def test_ids_come_from_stdin(iqdb: Any, database: Path) -> None:
    hits = iqdb("search", database, "--like", "5", "--k", "20").stdout
    outcome = iqdb("delete", database, stdin=hits)
    assert outcome.text == "deleted 20\n"
    assert len(ids_of(database)) == 180


def test_a_bad_id_deletes_nothing_of_its_batch(
    iqdb: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = iqdb("delete", database, stdin=b"5\nhex:z\n")
    assert outcome.status == 4
    assert "standard input, line 2" in outcome.stderr
    assert len(ids_of(database)) == 200
    monkeypatch.setattr("iqdb_cli.commands.delete._BATCH_IDS", 2)
    assert iqdb("delete", database, stdin=b"5\n6\n7\nhex:z\n").status == 4
    assert ids_of(database) == set(range(200)) - {5, 6}
