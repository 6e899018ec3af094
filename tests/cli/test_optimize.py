from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import HnswConfig, Iqdb, OptimizeReport


def stored_index(path: Path) -> dict[str, Any]:
    with Iqdb.open_existing(path, read_only=True) as handle:
        return handle.config.index.to_dict()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(5).standard_normal((3000, 8)).astype(np.float32))
    return path


@pytest.fixture
def graph(iqdb: Any, tmp_path: Path, source: Path) -> Path:
    path = tmp_path / "graph.iqdb"
    settings = ["--metric", "euclidean", "--index", "hnsw", "--m", "4", "--ef-search", "20"]
    assert iqdb("import", path, source, *settings).status == 0
    return path


def test_a_flat_database_gets_a_graph_and_says_what_that_gained(
    iqdb: Any, tmp_path: Path, source: Path
) -> None:
    path = tmp_path / "flat.iqdb"
    assert iqdb("import", path, source, "--metric", "euclidean").status == 0
    exact = iqdb("search", path, "--like", "7").stdout
    outcome = iqdb("optimize", path, "--index", "hnsw", "--m", "8")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.lines[0] == "index hnsw, m 8, ef_construction 200, ef_search 64, filter_widen 4"
    assert outcome.lines[1].startswith("3,000 records in ")
    assert outcome.lines[1].endswith(" s; the index was flat")
    assert outcome.lines[3].startswith("index: 0 B before, ")
    assert outcome.lines[4].startswith("recall@10: exact before, ")
    assert outcome.lines[4].endswith(" after, measured with 100 stored records")
    assert stored_index(path) == HnswConfig(m=8).to_dict()
    assert iqdb("search", path, "--like", "7", "--exact").stdout == exact
    again = iqdb("optimize", path, "--index", "flat", "--json")
    assert OptimizeReport.from_dict(json.loads(again.text)).index == "flat"
    assert iqdb("search", path, "--like", "7").stdout == exact


def test_settings_that_are_not_given_stay(iqdb: Any, graph: Path) -> None:
    assert iqdb("optimize", graph, "--m", "6").status == 0
    assert stored_index(graph) == HnswConfig(m=6, ef_search=20).to_dict()
    assert iqdb("optimize", graph, "--index", "hnsw", "--seed", "3").status == 0
    assert stored_index(graph) == HnswConfig(m=6, ef_search=20, seed=3).to_dict()
    report = json.loads(iqdb("optimize", graph, "--json", "--sample", "20").text)
    assert (report["changed"], report["n_sampled"]) == (True, 20)
    assert report["recall_before"] == report["recall_after"]


def test_the_log_is_folded_in(iqdb: Any, graph: Path) -> None:
    assert iqdb("delete", graph, "1", "2").status == 0
    report = json.loads(iqdb("optimize", graph, "--json").text)
    assert report["n_rows"] == 2998
    assert not (graph.parent / "graph.iqdb.wal").exists()


def test_flat_has_nothing_to_rebuild(iqdb: Any, database: Path) -> None:
    before = database.read_bytes()
    outcome = iqdb("optimize", database)
    assert (outcome.status, outcome.lines) == (0, ["the index kind flat has nothing to rebuild"])
    assert database.read_bytes() == before


def test_a_damaged_index_is_made_anew(iqdb: Any, graph: Path, source: Path, tmp_path: Path) -> None:
    whole = graph.read_bytes()
    sections = json.loads(iqdb("inspect", graph, "--json").text)["sections"]
    (offset,) = (part["offset"] for part in sections if part["name"] == "hnsw.links")
    content = bytearray(whole)
    content[offset : offset + 48_000 : 512] = bytes(94)
    graph.write_bytes(content)
    outcome = iqdb("search", graph, source)
    assert outcome.status == 6
    assert "hnsw.links" in outcome.stderr
    assert iqdb("search", graph, "--like", "3", "--exact").status == 0
    assert iqdb("export", graph, "-o", tmp_path / "out.jsonl").status == 0
    outcome = iqdb("optimize", graph)
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.lines[4].startswith("recall@10: unknown before, 0.")
    assert graph.read_bytes() == whole


def test_options_of_another_kind_change_nothing(iqdb: Any, graph: Path) -> None:
    before = graph.read_bytes()
    outcome = iqdb("optimize", graph, "--n-clusters", "3")
    assert outcome.status == 2
    assert "--n-clusters goes with --index ivf, not with hnsw" in outcome.stderr
    assert iqdb("optimize", graph, "--m", "1").status == 2
    assert graph.read_bytes() == before


def test_a_database_that_is_not_there_is_not_found(iqdb: Any, tmp_path: Path) -> None:
    assert iqdb("optimize", tmp_path / "absent.iqdb").status == 3
