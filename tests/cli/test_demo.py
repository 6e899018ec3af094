from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest


def test_the_demo_builds_a_database_searches_it_and_says_what_to_try(
    iqdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    outcome = iqdb("demo")
    assert outcome.status == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.iqdb"]
    assert "facetiousness" in outcome.text
    assert "levity" in outcome.text
    assert max(map(len, outcome.lines)) <= 80
    heading = outcome.lines.index("Try next:")
    suggestions = [shlex.split(line) for line in outcome.lines[heading + 1 :]]
    assert len(suggestions) >= 4
    for words in suggestions:
        assert words[0] == "iqdb"
        again = iqdb(*words[1:])
        assert (again.status, again.stderr) == (0, "")
        assert again.stdout


def test_the_demo_database_is_where_it_was_asked_for_and_whole(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "words.iqdb"
    assert iqdb("demo", path).status == 0
    assert iqdb("verify", path).status == 0
    record = json.loads(iqdb("get", path, "noun-01621127").text)
    assert record["metadata"]["words"].startswith("owl")
    assert len(record["vector"]) == 384


def test_the_demo_takes_no_path_that_exists(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("precious")
    outcome = iqdb("demo", path)
    assert (outcome.status, outcome.stdout) == (8, b"")
    assert outcome.stderr.startswith(f"iqdb: {path}: already exists; remove it, or name another place")
    assert path.read_text() == "precious"
