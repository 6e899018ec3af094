from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from iqdb_core import (
    CacheConfig,
    CachePolicy,
    DistanceMetric,
    FlatConfig,
    HnswConfig,
    InvalidConfigError,
    IqdbConfig,
    IvfConfig,
)

# For each setting another value than the default.
OTHER: dict[Any, dict[str, Any]] = {
    CacheConfig(): {"capacity": 3, "policy": CachePolicy.ARC, "ttl_seconds": 2.5},
    HnswConfig(): {"m": 32, "ef_construction": 99, "ef_search": 98, "filter_widen": 2, "seed": 1},
    IvfConfig(): {
        "n_clusters": 7,
        "n_probes": 3,
        "training_sample_size": 1000,
        "use_pq": True,
        "pq_subvectors": 2,
        "pq_refine_factor": 0,
        "seed": 1,
    },
    IqdbConfig(dim=4): {
        "dim": 5,
        "metric": DistanceMetric.DOT,
        "index": HnswConfig(m=3),
        "compression": "zstd:9",
        "fsync": "never",
        "threads": 2,
        "auto_compact": None,
        "provenance": {"model": "x"},
        "database_id": bytes(16),
        "cache": CacheConfig(),
    },
    FlatConfig(): {},
}


@pytest.mark.parametrize("config", OTHER, ids=lambda config: type(config).__name__)
def test_every_setting_has_its_builder_and_only_those(config: Any) -> None:
    fields = {item.name for item in dataclasses.fields(config)}
    builders = {name.removeprefix("with_") for name in dir(type(config)) if name.startswith("with_")}
    assert builders == fields == set(OTHER[config])


@pytest.mark.parametrize("config", OTHER, ids=lambda config: type(config).__name__)
def test_a_builder_changes_one_setting_of_a_copy(config: Any) -> None:
    before = config.to_dict()
    for name, value in OTHER[config].items():
        changed = getattr(config, f"with_{name}")(value)
        assert changed == config.replace(**{name: value})
        assert type(changed) is type(config)
        differing = {key for key in before if changed.to_dict()[key] != before[key]}
        assert differing == {name}
    assert config.to_dict() == before


def test_builders_form_chains() -> None:
    config = (
        IqdbConfig(dim=384)
        .with_metric("euclidean")
        .with_index(HnswConfig().with_m(32).with_ef_search(100))
        .with_cache(CacheConfig().with_policy("lfu"))
    )
    assert config == IqdbConfig(
        dim=384,
        metric=DistanceMetric.EUCLIDEAN,
        index=HnswConfig(m=32, ef_search=100),
        cache=CacheConfig(policy=CachePolicy.LFU),
    )


def test_builders_check_what_they_are_given() -> None:
    with pytest.raises(InvalidConfigError, match=r"index\.m is 1"):
        HnswConfig().with_m(1)
    with pytest.raises(InvalidConfigError, match="no such setting; the settings are m, ef_construction"):
        HnswConfig().replace(ef=3)
    with pytest.raises(TypeError):
        HnswConfig().with_m()  # type: ignore[call-arg]


def test_a_builder_says_what_it_does() -> None:
    assert HnswConfig.with_m.__doc__ == "Return a copy with `m` changed, checked like a new one."
