from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from iqdb_core import (
    Compression,
    ConfigError,
    DistanceMetric,
    FlatConfig,
    FsyncPolicy,
    HnswConfig,
    IndexKind,
    InvalidConfigError,
    InvalidMetricError,
    IqdbConfig,
    IvfConfig,
)
from iqdb_core.config import index_config_from_dict
from iqdb_core.index import index_class
from iqdb_core.threads import resolve_threads

CONFIGS = [
    IqdbConfig(dim=1),
    IqdbConfig(
        dim=65_536,
        metric=DistanceMetric.HAMMING,
        index=HnswConfig(m=32, seed=1),
        compression=Compression.zstd(19),
        fsync=FsyncPolicy.periodic(0.25),
        threads=3,
        auto_compact=None,
        provenance={"model": "all-MiniLM-L6-v2", "ключ": "значение"},
        database_id=bytes(range(16)),
    ),
    IqdbConfig(
        dim=8, metric=DistanceMetric.DOT, index=IvfConfig(use_pq=True, pq_subvectors=4), auto_compact=5
    ),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_configuration_survives_json(config: Any) -> None:
    assert IqdbConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_stored_part_has_exactly_the_keys_of_the_file_format() -> None:
    assert sorted(CONFIGS[1].stored_dict()) == ["compression", "dim", "index", "metric", "provenance"]
    assert CONFIGS[1].stored_dict()["compression"] == "zstd:19"


def test_names_are_accepted_for_metric_compression_and_fsync() -> None:
    config = IqdbConfig(dim=2, metric="dot", compression="zstd", fsync="periodic:2")
    assert config.metric is DistanceMetric.DOT
    assert config.compression == Compression.zstd(3)
    assert config.fsync == FsyncPolicy.periodic(2)


def test_the_defaults_of_the_indexes_are_the_documented_ones() -> None:
    assert HnswConfig().to_dict() == {
        "kind": "hnsw",
        "m": 16,
        "ef_construction": 200,
        "ef_search": 64,
        "filter_widen": 4,
        "seed": 0xDEADBEEFCAFEF00D,
    }
    assert IvfConfig().to_dict() == {
        "kind": "ivf",
        "n_clusters": 256,
        "n_probes": 8,
        "training_sample_size": 65_536,
        "use_pq": False,
        "pq_subvectors": None,
        "pq_refine_factor": 4,
        "seed": 0xDEADBEEFCAFEF00D,
    }
    assert FlatConfig().to_dict() == {"kind": "flat"}
    assert [kind.tag for kind in IndexKind] == [0, 1, 2]


@pytest.mark.parametrize(
    "settings",
    [
        {"dim": 0},
        {"dim": 65_537},
        {"dim": True},
        {"dim": 2.0},
        {"dim": 2, "metric": "l2"},
        {"dim": 2, "compression": "gzip"},
        {"dim": 2, "compression": "zstd:0"},
        {"dim": 2, "compression": "zstd:23"},
        {"dim": 2, "compression": "lz4:3"},
        {"dim": 2, "fsync": "sometimes"},
        {"dim": 2, "fsync": "periodic"},
        {"dim": 2, "fsync": "periodic:nan"},
        {"dim": 2, "fsync": "periodic:0"},
        {"dim": 2, "threads": 0},
        {"dim": 2, "auto_compact": 0},
        {"dim": 2, "auto_compact": "never"},
        {"dim": 2, "provenance": {"a": 1}},
        {"dim": 2, "provenance": {"a": "\ud800"}},
        {"dim": 2, "provenance": {"a": "x" * 2**20}},
        {"dim": 2, "provenance": "model"},
        {"dim": 2, "database_id": b"short"},
        {"dim": 2, "index": "hnsw"},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(settings: Any) -> None:
    with pytest.raises(InvalidConfigError):
        IqdbConfig(**settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: HnswConfig(m=1),
        lambda: HnswConfig(seed=2**64),
        lambda: IvfConfig(n_clusters=0),
        lambda: IvfConfig(use_pq=1),
        lambda: IqdbConfig(dim=6, metric="dot", index=IvfConfig(use_pq=True, pq_subvectors=4)),
    ],
)
def test_index_settings_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(InvalidConfigError):
        make()


@pytest.mark.parametrize("metric", ["cosine", "hamming"])
def test_product_quantisation_refuses_metrics_it_cannot_serve(metric: Any) -> None:
    with pytest.raises(InvalidMetricError, match=metric):
        IqdbConfig(dim=8, metric=metric, index=IvfConfig(use_pq=True))


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        {"dim": 2, "colour": 1},
        {"dim": 2, "index": {"kind": "tree"}},
        {"dim": 2, "database_id": "xy"},
    ],
    ids=str,
)
def test_dicts_that_describe_no_configuration_are_refused(value: Any) -> None:
    with pytest.raises(InvalidConfigError):
        IqdbConfig.from_dict(value)


def test_unknown_index_settings_are_refused() -> None:
    with pytest.raises(InvalidConfigError, match="ef_build"):
        index_config_from_dict({"kind": "hnsw", "ef_build": 3})


def test_configurations_are_immutable_and_replace_checks() -> None:
    config = IqdbConfig(dim=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dim = 3
    assert config.replace(dim=3).dim == 3
    with pytest.raises(InvalidConfigError):
        config.replace(dim=0)
    hash(config)


@pytest.mark.parametrize("kind", [IndexKind.HNSW, IndexKind.IVF])
def test_an_index_kind_that_is_not_built_is_refused_with_the_kinds_that_are(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iqdb_core.index.SUPPORTED_INDEX_KINDS", (IndexKind.FLAT,))
    with pytest.raises(ConfigError, match=f"{kind.value}.*flat"):
        index_class(kind)


def test_threads_come_from_the_setting_then_the_environment_then_the_cores(monkeypatch: Any) -> None:
    monkeypatch.setenv("IQDB_NUM_THREADS", "3")
    assert resolve_threads(2) == 2
    assert resolve_threads(None) == 3
    monkeypatch.delenv("IQDB_NUM_THREADS")
    assert resolve_threads(None) >= 1
    for wrong in ("0", "-1", "many", "1.5", "99999", "²"):
        monkeypatch.setenv("IQDB_NUM_THREADS", wrong)
        with pytest.raises(InvalidConfigError, match="IQDB_NUM_THREADS"):
            resolve_threads(None)


@pytest.mark.parametrize("text", ["none", "lz4", "zstd:1", "zstd:22"])
def test_compression_prints_as_it_parses(text: Any) -> None:
    assert str(Compression.parse(text)) == text
