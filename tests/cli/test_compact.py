from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import Iqdb


def test_compacting_folds_the_log_and_keeps_the_records(
    iqdb: Any, database: Path, vectors: np.ndarray
) -> None:
    before = iqdb("get", database, *map(str, range(10, 200))).stdout
    assert iqdb("delete", database, *map(str, range(10))).status == 0
    wal = database.parent / "sample.iqdb.wal"
    log_bytes = wal.stat().st_size
    size = database.stat().st_size
    outcome = iqdb("compact", database, "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    facts = json.loads(outcome.text)
    assert list(facts) == ["changed", "before_bytes", "after_bytes", "n_rows", "content_digest"]
    assert facts["before_bytes"] == size + log_bytes
    assert facts["after_bytes"] == database.stat().st_size
    assert facts["n_rows"] == 190
    assert len(facts["content_digest"]) == 32
    assert not wal.exists()
    assert iqdb("get", database, *map(str, range(10, 200))).stdout == before


def test_the_text_says_the_sizes_and_the_digest(iqdb: Any, database: Path) -> None:
    assert iqdb("delete", database, "5").status == 0
    outcome = iqdb("compact", database)
    again = iqdb("compact", database, "--json")
    facts = json.loads(again.text)
    assert facts["changed"] is False
    assert outcome.lines[0].endswith(" after")
    assert outcome.lines[1] == f"199 records, content digest {facts['content_digest']}"


def test_without_a_log_there_is_nothing_to_fold(iqdb: Any, database: Path) -> None:
    before = database.read_bytes()
    outcome = iqdb("compact", database)
    assert outcome.lines[0].startswith("nothing to fold, ")
    assert database.read_bytes() == before


@pytest.mark.parametrize("compression", ["lz4", "zstd:9", "none"])
def test_the_compression_can_be_changed(iqdb: Any, database: Path, compression: Any) -> None:
    records = iqdb("get", database, "5", "199").stdout
    digest = json.loads(iqdb("compact", database, "--json").text)["content_digest"]
    outcome = iqdb("compact", database, "--compression", compression, "--json")
    assert outcome.status == 0
    assert json.loads(outcome.text)["content_digest"] == digest
    with Iqdb.open_existing(database, read_only=True) as handle:
        assert str(handle.config.compression) == compression
    assert iqdb("get", database, "5", "199").stdout == records


def test_a_wrong_compression_changes_nothing(iqdb: Any, database: Path) -> None:
    before = database.read_bytes()
    outcome = iqdb("compact", database, "--compression", "zip")
    assert outcome.status == 2
    assert "expected none, lz4, zstd or zstd:LEVEL" in outcome.stderr
    assert database.read_bytes() == before
