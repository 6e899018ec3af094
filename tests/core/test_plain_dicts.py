"""Everything public that is plain data goes through JSON and comes back the same."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import iqdb_core
from iqdb_core import (
    BulkReport,
    CacheConfig,
    CachePolicy,
    CacheStats,
    Compression,
    DistanceMetric,
    Filter,
    FlatConfig,
    FoldReport,
    FsyncPolicy,
    Hit,
    HnswConfig,
    InvalidConfigError,
    InvalidFilterError,
    InvalidIdError,
    InvalidMetadataError,
    InvalidParameterError,
    IqdbConfig,
    IvfConfig,
    Loss,
    OptimizeReport,
    RecallPoint,
    RecallReport,
    RepairReport,
    SearchExplanation,
    VectorIndexError,
    VerifyReport,
)
from iqdb_core.json_values import float_from_json, float_to_json, metadata_from_json, metadata_to_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
COUNT = st.integers(0, 2**63)
INT64 = st.integers(-(2**63), 2**63 - 1)
METADATA = st.dictionaries(TEXT, st.one_of(TEXT, INT64, st.floats(), st.booleans(), st.none()), max_size=5)
IDS = st.one_of(
    st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=9), TEXT.filter(lambda text: text != "")
)
FLOATS_OF_ANY_BITS = st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack("<d", raw)[0])

FSYNC = st.one_of(
    st.just(FsyncPolicy.ALWAYS),
    st.just(FsyncPolicy.NEVER),
    st.floats(0.001, 86_400).map(FsyncPolicy.periodic),
)
COMPRESSION = st.one_of(
    st.just(Compression.NONE), st.just(Compression.LZ4), st.integers(1, 22).map(Compression.zstd)
)
HNSW = st.builds(
    HnswConfig,
    m=st.integers(2, 512),
    ef_construction=st.integers(1, 999),
    ef_search=st.integers(1, 999),
    filter_widen=st.integers(1, 99),
    seed=st.integers(0, 2**64 - 1),
)
IVF = st.builds(
    IvfConfig,
    n_clusters=st.integers(1, 9999),
    n_probes=st.integers(1, 999),
    training_sample_size=st.integers(1, 2**32 - 1),
    pq_subvectors=st.one_of(st.none(), st.integers(1, 64)),
    pq_refine_factor=st.integers(0, 99),
    seed=st.integers(0, 2**64 - 1),
)
CACHE = st.builds(
    CacheConfig,
    capacity=st.integers(1, 2**24),
    policy=st.sampled_from(CachePolicy),
    ttl_seconds=st.one_of(st.none(), st.floats(0.001, 1e7), st.integers(1, 10**7)),
)
CONFIG = st.builds(
    IqdbConfig,
    dim=st.integers(1, 65_536),
    metric=st.sampled_from(DistanceMetric),
    index=st.one_of(st.just(FlatConfig()), HNSW, IVF),
    compression=COMPRESSION,
    fsync=FSYNC,
    threads=st.one_of(st.none(), st.integers(1, 1024)),
    auto_compact=st.one_of(st.none(), st.just("auto"), st.integers(1, 2**32 - 1)),
    provenance=st.dictionaries(TEXT, TEXT, max_size=3),
    database_id=st.one_of(st.none(), st.binary(min_size=16, max_size=16)),
    cache=st.one_of(st.none(), CACHE),
)
VALUES = st.one_of(TEXT, INT64, st.floats(allow_nan=False), st.booleans())
ORDERED = st.one_of(TEXT, INT64, st.floats(allow_nan=False))
LEAF = st.one_of(
    st.builds(Filter.eq, TEXT, VALUES),
    st.builds(Filter.ne, TEXT, VALUES),
    st.builds(Filter.lt, TEXT, ORDERED),
    st.builds(Filter.ge, TEXT, ORDERED),
    st.builds(Filter.in_, TEXT, st.lists(VALUES, max_size=4)),
    st.builds(Filter.not_in, TEXT, st.lists(VALUES, max_size=4)),
    st.builds(Filter.contains, TEXT, TEXT),
    st.builds(Filter.is_null, TEXT),
    st.builds(Filter.is_not_null, TEXT),
    st.builds(Filter.exists, TEXT),
)
FILTER = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(Filter.not_, inner),
    ),
    max_leaves=6,
)
FLOAT = st.floats(0, 1e9)
OPTIONAL_FLOAT = st.one_of(st.none(), FLOAT)
POINT = st.builds(RecallPoint, COUNT, TEXT, FLOAT, FLOAT, FLOAT, FLOAT)
PLAIN: dict[type, Any] = {
    BulkReport: st.builds(BulkReport, COUNT, COUNT, COUNT, COUNT, TEXT),
    CacheConfig: CACHE,
    CacheStats: st.builds(CacheStats, COUNT, COUNT, COUNT, COUNT, COUNT),
    Compression: COMPRESSION,
    Filter: FILTER,
    FlatConfig: st.just(FlatConfig()),
    FoldReport: st.builds(FoldReport, st.booleans(), *[COUNT] * 6, TEXT),
    FsyncPolicy: FSYNC,
    Hit: st.builds(Hit, IDS, st.floats(allow_nan=False), st.one_of(st.none(), METADATA)),
    HnswConfig: HNSW,
    IqdbConfig: CONFIG,
    IvfConfig: IVF,
    OptimizeReport: st.builds(
        OptimizeReport, TEXT, st.booleans(), TEXT, *[COUNT] * 5, FLOAT, OPTIONAL_FLOAT, OPTIONAL_FLOAT, COUNT
    ),
    RecallPoint: POINT,
    RecallReport: st.builds(
        RecallReport,
        TEXT,
        COUNT,
        COUNT,
        st.booleans(),
        st.one_of(st.none(), TEXT),
        st.one_of(st.none(), TEXT),
        st.one_of(st.none(), COUNT),
        st.lists(POINT, max_size=3),
        FLOAT,
        OPTIONAL_FLOAT,
        st.one_of(st.none(), COUNT),
    ),
    SearchExplanation: st.builds(SearchExplanation, TEXT, TEXT, st.booleans(), *[COUNT] * 12, *[FLOAT] * 5),
}

# Accounts of a file on this disk: to be read and kept, and of no use to a program that would take them back.
ONE_WAY: set[type] = {Loss, RepairReport, VerifyReport}


def through_json(value: object) -> Any:
    """Through JSON as the standard has it, without NaN and Infinity."""
    return json.loads(json.dumps(value, allow_nan=False))


def test_every_public_class_with_a_plain_form_is_tested_here() -> None:
    public = [getattr(iqdb_core, name) for name in iqdb_core.__all__]
    assert {item for item in public if hasattr(item, "to_dict")} == set(PLAIN) | ONE_WAY
    assert all(hasattr(item, "from_dict") for item in PLAIN)


@pytest.mark.parametrize("plain_class", PLAIN, ids=lambda item: item.__name__)
@given(data=st.data())
def test_it_comes_back_from_json_as_it_was(plain_class: Any, data: Any) -> None:
    value = data.draw(PLAIN[plain_class])
    plain = value.to_dict()
    assert type(plain) is dict
    back = plain_class.from_dict(through_json(plain))
    assert isinstance(back, plain_class)
    # Compared as plain data: NaN differs from itself, and 1, 1.0 and True are equal.
    assert repr(back.to_dict()) == repr(plain)
    if "'nan" not in repr(plain):
        assert back == value


@pytest.mark.parametrize("plain_class", PLAIN, ids=lambda item: item.__name__)
@pytest.mark.parametrize("wrong", [None, [], "x", {"unheard": 1}, {1: 2}], ids=str)
def test_what_is_no_such_dict_is_refused_with_an_error_of_ours(plain_class: Any, wrong: Any) -> None:
    with pytest.raises((InvalidConfigError, VectorIndexError)):
        plain_class.from_dict(wrong)


@given(FLOATS_OF_ANY_BITS)
def test_a_float_keeps_its_bits(value: Any) -> None:
    back = float_from_json(through_json(float_to_json(value)))
    assert struct.pack("<d", back) == struct.pack("<d", value)


@given(st.one_of(st.none(), METADATA))
def test_metadata_keeps_its_types_and_bits(metadata: Any) -> None:
    back = metadata_from_json(through_json(metadata_to_json(metadata)))
    assert repr(back) == repr(metadata)


def test_non_finite_floats_have_the_documented_form() -> None:
    metadata = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": -0.0, "e": 1}
    assert metadata_to_json(metadata) == {
        "a": {"float": "nan"},
        "b": {"float": "inf"},
        "c": {"float": "-inf"},
        "d": -0.0,
        "e": 1,
    }
    assert Filter.lt("x", math.inf).to_dict() == {"op": "lt", "key": "x", "value": {"float": "inf"}}
    assert Filter.in_("x", [-math.inf, 2]).to_dict()["values"] == [{"float": "-inf"}, 2]


@pytest.mark.parametrize(
    "value",
    [
        {"float": "Infinity"},
        {"float": 1.0},
        {"float": "nan", "more": 1},
        {"float": "nan:0000000000000000"},
        {"float": "nan:7ff0000000000000"},
        {"float": "nan:7ff80000 0000001"},
        {"float": "nan:7ff8"},
        {},
        True,
        None,
        "1",
    ],
    ids=str,
)
def test_other_forms_of_floats_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="is no float"):
        float_from_json(value)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"id": 1}, InvalidParameterError),
        ({"id": 1, "distance": 1, "vector": []}, InvalidParameterError),
        ({"id": 1, "distance": "near"}, InvalidParameterError),
        ({"id": 1, "distance": 10**400}, InvalidParameterError),
        ({"id": -1, "distance": 1.0}, InvalidIdError),
        ({"id": {"hex": "0"}, "distance": 1.0}, InvalidIdError),
        ({"id": 1, "distance": 1.0, "metadata": {"a": []}}, InvalidMetadataError),
        ({"id": 1, "distance": 1.0, "metadata": {"a": {"float": "x"}}}, InvalidMetadataError),
        ({"id": 1, "distance": 1.0, "metadata": []}, InvalidMetadataError),
    ],
    ids=str,
)
def test_dicts_that_describe_no_hit_are_refused(value: Any, error: Any) -> None:
    with pytest.raises(error):
        Hit.from_dict(value)


def test_a_hit_without_metadata_may_leave_the_key_out() -> None:
    assert Hit.from_dict({"id": {"hex": "00ff"}, "distance": 1}) == Hit(b"\x00\xff", 1.0)


@pytest.mark.parametrize("value", [{"float": "nan"}, {"float": "x"}, {}, []], ids=str)
def test_values_that_no_filter_has_are_refused(value: Any) -> None:
    with pytest.raises(InvalidFilterError):
        Filter.from_dict({"op": "eq", "key": "a", "value": value})


@pytest.mark.parametrize("change", [{"hits": 1.0}, {"hits": True}, {"hits": None}, {"len": "1"}], ids=str)
def test_report_values_of_another_type_are_refused(change: Any) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(change))):
        CacheStats.from_dict({**CacheStats().to_dict(), **change})


def test_settings_of_one_index_kind_are_not_those_of_another() -> None:
    with pytest.raises(InvalidConfigError, match=r"index\.kind"):
        HnswConfig.from_dict(IvfConfig().to_dict())


def test_a_configuration_takes_its_cache_as_a_dict_only_from_plain_data() -> None:
    config = IqdbConfig.from_dict({"dim": 2, "cache": {"policy": "arc"}})
    assert config.cache == CacheConfig(policy=CachePolicy.ARC)
    with pytest.raises(InvalidConfigError, match="cache"):
        IqdbConfig(dim=2, cache={"policy": "arc"})  # type: ignore[arg-type]
    with pytest.raises(InvalidConfigError, match=r"cache\.size"):
        IqdbConfig.from_dict({"dim": 2, "cache": {"size": 3}})
