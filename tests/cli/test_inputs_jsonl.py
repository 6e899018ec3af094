from __future__ import annotations

import json
import math
import os
import struct
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_cli.inputs import jsonl
from iqdb_cli.inputs.reader import InputOptions
from iqdb_cli.inputs.readers import Inputs
from iqdb_cli.inputs.source import BadInputError


class Records:
    def __init__(self, path: Any, **options: Any) -> None:
        self.ids, self.metadata, self.sizes, self.places, vectors = [], [], [], [], []
        with Inputs([str(path)], InputOptions(**options)) as inputs:
            self.notes = inputs.notes
            for batch in inputs.batches():
                self.ids += batch.ids.to_list()
                vectors.append(batch.vectors.copy())
                self.metadata += [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
                self.sizes.append(len(batch))
                self.places += [batch.where(row) for row in range(len(batch))]
        self.vectors = np.concatenate(vectors)


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(*lines: Any, name: Any = "records.jsonl") -> Any:
        path = tmp_path / name
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return path

    return write


def test_records_have_ids_vectors_and_the_remaining_scalars_as_metadata(save: Any) -> None:
    records = Records(
        save(
            {"id": "a", "vector": [1, 2.5, -3e-2], "n": 1, "x": 1.0, "t": "é", "b": True, "z": None},
            {"id": 7, "vector": [0, 0, 0]},
            {"vector": [4, 5, 6], "id": {"hex": "00ff"}, "x": {"float": "-inf"}},
        )
    )
    assert records.ids == ["a", 7, b"\x00\xff"]
    assert records.vectors.tolist() == [[1, 2.5, np.float32(-3e-2)], [0, 0, 0], [4, 5, 6]]
    assert records.metadata == [
        {"b": True, "n": 1, "t": "é", "x": 1.0, "z": None},
        None,
        {"x": -math.inf},
    ]
    assert type(records.metadata[0]["n"]) is int
    assert type(records.metadata[0]["x"]) is float


def test_a_nested_metadata_object_is_picked_up(save: Any) -> None:
    records = Records(
        save(
            {"id": 1, "vector": [1], "metadata": {"a": 1}, "other": 5},
            {"id": 2, "vector": [1], "metadata": None},
            {"id": 3, "vector": [1], "metadata": {}},
            {"id": 4, "vector": [1]},
        )
    )
    assert records.metadata == [{"a": 1}, None, {}, None]


def test_a_nested_metadata_object_is_picked_up_when_the_first_one_is_null(save: Any) -> None:
    records = Records(
        save({"id": 1, "vector": [1], "metadata": None}, {"id": 2, "vector": [1], "metadata": {"a": 1}})
    )
    assert records.metadata == [None, {"a": 1}]


def test_a_scalar_called_metadata_is_a_field_like_others(save: Any) -> None:
    assert Records(save({"id": 1, "vector": [1], "metadata": "x"})).metadata == [{"metadata": "x"}]


def test_fields_can_be_chosen(save: Any) -> None:
    path = save({"key": 5, "id": 6, "v": [1, 2], "vector": [3, 4], "m": {"a": 1, "b": 2}, "s": 1})
    records = Records(path, id_field="key", vector_field="v", metadata_field="m")
    assert records.ids == [5]
    assert records.vectors.tolist() == [[1, 2]]
    assert records.metadata == [{"a": 1, "b": 2}]
    assert Records(path, metadata_field="m", columns=("b",)).metadata == [{"b": 2}]
    assert Records(path, columns=("s",)).metadata == [{"s": 1}]
    nested = save({"id": 1, "vector": [1], "metadata": {"a": 1, "b": 2}}, name="nested.jsonl")
    assert Records(nested, columns=("b",)).metadata == [{"b": 2}]
    assert Records(path, no_metadata=True).metadata == [None]


def test_remaining_fields_that_are_no_scalars_are_left_out_with_a_note(save: Any) -> None:
    records = Records(save({"id": 1, "vector": [1], "tags": ["x"], "o": {"a": 1}, "n": 3}))
    assert records.metadata == [{"n": 3}]
    assert any("not read as metadata: tags (array), o (object)" in note for note in records.notes)


@pytest.mark.parametrize("name", ["vector", "embedding", "Embedding"])
def test_a_usual_name_decides_between_several_arrays(save: Any, name: Any) -> None:
    records = Records(save({"id": 1, "counts": [1, 2, 3], name: [4, 5]}))
    assert records.vectors.tolist() == [[4, 5]]


def test_several_possible_vectors_are_a_question_that_lists_them(save: Any) -> None:
    path = save({"id": 1, "title": [1, 2, 3], "body": [4, 5]})
    with pytest.raises(
        BadInputError, match=r"2 fields could be the vector: title \(3 numbers\), body"
    ) as caught:
        Records(path)
    assert "--vector-field" in str(caught.value)


def test_without_an_id_field_records_are_numbered_and_the_notes_say_so(save: Any) -> None:
    records = Records(save({"vector": [1]}, {"vector": [2]}))
    assert records.ids == [0, 1]
    assert "record numbers as ids" in records.notes[0]


@pytest.mark.parametrize("lines", [[{"id": 1}, {}], [{}, {"id": 1}]])
@pytest.mark.parametrize("batch_rows", [1, 10])
def test_either_all_records_have_an_id_or_none(save: Any, lines: Any, batch_rows: Any) -> None:
    path = save(*[{**line, "vector": [1]} for line in lines])
    with pytest.raises(BadInputError, match=r"line 2.*id"):
        Records(path, batch_rows=batch_rows)


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\r\n\n{"vector": [1]}\r\n  \n{"vector": [2]}')
    records = Records(path)
    assert records.vectors.tolist() == [[1], [2]]
    assert records.places == [f"{path}, line 3", f"{path}, line 5"]


def test_lines_are_cut_at_chunks_without_loss(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", 256)
    rows = [{"id": number, "vector": [number, 1], "t": "x" * (number % 400)} for number in range(500)]
    records = Records(save(*rows), batch_rows=7)
    assert records.ids == list(range(500))
    assert [row["t"] for row in records.metadata] == [row["t"] for row in rows]
    assert max(records.sizes) <= 7


def test_a_line_beyond_the_limit_is_refused(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 4096)
    path = save({"vector": [1]}, {"vector": [1], "t": "x" * 10_000})
    with pytest.raises(BadInputError, match="line 2: is longer than 4,096 bytes"):
        Records(path)


def test_records_from_a_slow_pipe_do_not_wait_for_a_whole_chunk(tmp_path: Path) -> None:
    fifo = tmp_path / "records.jsonl"
    os.mkfifo(fifo)
    first_came = threading.Event()

    def write() -> None:
        with fifo.open("wb", buffering=0) as out:
            out.write(b'{"vector": [1]}\n{"vector": [2]}\n')
            assert first_came.wait(30)
            out.write(b'{"vector": [3]}\n')

    writer = threading.Thread(target=write)
    writer.start()
    with Inputs([str(fifo)], InputOptions(batch_rows=2)) as inputs:
        batches = inputs.batches()
        assert next(batches).vectors.tolist() == [[1], [2]]
        first_came.set()
        assert next(batches).vectors.tolist() == [[3]]
    writer.join()


def test_a_nan_keeps_its_bits(save: Any) -> None:
    path = save(
        {"vector": [1], "x": {"float": "nan"}}, {"vector": [1], "x": {"float": "nan:fff8000000000123"}}
    )
    bits = [struct.pack(">d", row["x"]).hex() for row in Records(path).metadata]
    assert bits == ["7ff8000000000000", "fff8000000000123"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": 2, "vector": [1, 2], "vector": [1, 2]}', "twice"),
        ('{"id": 2, "vector": [1, 2], "a": 1, "a": 2}', "twice"),
        ('{"id": 2, "vector": [1]}', "1 components, expected 2"),
        ('{"id": 2, "vector": [1, 2, 3]}', "3 components, expected 2"),
        ('{"id": 2, "vector": []}', "vector is empty"),
        ('{"id": 2, "vector": null}', "must be an array of numbers, found null"),
        ('{"id": 2, "vector": [1, null]}', "component 1 .* found null"),
        ('{"id": 2, "vector": [1, NaN]}', "component 1"),
        ('{"id": 2, "vector": [1, 1e39]}', "too large for float32"),
        ('{"id": 2, "vector": ["1", 2]}', "component 0 .* found a string"),
        ('{"id": 2}', "vector"),
        ('{"id": -2, "vector": [1, 2]}', "found -2"),
        ('{"id": 18446744073709551616, "vector": [1, 2]}', "found 18446744073709551616"),
        ('{"id": "", "vector": [1, 2]}', "found an empty one"),
        ('{"id": 1.5, "vector": [1, 2]}', "found 1.5"),
        ('{"id": null, "vector": [1, 2]}', "found null"),
        ('{"id": 2, "vector": [1, 2], "n": 9223372036854775808}', "outside -2.63 to 2.63-1"),
        ('{"id": 2, "vector": [1, 2], "n": -9223372036854775809}', "outside -2.63 to 2.63-1"),
        ('{"id": 2, "vector": [1, 2], "t": "\\ud800"}', "surrogate"),
        ('{"id": 2, "vector": [1, 2]', "end of the line"),
        ('{"id": 2, "vector": [1, 2]} x', "found 'x'"),
        ("[1, 2]", "object"),
        ("not json", "object"),
        ("{'id': 2}", "key"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [64, 1 << 20])
def test_a_bad_line_is_named_and_the_records_before_it_come_first(
    save: Any, monkeypatch: pytest.MonkeyPatch, line: Any, reason: Any, chunk_bytes: Any
) -> None:
    monkeypatch.setattr(jsonl, "CHUNK_BYTES", chunk_bytes)
    good = [json.dumps({"id": number, "vector": [number, 1]}) for number in range(40)]
    path = save(*good, line, *good)
    came = []
    with Inputs([str(path)], InputOptions()) as inputs, pytest.raises(BadInputError, match=reason) as caught:
        came.extend(record_id for batch in inputs.batches() for record_id in batch.ids.to_list())
    assert came == list(range(40))
    assert caught.value.line == 41
    assert str(caught.value).startswith(f"{path}, line 41")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no records"),
        (b"\n \n\t\n", "no records"),
        (b"[1, 2]\n", "is of type array, expected an object .* a vector alone is written"),
        (b"{\n", "line 1: is not JSON"),
        (b'{"id": 1}\n', "has no field of arrays of numbers"),
        (b'{"vector": []}\n', "has no field of arrays of numbers"),
        (b'{"vector": [1], "vector": [2]}\n', "twice"),
        (b"\xff\xfe{\x00", "line 1: is not JSON"),
    ],
)
def test_a_source_without_a_first_record_is_refused(tmp_path: Path, content: Any, reason: Any) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=reason):
        Records(path)


def test_a_closed_reader_leaves_no_thread_that_waits(save: Any) -> None:
    path = save(*[{"vector": [number]} for number in range(1000)])
    before = threading.active_count()
    with Inputs([str(path)], InputOptions(batch_rows=1)) as inputs:
        next(inputs.batches())
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.05)
    assert threading.active_count() == before
