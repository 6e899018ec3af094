from __future__ import annotations

import gc
import random
import struct
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqdb_core.errors import BatchTooLargeError, StructureError
from iqdb_core.records import Column, ColumnType, MetadataColumns, StringValues
from iqdb_core.storage import columns_layout as layout
from iqdb_core.storage.columns import COLUMN_FIELDS, GROUP_FIELDS, GroupView, encode_group

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any] | None

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    TEXT,
    st.sampled_from(["noun", "verb", "noun"]),
)
ROW = st.one_of(st.none(), st.dictionaries(st.sampled_from(["", "a", "b", "pos", "é"]), VALUE))
ROWS = st.one_of(
    st.lists(ROW, min_size=1),
    # Long groups in which some keys are rare: bitmaps and sparse rows.
    st.lists(
        st.sampled_from([None, {}, {"pos": "noun"}, {"pos": "verb", "n": 3}, {"é": False}]), min_size=1
    ).map(lambda rows: rows * 40 + [{"rare": 1.5}, {"rare": None}]),
)


def bits(row: Row) -> Any:
    if row is None:
        return None
    return {
        key: (type(value), struct.pack("<d", value) if isinstance(value, float) else value)
        for key, value in row.items()
    }


def encode(rows: list[Row]) -> bytes:
    return encode_group(MetadataColumns.from_dicts(rows))


@given(ROWS, st.data())
def test_some_rows_are_what_all_of_them_hold_there(rows: list[Row], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    found = GroupView(encode(rows)).to_columns(rows=(start, stop))
    assert list(map(bits, found.to_dicts())) == [
        bits(None if row is None else dict(sorted(row.items()))) for row in rows[start:stop]
    ]


def test_a_group_is_let_go_of_without_the_garbage_collector() -> None:
    # Its bytes may be decoded ones, many more than the objects around them give away.
    blob = np.frombuffer(encode([{"a": 1, "s": "x"}, {"b": None}] * 3), np.uint8).copy()
    blob_alive = weakref.ref(blob)
    gc.disable()
    try:
        view = GroupView(blob.data)
        view.check()
        assert view.row(0) == {"a": 1, "s": "x"}
        del view, blob
        assert blob_alive() is None
    finally:
        gc.enable()


@given(ROWS)
def test_a_group_comes_back_by_row_and_as_columns(rows: list[Row]) -> None:
    blob = encode(rows)
    view = GroupView(blob)
    assert view.n_rows == len(rows)
    expected = list(map(bits, rows))
    assert [bits(view.row(row)) for row in range(len(rows))] == expected
    assert list(map(bits, view.to_columns().to_dicts())) == expected
    GroupView(blob).check()


@given(ROWS)
def test_one_content_has_one_encoding(rows: list[Row]) -> None:
    columns = MetadataColumns.from_dicts(rows)
    blob = encode_group(columns)
    assert len(blob) % 8 == 0
    assert encode_group(GroupView(blob).to_columns()) == blob
    halves = MetadataColumns.concat(
        [columns.slice(0, len(rows) // 2), columns.slice(len(rows) // 2, len(rows))]
    )
    assert encode_group(halves) == blob


@given(ROWS)
def test_columns_can_be_read_for_some_keys_alone(rows: list[Row]) -> None:
    found = GroupView(encode(rows)).to_columns({"pos", "", "not there"}).to_dicts()
    expected = [None if row is None else {k: v for k, v in row.items() if k in {"pos", ""}} for row in rows]
    assert list(map(bits, found)) == list(map(bits, expected))


@given(ROWS, st.data())
def test_only_ensured_bytes_are_looked_at(rows: list[Row], data: st.DataObject) -> None:
    blob = encode(rows)
    # What was not ensured reads as garbage.
    seen = bytearray(b"\xa5" * len(blob))

    def ensure(start: int, stop: int) -> None:
        assert 0 <= start <= stop <= len(blob)
        seen[start:stop] = blob[start:stop]

    view = GroupView(memoryview(seen).toreadonly(), ensure=ensure)
    row = data.draw(st.integers(0, len(rows) - 1))
    assert bits(view.row(row)) == bits(rows[row])
    assert list(map(bits, view.to_columns().to_dicts())) == list(map(bits, rows))


def test_one_row_of_many_needs_few_bytes() -> None:
    blob = encode([{"text": f"the text of record {number}"} for number in range(16384)])
    needed: list[tuple[int, int]] = []
    view = GroupView(blob, ensure=lambda start, stop: needed.append((start, stop)))
    assert view.row(9000) == {"text": "the text of record 9000"}
    assert sum(stop - start for start, stop in needed) < 200


def test_rows_are_read_without_numpy() -> None:
    blob = encode([{"a": 1, "b": "x", "c": None, "d": True, "e": 0.5}, None])
    code = (
        "import sys; from iqdb_core.storage.columns import GroupView\n"
        f"view = GroupView({blob!r}); print(view.row(0), view.row(1), 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'a': 1, 'b': 'x', 'c': None, 'd': True, 'e': 0.5} None False\n"


def test_a_row_outside_the_group_is_an_index_error() -> None:
    view = GroupView(encode([{}]))
    for row in (-1, 1):
        with pytest.raises(IndexError):
            view.row(row)


# --- Layout -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "packed"), [(GROUP_FIELDS, layout.GROUP_HEADER), (COLUMN_FIELDS, layout.COLUMN_ENTRY)]
)
def test_the_field_tables_describe_the_packed_forms(fields: Any, packed: struct.Struct) -> None:
    codes = {"u8": "B", "u16": "H", "u32": "I"}
    assert packed.format == "<" + "".join(codes.get(field.type) or f"{field.size}s" for field in fields)
    assert [field.offset for field in fields] == [sum(f.size for f in fields[:i]) for i in range(len(fields))]


def test_a_small_group_has_exactly_these_bytes() -> None:
    assert encode([{"a": "x"}, None, {"a": 7}]) == (
        struct.pack("<IIB3xI", 3, 2, 1, 136)
        + struct.pack("<IHBBIB3xII8x", 80, 1, 3, 1, 1, 0, 96, 16)
        + struct.pack("<IHBBIB3xII8x", 80, 1, 5, 1, 1, 0, 112, 24)
        + b"a".ljust(8, b"\0")
        + struct.pack("<Q", 0b101)
        + struct.pack("<Qq", 0b100, 7)
        + struct.pack("<QII", 0b001, 0, 1)
        + b"x".ljust(8, b"\0")
    )


def directory(rows: list[Row]) -> dict[str, tuple[int, int, int]]:
    return {view.key: (view.presence, view.count, view.encoding) for view in GroupView(encode(rows)).columns}


def test_presence_is_the_smallest_that_fits() -> None:
    def present(count: int, n_rows: int) -> int:
        rows: list[Row] = [{"a": 1}] * count + [{}] * (n_rows - count)
        return directory(rows)["a"][0]

    assert present(64, 64) == layout.ALL
    assert present(1, 64) == layout.BITMAP
    assert present(1, 65) == layout.SPARSE
    assert present(4, 65) == layout.SPARSE
    assert present(5, 65) == layout.BITMAP
    assert present(1020, 16384) == layout.SPARSE
    assert present(1021, 16384) == layout.BITMAP


def test_strings_use_a_dictionary_when_half_of_them_repeat() -> None:
    assert directory([{"a": "x"}])["a"][2] == layout.PLAIN
    assert directory([{"a": "x"}, {"a": "x"}])["a"][2] == layout.DICTIONARY
    assert directory([{"a": "x"}, {"a": "y"}, {"a": "y"}])["a"][2] == layout.PLAIN
    assert directory([{"a": "x"}, {"a": "y"}] * 2)["a"][2] == layout.DICTIONARY


def test_the_largest_dictionary_has_codes_of_two_bytes() -> None:
    rows: list[Row] = [{"a": str(number % 8192)} for number in range(16384)]
    view = GroupView(encode(rows))
    assert view.columns[0].encoding == layout.DICTIONARY
    assert view.row(16383) == {"a": "8191"}
    assert view.to_columns().to_dicts() == rows


def test_a_group_that_weighs_too_much_is_refused() -> None:
    strings = StringValues.from_str(["x" * 2**24]).take(np.zeros(17, np.int64))
    columns = MetadataColumns(17, None, (Column("a", ColumnType.STRING, None, strings),))
    with pytest.raises(BatchTooLargeError):
        encode_group(columns)


# --- Hostile bytes ------------------------------------------------------------------------------

MIXED: list[Row] = [
    {"a": 1, "b": "noun", "c": True, "d": 0.5, "e": "unique", "é": None},
    None,
    {"a": "one", "b": "noun", "c": False, "e": "other é"},
    {},
] * 17 + [{"rare": "x"}]
READERS: list[Callable[[GroupView], object]] = [
    lambda view: [view.row(row) for row in range(0, view.n_rows, 1 + view.n_rows // 20)],
    lambda view: view.to_columns().to_dicts(),
    lambda view: view.check(),
]


def read_in_every_way(blob: bytes) -> list[bool]:
    """Return which of the readers found nothing wrong; they must not fail in any other way."""
    whole = []
    for reader in READERS:
        try:
            reader(GroupView(blob, "x.iqdb", "metadata group 3"))
        except StructureError as error:
            assert str(error).startswith("x.iqdb: metadata group 3: ")  # noqa: PT017
            whole.append(False)
        else:
            whole.append(True)
    return whole


def test_any_one_byte_may_be_anything() -> None:
    blob = encode(MIXED)
    choose = random.Random(5)
    for at in range(len(blob)):
        for value in {255, choose.randrange(4)} - {blob[at]}:
            damaged = blob[:at] + bytes([value]) + blob[at + 1 :]
            by_row, by_column, canonical = read_in_every_way(damaged)
            assert by_column >= canonical
            if canonical:
                # Then it is the one encoding of another content, and all ways agree on it.
                assert by_row
                rows = GroupView(damaged).to_columns().to_dicts()
                assert encode(rows) == damaged


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_give_an_answer_or_a_structure_error(data: st.DataObject) -> None:
    blob = bytearray(encode(data.draw(ROWS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(blob) // 4 - 1)) * 4
        number = data.draw(st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 20), st.just(len(blob))))
        blob[at : at + 4] = number.to_bytes(4, "little")
    read_in_every_way(bytes(blob))


@given(st.binary(max_size=200))
def test_noise_is_no_group(noise: bytes) -> None:
    read_in_every_way(noise)


def test_a_group_cut_short_or_made_longer_is_refused() -> None:
    blob = encode(MIXED)
    for size in (*range(0, len(blob), 7), len(blob) - 8):
        with pytest.raises(StructureError):
            GroupView(blob[:size])
    with pytest.raises(StructureError, match="blob_bytes"):
        GroupView(blob + bytes(8))


def patched(rows: list[Row], at: int, new: bytes) -> bytes:
    blob = encode(rows)
    assert blob[at : at + len(new)] != new
    return blob[:at] + new + blob[at + len(new) :]


ENTRY = layout.GROUP_HEADER_BYTES
TWO = [{"a": "x", "b": 1}, {"a": "y", "b": 2}]
# In TWO: entries at 16 and 48, keys at 80, payload of a (offsets 0 1 2, "xy") at 88, of b at 104.


@pytest.mark.parametrize(
    ("at", "new", "what"),
    [
        (0, struct.pack("<I", 0), "n_rows"),
        (0, struct.pack("<I", 16385), "n_rows"),
        (4, struct.pack("<I", 2**32 - 1), "n_columns"),
        (8, b"\3", "has_metadata"),
        (8, b"\2", "has_metadata"),
        (9, b"\1", "reserved"),
        (12, struct.pack("<I", 2**32 - 8), "blob_bytes"),
        (ENTRY, struct.pack("<I", 2**32 - 1), r"columns\[0\].key_offset"),
        (ENTRY + 4, struct.pack("<H", 65535), r"columns\[0\].key_bytes"),
        (ENTRY + 6, b"\6", r"columns\[0\].type"),
        (ENTRY + 6, b"\0", r"columns\[0\].type"),
        (ENTRY + 7, b"\2", r"columns\[0\].presence"),
        (ENTRY + 8, struct.pack("<I", 3), r"columns\[0\].count"),
        (ENTRY + 8, struct.pack("<I", 0), r"columns\[0\].count"),
        (ENTRY + 12, b"\2", r"columns\[0\].encoding"),
        (ENTRY + 13, b"\1", r"columns\[0\].reserved"),
        (ENTRY + 16, struct.pack("<I", 0), r"columns\[0\].data_offset"),
        (ENTRY + 20, struct.pack("<I", 2**32 - 8), r"columns\[0\].data_bytes"),
        (ENTRY + 31, b"\1", r"columns\[0\].reserved"),
        (ENTRY + 32 + 12, b"\1", r"columns\[1\].encoding"),
        (80, b"b", r"columns\[1\]"),
        (80, b"\xff", r"columns\[0\].key"),
        (82, b"\1", "padding behind the keys"),
        (88, struct.pack("<I", 1), r"columns\[0\].offsets\[0\]"),
        (92, struct.pack("<I", 3), r"columns\[0\].offsets"),
        (96, struct.pack("<I", 200), r"columns\[0\].data_bytes"),
        (100, b"\xff", r"columns\[0\].value"),
        (103, b"\1", r"columns\[0\].text padding"),
    ],
)
def test_what_is_wrong_is_named(at: int, new: bytes, what: str) -> None:
    with pytest.raises(StructureError, match=what):
        GroupView(patched(TWO, at, new)).row(0)
    with pytest.raises(StructureError, match=what):
        GroupView(patched(TWO, at, new)).to_columns()


def test_two_values_of_a_key_in_one_row_are_refused() -> None:
    columns = MetadataColumns(
        1,
        None,
        (
            Column("a", ColumnType.NULL, None, np.zeros(1, np.bool_)),
            Column("a", ColumnType.INT64, None, np.array([1])),
        ),
    )
    blob = encode_group(columns)
    for reader in READERS:
        with pytest.raises(StructureError, match="one value for a key and a row"):
            reader(GroupView(blob))


def test_a_value_of_a_row_without_mapping_is_refused() -> None:
    for n_rows in (3, 100):
        has = np.ones(n_rows, np.bool_)
        has[1] = False
        rows = np.array([1], np.uint32)
        columns = MetadataColumns(n_rows, has, (Column("a", ColumnType.INT64, rows, np.array([1])),))
        blob = encode_group(columns)
        for reader in READERS[1:]:
            with pytest.raises(StructureError, match="rows that have a mapping"):
                reader(GroupView(blob))


def test_rows_of_a_sparse_column_must_ascend() -> None:
    blob = encode([{"a": n} if n in (1, 2, 5) else {} for n in range(500)])
    assert blob[ENTRY + 7] == layout.SPARSE
    payload = struct.unpack_from("<I", blob, ENTRY + 16)[0]
    assert blob[payload : payload + 6] == struct.pack("<3H", 1, 2, 5)
    for rows in ((2, 2, 5), (2, 1, 5)):
        changed = blob[:payload] + struct.pack("<3H", *rows) + blob[payload + 6 :]
        for reader in READERS:
            with pytest.raises(StructureError, match="expected rows that ascend"):
                reader(GroupView(changed))


def test_a_bitmap_of_mappings_must_be_there_as_a_whole() -> None:
    blob = encode([{"a": 1}, None])
    header = struct.pack("<IIB3xI", 100, 0, layout.HAS_BITMAP, 24)
    with pytest.raises(StructureError, match="has_metadata bitmap is 8, expected 16 bytes"):
        GroupView(header + blob[16:24])


def test_a_dictionary_must_hold_the_offsets_of_its_entries() -> None:
    blob = encode([{"a": "x"}, {"a": "y"}] * 20)
    assert blob[ENTRY + 12] == layout.DICTIONARY
    payload = struct.unpack_from("<I", blob, ENTRY + 16)[0]
    assert struct.unpack_from("<I", blob, payload)[0] == 2
    many = blob[:payload] + struct.pack("<I", 20) + blob[payload + 4 :]
    short = struct.pack("<I", 24)
    cut = many[: ENTRY + 20] + short + many[ENTRY + 24 : payload + 24]
    cut = cut[:12] + struct.pack("<I", len(cut)) + cut[16:]
    with pytest.raises(StructureError, match="data_bytes is 24, expected room for the offsets"):
        GroupView(cut).row(0)


def test_a_string_longer_than_a_value_may_be_is_refused() -> None:
    text = StringValues.from_bytes([b"x" * (2**24 + 1)])
    blob = encode_group(MetadataColumns(1, None, (Column("a", ColumnType.STRING, None, text),)))
    with pytest.raises(StructureError, match="16777217, expected at most 16777216 bytes"):
        GroupView(blob).to_columns()


def test_a_dictionary_must_not_expand_without_bound() -> None:
    text = b"x" * 2**20
    entry = struct.pack("<II", 1, 0) + struct.pack("<II", 0, len(text)) + text + bytes(2 * 16384)
    blob = (
        struct.pack("<IIB3xI", 16384, 1, 0, 56 + len(entry))
        + struct.pack("<IHBBIB3xII8x", 48, 1, 5, 0, 16384, 1, 56, len(entry))
        + b"a".ljust(8, b"\0")
        + entry
    )
    view = GroupView(blob)
    assert view.row(5) == {"a": text.decode()}
    with pytest.raises(StructureError, match="a group of weight 268435456 at most"):
        view.to_columns()


def column_of(key: str, n_rows: int = 1) -> Column:
    return Column(key, ColumnType.INT64, None, np.zeros(n_rows, np.int64))


def test_keys_count_in_the_weight_of_a_group() -> None:
    columns = MetadataColumns(16384, None, (column_of("k" * 16384, 16384),))
    with pytest.raises(BatchTooLargeError):
        encode_group(columns)
    blob = encode_group(MetadataColumns(16384, None, (column_of("k" * 16000, 16384),)))
    longer = bytearray(blob[:48] + b"k" * 16384 + blob[48 + 16000 :])
    longer[12:16] = len(longer).to_bytes(4, "little")
    longer[20:22] = (16384).to_bytes(2, "little")
    longer[32:36] = (48 + 16384).to_bytes(4, "little")
    assert GroupView(longer).row(0) == {"k" * 16384: 0}
    for read in (GroupView.to_columns, GroupView.check):
        with pytest.raises(StructureError, match="a group of weight 268435456 at most"):
            read(GroupView(longer))


def test_the_check_knows_the_limits_of_a_record() -> None:
    many = tuple(column_of(f"{number:04}") for number in range(4097))
    view = GroupView(encode_group(MetadataColumns(1, None, many)))
    with pytest.raises(StructureError, match="row 0 is 4097, expected at most 4096 keys"):
        view.check()
    text = StringValues.from_bytes([b"x" * 2**24])
    heavy = tuple(Column(str(number), ColumnType.STRING, None, text) for number in range(4))
    view = GroupView(encode_group(MetadataColumns(1, None, heavy)))
    with pytest.raises(StructureError, match="expected a weight of at most 67108864"):
        view.check()


def test_another_encoding_of_the_same_content_fails_the_check() -> None:
    # Two entries of a dictionary in descending order, with codes to match.
    blob = encode([{"a": "x"}, {"a": "y"}, {"a": "x"}, {"a": "y"}])
    assert blob[80:82] == b"xy"
    assert blob[88:96] == struct.pack("<4H", 0, 1, 0, 1)
    other = blob[:80] + b"yx" + blob[82:88] + struct.pack("<4H", 1, 0, 1, 0) + blob[96:]
    assert GroupView(other).to_columns().to_dicts() == GroupView(blob).to_columns().to_dicts()
    with pytest.raises(StructureError, match="the canonical one"):
        GroupView(other).check()
