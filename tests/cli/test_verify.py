from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("level", ["checksums", "structure", "records"])
def test_a_whole_database_is_status_0(iqdb: Any, database: Path, level: str) -> None:
    outcome = iqdb("verify", database, "--level", level)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.lines[0].startswith(f"{database}: whole (")
    assert "200 records in the snapshot" in outcome.lines[0]
    assert any(line.startswith("records: 200 found by their ids") for line in outcome.lines) == (
        level == "records"
    )


def test_the_digest_is_that_of_a_compaction(iqdb: Any, database: Path) -> None:
    digest = json.loads(iqdb("compact", database, "--json").text)["content_digest"]
    assert f"content digest {digest}" in iqdb("verify", database).lines
    assert json.loads(iqdb("verify", database, "--json").text)["content_digest"] == digest


def test_the_log_is_checked_too(iqdb: Any, database: Path) -> None:
    assert iqdb("delete", database, "5").status == 0
    assert "1 frame in the log" in iqdb("verify", database).lines[0]


def test_damage_is_status_6_and_says_what_still_works(iqdb: Any, database: Path) -> None:
    raw = bytearray(database.read_bytes())
    raw[4096 + 100] ^= 1
    database.write_bytes(raw)
    before = database.read_bytes()
    outcome = iqdb("verify", database)
    assert outcome.status == 6
    assert outcome.lines[0] == f"{database}: damaged"
    assert "vectors" in outcome.lines[1]
    assert "whole:" in outcome.lines
    assert "still works:" in outcome.lines
    assert f'"iqdb repair {database} -o NEW" keeps what can be read' in outcome.lines
    facts = json.loads(iqdb("verify", database, "--json").text)
    assert facts["ok"] is False
    assert set(facts["findings"][0]) == {
        "path", "part", "offset_bytes", "length_bytes", "problem", "effect",
    }  # fmt: skip
    assert database.read_bytes() == before


def test_many_findings_are_not_all_printed(iqdb: Any, database: Path) -> None:
    raw = bytearray(database.read_bytes())
    raw[4096:] = bytes(len(raw) - 4096)
    database.write_bytes(raw)
    outcome = iqdb("verify", database)
    assert outcome.status == 6
    assert len(outcome.lines) < 60


def test_what_is_no_database_cannot_be_verified(iqdb: Any, tmp_path: Path) -> None:
    assert iqdb("verify", tmp_path / "absent").status == 3
    (tmp_path / "text").write_text("hello, this is no database")
    assert iqdb("verify", tmp_path / "text").status == 4
    assert iqdb("verify", tmp_path / "text", "--level", "all").status == 2


def test_the_account_of_a_level_as_json(iqdb: Any, database: Path) -> None:
    facts = json.loads(iqdb("verify", database, "--level", "records", "--sample", "7", "--json").text)
    assert (facts["level"], facts["ok"]) == ("records", True)
    assert facts["records"]["n_sampled"] == facts["records"]["found_themselves"] == 7
    assert facts["index"] == {"kind": "flat"}
    assert facts["seconds"] > 0
    assert facts["file_bytes"] == database.stat().st_size
    assert facts["gigabytes_per_second"] > 0
    assert {section["name"] for section in facts["sections"]} >= {"vectors", "ids", "config"}


def test_a_damaged_index_asks_for_no_repair(iqdb: Any, database: Path) -> None:
    assert iqdb("optimize", database, "--index", "hnsw").status == 0
    raw = bytearray(database.read_bytes())
    sections = json.loads(iqdb("inspect", database, "--json").text)["sections"]
    raw[next(section["offset"] for section in sections if section["name"] == "hnsw.links")] ^= 1
    database.write_bytes(raw)
    outcome = iqdb("verify", database)
    assert outcome.status == 6
    assert "  all records: they are whole, only the index is damaged" in outcome.lines
    assert "  rebuilding the index from the records (optimize)" in outcome.lines
    assert "repair" not in outcome.text
    assert iqdb("optimize", database).status == 0
    assert iqdb("verify", database).status == 0


def test_the_log_of_a_database_is_no_database(iqdb: Any, database: Path) -> None:
    log = Path(f"{database}.wal")
    assert iqdb("upsert", database, stdin=b'{"id": 1, "vector": [1, 2, 3, 4, 5, 6, 7, 8]}').status == 0
    for arguments in (("verify", log), ("inspect", log), ("search", log, "--like", "1")):
        outcome = iqdb(*arguments)
        assert (outcome.status, outcome.stdout) == (4, b"")
        assert outcome.stderr == (
            f"iqdb: {log}: not an iqdb database (it is the log of one; name the file without .wal)\n"
        )


def test_a_file_of_another_length_says_which_way_and_what_to_do(iqdb: Any, database: Path) -> None:
    whole = database.read_bytes()
    for raw, what in ((whole[:5000], "its end is missing"), (whole + b"x", "something was appended")):
        database.write_bytes(raw)
        outcome = iqdb("search", database, "--like", "1")
        assert outcome.status == 6
        assert outcome.stderr == (
            f"iqdb: {database}: has {len(raw)} bytes, expected {len(whole)}: {what}; "
            'run "iqdb verify" to see what is whole\n'
        )


def test_a_log_without_its_snapshot_is_told_by_every_command(
    iqdb: Any, database: Path, tmp_path: Path
) -> None:
    assert iqdb("upsert", database, stdin=b'{"id": 1, "vector": [1, 2, 3, 4, 5, 6, 7, 8]}').status == 0
    database.unlink()
    for arguments in (
        ("verify", database),
        ("inspect", database),
        ("repair", database, "-o", tmp_path / "new.iqdb"),
        ("search", database, "--like", "1"),
        ("compact", database),
        ("create", database, "--dim", "8"),
    ):
        outcome = iqdb(*arguments)
        assert outcome.status == 6, arguments
        assert "the snapshot is missing, but its log" in outcome.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{database.name}.wal"]


def test_what_nobody_can_repair_is_not_sent_to_repair(iqdb: Any, tmp_path: Path) -> None:
    golden = Path(__file__).parents[2] / "formats" / "golden-1x" / "damaged-snap-payloadflip.iqdb"
    path = tmp_path / "old.iqdb"
    path.write_bytes(golden.read_bytes())
    outcome = iqdb("verify", path)
    assert outcome.status == 6
    assert "  nothing: no record can be trusted" in outcome.lines
    assert "iqdb repair" not in outcome.text
    assert iqdb("repair", path, "-o", tmp_path / "new.iqdb").status == 6
