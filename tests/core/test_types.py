from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import DistanceMetric, InvalidConfigError, InvalidIdError, InvalidMetadataError
from iqdb_core.types import (
    MAX_KEYS_PER_RECORD,
    id_from_json,
    id_to_json,
    validate_id,
    validate_metadata,
)


@pytest.mark.parametrize("value", [0, 1, 2**64 - 1, b"\0", b"x" * 65_535, "a", "é" * 32_767, "1"])
def test_an_acceptable_id_comes_back_as_it_is(value: Any) -> None:
    assert validate_id(value) == value
    assert type(validate_id(value)) is type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.int8(3), 3),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        (enum.IntEnum("Number", "ONE").ONE, 1),
    ],
)
def test_numpy_and_subclassed_ids_become_plain_ones(value: Any, plain: Any) -> None:
    assert validate_id(value) == plain
    assert type(validate_id(value)) is type(plain)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        2**64,
        True,
        np.True_,
        b"",
        "",
        "\ud800",
        "x" * 65_536,
        1.0,
        np.float64(1),
        None,
        (1,),
        bytearray(b"a"),
    ],
)
def test_what_is_no_id_is_refused(value: Any) -> None:
    with pytest.raises(InvalidIdError):
        validate_id(value)


def test_an_id_error_names_the_place_and_stays_short() -> None:
    with pytest.raises(InvalidIdError, match=r"^record 3: id ") as caught:
        validate_id("x" * 1_000_000, "record 3")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(-(2**63)), -(2**63)),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_metadata_values_become_plain_ones(value: Any, plain: Any) -> None:
    result = validate_metadata({"k": value})
    assert result == {"k": plain}
    assert type(result["k"]) is type(plain)


@pytest.mark.parametrize(
    "value",
    [
        {"k": 2**63},
        {"k": -(2**63) - 1},
        {"k": b"bytes"},
        {"k": [1]},
        {"k": 1j},
        {"k": np.timedelta64(1)},
        {"k": np.longdouble(1)},
        {"k": "\ud800"},
        {"\ud800": 1},
        {1: 1},
        {"x" * 65_536: 1},
        {"k": "x" * (16 * 2**20 + 1)},
        {str(i): None for i in range(MAX_KEYS_PER_RECORD + 1)},
        {str(i): "x" * 2**24 for i in range(5)},
        [("k", 1)],
        "text",
    ],
    ids=range(16),
)
def test_what_is_no_metadata_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMetadataError):
        validate_metadata(value)


def test_metadata_is_copied_and_no_mapping_stays_none() -> None:
    given_mapping = {"a": 1}
    result = validate_metadata(given_mapping)
    given_mapping["a"] = 2
    assert result == {"a": 1}
    assert validate_metadata(None) is None
    assert validate_metadata({}) == {}


def test_metrics_have_the_tags_of_the_file_format_and_parse_by_name() -> None:
    assert [metric.tag for metric in DistanceMetric] == [0, 1, 2, 3, 4]
    for metric in DistanceMetric:
        assert DistanceMetric.parse(metric.value) is metric
        assert DistanceMetric.parse(metric) is metric
        assert DistanceMetric.from_tag(metric.tag) is metric
    with pytest.raises(InvalidConfigError, match="one of cosine, dot, euclidean, manhattan, hamming"):
        DistanceMetric.parse("l2")
    with pytest.raises(ValueError, match="tag 5"):
        DistanceMetric.from_tag(5)


@given(st.integers(0, 2**64 - 1) | st.binary(min_size=1, max_size=40) | st.text(min_size=1, max_size=40))
def test_every_id_survives_json(record_id: Any) -> None:
    again = id_from_json(id_to_json(record_id))
    assert again == record_id
    assert type(again) is type(record_id)


@pytest.mark.parametrize(
    "value", [{"hex": "0"}, {"hex": ""}, {"hex": 1}, {}, {"hex": "00", "x": 1}, b"a", 1.5]
)
def test_other_json_is_no_id(value: Any) -> None:
    with pytest.raises(InvalidIdError):
        id_from_json(value)
