from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqdb_cli.exit_codes import UsageError
from iqdb_cli.inputs import npy
from iqdb_cli.inputs.reader import InputOptions
from iqdb_cli.inputs.readers import Inputs
from iqdb_cli.inputs.source import BadInputError, InputNotFoundError
from iqdb_core.errors import DimensionMismatchError, InvalidIdError, InvalidVectorError


def read(*paths: Any, dim: Any = None, first_id: Any = 0, **options: Any) -> Any:
    """Return ids, vectors and metadata of all records, and the sizes of the batches."""
    ids, vectors, metadata, sizes = [], [], [], []
    with Inputs([str(path) for path in paths], InputOptions(**options), dim=dim) as inputs:
        for batch in inputs.batches(first_id):
            ids += batch.ids.to_list()
            vectors.append(batch.vectors.copy())
            metadata += [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
            sizes.append(len(batch))
    return ids, np.concatenate(vectors), metadata, sizes


@pytest.fixture
def save(tmp_path: Path) -> Any:
    def write(array: Any, name: Any = "vectors.npy", **settings: Any) -> Any:
        path = tmp_path / name
        np.save(path, array, **settings)
        return path

    return write


@pytest.mark.parametrize(
    "dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", ">u8"]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_number_type_byte_order_and_layout_is_read(save: Any, dtype: Any, order: Any) -> None:
    array = np.arange(60).reshape(20, 3).astype(dtype)
    _, vectors, _, _ = read(save(np.asarray(array, order=order)))
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.arange(60, dtype=np.float32).reshape(20, 3))


@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_are_bounded_and_in_order(save: Any, order: Any) -> None:
    array = np.asarray(np.random.default_rng(1).standard_normal((1003, 7), np.float32), order=order)
    ids, vectors, _, sizes = read(save(array), batch_rows=100)
    assert np.array_equal(vectors, array)
    assert ids == list(range(1003))
    assert sizes == [100] * 10 + [3]


def test_a_batch_holds_at_most_eight_mebibytes_of_vectors(save: Any) -> None:
    array = np.zeros((130, 65_536), np.float32)
    _, _, _, sizes = read(save(array))
    assert max(sizes) * 65_536 * 4 <= 8 * 1024 * 1024
    assert sum(sizes) == 130


def test_float32_bits_survive(save: Any) -> None:
    array = np.array([[-0.0, 1e-45, 3.4028235e38, 1.1754944e-38]], np.float32)
    _, vectors, _, _ = read(save(array))
    assert vectors.tobytes() == array.tobytes()


def test_a_one_dimensional_array_is_one_record(save: Any) -> None:
    ids, vectors, _, _ = read(save(np.arange(5.0)))
    assert ids == [0]
    assert vectors.tolist() == [[0, 1, 2, 3, 4]]


def test_large_integers_are_rounded_to_the_nearest_float32(save: Any) -> None:
    _, vectors, _, _ = read(save(np.array([[2**63 - 1, 2**24 + 1]])))
    assert vectors.tolist() == [[2.0**63, 2.0**24]]


def test_rows_are_numbered_through_all_sources_from_the_first_id(save: Any) -> None:
    one, two = save(np.zeros((3, 2), np.float32), "a.npy"), save(np.ones((2, 2), np.float32), "b.npy")
    ids, vectors, _, _ = read(one, two, first_id=10)
    assert ids == [10, 11, 12, 13, 14]
    assert vectors[:, 0].tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_fifo_is_a_stream(tmp_path: Path, order: Any) -> None:
    array = np.asarray(np.random.default_rng(2).standard_normal((50, 3), np.float32), order=order)
    fifo = tmp_path / "vectors"
    os.mkfifo(fifo)
    encoded = io.BytesIO()
    np.save(encoded, array)
    writer = threading.Thread(target=fifo.write_bytes, args=(encoded.getvalue(),))
    writer.start()
    _, vectors, _, _ = read(fifo)
    writer.join()
    assert np.array_equal(vectors, array)


def test_trailing_bytes_in_a_stream_are_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "vectors.npy"
    os.mkfifo(fifo)
    encoded = io.BytesIO()
    np.save(encoded, np.zeros((2, 3), np.float32))
    np.save(encoded, np.zeros((2, 3), np.float32))
    writer = threading.Thread(target=fifo.write_bytes, args=(encoded.getvalue(),))
    writer.start()
    with pytest.raises(BadInputError, match="goes on after the array"):
        read(fifo)
    writer.join()


def test_a_stream_that_ends_early_says_after_how_many_rows(tmp_path: Path) -> None:
    fifo = tmp_path / "vectors.npy"
    os.mkfifo(fifo)
    encoded = io.BytesIO()
    np.save(encoded, np.zeros((10, 3), np.float32))
    writer = threading.Thread(target=fifo.write_bytes, args=(encoded.getvalue()[:-20],))
    writer.start()
    with pytest.raises(BadInputError, match="ends after 8 whole rows, its header declares 10"):
        read(fifo)
    writer.join()


@pytest.mark.parametrize("cut", [0, 5, 60, 128, 200])
def test_a_truncated_file_is_refused_before_anything_is_read(save: Any, cut: Any) -> None:
    path = save(np.zeros((10, 3), np.float32))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(BadInputError, match=str(path)):
        read(path)


def test_a_huge_declared_shape_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "huge.npy"
    path.write_bytes(npy_bytes("<f4", (2**31, 65_536)))
    with pytest.raises(BadInputError, match="found 0"):
        read(path)


def npy_bytes(descr: Any, shape: Any) -> Any:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("descr", "shape", "reason"),
    [
        ("|O", (2, 2), "pickled"),
        ("<c8", (2, 2), "element type"),
        ("|b1", (2, 2), "element type"),
        ("<M8[s]", (2, 2), "element type"),
        ([("a", "<f4")], (2,), "several fields"),
        ("<f4", (2, 2, 2), "3 dimensions"),
        ("<f4", (), "0 dimensions"),
        ("<f4", (2, 0), "0 components"),
        ("<f4", (1, 65_537), "65537 components"),
    ],
)
def test_arrays_that_are_no_vectors_are_refused(tmp_path: Path, descr: Any, shape: Any, reason: Any) -> None:
    path = tmp_path / "bad.npy"
    size = int(np.prod(shape)) * 4
    path.write_bytes(npy_bytes(descr, shape) + bytes(size))
    with pytest.raises(BadInputError, match=reason):
        read(path)


def test_a_value_beyond_float32_names_row_component_and_value(save: Any) -> None:
    array = np.zeros((300, 4))
    array[257, 2] = 1e300
    with pytest.raises(
        InvalidVectorError, match=r"row 257: value 1e\+300 is too large for float32"
    ) as caught:
        read(save(array), batch_rows=100)
    assert caught.value.component == 2


def test_nan_in_float64_is_refused(save: Any) -> None:
    with pytest.raises(InvalidVectorError, match="value nan is not finite"):
        read(save(np.array([[1.0, np.nan]])))


def test_another_dimension_than_the_database_has_is_refused(save: Any) -> None:
    with pytest.raises(DimensionMismatchError, match="has 3 components, the database has dimension 4"):
        read(save(np.zeros((2, 3))), dim=4)


def test_sources_of_different_dimensions_are_refused(save: Any) -> None:
    with pytest.raises(DimensionMismatchError, match=r"b\.npy"):
        read(save(np.zeros((2, 3)), "a.npy"), save(np.zeros((2, 4)), "b.npy"))


def test_an_array_without_rows_is_refused(save: Any) -> None:
    with pytest.raises(BadInputError, match="holds no records"):
        read(save(np.zeros((0, 3))))


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no such file"):
        read(tmp_path / "absent.npy")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([5, 2**64 - 1, 0], np.uint64), [5, 2**64 - 1, 0]),
        (np.array([5, 6, 7], ">i2"), [5, 6, 7]),
        (np.array(["a", "bcd", "é"]), ["a", "bcd", "é"]),
        (np.array([b"a", b"\xff\x00\x01", b"z"]), [b"a", b"\xff\x00\x01", b"z"]),
    ],
)
def test_ids_come_from_an_array_beside_the_vectors(save: Any, array: Any, expected: Any) -> None:
    vectors = save(np.zeros((3, 2), np.float32))
    ids, _, _, _ = read(vectors, ids_path=str(save(array, "ids.npy")), batch_rows=2)
    assert ids == expected


def test_wide_ids_are_held_a_few_at_a_time(save: Any) -> None:
    wanted = [f"{number:050000}" for number in range(100)]  # 200 kB each in the file
    ids, _, _, _ = read(save(np.zeros((100, 1))), ids_path=str(save(np.array(wanted), "ids.npy")))
    assert ids == wanted


def test_ids_of_several_kinds_come_from_json_lines(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text('1\n"one"\n\n{"hex": "00ff"}\n')
    ids, _, _, _ = read(save(np.zeros((3, 2))), ids_path=str(path), batch_rows=2)
    assert ids == [1, "one", b"\x00\xff"]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.arange(4), "holds 4 rows, expected 3"),
        (np.zeros((3, 1), np.uint64), "expected one dimension"),
        (np.zeros(3), "element type float64"),
        (np.array([{}, {}, {}], object), "pickled"),
        (np.zeros(3, "U65536"), "the limit is 65535 bytes"),
        (np.zeros(3, [("a", "<u8")]), "element type"),
    ],
)
def test_arrays_that_are_no_ids_are_refused(save: Any, array: Any, reason: Any) -> None:
    with pytest.raises(BadInputError, match=reason):
        read(save(np.zeros((3, 2))), ids_path=str(save(array, "ids.npy", allow_pickle=True)))


@pytest.mark.parametrize("array", [np.array([1, -1, 2]), np.array(["a", "", "b"])])
def test_a_bad_id_names_its_row(save: Any, array: Any) -> None:
    with pytest.raises(InvalidIdError, match=r"ids\.npy, row 1"):
        read(save(np.zeros((3, 2))), ids_path=str(save(array, "ids.npy")))


@pytest.mark.parametrize("lines", [2, 4])
def test_another_number_of_ids_than_rows_is_refused(save: Any, tmp_path: Path, lines: Any) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(f"{number}\n" for number in range(lines)))
    with pytest.raises(BadInputError, match=f"holds {lines} rows, expected 3"):
        read(save(np.zeros((3, 2))), ids_path=str(path))


def test_metadata_comes_from_json_lines_in_step(save: Any, tmp_path: Path) -> None:
    rows = [{"n": number, "t": f"text {number}"} for number in range(250)]
    rows[7], rows[8] = None, {}
    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, _, metadata, sizes = read(save(np.zeros((250, 2))), metadata_path=str(path), batch_rows=100)
    assert metadata == rows
    assert sizes == [100, 100, 50]


def test_metadata_comes_from_parquet_in_step(save: Any, tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    table = pa.table({"n": list(range(250)), "t": [None, "x"] * 125})
    pq.write_table(table, path, row_group_size=70)
    _, _, metadata, _ = read(save(np.zeros((250, 2))), metadata_path=str(path), batch_rows=100)
    assert metadata[0] == {"n": 0}
    assert metadata[249] == {"n": 249, "t": "x"}


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("extension", ["jsonl", "parquet"])
def test_another_number_of_mappings_than_rows_is_refused(
    save: Any, tmp_path: Path, count: Any, extension: Any
) -> None:
    path = tmp_path / f"metadata.{extension}"
    if extension == "jsonl":
        path.write_text('{"a": 1}\n' * count)
    else:
        pq.write_table(pa.table({"a": [1] * count}), path)
    with pytest.raises(BadInputError, match=f"holds {count} rows, expected 3"):
        read(save(np.zeros((3, 2))), metadata_path=str(path))


def test_files_beside_go_with_one_npy_source_only(save: Any, tmp_path: Path) -> None:
    one, two = save(np.zeros((3, 2)), "a.npy"), save(np.zeros((3, 2)), "b.npy")
    with pytest.raises(UsageError, match="one source"):
        read(one, two, ids_path=str(one))
    lines = tmp_path / "records.jsonl"
    lines.write_text('{"vector": [1, 2]}\n')
    with pytest.raises(UsageError, match=r"go with \.npy"):
        read(lines, metadata_path=str(lines))


def test_buffers_are_used_again(save: Any) -> None:
    array = np.arange(4000, dtype=np.float32).reshape(1000, 4)
    with Inputs([str(save(array))], InputOptions(batch_rows=10)) as inputs:
        addresses = {batch.vectors.ctypes.data for batch in inputs.batches()}
    assert len(addresses) == npy.RING
