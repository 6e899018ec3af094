from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqdb_cli.inputs.parquet import ParquetReader
from iqdb_cli.inputs.reader import InputOptions
from iqdb_cli.inputs.readers import Inputs
from iqdb_cli.inputs.source import BadInputError, ByteSource
from iqdb_core.errors import DimensionMismatchError, InvalidIdError, InvalidMetadataError, InvalidVectorError


class Records:
    def __init__(self, path: Any, **options: Any) -> None:
        self.ids, self.metadata, self.sizes, vectors = [], [], [], []
        with Inputs([str(path)], InputOptions(**options)) as inputs:
            for batch in inputs.batches():
                self.ids += batch.ids.to_list()
                vectors.append(batch.vectors.copy())
                self.metadata += [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
                self.sizes.append(len(batch))
            self.notes = inputs.notes
        self.vectors = np.concatenate(vectors)


FIXED = pa.list_(pa.float32(), 3)
VECTORS = [[0.5, 1.0, -2.0], [4.0, -0.0, 0.25], [1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]


def fixed(dtype: Any = None, rows: Any = VECTORS) -> Any:
    return pa.array(rows, pa.list_(dtype or pa.float32(), len(VECTORS[0])))


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(columns: Any, name: Any = "records.parquet", **settings: Any) -> Any:
        path = tmp_path / name
        pq.write_table(pa.table(columns), path, **settings)
        return path

    return write


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32(), pa.float64()])
@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3)])
def test_every_kind_of_list_of_floats_holds_vectors(save: Any, dtype: Any, make: Any) -> None:
    rows = [np.array(row, dtype.to_pandas_dtype()) for row in VECTORS]
    records = Records(save({"v": pa.array(rows, make(dtype))}))
    assert records.vectors.dtype == np.float32
    assert records.vectors.tolist() == VECTORS


def test_row_groups_come_in_order_whatever_their_number(save: Any) -> None:
    numbers = np.arange(5000)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(numbers, 2).astype(np.float32)), 2)
    path = save({"id": numbers, "v": vectors, "n": numbers}, row_group_size=77)
    records = Records(path, batch_rows=50)
    assert records.ids == numbers.tolist()
    assert records.vectors[:, 1].tolist() == numbers.tolist()
    assert [row["n"] for row in records.metadata] == numbers.tolist()
    assert max(records.sizes) <= 50


def test_a_huge_row_group_is_read_in_bounded_batches(save: Any) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(40_000 * 128, np.float16)), 128)
    records = Records(save({"v": vectors}, row_group_size=40_000))
    assert max(records.sizes) * 128 * 4 <= 8 * 1024 * 1024
    assert len(records.ids) == 40_000


def test_long_text_makes_batches_smaller(save: Any) -> None:
    rows = 4096
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(rows, np.float32)), 1)
    text = ["x" * 20_000 + str(row) for row in range(rows)]
    records = Records(save({"v": vectors, "text": text}, use_dictionary=False, compression="none"))
    assert max(records.sizes) <= 2048
    assert len(records.ids) == rows


def test_a_column_named_id_holds_the_ids_and_the_notes_say_so(save: Any) -> None:
    records = Records(save({"id": ["a", "b", "c", "d"], "v": fixed()}))
    assert records.ids == ["a", "b", "c", "d"]
    assert "vectors from column 'v', ids from column 'id'" in records.notes[0]


def test_without_an_id_column_rows_are_numbered_and_the_notes_say_so(save: Any) -> None:
    records = Records(save({"v": fixed(), "name": ["a", "b", "c", "d"]}))
    assert records.ids == [0, 1, 2, 3]
    assert "row numbers as ids" in records.notes[0]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([5, 0, 2**64 - 1, 7], pa.uint64()), [5, 0, 2**64 - 1, 7]),
        (pa.array([5, 0, 1, 7], pa.int8()), [5, 0, 1, 7]),
        (pa.array(["a", "é", "ccc", "d"], pa.large_string()), ["a", "é", "ccc", "d"]),
        (pa.array([b"a", b"\xff", b"\x00", b"dd"]), [b"a", b"\xff", b"\x00", b"dd"]),
        (pa.array([b"ab", b"cd", b"ef", b"gh"], pa.binary(2)), [b"ab", b"cd", b"ef", b"gh"]),
        (pa.array(["a", "b", "a", "c"]).dictionary_encode(), ["a", "b", "a", "c"]),
    ],
)
def test_ids_are_integers_text_or_bytes(save: Any, array: Any, expected: Any) -> None:
    assert Records(save({"key": array, "v": fixed()}), id_field="key", batch_rows=3).ids == expected


@pytest.mark.parametrize(
    ("array", "row"),
    [
        (pa.array([1, None, 3, 4]), 1),
        (pa.array([1, 2, -3, 4]), 2),
        (pa.array(["a", "b", "c", ""]), 3),
        (pa.array(["a", "b" * 65_536, "c", "d"]), 1),
    ],
)
def test_a_bad_id_names_its_row(save: Any, array: Any, row: Any) -> None:
    with pytest.raises(InvalidIdError, match=f"row {row}"):
        Records(save({"id": array, "v": fixed()}))


def test_ids_that_are_not_utf_8_are_refused(save: Any) -> None:
    text = pa.Array.from_buffers(pa.string(), 4, pa.array([b"a", b"b", b"\xff", b"d"]).buffers())
    with pytest.raises(InvalidIdError, match="row 2"):
        Records(save({"id": text, "v": fixed()}))


def test_the_other_scalar_columns_become_metadata(save: Any) -> None:
    records = Records(
        save(
            {
                "v": fixed(),
                "flag": [True, False, None, True],
                "small": pa.array([1, None, -3, 4], pa.int16()),
                "half": pa.array([np.float16(0.5), np.float16(1), None, np.float16(2)], pa.float16()),
                "text": ["x", "", "z", None],
                "word": pa.array(["p", "q", "p", "q"]).dictionary_encode(),
                "nothing": pa.nulls(4),
            }
        )
    )
    assert records.metadata == [
        {"flag": True, "small": 1, "half": 0.5, "text": "x", "word": "p"},
        {"flag": False, "half": 1.0, "text": "", "word": "q"},
        {"small": -3, "text": "z", "word": "p"},
        {"flag": True, "small": 4, "half": 2.0, "word": "q"},
    ]


def test_columns_that_cannot_be_metadata_are_left_out_with_a_note(save: Any) -> None:
    day = pa.array([1, 2, 3, 4], pa.date32())
    records = Records(save({"v": fixed(), "day": day, "n": [1, 2, 3, 4]}))
    assert records.metadata[0] == {"n": 1}
    assert any("not read as metadata: day (date32[day])" in note for note in records.notes)


def test_columns_chosen_are_the_only_metadata(save: Any) -> None:
    path = save({"v": fixed(), "a": [1] * 4, "b": [2] * 4, "c": [3] * 4})
    assert Records(path, columns=("c", "a")).metadata[0] == {"a": 1, "c": 3}
    assert Records(path, no_metadata=True).metadata == [None] * 4


def test_the_id_column_may_be_metadata_too(save: Any) -> None:
    records = Records(save({"id": [5, 6, 7, 8], "v": fixed()}), columns=("id",))
    assert records.metadata[0] == {"id": 5}


def test_several_possible_vectors_are_a_question_that_lists_them(save: Any) -> None:
    path = save({"title": fixed(), "body": fixed(), "n": [1, 2, 3, 4]})
    with pytest.raises(BadInputError, match="2 columns could be the vector") as caught:
        Records(path)
    assert "title (fixed_size_list<" in str(caught.value)
    assert "body" in str(caught.value)
    assert "--vector-column" in str(caught.value)
    assert Records(path, vector_field="body").vectors.tolist() == VECTORS


def test_no_possible_vector_lists_the_columns(save: Any) -> None:
    with pytest.raises(BadInputError, match=r"has no column of lists .* its columns are n \(int64\)"):
        Records(save({"n": [1, 2]}))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"vector_field": "absent"}, "has no column 'absent'"),
        ({"vector_field": "n"}, "holds no vectors"),
        ({"id_field": "absent"}, "has no column 'absent'"),
        ({"id_field": "x"}, "cannot hold ids"),
        ({"columns": ("v",)}, "cannot be metadata"),
        ({"columns": ("absent",)}, "has no column 'absent'"),
    ],
)
def test_a_wrong_choice_of_columns_is_refused(save: Any, options: Any, reason: Any) -> None:
    with pytest.raises(BadInputError, match=reason):
        Records(save({"v": fixed(), "n": [1, 2, 3, 4], "x": [0.5] * 4}), **options)


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (pa.array([VECTORS[0], None, VECTORS[2]], FIXED), InvalidVectorError, "row 1: vector is null"),
        (pa.array([VECTORS[0], [1.0, None, 2.0]], FIXED), InvalidVectorError, "row 1: value is null"),
        (pa.array([VECTORS[0], [1.0, 2.0]]), DimensionMismatchError, "row 1: vector has 2 components"),
        (pa.array([VECTORS[0], []]), DimensionMismatchError, "row 1: vector has 0 components"),
        (pa.array([[]], pa.list_(pa.float32())), BadInputError, "0 components"),
        (pa.array([VECTORS[0], [1.0, 1e300, 2.0]]), InvalidVectorError, "row 1: value 1e[+]300 is too large"),
        (pa.array([VECTORS[0], [1.0, float("nan"), 2.0]]), InvalidVectorError, "row 1: value nan"),
    ],
)  # fmt: skip
def test_a_bad_vector_names_its_row(save: Any, column: Any, error: Any, message: Any) -> None:
    with pytest.raises(error, match=message):
        Records(save({"v": column}))


def test_the_row_of_an_error_counts_through_row_groups(save: Any) -> None:
    rows = [[1.0]] * 500
    rows[321] = [1.0, 2.0]
    with pytest.raises(DimensionMismatchError, match="row 321"):
        Records(save({"v": rows}, row_group_size=50))


def test_an_unsigned_integer_outside_int64_is_refused_as_metadata(save: Any) -> None:
    with pytest.raises(InvalidMetadataError, match="row 1"):
        Records(save({"v": fixed(), "n": pa.array([1, 2**63, 3, 4], pa.uint64())}))


@pytest.mark.parametrize("cut", [0, 3, 4, 50, -200, -9, -4, -1])
def test_a_truncated_file_is_one_line_of_error(save: Any, cut: Any) -> None:
    path = save({"v": fixed(), "n": [1, 2, 3, 4]})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInputError, match=str(path)) as caught:
        Records(path)
    assert "\n" not in str(caught.value)


def test_damage_in_a_page_is_one_line_of_error(save: Any) -> None:
    path = save({"v": fixed(), "n": [1, 2, 3, 4]}, compression="zstd")
    raw = bytearray(path.read_bytes())
    raw[8:60] = bytes(52)
    path.write_bytes(raw)
    with pytest.raises(BadInputError, match=str(path)) as caught:
        Records(path)
    assert "\n" not in str(caught.value)


def test_a_table_without_rows_is_refused(save: Any) -> None:
    with pytest.raises(BadInputError, match="holds no records"):
        Records(save({"v": fixed(rows=[])}))


def test_a_pipe_is_copied_so_that_it_can_be_read(save: Any, tmp_path: Path) -> None:
    content = save({"v": fixed()}).read_bytes()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(content,))
    writer.start()
    records = Records(fifo)
    writer.join()
    assert records.vectors.tolist() == VECTORS


def test_names_with_dots_are_single_columns(save: Any) -> None:
    records = Records(save({"v": fixed(), "v.x": [1, 2, 3, 4], "a.b": [5, 6, 7, 8]}))
    assert records.metadata[0] == {"v.x": 1, "a.b": 5}


@pytest.mark.parametrize("column", ["id", "word"])
def test_a_code_beyond_its_dictionary_is_an_error_of_the_file(tmp_path: Any, column: str) -> None:
    columns: dict[str, Any] = {
        "id": pa.array([1, 2]),
        "vector": pa.array([[1.0], [2.0]], pa.list_(pa.float32())),
        "word": pa.array(["a", "b"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    codes = pa.array([0, 222], pa.int32())
    columns[column] = pa.DictionaryArray.from_arrays(codes, pa.array(["a", "b"]), safe=False)
    with ByteSource(str(tmp_path / "a.parquet")) as source:
        reader = ParquetReader(source, InputOptions(id_field="id"))
        reader._convert(pa.RecordBatch.from_pydict({**columns, column: reader_safe(column)}), 0, 0)
        with pytest.raises(BadInputError, match="cannot be read as Parquet"):
            reader._convert(pa.RecordBatch.from_pydict(columns), 0, 0)


def reader_safe(column: str) -> Any:
    return pa.array([1, 2]) if column == "id" else pa.array(["a", "b"]).dictionary_encode()
