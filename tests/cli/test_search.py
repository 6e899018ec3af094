from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iqdb_core import Iqdb


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def nearest(vectors: np.ndarray, query: np.ndarray, k: int) -> list[tuple[int, float]]:
    """Euclidean distances in float64, by definition."""
    distances = np.sqrt(((vectors.astype(np.float64) - query.astype(np.float64)) ** 2).sum(1))
    order = np.lexsort((np.arange(len(vectors)), distances))[:k]
    return [(int(row), float(distances[row])) for row in order]


def hits_of(outcome: Any) -> list[dict[str, Any]]:
    assert outcome.status == 0, outcome.stderr
    return [json.loads(line) for line in outcome.lines]


def test_json_lines_have_the_documented_keys_in_order(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    outcome = iqdb("search", database, "--k", "3", stdin=npy(vectors[5]))
    hits = hits_of(outcome)
    assert [list(hit) for hit in hits] == [["query", "rank", "id", "distance", "metadata"]] * 3
    assert [(hit["query"], hit["rank"]) for hit in hits] == [(0, 1), (0, 2), (0, 3)]
    assert hits[0]["id"] == 5
    assert hits[0]["distance"] == 0.0
    assert hits[0]["metadata"] == {"word": "wort-5", "n": 5, "even": False, "weight": 1.25}
    assert outcome.stderr == ""


def test_many_queries_give_the_nearest_of_each(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    queries = np.random.default_rng(3).standard_normal((20, 8)).astype(np.float32)
    hits = hits_of(iqdb("search", database, "--k", "4", stdin=npy(queries)))
    assert len(hits) == 80
    for number, query in enumerate(queries):
        found = [hit for hit in hits if hit["query"] == number]
        expected = nearest(vectors, query, 4)
        assert [hit["id"] for hit in found] == [row for row, _ in expected]
        assert [hit["distance"] for hit in found] == pytest.approx([d for _, d in expected], rel=1e-14)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "<i4", "|u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_type_and_order_of_npy_means_its_values(
    iqdb: Any, database: Path, dtype: Any, order: Any
) -> None:
    queries = np.abs(np.random.default_rng(3).standard_normal((5, 8)) * 9).astype(dtype)
    as_float = hits_of(iqdb("search", database, stdin=npy(queries.astype(np.float32))))
    assert hits_of(iqdb("search", database, stdin=npy(np.asarray(queries, order=order)))) == as_float


def test_json_lines_of_arrays_and_objects_mean_the_same_as_npy(
    iqdb: Any, database: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    expected = hits_of(iqdb("search", database, stdin=npy(vectors[:3])))
    rows = [[float(x) for x in row] for row in vectors[:3]]
    arrays = "\n".join(json.dumps(row) for row in rows).encode()
    assert hits_of(iqdb("search", database, stdin=arrays)) == expected
    for field in ("vector", "embedding", "whatever"):
        lines = "\r\n\n".join(json.dumps({"id": 1, field: row, "text": "x"}) for row in rows)
        path = tmp_path / "queries.jsonl"
        path.write_text(lines)
        assert hits_of(iqdb("search", database, path)) == expected
    two = "\n".join(json.dumps({"a": row, "b": [1]}) for row in rows).encode()
    assert hits_of(iqdb("search", database, "-", "--vector-field", "a", stdin=two)) == expected


def test_batches_of_queries_do_not_show(iqdb: Any, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = np.random.default_rng(3).standard_normal((50, 8)).astype(np.float32)
    whole = iqdb("search", database, stdin=npy(queries)).stdout
    monkeypatch.setattr("iqdb_cli.commands.search._MAX_HITS_HELD", 70)
    assert iqdb("search", database, stdin=npy(queries)).stdout == whole
    lines = "\n".join(json.dumps(row.tolist()) for row in queries).encode()
    assert iqdb("search", database, stdin=lines).stdout == whole


def test_the_results_are_the_same_for_any_number_of_threads(
    iqdb: Any, database: Path, vectors: np.ndarray
) -> None:
    one = iqdb("search", database, "--threads", "1", stdin=npy(vectors)).stdout
    assert iqdb("search", database, "--threads", "3", stdin=npy(vectors)).stdout == one


def test_like_searches_by_stored_records(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    hits = hits_of(iqdb("search", database, "--like", "5", "--like", "17", "--k", "2"))
    assert [(hit["query"], hit["id"]) for hit in hits] == [
        (number, row) for number, own in enumerate((5, 17)) for row, _ in nearest(vectors, vectors[own], 2)
    ]


def test_exclude_self_leaves_out_the_record_itself_and_still_gives_k(
    iqdb: Any, database: Path, vectors: np.ndarray
) -> None:
    hits = hits_of(iqdb("search", database, "--like", "5", "--k", "3", "--exclude-self"))
    assert [hit["id"] for hit in hits] == [row for row, _ in nearest(vectors, vectors[5], 4)[1:]]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]


def test_like_an_absent_id_is_not_found(iqdb: Any, database: Path) -> None:
    outcome = iqdb("search", database, "--like", "1000")
    assert (outcome.status, outcome.stdout) == (3, b"")
    assert outcome.stderr == f"iqdb: {database}: no record has the id 1000\n"


def test_a_filter_leaves_only_records_that_meet_it(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    outcome = iqdb(
        "search", database, "--filter", "even = true and n >= 150", "--k", "100", stdin=npy(vectors[0])
    )
    rows = [hit["id"] for hit in hits_of(outcome)]
    assert rows == [row for row, _ in nearest(vectors, vectors[0], 200) if row >= 150 and row % 2 == 0]


def test_a_filter_that_does_not_parse_is_wrong_usage_and_says_where(
    iqdb: Any, database: Path, vectors: np.ndarray
) -> None:
    outcome = iqdb("search", database, "--filter", "n >= ", stdin=npy(vectors[0]))
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert outcome.stderr.startswith("iqdb: filter, column ")


def test_max_distance_cuts_the_hits_off(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    expected = nearest(vectors, vectors[0], 200)
    limit = expected[7][1]
    rows = [
        hit["id"]
        for hit in hits_of(
            iqdb("search", database, "--max-distance", repr(limit), "--k", "50", stdin=npy(vectors[0]))
        )
    ]
    assert rows == [row for row, distance in expected if distance <= limit]


def test_vectors_come_back_bit_for_bit(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    hits = hits_of(iqdb("search", database, "--with-vectors", stdin=npy(vectors[0])))
    for hit in hits:
        assert np.array(hit["vector"], np.float32).tobytes() == vectors[hit["id"]].tobytes()


def test_no_metadata_leaves_the_key_out(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    hits = hits_of(iqdb("search", database, "--no-metadata", stdin=npy(vectors[0])))
    assert all(list(hit) == ["query", "rank", "id", "distance"] for hit in hits)


def test_columns_choose_and_order_metadata(iqdb: Any, database: Path) -> None:
    hits = hits_of(iqdb("search", database, "--columns", "n, word,absent", "--k", "1", "--like", "5"))
    assert list(hits[0]["metadata"].items()) == [("n", 5), ("word", "wort-5")]


def test_a_record_without_metadata_has_null(iqdb: Any, database: Path) -> None:
    assert hits_of(iqdb("search", database, "--like", "9", "--k", "1"))[0]["metadata"] is None


def test_writes_in_the_log_are_searched(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    with Iqdb.open_existing(database) as handle:
        handle.upsert("neu", vectors[3], {"word": "neu"})
        handle.delete(3)
        handle.close(compact=False)
    assert (database.parent / "sample.iqdb.wal").exists()
    hits = hits_of(iqdb("search", database, "--k", "1", stdin=npy(vectors[3])))
    assert (hits[0]["id"], hits[0]["distance"], hits[0]["metadata"]) == ("neu", 0.0, {"word": "neu"})


def test_csv_has_the_columns_of_json_lines(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    arguments = ("search", database, "--with-vectors", "--k", "12")
    hits = hits_of(iqdb(*arguments, stdin=npy(vectors[9])))
    outcome = iqdb(*arguments, "--format", "csv", stdin=npy(vectors[9]))
    rows = list(csv.DictReader(io.StringIO(outcome.text)))
    assert [list(row) for row in rows] == [["query", "rank", "id", "distance", "metadata", "vector"]] * 12
    for row, hit in zip(rows, hits, strict=True):
        assert (int(row["query"]), int(row["rank"]), int(row["id"])) == (hit["query"], hit["rank"], hit["id"])
        assert float(row["distance"]) == hit["distance"]
        assert (json.loads(row["metadata"]) if row["metadata"] else None) == hit["metadata"]
        assert json.loads(row["vector"]) == hit["vector"]


@pytest.mark.parametrize("output_format", ["parquet", "arrow"])
def test_parquet_and_arrow_have_the_columns_of_json_lines(
    iqdb: Any, database: Path, vectors: np.ndarray, output_format: Any
) -> None:
    arguments = ("search", database, "--with-vectors", "--k", "12")
    hits = hits_of(iqdb(*arguments, stdin=npy(vectors[8:10])))
    raw = iqdb(*arguments, "--format", output_format, stdin=npy(vectors[8:10])).stdout
    table = (
        pq.read_table(io.BytesIO(raw)) if output_format == "parquet" else pa.ipc.open_stream(raw).read_all()
    )
    assert table.schema.field("id").type == pa.uint64()
    rows = table.to_pylist()
    for row in rows:
        row["metadata"] = None if row["metadata"] is None else json.loads(row["metadata"])
    for hit in hits:
        hit["vector"] = np.array(hit["vector"], np.float32).tolist()
    assert rows == hits


def test_npy_is_a_structured_array(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    hits = hits_of(iqdb("search", database, stdin=npy(vectors[:2])))
    array = np.load(io.BytesIO(iqdb("search", database, "--format", "npy", stdin=npy(vectors[:2])).stdout))
    assert array.dtype.names == ("query", "rank", "id", "distance")
    assert [tuple(row) for row in array.tolist()] == [
        (hit["query"], hit["rank"], hit["id"], hit["distance"]) for hit in hits
    ]


def test_npy_refuses_ids_that_are_no_integers(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    with Iqdb.open_existing(database) as handle:
        handle.upsert("neu", vectors[3])
        handle.close(compact=False)
    outcome = iqdb("search", database, "--format", "npy", "--like", "neu")
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert "npy holds integer ids only, not neu" in outcome.stderr


def test_the_format_follows_the_suffix_of_the_output_file(
    iqdb: Any, database: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    target = tmp_path / "hits.parquet"
    outcome = iqdb("search", database, "-o", target, stdin=npy(vectors[0]))
    assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"", "")
    assert pq.read_table(target).num_rows == 10
    assert sorted(tmp_path.iterdir()) == [target, database]


def test_after_an_error_the_output_file_is_as_it_was(iqdb: Any, database: Path, tmp_path: Path) -> None:
    target = tmp_path / "hits.jsonl"
    target.write_text("before")
    outcome = iqdb("search", database, "-o", target, stdin=b"[1,2,3,4,5,6,7,8]\n[1]\n")
    assert outcome.status == 4
    assert target.read_text() == "before"
    assert sorted(tmp_path.iterdir()) == [target, database]


def test_the_output_file_cannot_be_the_database(iqdb: Any, database: Path, vectors: np.ndarray) -> None:
    before = database.read_bytes()
    link = database.parent / "link.jsonl"
    link.symlink_to(database)
    hard_link = database.parent / "hard.jsonl"
    hard_link.hardlink_to(database)
    for target in (database, link, hard_link, database.with_name("sample.iqdb.wal")):
        outcome = iqdb("search", database, "-o", target, stdin=npy(vectors[0]))
        assert outcome.status == 2
        assert "is the database itself" in outcome.stderr
    assert database.read_bytes() == before


def test_a_table_fits_80_columns_and_aligns_distances(
    iqdb: Any, database: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = iqdb("search", database, "--format", "table", stdin=npy(vectors[0]))
    assert outcome.lines[0].split() == ["rank", "id", "distance", "even", "n", "weight", "word"]
    assert max(map(len, outcome.lines)) <= 80
    assert len({line.index(".") for line in outcome.lines[2:]}) == 1


def test_a_table_escapes_what_would_steer_the_terminal(
    iqdb: Any, database: Path, vectors: np.ndarray
) -> None:
    with Iqdb.open_existing(database) as handle:
        handle.upsert("a\x1b[31m", vectors[3], {"key\x07": "x\x1b]0;y\x07\nz\x9b"})
        handle.close(compact=False)
    outcome = iqdb("search", database, "--k", "3", "--format", "table", stdin=npy(vectors[3]))
    assert not {char for char in outcome.text if not char.isprintable()} - {"\n"}


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (b"", "standard input: is empty"),
        (b"\n \n", "standard input: holds no query vectors"),
        (b"[1,2,3]\n", "standard input, line 1: vector has 3 components, the database has dimension 8"),
        (b"[1,2,3,4,5,6,7,8]\n[1]\n", "line 2: vector has 1 components"),
        (b"[1,2,3,4,5,6,7,NaN]\n", "line 1: is not JSON (NaN is not JSON)"),
        (b"[1,2,3,4,5,6,7,1e999]\n", "line 1: a component is infinite as float32 (component 7)"),
        (b"[1,2,3,4,5,6,7,1e39]\n", "line 1: a component is infinite as float32 (component 7)"),
        (b"[1,2,3,4,5,6,7,true]\n", "line 1: component 7 is true or false, expected a number"),
        (
            b"[[1,2,3,4,5,6,7,8]]\n",
            "line 1: component 0 is an array, expected a number; write one query a line",
        ),
        (b"[]\n", "line 1: is an empty vector"),
        (b"7\n", "line 1: is a number, expected an array of numbers"),
        (
            b'{"a":[1],"b":[2]}\n',
            "cannot tell which field is the vector (arrays: 'a', 'b'); --vector-field says which",
        ),
        (b'{"vector":[1],"vector":[2]}\n', "line 1: is not JSON (the key 'vector' occurs twice)"),
        (b"[1,2\n", "line 1: is not JSON (Expecting ',' delimiter at column 5)"),
        (b"\xff\n", "line 1: is not JSON (byte 0 is not UTF-8)"),
        (b"[" * 100_000 + b"\n", "line 1: is not JSON (nested too deeply)"),
        (b"[" + b"9" * 5000 + b"]\n", "line 1: is not JSON"),
        (b"PAR1....PAR1", "is Parquet; queries are .npy or JSON lines"),
        (
            npy(np.zeros(7, np.float32)),
            "standard input: vector has 7 components, the database has dimension 8",
        ),
        (npy(np.zeros((0, 8), np.float32)), "holds no vectors (it has 0 rows)"),
        (npy(np.zeros((2, 8), np.float32))[:-1], "header declares 2 x 8 <f4 = 64 bytes of data, found 63"),
        (npy(np.zeros((2, 8), np.float32)) + b"x", "header declares 2 x 8 <f4 = 64 bytes of data, found 65"),
        (npy(np.array([[0.0] * 8, [0.0] * 7 + [np.nan]])), "row 1: a component is NaN (component 7)"),
        (npy(np.array([1e300] * 8)), "row 0: a component is infinite as float32 (component 0)"),
        (npy(np.array([None] * 8)), "holds pickled Python objects"),
    ],
)
def test_a_bad_query_is_refused_with_its_place(iqdb: Any, database: Path, queries: Any, message: Any) -> None:
    outcome = iqdb("search", database, stdin=queries)
    assert outcome.status == 4
    assert message in outcome.stderr
    assert outcome.stderr.startswith("iqdb: standard input")
    assert len(outcome.stderr.splitlines()) == 1


def test_a_huge_declared_shape_in_a_pipe_is_refused_without_memory(iqdb: Any, database: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000, 8)}\n"
    raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    outcome = iqdb.process("search", database, stdin=raw)
    assert outcome.status == 4
    assert "header declares 100000000000 x 8 <f4 = 3200000000000 bytes of data, found 64" in outcome.stderr


def test_a_query_file_that_is_absent_or_a_directory(iqdb: Any, database: Path, tmp_path: Path) -> None:
    outcome = iqdb("search", database, tmp_path / "absent.npy")
    assert (outcome.status, outcome.stderr) == (3, f"iqdb: {tmp_path}/absent.npy: no such file\n")
    outcome = iqdb("search", database, tmp_path)
    assert (outcome.status, outcome.stderr) == (4, f"iqdb: {tmp_path}: is a directory, expected a file\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--like", "1", "q.npy"], "--like and QUERIES exclude each other"),
        (["--exclude-self"], "--exclude-self needs --like"),
        (["--no-metadata", "--columns", "a"], "--no-metadata and --columns exclude each other"),
        (["--k", "0"], "0 is out of range, expected at least 1"),
        (["--k", "ten"], "'ten' is not a whole number"),
        (["--max-distance", "nan"], "'--max-distance': nan is not a number"),
        (["--format", "xml"], "'xml' is not one of table, jsonl, csv, parquet, arrow, npy"),
        (["--threads", "0"], "0 is out of range, expected from 1 to 1024"),
        (["--format", "npy", "--with-vectors", "--like", "1"], "npy holds no vectors"),
    ],
)
def test_wrong_usage_is_status_2(iqdb: Any, database: Path, arguments: Any, message: Any) -> None:
    outcome = iqdb("search", database, *arguments)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert message in outcome.stderr
    assert len(outcome.stderr.splitlines()) <= 2


def test_a_line_without_an_end_is_read_in_bounded_memory(iqdb: Any, database: Path) -> None:
    outcome = iqdb("search", database, stdin=b"[" + b"1," * (40 * 1024 * 1024))
    assert outcome.status == 4
    assert outcome.stderr == "iqdb: standard input, line 1: is longer than 67108864 bytes\n"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("word = 'absent'", "no record matches the filter"),
        (
            "wrod = 'a' and n > 0",
            "no record matches the filter; no record has the key wrod, expected one of even, n, weight, word",
        ),
    ],
)
def test_a_filter_that_nothing_meets_is_told_with_the_keys_there_are(
    iqdb: Any, database: Path, expression: str, message: str
) -> None:
    outcome = iqdb("search", database, "--like", "1", "--filter", expression)
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert outcome.stderr == f"{database}: {message}\n"


def test_keys_in_the_log_count_and_a_database_without_metadata_says_so(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    assert iqdb("import", path, "-", "--metric", "dot", stdin=npy(np.eye(2, dtype=np.float32))).status == 0
    told = iqdb("search", path, "--like", "1", "--filter", "a = 1").stderr
    assert told == f"{path}: no record matches the filter; no record has metadata\n"
    iqdb("upsert", path, stdin=b'{"id": 5, "vector": [1, 0], "b": 1}')
    told = iqdb("search", path, "--like", "1", "--filter", "a = 1").stderr
    assert told == f"{path}: no record matches the filter; no record has the key a, expected one of b\n"
    assert iqdb("search", path, "--like", "1", "--filter", "b = 1").stderr == ""
    assert iqdb("search", path, "--like", "1", "--filter", "b = 1", "--max-distance", "-9").stderr == ""
