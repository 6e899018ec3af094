from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import SearchExplanation


@pytest.fixture
def graph(iqdb: Any, tmp_path: Path) -> Path:
    source, path = tmp_path / "vectors.npy", tmp_path / "graph.iqdb"
    np.save(source, np.random.default_rng(5).standard_normal((3000, 8)).astype(np.float32))
    settings = ["--metric", "euclidean", "--index", "hnsw", "--m", "8"]
    assert iqdb("import", path, source, *settings).status == 0
    return path


def test_the_explanation_goes_to_stderr_and_the_hits_stay_the_same(iqdb: Any, graph: Path) -> None:
    plain = iqdb("search", graph, "--like", "7")
    outcome = iqdb("search", graph, "--like", "7", "--explain")
    assert (outcome.status, outcome.stdout) == (0, plain.stdout)
    lines = outcome.stderr.splitlines()
    assert all(line.startswith("explain: ") for line in lines)
    assert "explain: plan    graph: walked the graph" in lines
    assert "explain: exact   no" in lines
    assert any("breadth 64, " in line for line in lines)
    assert lines[-1].startswith("explain: time    ")
    assert plain.stderr == ""


def test_an_exact_search_says_so(iqdb: Any, graph: Path) -> None:
    assert iqdb("delete", graph, "3", "4").status == 0
    outcome = iqdb("search", graph, "--like", "7", "--explain", "--exact")
    assert "explain: plan    scan: compared every candidate\n" in outcome.stderr
    assert "explain: exact   yes\n" in outcome.stderr
    assert "2,998 candidates, 2 tombstones\n" in outcome.stderr


def test_json_lines_are_explained_in_json(iqdb: Any, graph: Path) -> None:
    outcome = iqdb("search", graph, "--like", "7", "--explain", "--format", "jsonl", "--no-metadata")
    told = SearchExplanation.from_dict(json.loads(outcome.stderr))
    assert (told.index, told.plan, told.k) == ("hnsw", "graph", 10)
    assert len(outcome.lines) == 10


def test_an_explained_search_without_log_and_filter_needs_no_numpy(iqdb: Any, graph: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from iqdb_cli.app import run\n"
        f"run(['search', {str(graph)!r}, '--like', '7', '--explain'])\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
