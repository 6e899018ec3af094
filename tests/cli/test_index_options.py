from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_cli.index_options import IndexChoice, IndexOptions, describe
from iqdb_core import FlatConfig, HnswConfig, Iqdb, IvfConfig
from iqdb_core.types import IndexKind


def stored_index(path: Path) -> dict[str, Any]:
    with Iqdb.open_existing(path, read_only=True) as handle:
        return handle.config.index.to_dict()


@pytest.fixture
def source(tmp_path: Path, vectors: np.ndarray) -> Path:
    path = tmp_path / "vectors.npy"
    np.save(path, vectors)
    return path


def test_every_setting_of_every_kind_has_an_option() -> None:
    settings = {field.name for kind in (HnswConfig, IvfConfig) for field in dataclasses.fields(kind)}
    assert set(IndexOptions._fields) == settings


def test_create_stores_the_settings_of_a_graph(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.iqdb"
    options = [
        "--m",
        "24",
        "--ef-construction",
        "90",
        "--ef-search",
        "33",
        "--filter-widen",
        "2",
        "--seed",
        "5",
    ]
    outcome = iqdb("create", path, "--dim", "8", "--index", "hnsw", *options)
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert "index hnsw, m 24, ef_construction 90, ef_search 33" in outcome.stderr
    expected = HnswConfig(m=24, ef_construction=90, ef_search=33, filter_widen=2, seed=5)
    assert stored_index(path) == expected.to_dict()


def test_import_makes_a_database_with_a_graph(iqdb: Any, tmp_path: Path, source: Path) -> None:
    path = tmp_path / "new.iqdb"
    arguments = ["--metric", "euclidean", "--index", "hnsw", "--m", "8"]
    assert iqdb("import", path, source, *arguments).status == 0
    assert stored_index(path) == HnswConfig(m=8).to_dict()
    sections = json.loads(iqdb("inspect", path, "--json").text)["sections"]
    assert [s["shape"] for s in sections if s["name"] == "hnsw.links"] == [[200, 16]]


def test_import_into_a_database_accepts_its_own_settings_and_refuses_others(
    iqdb: Any, tmp_path: Path, source: Path
) -> None:
    path = tmp_path / "new.iqdb"
    assert iqdb("create", path, "--dim", "8", "--index", "hnsw", "--m", "8").status == 0
    assert iqdb("import", path, source, "--index", "hnsw", "--m", "8").status == 0
    assert iqdb("import", path, source, "--m", "8").status == 0
    before = path.read_bytes()
    outcome = iqdb("import", path, source, "--m", "9")
    assert outcome.status == 2
    assert "m is 8, not 9" in outcome.stderr
    outcome = iqdb("import", path, source, "--n-clusters", "9")
    assert outcome.status == 2
    assert "--n-clusters goes with --index ivf, not with hnsw" in outcome.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--m", "4"], "--m goes with --index hnsw, not with flat"),
        (["--index", "flat", "--seed", "4"], "--seed goes with --index hnsw or ivf, not with flat"),
        (["--index", "ivf", "--ef-search", "4"], "--ef-search goes with --index hnsw, not with ivf"),
        (["--index", "hnsw", "--pq"], "--pq goes with --index ivf, not with hnsw"),
        (["--index", "hnsw", "--n-probes", "4"], "--n-probes goes with --index ivf, not with hnsw"),
        (["--index", "ivf", "--pq-subvectors", "4"], "--pq-subvectors needs --pq"),
        (["--index", "ivf", "--no-pq", "--pq-refine-factor", "4"], "--pq-refine-factor needs --pq"),
        (["--index", "hnsw", "--m", "1"], "index.m is 1, expected an integer in 2..512"),
        (["--index", "hnsw", "--seed", "-1"], "index.seed is -1"),
    ],
)
def test_options_of_another_kind_are_wrong_usage_and_create_nothing(
    iqdb: Any, tmp_path: Path, source: Path, arguments: list[str], message: str
) -> None:
    for command in (
        ["create", tmp_path / "new.iqdb", "--dim", "8"],
        ["import", tmp_path / "new.iqdb", source],
    ):
        metric = ["--metric", "euclidean"]
        outcome = iqdb(*command, *metric, *arguments)
        assert (outcome.status, outcome.stdout) == (2, b"")
        assert message in outcome.stderr
        assert not (tmp_path / "new.iqdb").exists()


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_kind_that_cannot_be_built_is_refused_by_its_name(
    iqdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("iqdb_core.index.SUPPORTED_INDEX_KINDS", (IndexKind.FLAT,))
    outcome = iqdb("create", tmp_path / "new.iqdb", "--dim", "8", "--index", kind)
    assert outcome.status == 2
    assert f"index is '{kind}', expected a kind that this release builds" in outcome.stderr


def test_settings_of_lists_are_taken_together() -> None:
    options = IndexOptions(n_clusters=10, use_pq=True, pq_subvectors=2, pq_refine_factor=0)
    expected = IvfConfig(n_clusters=10, use_pq=True, pq_subvectors=2, pq_refine_factor=0)
    assert options.config(IndexChoice.IVF) == expected


def test_settings_that_are_not_given_stay_while_the_kind_stays() -> None:
    present = HnswConfig(m=24, ef_search=33)
    assert IndexOptions().config(None, present) is None
    assert IndexOptions(seed=3).config(None, present) == present.replace(seed=3)
    assert IndexOptions(seed=3).config(IndexChoice.HNSW, present) == present.replace(seed=3)
    assert IndexOptions().config(IndexChoice.FLAT, present) == FlatConfig()
    assert IndexOptions(seed=3).config(IndexChoice.IVF, present) == IvfConfig(seed=3)


def test_a_configuration_in_words_leaves_out_what_has_no_effect() -> None:
    assert describe(FlatConfig()) == "flat"
    assert (
        describe(HnswConfig(seed=1))
        == "hnsw, m 16, ef_construction 200, ef_search 64, filter_widen 4, seed 1"
    )
    assert describe(IvfConfig()) == "ivf, n_clusters 256, n_probes 8, training_sample_size 65536"
    assert "pq_refine_factor 4" in describe(IvfConfig(use_pq=True))


def test_search_takes_a_breadth_where_the_index_has_one(iqdb: Any, tmp_path: Path, source: Path) -> None:
    graph, flat = tmp_path / "graph.iqdb", tmp_path / "flat.iqdb"
    assert iqdb("import", graph, source, "--metric", "euclidean", "--index", "hnsw").status == 0
    assert iqdb("import", flat, source, "--metric", "euclidean").status == 0
    exact = iqdb("search", flat, source, "--k", "3")
    assert iqdb("search", graph, source, "--k", "3", "--ef", "150").stdout == exact.stdout
    assert iqdb("search", graph, source, "--k", "3", "--exact").stdout == exact.stdout
    outcome = iqdb("search", flat, source, "--ef", "150")
    assert outcome.status == 2
    assert "the index kind flat has no such parameter" in outcome.stderr
    outcome = iqdb("search", graph, source, "--n-probes", "2")
    assert outcome.status == 2
    assert "the index kind hnsw has no such parameter" in outcome.stderr
    assert iqdb("search", graph, source, "--ef", "0").status == 2


def test_inspect_shows_the_index_its_settings_and_its_bytes(iqdb: Any, tmp_path: Path, source: Path) -> None:
    path = tmp_path / "new.iqdb"
    assert iqdb("import", path, source, "--metric", "euclidean", "--index", "hnsw", "--m", "8").status == 0
    outcome = iqdb("inspect", path)
    text = outcome.text
    assert "hnsw, m 8, ef_construction 200, ef_search 64, filter_widen 4\n" in text
    assert max(map(len, outcome.lines[1:])) <= 80
    totals = json.loads(iqdb("inspect", path, "--json").text)["totals"]
    assert totals["index_bytes"] > 200 * (32 + 4 + 64)
    assert f"{totals['index_bytes']:,}" in text
