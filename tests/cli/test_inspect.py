from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_the_ledger_accounts_for_every_byte_of_file_and_log(iqdb: Any, database: Path) -> None:
    assert iqdb("delete", database, "5", "6").status == 0
    wal = database.parent / "sample.iqdb.wal"
    outcome = iqdb("inspect", database, "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    facts = json.loads(outcome.text)
    assert facts["file_bytes"] == database.stat().st_size
    assert facts["log_bytes"] == wal.stat().st_size
    whole = facts["file_bytes"] + facts["log_bytes"]
    assert sum(entry["bytes"] for entry in facts["ledger"]) == whole
    assert sum(facts["totals"].values()) == whole
    assert facts["counts"]["n_rows"] == 198


def test_the_text_says_what_a_newcomer_asks(iqdb: Any, database: Path) -> None:
    outcome = iqdb("inspect", database)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert max(map(len, outcome.lines[1:])) <= 80
    for expected in ("200", "8 dimensions, euclidean", "flat", "000102030405060708090a0b0c0d0e0f"):
        assert expected in outcome.text
    assert any(line.split()[:1] == ["all"] and "100.0%" in line for line in outcome.lines)


def test_the_digest_is_that_of_a_compaction(iqdb: Any, database: Path) -> None:
    digest = json.loads(iqdb("compact", database, "--json").text)["content_digest"]
    assert json.loads(iqdb("inspect", database, "--json").text)["content_digest"] == digest
    assert digest in iqdb("inspect", database).text


def test_of_a_damaged_file_only_what_is_known_is_shown(iqdb: Any, database: Path) -> None:
    whole = database.read_bytes()
    for offset in (84, 4096 + 8192 + 3, len(whole) - 40):
        raw = bytearray(whole)
        raw[offset] ^= 1
        database.write_bytes(raw)
        outcome = iqdb("inspect", database, "--json")
        assert outcome.stderr == ""
        facts = json.loads(outcome.text)
        assert outcome.status == (6 if facts["problems"] else 0)
        assert sum(facts["totals"].values()) == len(whole)
        text = iqdb("inspect", database)
        assert text.status == outcome.status
        if facts["problems"]:
            assert any(line.startswith("problem ") for line in text.lines)
    raw = bytearray(whole)
    raw[84] ^= 1
    database.write_bytes(raw)
    text = iqdb("inspect", database)
    assert text.status == 6
    assert "unknown" in text.lines[1]


def test_records_in_the_log_count(iqdb: Any, database: Path) -> None:
    assert iqdb("delete", database, "5", "6").status == 0
    outcome = iqdb("inspect", database)
    assert "198, 2 dead rows in the file, 1 frame in the log" in outcome.lines[1]
    compacted = json.loads(iqdb("compact", database, "--json").text)["content_digest"]
    assert compacted in outcome.text


def test_an_absent_database_is_not_found(iqdb: Any, tmp_path: Path) -> None:
    assert iqdb("inspect", tmp_path / "absent").status == 3
