from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from iqdb_core import Iqdb


def test_records_are_json_lines_with_every_bit_of_the_vector(
    iqdb: Any, database: Path, vectors: np.ndarray
) -> None:
    outcome = iqdb("get", database, "5", "9")
    assert (outcome.status, outcome.stderr) == (0, "")
    records = [json.loads(line) for line in outcome.lines]
    assert [list(record) for record in records] == [["id", "vector", "metadata"]] * 2
    assert [record["id"] for record in records] == [5, 9]
    assert records[0]["metadata"] == {"word": "wort-5", "n": 5, "even": False, "weight": 1.25}
    assert records[1]["metadata"] is None
    for record in records:
        assert np.array(record["vector"], np.float32).tobytes() == vectors[record["id"]].tobytes()


def test_ids_of_every_kind_are_told_apart(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    with Iqdb.open_existing(database) as handle:
        for record_id in ("42", b"*", "wort"):
            handle.upsert(record_id, vectors[0], {"kind": type(record_id).__name__})
        handle.close(compact=False)
    outcome = iqdb("get", database, "42", "text:42", "hex:2a", "wort")
    records = [json.loads(line) for line in outcome.lines]
    assert [record["id"] for record in records] == [42, "42", {"hex": "2a"}, "wort"]
    assert [(record["metadata"] or {}).get("kind") for record in records] == [None, "str", "bytes", "str"]


def test_ids_come_from_stdin_typed_or_as_json(iqdb: Any, database: Path) -> None:
    lines = b'5\n\n  7 \n{"id": 8, "distance": 0.5}\n'
    for arguments in ([], ["-"]):
        outcome = iqdb("get", database, *arguments, stdin=lines)
        assert [json.loads(line)["id"] for line in outcome.lines] == [5, 7, 8]
    outcome = iqdb("get", database, "1", "-", "2", stdin=lines)
    assert [json.loads(line)["id"] for line in outcome.lines] == [1, 5, 7, 8, 2]


def test_the_results_of_a_search_are_ids(iqdb: Any, database: Path) -> None:
    hits = iqdb("search", database, "--like", "5", "--k", "3")
    records = iqdb("get", database, stdin=hits.stdout)
    assert [json.loads(line)["id"] for line in records.lines] == [
        json.loads(line)["id"] for line in hits.lines
    ]


def test_absent_ids_are_named_and_status_3_after_the_others(iqdb: Any, database: Path) -> None:
    outcome = iqdb("get", database, "5", "1000", "text:5", "6")
    assert outcome.status == 3
    assert [json.loads(line)["id"] for line in outcome.lines] == [5, 6]
    assert outcome.stderr == (
        f"iqdb: {database}: no record has the id 1000\niqdb: {database}: no record has the id text:5\n"
    )
    assert iqdb("get", database, "5", "1000", "--missing-ok").status == 0


def test_npy_holds_the_vectors_and_is_a_query(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    raw = iqdb("get", database, "5", "9", "--format", "npy").stdout
    assert np.load(io.BytesIO(raw)).tobytes() == vectors[[5, 9]].tobytes()
    hits = [json.loads(line) for line in iqdb("search", database, "--k", "1", stdin=raw).lines]
    assert [(hit["id"], hit["distance"]) for hit in hits] == [(5, 0.0), (9, 0.0)]


def test_json_lines_of_records_are_queries(iqdb: Any, database: Path) -> None:
    records = iqdb("get", database, "5", "9").stdout
    hits = [json.loads(line) for line in iqdb("search", database, "--k", "1", stdin=records).lines]
    assert [hit["id"] for hit in hits] == [5, 9]


def test_text_shows_whole_records_with_the_beginning_of_the_vector(
    iqdb: Any, database: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    words = " ".join(f"wort{number}" for number in range(30))
    with Iqdb.open_existing(database) as handle:
        handle.upsert("lang", vectors[0], {"text": words, "wide": "日本語" * 20, "two": "a\nb\x1b[31m"})
        handle.close(compact=False)
    outcome = iqdb("get", database, "5", "lang", "--format", "text")
    first, second = outcome.text.split("\n\n")
    assert first.splitlines()[0] == "id      5"
    assert first.splitlines()[1].startswith("vector  [")
    assert first.splitlines()[1].endswith("…] (8)")
    assert [line.split()[0] for line in first.splitlines()[2:]] == ["even", "n", "weight", "word"]
    assert max(map(cell_len, outcome.lines)) <= 40
    assert " ".join(second.split()).count("wort") == 30
    assert "日本語" * 20 in "".join(second.split())
    assert "\x1b" not in second


def test_a_bad_id_is_status_4_and_names_its_line(iqdb: Any, database: Path) -> None:
    for line, message in (
        (b"99999999999999999999\n", "line 2: id 99999999999999999999: an integer id lies in 0..2^64-1"),
        (b"hex:zz\n", "line 2: id 'hex:zz': expected pairs of hex digits"),
        (b'{"x": 1}\n', "line 2: is an object without an id"),
        (b'{"id": 1.5}\n', "line 2: id 1.5"),
        (b'{"id": 1, "id": 2}\n', "the key 'id' occurs twice"),
        (b"{broken\n", "line 2: is not JSON"),
        (b"\xff\n", "line 2: is not UTF-8"),
    ):
        outcome = iqdb("get", database, stdin=b"5\n" + line)
        assert outcome.status == 4
        assert outcome.stderr.startswith("iqdb: standard input, line 2")
        assert message in outcome.stderr
