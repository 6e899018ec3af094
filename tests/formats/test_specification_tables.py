"""The tables of the specification say what `layout.py` says, and neither has one that the other lacks."""

from __future__ import annotations

from typing import Any

import pytest
from pages import code, marked

from iqdb_core import types
from iqdb_core.column_type import ColumnType
from iqdb_core.storage import columns, layout
from iqdb_core.storage.structure import RECORD_DTYPES

FIELD_TABLES = {
    name: value
    for module in (layout, columns)
    for name, value in vars(module).items()
    if name.endswith("_FIELDS") and isinstance(value, tuple)
}
TAGS: dict[str, dict[int, str]] = {
    "METRIC_TAGS": {tag: name for name, tag in layout.METRIC_TAGS.items()},
    "INDEX_KIND_TAGS": {tag: name for name, tag in layout.INDEX_KIND_TAGS.items()},
    "ID_ENCODING_TAGS": {layout.ID_ENCODING_U64: "u64", layout.ID_ENCODING_VAR: "var"},
    "ID_KIND_TAGS": {layout.ID_KIND_INT: "int", layout.ID_KIND_BYTES: "bytes", layout.ID_KIND_STR: "str"},
    "DTYPES": {dtype.tag: dtype.name for dtype in layout.DTYPES},
    "CODEC_NAMES": layout.CODEC_NAMES,
    "FRAME_TYPES": layout.FRAME_TYPES,
    "COLUMN_TYPES": {int(type_): type_.label for type_ in ColumnType},
}
LIMITS = {
    name: value
    for module in (layout, columns)
    for name, value in vars(module).items()
    if (name.startswith("MAX_") or name == "GROUP_ROWS") and type(value) is int
}


def test_every_field_table_is_in_the_specification_and_the_other_way_round() -> None:
    assert set(marked("table")) == set(FIELD_TABLES)


@pytest.mark.parametrize("name", FIELD_TABLES)
def test_a_field_table_of_the_specification_is_that_of_the_program(name: str) -> None:
    rows = [
        layout.Field(field, int(offset), int(size), type_)
        for offset, size, field, type_, _ in marked("table")[name]
    ]

    assert rows == list(FIELD_TABLES[name])


@pytest.mark.parametrize("name", FIELD_TABLES)
def test_the_fields_of_a_table_follow_one_another_without_a_hole(name: str) -> None:
    end = 0
    for field in FIELD_TABLES[name]:
        assert field.offset == end, field.name
        sizes = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
        assert field.size == sizes.get(field.type, field.size), field.name
        end += field.size


def test_every_table_of_tags_is_checked() -> None:
    assert set(marked("tags")) == set(TAGS)


@pytest.mark.parametrize("name", TAGS)
def test_tags_of_the_specification_are_those_of_the_program(name: str) -> None:
    assert {int(row[0]): row[1] for row in marked("tags")[name]} == TAGS[name]


def test_sizes_of_element_types_are_those_of_the_program() -> None:
    sizes = {row[1]: int(row[2]) for row in marked("tags")["DTYPES"]}

    assert sizes == {dtype.name: dtype.itemsize for dtype in layout.DTYPES}


def test_limits_of_the_specification_are_those_of_the_program() -> None:
    rows = {code(name): int(value) for name, value, _ in marked("limits")[""]}

    assert rows == LIMITS


def test_limits_that_two_modules_name_are_equal() -> None:
    modules: tuple[Any, ...] = (layout, columns, types)
    for name, value in LIMITS.items():
        assert all(getattr(module, name, value) == value for module in modules), name
    assert types.MAX_METADATA_WEIGHT == layout.MAX_RECORD_WEIGHT


def test_sections_of_the_specification_are_those_of_the_program_in_their_order() -> None:
    rows = [(code(name), dtype) for name, dtype, *_ in marked("sections")[""]]

    assert rows == [(name, RECORD_DTYPES[name]) for name in layout.RECORD_SECTIONS]
