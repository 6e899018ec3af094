"""What a cold process imports. Time is measured in the benchmark; here is the cause of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HEAVY = {"numpy", "rich", "pyarrow", "pydantic", "zstandard", "lz4", "asyncio", "tempfile", "concurrent"}

CODE = """
import sys, json
sys.argv[0] = "iqdb"
from iqdb_cli.__main__ import main
status = main()
sys.stderr.write(json.dumps([status, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def imported(*arguments: str, stdin: bytes = b"") -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], input=stdin, capture_output=True, check=True, timeout=60
    )
    status, modules = json.loads(done.stderr)
    assert status == 0
    assert done.stdout
    return set(modules)


@pytest.mark.parametrize("output_format", ["jsonl", "csv", "npy"])
def test_one_search_imports_nothing_heavy(database: Path, output_format: Any) -> None:
    modules = imported(
        "search", str(database), "--format", output_format, stdin=b"[1, 2, 3, 4, 5, 6, 7, 8]\n"
    )
    assert "typer" in modules
    assert modules & HEAVY == set()


def test_a_search_by_a_stored_record_imports_nothing_heavy(database: Path) -> None:
    assert imported("search", str(database), "--like", "5", "--with-vectors") & HEAVY == set()


def test_many_npy_queries_import_nothing_heavy(database: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", vectors)
    assert imported("search", str(database), str(tmp_path / "q.npy")) & HEAVY == set()


def test_get_imports_nothing_heavy(database: Path) -> None:
    assert imported("get", str(database), "5") & HEAVY == set()


def test_a_table_imports_of_rich_only_the_width_of_characters(database: Path) -> None:
    modules = imported("search", str(database), "--like", "5", "--format", "table")
    assert modules & HEAVY <= {"rich"}
