from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from iqdb_cli import terminal
from iqdb_cli.recall_plot import recall_svg
from iqdb_core import Iqdb, RecallPoint, RecallReport


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(5).standard_normal((3000, 16)).astype(np.float32))
    return path


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.npy"
    np.save(path, np.random.default_rng(6).standard_normal((40, 16)).astype(np.float32))
    return path


@pytest.fixture
def graph(iqdb: Any, tmp_path: Path, source: Path) -> Path:
    path = tmp_path / "graph.iqdb"
    settings = ["--index", "hnsw", "--m", "4", "--ef-construction", "40", "--ef-search", "24"]
    assert iqdb("import", path, source, "--metric", "euclidean", *settings).status == 0
    return path


def graph_sections(iqdb: Any, path: Path) -> list[bytes]:
    content = path.read_bytes()
    sections = json.loads(iqdb("inspect", path, "--json").text)["sections"]
    return [
        content[part["offset"] :][: part["stored_bytes"]]
        for part in sections
        if part["name"].startswith("hnsw.")
    ]


def report(**changes: Any) -> RecallReport:
    points = [
        RecallPoint(value, "graph", 1 - 0.8 / value, 0.9, 0.5, 1e6 / value) for value in (8, 16, 32, 64, 128)
    ]
    facts: dict[str, Any] = {
        "index": "hnsw",
        "k": 10,
        "n_queries": 1000,
        "sampled": True,
        "filter": None,
        "parameter": "ef",
        "default": 64,
        "points": points,
        "exact_queries_per_second": 900.0,
        "target": 0.97,
        "reached": 32,
    }
    return RecallReport(**{**facts, **changes})


def test_each_value_is_a_json_line_and_exact_search_the_last(iqdb: Any, graph: Path, queries: Path) -> None:
    outcome = iqdb("recall", graph, queries, "--sweep", "8,400")
    assert (outcome.status, outcome.stderr) == (0, "")
    lines = [json.loads(line) for line in outcome.lines]
    assert [line["value"] for line in lines] == [8, 400, None]
    assert [line["parameter"] for line in lines] == ["ef", "ef", None]
    assert [line["plan"] for line in lines] == ["graph", "scan", "exact"]
    assert {(line["k"], line["n_queries"], line["sampled"]) for line in lines} == {(10, 40, False)}
    assert lines[0]["recall_worst"] <= lines[0]["recall_p5"] <= lines[0]["recall_mean"] < 1
    assert lines[1]["recall_mean"] == lines[2]["recall_mean"] == 1.0
    assert all(line["queries_per_second"] > 0 for line in lines)


def test_queries_come_from_stdin_too(iqdb: Any, graph: Path, queries: Path) -> None:
    outcome = iqdb("recall", graph, "-", "--sweep", "8", stdin=queries.read_bytes())
    assert json.loads(outcome.lines[0])["n_queries"] == 40
    line = json.dumps(np.load(queries)[0].tolist()).encode()
    outcome = iqdb("recall", graph, "-", "--sweep", "8", stdin=line)
    assert json.loads(outcome.lines[0])["n_queries"] == 1


def test_a_sample_of_records_is_said_to_be_easy(iqdb: Any, graph: Path) -> None:
    outcome = iqdb("recall", graph, "--sample", "25", "--sweep", "8", "--k", "3", "--filter", "not exists(x)")
    assert outcome.stderr.endswith(
        "25 stored records as queries, each left out of its own results; real queries are harder\n"
    )
    line = json.loads(outcome.lines[0])
    assert (line["n_queries"], line["sampled"], line["filter"]) == (25, True, "not exists(x)")


def test_a_terminal_gets_a_table(
    iqdb: Any, graph: Path, queries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "stdout_is_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    outcome = iqdb("recall", graph, queries, "--target", "0.9")
    assert outcome.status == 0
    assert outcome.lines[0].split() == ["ef", "recall", "5th", "pct", "worst", "queries/s", "plan"]
    assert outcome.lines[-1].split()[0] == "exact"
    assert next(line for line in outcome.lines if line.endswith("default")).split()[0] == "24"
    (reached,) = [line for line in outcome.lines if line.endswith("reaches 0.9")]
    assert f"ef {reached.split()[0]} reaches recall 0.9\n" in outcome.stderr
    assert max(map(len, outcome.lines)) <= 80
    in_json = iqdb("recall", graph, queries, "--sweep", "8", "--json")
    assert json.loads(in_json.lines[0])["value"] == 8


def test_the_value_found_becomes_the_default_and_the_graph_stays(
    iqdb: Any, graph: Path, queries: Path
) -> None:
    before = graph_sections(iqdb, graph)
    assert len(before) == 6  # model, codes, lengths, bounds, links, entries
    outcome = iqdb("recall", graph, queries, "--target", "0.97", "--save")
    assert outcome.status == 0
    told = json.loads(outcome.lines[-1])
    assert (told["target"], told["parameter"]) == (0.97, "ef")
    reached = told["reached"]
    means = {line["value"]: line["recall_mean"] for line in map(json.loads, outcome.lines[:-2])}
    assert means[reached] >= 0.97
    assert f"searches use ef {reached} now, 24 before\n" in outcome.stderr
    with Iqdb.open_existing(graph, read_only=True) as handle:
        assert handle.config.index.to_dict()["ef_search"] == reached
    assert graph_sections(iqdb, graph) == before
    assert (
        iqdb("search", graph, queries).stdout == iqdb("search", graph, queries, "--ef", str(reached)).stdout
    )


def test_without_save_nothing_is_written(iqdb: Any, graph: Path, queries: Path) -> None:
    before = graph.read_bytes()
    assert iqdb("recall", graph, queries, "--target", "0.9").status == 0
    assert graph.read_bytes() == before
    assert [path.name for path in graph.parent.glob("graph*")] == ["graph.iqdb"]


def test_on_a_flat_database_every_search_is_exact(iqdb: Any, database: Path) -> None:
    outcome = iqdb("recall", database, "--target", "0.9", "--save")
    assert outcome.status == 0
    assert "the index kind flat compares every record, so every search is exact\n" in outcome.stderr
    (line,) = outcome.lines
    assert (json.loads(line)["plan"], json.loads(line)["recall_mean"]) == ("exact", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--save"], "--save needs --target"),
        (["--target", "1.5"], "--target is 1.5"),
        (["--target", "0"], "--target is 0"),
        (["--sweep", "8,x"], "--sweep is '8,x'"),
        (["--sweep", ""], "--sweep is ''"),
        (["--sweep", "0"], "--sweep is '0'"),
        (["q.npy", "--sample", "3"], "--sample and QUERIES exclude each other"),
        (["--filter", "n ="], "filter"),
    ],
)
def test_wrong_usage_is_status_2(iqdb: Any, graph: Path, arguments: list[str], message: str) -> None:
    outcome = iqdb("recall", graph, *arguments)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert message in outcome.stderr


def test_an_empty_database_has_nothing_to_measure(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.iqdb"
    assert iqdb("create", path, "--dim", "4", "--index", "hnsw").status == 0
    outcome = iqdb("recall", path)
    assert outcome.status == 2
    assert "holds no records" in outcome.stderr


def test_the_plot_is_an_svg_beside_the_results(iqdb: Any, graph: Path, queries: Path, tmp_path: Path) -> None:
    picture = tmp_path / "recall.svg"
    plain = iqdb("recall", graph, queries, "--sweep", "8,32", "--plot", picture)
    assert plain.status == 0
    assert len(plain.lines) == 3
    texts = [element.text for element in ET.parse(picture).iter() if element.tag.endswith("text")]
    assert {"graph.iqdb", "index hnsw, k 10, 40 queries", "recall@10, mean", "queries/s"} <= set(texts)
    assert {"ef 8", "ef 32", "exact"} <= set(texts)
    outcome = iqdb("recall", graph, queries, "--sweep", "8", "--plot", graph)
    assert outcome.status == 2
    assert "is the database itself" in outcome.stderr


def test_a_picture_has_a_point_and_a_label_for_every_value_and_both_colour_schemes() -> None:
    svg = recall_svg(report(), "notes.iqdb")
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert {"ef 8", "ef 16", "ef 32", "ef 64 (default)", "ef 128", "exact"} <= set(texts)
    circles = [element for element in root.iter() if element.tag.endswith("}circle")]
    assert len(circles) == 6
    assert "prefers-color-scheme: dark" in svg
    xs = [float(circle.attrib["cx"]) for circle in circles]
    assert min(xs) >= 0
    assert max(xs) <= 760


@pytest.mark.parametrize(
    "changes",
    [
        {"points": []},
        {"points": [RecallPoint(1, "graph", 0.0, 0.0, 0.0, 0.5)], "exact_queries_per_second": 5e7},
        {"points": [RecallPoint(64, "scan", 1.0, 1.0, 1.0, 10.0)] * 30, "reached": None},
        {"points": [RecallPoint(64, "lists", 0.99999, 1.0, 1.0, 0.0)], "exact_queries_per_second": 0.0},
        {"filter": "a = '<&>\x00'" * 40},
    ],
)
def test_any_report_makes_a_picture_that_parses(changes: dict[str, Any]) -> None:
    ET.fromstring(recall_svg(report(**changes), "<odd> & \udcff\x01.iqdb"))


def test_a_plot_that_cannot_be_written_is_said_before_anything_is_measured(
    iqdb: Any, graph: Path, tmp_path: Path
) -> None:
    for plot, status in ((tmp_path / "absent" / "a.svg", 8), (graph, 2), (tmp_path / "a.png", 2)):
        outcome = iqdb("recall", graph, "--sample", "5", "--plot", plot)
        assert (outcome.status, outcome.stdout) == (status, b"")
        assert len(outcome.stderr.splitlines()) == 1
    assert "--plot draws SVG, not png" in outcome.stderr
    assert not (tmp_path / "a.png").exists()


def test_a_filter_that_nothing_meets_leaves_nothing_to_measure(iqdb: Any, graph: Path) -> None:
    outcome = iqdb("recall", graph, "--filter", "a = 1")
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert outcome.stderr.endswith(
        "no record matches the filter; no record has metadata; there is nothing to measure\n"
    )
