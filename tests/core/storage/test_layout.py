from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from iqdb_core.storage import layout
from iqdb_core.storage.digest_value import ContentDigest

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = {
    "HEADER_FIELDS": (layout.HEADER_BYTES, layout.Header),
    "SECTION_FIELDS": (layout.SECTION_ENTRY_BYTES, layout.SectionEntry),
    "LOG_HEADER_FIELDS": (layout.LOG_HEADER_BYTES, layout.LogHeader),
    "FRAME_FIELDS": (layout.FRAME_HEADER_BYTES, layout.FrameHeader),
}
HEADER = layout.Header(
    magic=layout.SNAPSHOT_MAGIC,
    version=3,
    header_bytes=4096,
    file_bytes=123456789,
    feature_compat=1,
    feature_ro_compat=2,
    feature_incompat=3,
    database_id=bytes(range(16)),
    section_table_offset=8192,
    section_count=7,
    section_table_crc=0xDEADBEEF,
    n_rows=2**32 - 1,
    dim=384,
    metric=4,
    index_kind=2,
    id_encoding=1,
    block_log2=12,
    content_digest=bytes(range(16, 32)),
    header_crc=0x01020304,
)
SECTION = layout.SectionEntry("ids.order", 3, 0, 0, 1, 0, 10, 1, 4096, 40, 40, 8192, 0xABCDEF01)
LOG_HEADER = layout.LogHeader(layout.LOG_MAGIC, 2, 64, bytes(range(16)), 2**64 - 1, 3, 5)
FRAME = layout.FrameHeader(layout.FRAME_MARKER, 4096, 9, 64, 0x11223344, layout.FRAME_UPSERT, 12, 0x55667788)


@pytest.mark.parametrize("table", TABLES)
def test_fields_follow_one_another_and_fill_the_structure(table: str) -> None:
    fields = getattr(layout, table)
    size, names = TABLES[table]
    end = 0
    for field in fields:
        assert field.offset == end
        end += field.size
        if field.type.startswith("u"):
            assert field.size == int(field.type[1:]) // 8
    assert end == size
    assert tuple(field.name for field in fields if field.type != "zero") == names._fields


def test_header_survives_encoding() -> None:
    page = layout.encode_header(HEADER)
    assert len(page) == 4096
    assert page[:8] == b"IQDBPRST"
    assert page[8:12] == b"\3\0\0\0"
    assert layout.decode_header(page) == HEADER
    assert HEADER.identity == 0xDEADBEEF_01020304


def test_section_table_survives_encoding() -> None:
    entries = [SECTION, SECTION._replace(name="vectors", ndim=2, shape1=3)]
    table = layout.encode_section_table(entries)
    assert len(table) == 2 * 96
    assert layout.decode_section_table(table) == entries


def test_log_and_frame_headers_survive_encoding() -> None:
    assert layout.decode_log_header(layout.encode_log_header(LOG_HEADER)) == LOG_HEADER
    assert layout.decode_frame_header(layout.encode_frame_header(FRAME)) == FRAME
    assert len(layout.encode_log_header(LOG_HEADER)) == 64
    assert len(layout.encode_frame_header(FRAME)) == 40


@pytest.mark.parametrize(
    ("encoded", "decode", "table"),
    [
        (layout.encode_header(HEADER), layout.decode_header, "HEADER_FIELDS"),
        (layout.encode_section_table([SECTION]), layout.decode_section_table, "SECTION_FIELDS"),
        (layout.encode_log_header(LOG_HEADER), layout.decode_log_header, "LOG_HEADER_FIELDS"),
        (layout.encode_frame_header(FRAME), layout.decode_frame_header, "FRAME_FIELDS"),
    ],
)
def test_reserved_bytes_that_are_not_zero_are_refused(
    encoded: bytes, decode: Callable[[bytes], object], table: str
) -> None:
    for field in getattr(layout, table):
        if field.type != "zero":
            continue
        for place in (field.offset, field.offset + field.size - 1):
            changed = bytearray(encoded)
            changed[place] = 1
            with pytest.raises(layout.ReservedError, match="reserved"):
                decode(bytes(changed))


@pytest.mark.parametrize("name", [b"", b"a\0b", b"caf\xc3\xa9", b"a b", b"\x7f"])
def test_section_names_are_printable_ascii_padded_with_zeros(name: bytes) -> None:
    table = bytearray(layout.encode_section_table([SECTION]))
    table[:24] = name.ljust(24, b"\0")
    with pytest.raises(layout.ReservedError, match=r"sections\[0\].name"):
        layout.decode_section_table(bytes(table))


def test_element_types_have_the_sizes_of_their_memoryview_codes() -> None:
    for dtype in layout.DTYPES:
        assert memoryview(bytes(8)).cast(dtype.code).itemsize == dtype.itemsize
        assert dtype.itemsize == int(dtype.name[1:]) // 8


@pytest.mark.parametrize(("size", "page", "eight"), [(0, 0, 0), (1, 4096, 8), (4096, 4096, 4096)])
def test_padded_rounds_up(size: int, page: int, eight: int) -> None:
    assert layout.padded(size) == page
    assert layout.padded(size, 8) == eight


def test_a_digest_adds_and_subtracts_modulo_two_to_the_64th() -> None:
    one = ContentDigest(2**64 - 1, 5)
    two = ContentDigest(2, 2**64 - 5)
    assert one.plus(two) == ContentDigest(1, 0)
    assert one.plus(two).minus(two) == one
    assert ContentDigest.from_bytes(one.to_bytes()) == one
    assert one.hex() == "ffffffffffffffff0000000000000005"
