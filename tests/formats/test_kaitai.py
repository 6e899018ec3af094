"""formats/iqdb.ksy describes the same bytes as the pages do, field by field and on every golden file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kaitai
import numpy as np
import pytest
from generate_golden import GOLDEN
from independent_checksums import crc32c
from independent_log import read_database

from iqdb_core.column_type import ColumnType
from iqdb_core.record_metadata import MetadataColumns
from iqdb_core.storage import columns, layout
from iqdb_core.storage.columns import GroupView
from iqdb_core.storage.columns_layout import (
    ALL,
    BITMAP,
    DICTIONARY,
    HAS_ALL,
    HAS_BITMAP,
    HAS_NONE,
    PLAIN,
    SPARSE,
)
from iqdb_core.storage.snapshot import Snapshot

SNAPSHOTS = sorted(path.name for path in GOLDEN.glob("*.iqdb"))
LOGS = sorted(path.name for path in GOLDEN.glob("*.wal"))
TABLES = {
    "header": layout.HEADER_FIELDS,
    "section_entry": layout.SECTION_FIELDS,
    "log_header": layout.LOG_HEADER_FIELDS,
    "frame_header": layout.FRAME_FIELDS,
    "upsert_body": layout.UPSERT_BODY_FIELDS,
    "delete_body": layout.DELETE_BODY_FIELDS,
    "fold_body": layout.FOLD_BODY_FIELDS,
    "ids_block": layout.IDS_BLOCK_FIELDS,
    "metadata_group": columns.GROUP_FIELDS,
    "column": columns.COLUMN_FIELDS,
}
ENUMS = {
    "metric": {tag: name for name, tag in layout.METRIC_TAGS.items()},
    "index_kind": {tag: name for name, tag in layout.INDEX_KIND_TAGS.items()},
    "dtype": {dtype.tag: dtype.name for dtype in layout.DTYPES},
    "codec": layout.CODEC_NAMES,
    "frame_type": layout.FRAME_TYPES,
    "mappings": {HAS_ALL: "all", HAS_BITMAP: "bitmap", HAS_NONE: "none"},
    "column_type": {int(type_): type_.label for type_ in ColumnType},
    "presence": {ALL: "all", BITMAP: "bitmap", SPARSE: "list"},
    "string_encoding": {PLAIN: "plain", DICTIONARY: "dictionary"},
}


# --- Without the compiler -------------------------------------------------------------------------


def block(text: str, *path: str) -> str:
    """Return what is indented below a key of the description, which uses little of what YAML can do."""
    for depth, key in enumerate(path):
        found = re.search(rf"^{'  ' * depth}{key}:\n((?:{'  ' * (depth + 1)}.*\n|\n)+)", text, re.MULTILINE)
        assert found is not None, path
        text = found[1]
    return text


@pytest.mark.parametrize("name", TABLES)
def test_the_description_has_the_fields_of_the_tables(name: str) -> None:
    sequence = block(kaitai.DESCRIPTION.read_text(), "types", name, "seq")
    found = []
    offset = 0
    for item in re.split(r"^ *- ", sequence, flags=re.MULTILINE)[1:]:
        keys = dict(re.findall(r"^ *([a-z-]+): (.+)$", item, re.MULTILINE))
        if "repeat" in keys or not keys.get("size", "0").isdigit():
            break
        size = int(keys["size"]) if "size" in keys else len(keys.get("contents", ""))
        if "type" in keys and "size" not in keys:
            size = int(keys["type"][1:])
        found.append((keys["id"], offset, size))
        offset += size
    table = [(field.name, field.offset, field.size) for field in TABLES[name]]
    assert found[: len(table)] == table


@pytest.mark.parametrize("name", ENUMS)
def test_the_description_has_the_tags_of_the_tables(name: str) -> None:
    text = block(kaitai.DESCRIPTION.read_text(), "enums", name)
    assert {int(tag): word for tag, word in re.findall(r"(\d+): '?(\w+)", text)} == ENUMS[name]


# --- With it --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    try:
        return kaitai.parser(tmp_path_factory.mktemp("kaitai"))
    except kaitai.UnavailableError as reason:
        pytest.skip(str(reason))


def plain(value: Any) -> Any:
    return value.value if hasattr(value, "value") else value


def fields(record: Any, table: tuple[layout.Field, ...]) -> dict[str, Any]:
    """Return what the generated parser has read, without what is reserved."""
    return {f.name: plain(getattr(record, f.name)) for f in table if f.type != "zero"}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_generated_parser_reads_a_golden_snapshot_as_the_program_does(generated: Any, name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    found = generated.from_bytes(data).snapshot
    product = Snapshot.from_buffer(bytearray(data))
    assert fields(found.header, layout.HEADER_FIELDS) == product.header._asdict()
    assert found.header.reserved == bytes(3980)
    assert [section.name for section in found.sections] == list(product.sections)
    for section, ours in zip(found.sections, product.sections.values(), strict=True):
        entry = ours.entry
        assert fields(section, layout.SECTION_FIELDS) == entry._asdict()
        assert section.stored == data[entry.offset : entry.offset + entry.stored_bytes]
        table = np.array(section.block_crcs, np.uint32).tobytes()
        assert crc32c(table) == entry.checksums_crc
        assert section.is_derived == bool(entry.flags & layout.FLAG_DERIVED)
        dtype = layout.DTYPE_BY_TAG[entry.dtype]
        if entry.codec == layout.CODEC_NONE:
            values = np.array(section.values, np.dtype(f"{dtype.name[0]}{dtype.itemsize}"))
            assert values.tobytes() == bytes(ours.read(0, entry.raw_bytes))
        else:
            assert section.chunk_offsets[0] == 0
            assert section.chunk_offsets == sorted(section.chunk_offsets)
            assert len(section.chunk_offsets) == -(-entry.raw_bytes // entry.chunk_bytes) + 1


def bits(words: list[int], count: int) -> list[bool]:
    return [bool(words[i // 64] >> i % 64 & 1) for i in range(count)]


def rows_of(group: Any) -> list[dict[str, Any] | None]:
    """Return the rows of a metadata group as the generated parser sees it."""
    everybody = [True] * group.n_rows
    have = {"all": everybody, "none": [False] * group.n_rows}.get(group.has_metadata.name)
    rows: list[dict[str, Any] | None] = [
        {} if has else None for has in (have or bits(group.mappings, group.n_rows))
    ]
    for column in group.columns:
        payload = column.payload
        numbers = {
            "all": lambda: list(range(group.n_rows)),
            "bitmap": lambda p=payload: [i for i, b in enumerate(bits(p.row_bits, group.n_rows)) if b],
            "list": lambda p=payload: p.row_numbers,
        }[column.presence.name]()
        kind = column.type.name
        if kind == "null":
            values: list[Any] = [None] * column.count
        elif kind == "bool":
            values = bits(payload.bools, column.count)
        elif kind == "string" and column.encoding.name == "dictionary":
            values = [payload.dictionary.entries[code] for code in payload.dictionary.codes]
        else:
            values = {"int64": "integers", "float64": "floats"}.get(kind, "strings")
            values = getattr(payload, values)
            values = values.texts if kind == "string" else values
        assert len(numbers) == len(values) == column.count
        for row, value in zip(numbers, values, strict=True):
            mapping = rows[row]
            assert mapping is not None
            assert column.key not in mapping
            mapping[column.key] = value
    return rows


def same_group(generated: Any, blob: bytes) -> int:
    """Compare a group of the generated parser with our reader's; return how many values it has."""
    found = generated.MetadataGroup.from_bytes(blob)
    assert found.blob_bytes == len(blob)
    ours = GroupView(blob).to_columns().to_dicts()
    # repr: a float that is not a number is none other, and -0.0 is not 0.0; True is not 1.
    assert [None if row is None else sorted(map(repr, row.items())) for row in rows_of(found)] == [
        None if row is None else sorted(map(repr, row.items())) for row in ours
    ]
    return sum(len(row) for row in ours if row)


def test_the_generated_parser_reads_the_metadata_of_golden_files_as_the_program_does(generated: Any) -> None:
    values = groups = 0
    for name in SNAPSHOTS:
        snapshot = Snapshot.from_buffer(bytearray((GOLDEN / name).read_bytes()))
        for group in range(snapshot.n_groups):
            values += same_group(generated, bytes(snapshot.group_blob(group)))
            groups += 1
    for name in LOGS:
        data = (GOLDEN / name).read_bytes()
        log = getattr(generated.from_bytes(data), "log", None)
        for frame in getattr(log, "frames", None) or []:
            if frame.is_complete and frame.header.type.name == "upsert" and frame.body.metadata_bytes:
                block = frame.body.metadata
                assert sum(group.n_rows for group in block.groups) == frame.header.n_records
                assert b"".join(block._raw_groups) == frame.body._raw_metadata[block.offsets[0] :]
                values += sum(same_group(generated, blob) for blob in block._raw_groups)
                groups += len(block.groups)
    assert groups > 30
    assert values > 500


def test_every_kind_of_column_is_read_alike(generated: Any) -> None:
    rows: list[dict[str, Any] | None] = [
        {
            "null": None,
            "bool": i % 3 == 0,
            "int": -i,
            "float": [0.5, -0.0, float("nan"), float("inf")][i % 4],
            "text": f"é{i}",
            "word": ["a", "", "bb"][i % 3],
            "": i,
        }
        for i in range(200)
    ]
    rows[7] = None
    rows[9] = {}
    rows[11] = {"rare": 1}
    for i in range(20, 150):
        rows[i] = {"some": True, "mixed": [i, "text", None, 0.25, False][i % 5]}
    for some in (rows, [None] * 5, [{}] * 70, [{}, None]):
        blob = columns.encode_group(MetadataColumns.from_dicts(some))
        same_group(generated, blob)


@pytest.mark.parametrize("name", LOGS)
def test_the_generated_parser_reads_a_golden_log_as_the_program_does(generated: Any, name: str) -> None:
    data = (GOLDEN / name).read_bytes()
    _, _, log = read_database(GOLDEN / name.removesuffix(".wal"))
    assert log is not None
    found = getattr(generated.from_bytes(data), "log", None)
    if len(data) < layout.LOG_HEADER_BYTES or not any(data[:8]):
        assert found is None or len(data) < layout.LOG_HEADER_BYTES
        assert log.frames == 0
        return
    header = layout.decode_log_header(data[: layout.LOG_HEADER_BYTES])
    assert fields(found.header, layout.LOG_HEADER_FIELDS) == header._asdict()
    at = layout.LOG_HEADER_BYTES
    types = []
    for frame in getattr(found, "frames", None) or []:
        if not frame.is_complete:
            break
        checked = layout.FRAME_CRC_OFFSET
        body_bytes = frame.header.body_bytes
        body = data[at + layout.FRAME_HEADER_BYTES : at + layout.FRAME_HEADER_BYTES + body_bytes]
        crc = crc32c(body, crc32c(data[at : at + checked], crc32c(header.database_id)))
        if crc != frame.header.frame_crc:
            break
        ours = layout.decode_frame_header(data[at : at + layout.FRAME_HEADER_BYTES])
        assert fields(frame.header, layout.FRAME_FIELDS) == ours._asdict()
        if ours.type == layout.FRAME_UPSERT:
            assert (
                16
                + frame.body.ids_bytes
                + frame.body.metadata_bytes
                + len(frame.body.vectors)
                + len(frame.body.padding)
                == body_bytes
            )
            assert len(frame.body.vectors) == 4 * ours.n_records * header.dim
        if ours.type == layout.FRAME_FOLD:
            assert frame.body.snapshot_identity == int.from_bytes(body[:8], "little")
        types.append(ours.type)
        at += layout.FRAME_HEADER_BYTES + body_bytes
    assert types == log.types
    # Zeros at the end are room, no torn tail.
    assert len(data[at:].rstrip(b"\0")) == log.torn_bytes


def test_the_generated_parser_refuses_another_version(generated: Any, tmp_path: Path) -> None:
    data = bytearray((GOLDEN / SNAPSHOTS[0]).read_bytes())
    data[8] = 9
    with pytest.raises(Exception, match="validation failed"):
        assert generated.from_bytes(bytes(data)).snapshot
