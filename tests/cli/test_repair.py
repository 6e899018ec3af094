from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

DIM, N = 8, 200


def spoil(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def test_a_whole_database_is_copied_and_nothing_is_lost(iqdb: Any, database: Path, tmp_path: Path) -> None:
    outcome = iqdb("repair", database, "-o", tmp_path / "new.iqdb")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.lines[0] == f"{tmp_path / 'new.iqdb'}: 200 records; nothing was lost"
    assert outcome.lines[1] == "200 rows in the snapshot, 200 kept"
    assert iqdb("verify", tmp_path / "new.iqdb", "--level", "records").status == 0
    assert (tmp_path / "new.iqdb").read_bytes() == database.read_bytes()


def test_what_is_lost_is_listed_and_the_status_is_9(iqdb: Any, database: Path, tmp_path: Path) -> None:
    spoil(database, 4096 + 5000)
    before = database.read_bytes()
    outcome = iqdb("repair", database, "-o", tmp_path / "new.iqdb")
    assert outcome.status == 9
    assert "72 lost" in outcome.lines[1]
    assert any(line.startswith("lost: rows 128 to 199") for line in outcome.lines)
    assert "  ids 128, 129, 130, 131, 132, 133, 134, 135, 136, 137 and 62 more" in outcome.lines
    assert "  damaged bytes 8192 to 10496" in outcome.lines
    assert database.read_bytes() == before
    assert len(iqdb("export", tmp_path / "new.iqdb").lines) == 128


def test_the_account_as_json(iqdb: Any, database: Path, tmp_path: Path) -> None:
    spoil(database, 4096)
    outcome = iqdb("repair", database, "-o", tmp_path / "new.iqdb", "--json")
    assert outcome.status == 9
    facts = json.loads(outcome.text)
    assert facts["complete"] is False
    assert (facts["snapshot_rows"], facts["rows_kept"], facts["rows_lost"]) == (200, 72, 128)
    (loss,) = facts["losses"]
    assert loss["ids"] == list(range(128))
    assert (loss["what"], loss["first"], loss["count"]) == ("records", 0, 128)
    assert loss["ranges"] == [[4096, 8192]]


def test_records_whose_ids_are_lost_go_to_a_file(iqdb: Any, tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": f"id-{row}", "vector": [row, 1.0], "metadata": {"n": row}}) for row in range(20)
    ]
    path, new = tmp_path / "a.iqdb", tmp_path / "new.iqdb"
    source = "\n".join(lines).encode()
    assert iqdb("import", path, "-", "--metric", "euclidean", "--vector-field", "vector",
                "--metadata-field", "metadata", stdin=source).status == 0  # fmt: skip
    kinds = json.loads(iqdb("inspect", path, "--json").text)["sections"]
    offset = next(section["offset"] for section in kinds if section["name"] == "ids.kinds")
    spoil(path, offset)
    nameless = tmp_path / "nameless.jsonl"
    assert iqdb("repair", path, "-o", new).status == 6
    assert not new.exists()
    outcome = iqdb("repair", path, "-o", new, "--without-ids", nameless, "--json")
    assert outcome.status == 9
    assert json.loads(outcome.text)["rows_without_ids"] == 20
    found = [json.loads(line) for line in nameless.read_text().splitlines()]
    assert found == [{"row": row, "vector": [row, 1.0], "metadata": {"n": row}} for row in range(20)]
    assert iqdb("export", new).lines == []


def test_it_never_writes_over_anything(iqdb: Any, database: Path, tmp_path: Path) -> None:
    before = database.read_bytes()
    (tmp_path / "link.iqdb").symlink_to(database)
    (tmp_path / "hard.iqdb").hardlink_to(database)
    for new in (database, tmp_path / "link.iqdb", tmp_path / "hard.iqdb", f"{database}.wal"):
        assert iqdb("repair", database, "-o", new).status == 8
    (tmp_path / "there").write_text("mine")
    assert iqdb("repair", database, "-o", tmp_path / "there").status == 8
    assert (tmp_path / "there").read_text() == "mine"
    assert database.read_bytes() == before
    assert not Path(f"{database}.wal").exists()


@pytest.mark.parametrize(
    ("content", "status"),
    [(None, 3), (b"hello, this is no database", 4), (b"IQDBPRST\x02\0\0\0", 6), (b"IQDBPRST\x09\0\0\0", 7)],
)
def test_what_is_no_database_cannot_be_repaired(
    iqdb: Any, tmp_path: Path, content: bytes | None, status: int
) -> None:
    path = tmp_path / "a"
    if content is not None:
        path.write_bytes(content)
    assert iqdb("repair", path, "-o", tmp_path / "new").status == status
    assert not (tmp_path / "new").exists()


def test_a_database_that_is_being_written_is_left_alone(iqdb: Any, database: Path, tmp_path: Path) -> None:
    from iqdb_core import Iqdb

    with Iqdb.open_existing(database):
        assert iqdb("repair", database, "-o", tmp_path / "new.iqdb").status == 5


@pytest.mark.parametrize("name", ["new.iqdb", "./new.iqdb", "new.iqdb.wal"])
def test_nameless_records_never_replace_the_new_database(
    iqdb: Any, database: Path, tmp_path: Path, name: str
) -> None:
    outcome = iqdb("repair", database, "-o", tmp_path / "new.iqdb", "--without-ids", f"{tmp_path}/{name}")
    assert outcome.status == 2
    assert outcome.stderr.endswith("is the new database itself; choose another file\n")
    assert list(tmp_path.iterdir()) == [database]
