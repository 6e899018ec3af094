"""The JSON Lines parser against Python's json module."""

from __future__ import annotations

import gc
import json
import math
import random
import struct
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import _kernels

NULL, BOOL, INT64, FLOAT64, STRING = range(1, 6)
INT, BYTES, TEXT = range(3)


class Record(NamedTuple):
    """What a line says; floats as their bits, so that NaN equals NaN."""

    line: int
    id: tuple[int, bytes] | None
    vector: bytes
    metadata: dict[str, tuple[int, Any]] | None


def typed(value: Any) -> tuple[int, Any]:
    """A metadata value as (column type, value)."""
    if isinstance(value, dict):
        ((tag, text),) = value.items()
        assert tag == "float"
        if text.startswith("nan:"):
            return FLOAT64, struct.unpack("<q", struct.pack("<Q", int(text[4:], 16)))[0]
        return typed(float(text))
    if value is None:
        return NULL, None
    if isinstance(value, bool):
        return BOOL, value
    if isinstance(value, int):
        return INT64, value
    if isinstance(value, float):
        return FLOAT64, struct.unpack("<q", struct.pack("<d", value))[0] if not math.isnan(
            value
        ) else 0x7FF8 << 48
    return STRING, value


def record_id(value: Any) -> tuple[int, bytes]:
    if isinstance(value, int):
        return INT, struct.pack("<Q", value)
    if isinstance(value, str):
        return TEXT, value.encode()
    return BYTES, bytes.fromhex(value["hex"])


def read(
    data: bytes,
    *,
    id_field: str | None = None,
    vector_field: str | None = None,
    metadata_field: str | None = None,
    columns: list[str] | None = None,
    no_metadata: bool = False,
) -> list[Record]:
    """The records of valid lines."""
    records = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        found = json.loads(line)
        if found is None:
            records.append(Record(number, None, b"", None))
            continue
        special = {id_field, vector_field}
        if metadata_field is None:
            mapping = {key: value for key, value in found.items() if key not in special}
        else:
            mapping = found.get(metadata_field)
        if mapping is not None and columns is not None:
            mapping = {key: value for key, value in mapping.items() if key in columns}
        if no_metadata or (metadata_field is None and vector_field is not None and not mapping):
            mapping = None
        records.append(
            Record(
                number,
                record_id(found[id_field]) if id_field in found else None,
                np.array(found[vector_field] if vector_field else [], np.float32).tobytes(),
                None if mapping is None else {key: typed(value) for key, value in mapping.items()},
            )
        )
    return records


def records_of(batch: _kernels.JsonlBatch) -> list[Record]:
    """The records that a batch's columns say."""
    rows: list[dict[str, tuple[int, Any]] | None] = [{} if has else None for has in batch.has_metadata]
    names = [(key.encode(), kind) for key, kind, *_ in batch.columns]
    assert names == sorted(set(names))
    for key, kind, column_rows, values, offsets in batch.columns:
        assert list(column_rows) == sorted(set(column_rows)) != []
        count = len(column_rows)
        if kind == STRING:
            assert offsets is not None
            assert (len(offsets), offsets[0], offsets[count]) == (count + 1, 0, len(values))
            decoded = [bytes(values[offsets[i] : offsets[i + 1]]).decode() for i in range(count)]
        else:
            assert offsets is None
            array = np.asarray(values)
            assert array.dtype == {NULL: "u1", BOOL: "u1", INT64: "i8", FLOAT64: "f8"}[kind]
            assert len(array) == (0 if kind == NULL else count)
            if kind == NULL:
                decoded = [None] * count
            elif kind == BOOL:
                decoded = [bool(value) for value in array]
            else:
                decoded = array.view(np.int64).tolist()
        for row, value in zip(column_rows, decoded, strict=True):
            mapping = rows[row]
            assert mapping is not None
            assert key not in mapping
            mapping[key] = kind, value
    ids: list[tuple[int, bytes] | None] = [None] * batch.n_rows
    if batch.has_ids:
        data, offsets = bytes(batch.id_bytes), batch.id_offsets
        ids = [(kind, data[offsets[i] : offsets[i + 1]]) for i, kind in enumerate(batch.id_kinds)]
        assert batch.ids_all_u64 == all(kind == INT for kind in batch.id_kinds)
        if batch.ids_all_u64:
            assert np.asarray(batch.ids_u64).tobytes() == data
    assert len(batch.vectors) == batch.n_rows * batch.dim
    vectors = np.asarray(batch.vectors).reshape(batch.n_rows, batch.dim)
    return [Record(line, ids[i], vectors[i].tobytes(), rows[i]) for i, line in enumerate(batch.row_lines)]


TEXT_VALUES = st.text(st.characters(codec="utf-8"), max_size=12)
KEYS = st.one_of(st.sampled_from(["a", "b", "key", "\xe9", "", "float", "hex"]), TEXT_VALUES)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([{"float": text} for text in ("nan", "inf", "-inf", "nan:fff8000000000001")]),
    TEXT_VALUES,
)
JSON_IDS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    st.binary(min_size=1, max_size=8).map(lambda data: {"hex": data.hex()}),
)
COMPONENTS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def sources(draw: st.DrawFn, *, nested: bool = False) -> bytes:
    """Lines of records with id and vector, the metadata beside them or in the field "meta"."""
    dim = draw(st.integers(1, 5))
    ids = draw(st.sampled_from([st.integers(0, 2**64 - 1), JSON_IDS]))
    lines = []
    for _ in range(draw(st.integers(0, 6))):
        metadata = draw(st.dictionaries(KEYS, VALUES, max_size=5))
        record = {"meta": draw(st.sampled_from([metadata, metadata, None]))} if nested else metadata
        if nested:
            record |= draw(st.dictionaries(st.sampled_from("xyz"), st.just([{"deep": [1]}]), max_size=2))
        record |= {"id": draw(ids), "vector": draw(st.lists(COMPONENTS, min_size=dim, max_size=dim))}
        order = draw(st.permutations(list(record)))
        separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "  : ")]))
        text = json.dumps(
            {key: record[key] for key in order}, separators=separators, ensure_ascii=draw(st.booleans())
        )
        lines.append(draw(st.sampled_from(["", " "])) + text + draw(st.sampled_from(["", "\r", " \t"])))
        lines += draw(st.sampled_from([[], [], ["", " \r"]]))
    end = draw(st.sampled_from(["", "\n"]))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + ("\n".join(lines) + end).encode()


def read_in_pieces(data: bytes, cut: int, **options: Any) -> list[Record]:
    """The records when the bytes come in two pieces."""
    first = _kernels.parse_jsonl(data[:cut], final=False, **options)
    rest = data[first.consumed_bytes :]
    second = _kernels.parse_jsonl(rest, first_line=1 + first.n_lines, dim=first.dim, **options)
    assert second.consumed_bytes == len(rest)
    return records_of(first) + records_of(second)


@given(sources())
def test_metadata_beside_the_vector(data: bytes) -> None:
    options = {"id_field": "id", "vector_field": "vector"}
    batch = _kernels.parse_jsonl(data, **options)
    assert records_of(batch) == read(data, **options)
    assert batch.consumed_bytes == len(data)


@given(sources(nested=True))
def test_metadata_in_a_field_of_its_own(data: bytes) -> None:
    options = {"id_field": "id", "vector_field": "vector", "metadata_field": "meta"}
    assert records_of(_kernels.parse_jsonl(data, **options)) == read(data, **options)


@given(st.data(), st.booleans(), st.lists(KEYS, max_size=4))
def test_only_the_columns_asked_for_are_kept(data: st.DataObject, nested: bool, columns: list[str]) -> None:
    source = data.draw(sources(nested=nested))
    options = {"id_field": "id", "vector_field": "vector", "metadata_field": "meta" if nested else None}
    batch = _kernels.parse_jsonl(source, **options, columns=columns)
    assert records_of(batch) == read(source, **options, columns=columns)


@given(st.data(), st.booleans())
def test_no_metadata_is_kept_on_request(data: st.DataObject, nested: bool) -> None:
    source = data.draw(sources(nested=nested))
    options = {"id_field": "id", "vector_field": "vector", "metadata_field": "meta" if nested else None}
    batch = _kernels.parse_jsonl(source, **options, no_metadata=True)
    assert records_of(batch) == read(source, **options, no_metadata=True)
    assert batch.columns == []


@given(st.lists(st.one_of(st.none(), st.dictionaries(KEYS, VALUES, max_size=4)), max_size=6))
def test_lines_without_vectors_are_metadata_alone(mappings: list[dict[str, Any] | None]) -> None:
    data = "\n".join(json.dumps(mapping) for mapping in mappings).encode()
    batch = _kernels.parse_jsonl(data)
    assert records_of(batch) == read(data)
    assert (batch.dim, batch.has_ids, list(batch.id_offsets)) == (0, False, [0])


@given(sources(), st.randoms(use_true_random=False))
def test_two_pieces_give_what_the_whole_gives(data: bytes, random: random.Random) -> None:
    options = {"id_field": "id", "vector_field": "vector"}
    whole = records_of(_kernels.parse_jsonl(data, **options))
    assert read_in_pieces(data, random.randint(0, len(data)), **options) == whole


def test_a_cut_at_every_byte_gives_what_the_whole_gives() -> None:
    data = (
        b'\xef\xbb\xbf{"id": 1, "vector": [1.25, -3e-2], "k": "a\\u00e9\\ud83d\\ude00\xc3\xa9"}\r\n \n'
        b'{"vector": [0, 1], "id": "x", "n": {"float": "-inf"}}\n\n{"id": {"hex": "00Ff"}, "vector": [2, 3]}'
    )
    options = {"id_field": "id", "vector_field": "vector"}
    whole = read(data, **options)
    assert [record.line for record in whole] == [1, 3, 5]
    for cut in range(len(data) + 1):
        assert read_in_pieces(data, cut, **options) == whole


def test_a_batch_stops_after_max_rows_and_says_how_far_it_came() -> None:
    data = b'{"v":[1]}\n\n{"v":[2]}\n{"v":[3]}\n'
    found = []
    position, line = 0, 1
    while position < len(data):
        batch = _kernels.parse_jsonl(data[position:], vector_field="v", first_line=line, max_rows=1)
        assert batch.n_rows == 1
        found.append((batch.row_lines[0], batch.vectors[0], batch.n_lines))
        position += batch.consumed_bytes
        line += batch.n_lines
    assert found == [(1, 1.0, 1), (3, 2.0, 2), (4, 3.0, 1)]


def test_lines_that_all_have_other_keys_end_a_batch_early() -> None:
    data = b"".join(b'{"v":[1],"key%d":1}\n' % i for i in range(70_000))
    first = _kernels.parse_jsonl(data, vector_field="v")
    assert 60_000 < first.n_rows < 70_000
    second = _kernels.parse_jsonl(data[first.consumed_bytes :], vector_field="v")
    assert first.n_rows + second.n_rows == 70_000


def test_nothing_is_taken_from_an_incomplete_line() -> None:
    for data in (b"", b"\n", b"{", b'{"v":[1]}', b'{"v":[1]}\n{"v'):
        batch = _kernels.parse_jsonl(data, vector_field="v", final=False)
        assert batch.consumed_bytes == data.rfind(b"\n") + 1
        assert batch.n_rows == data.count(b"]}\n")


def test_an_empty_mapping_is_kept_apart_from_none() -> None:
    lines = b'{"v":[1],"m":{}}\n{"v":[1],"m":null}\n{"v":[1]}'
    assert list(_kernels.parse_jsonl(lines, vector_field="v", metadata_field="m").has_metadata) == [1, 0, 0]
    assert list(_kernels.parse_jsonl(b"{}\nnull").has_metadata) == [1, 0]


def test_keys_are_the_same_however_they_are_written() -> None:
    batch = _kernels.parse_jsonl(b'{"v":[1],"key":1}\n{"\\u0076":[2],"\\u006bey":2}', vector_field="v")
    ((key, kind, rows, values, _),) = batch.columns
    assert (key, kind, list(rows), list(values)) == ("key", INT64, [0, 1], [1, 2])


def test_every_escape_is_decoded() -> None:
    text = rb'"\"\\\/\b\f\n\r\t\u0000\u00E9\u20ac\uD83D\uDE00"'
    ((_, _, _, values, _),) = _kernels.parse_jsonl(b'{"s":' + text + b"}").columns
    assert bytes(values).decode() == json.loads(text)


def test_arrays_outlive_the_batch() -> None:
    batch = _kernels.parse_jsonl(b'{"v":[1,2,3],"s":"text"}', vector_field="v")
    vectors, values = batch.vectors, batch.columns[0][3]
    del batch
    gc.collect()
    assert (list(vectors), bytes(values)) == ([1, 2, 3], b"text")
    assert vectors.readonly


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8)])
def test_data_may_be_any_buffer(kind: Any) -> None:
    assert _kernels.parse_jsonl(kind(b'{"v":[1]}\n'), vector_field="v").n_rows == 1


@given(sources(), st.randoms(use_true_random=False))
def test_damaged_lines_give_an_error_or_an_answer(data: bytes, random: random.Random) -> None:
    damaged = bytearray(data)
    for _ in range(random.randint(1, 4)):
        if damaged:
            position = random.randrange(len(damaged))
            piece = bytes(random.choices(b'{}[]":,\\0-.eEu\n \xe9\xff\x00tn', k=random.randint(0, 2)))
            damaged[position : position + random.randint(0, 2)] = piece
    try:
        batch = _kernels.parse_jsonl(damaged, id_field="id", vector_field="vector")
    except _kernels.JsonlError as error:
        assert 1 <= error.line <= damaged.count(b"\n") + 1  # noqa: PT017 - only some of the lines are wrong
        assert 1 <= error.column <= len(damaged) + 1  # noqa: PT017
    else:
        assert records_of(batch) == read(bytes(damaged), id_field="id", vector_field="vector")
