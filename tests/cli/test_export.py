from __future__ import annotations

import json
import math
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iqdb_core import Ids, Iqdb, IqdbConfig, MetadataColumns, RecordBatch

ODD_NAN = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]

# Every kind of id, and of metadata; float32 values at the edges.
RECORDS = [
    (0, [-0.0, 1e-45, 3.4028235e38], {"a": 1, "b": 1.0, "c": "x", "d": True, "e": None}),
    (2**64 - 1, [0.1, -1.1754944e-38, 1 / 3], {"a": 1.0, "b": 2**63 - 1, "c": "", "d": None, "e": 'é\n"\\'}),
    ("0", [1.0, 2.0, 3.0], None),
    ("text", [4.0, 5.0, 6.0], {}),
    (b"\x00\xff", [7.0, 8.0, 9.0], {"b": math.nan, "a": math.inf, "": -math.inf, "x.y": ODD_NAN}),
    (b"0", [1.0, 0.0, 0.0], {"a": -(2**63), "b": False, "id": 5, "vector": "v", "metadata": -0.0}),
    ("nul\0", [0.0, 1.0, 0.0], {"a": "1", "has_metadata": True, "a (int64)": 3}),
    ("\u2028𝄞", [0.0, 0.0, 1.0], {"a": True, "k" * 300: "v" * 1000}),
]  # fmt: skip


def make(path: Any, records: Any) -> Any:
    """Write a database of records and return its content digest."""
    batch = RecordBatch(
        ids=Ids.from_list([record[0] for record in records]),
        vectors=np.array([record[1] for record in records], np.float32).reshape(len(records), 3),
        metadata=MetadataColumns.from_dicts([record[2] for record in records]),
    )
    Iqdb.create_from(path, IqdbConfig(dim=3, metric="dot"), [batch])
    return digest(path)


def digest(path: Any) -> Any:
    with Iqdb.open_existing(path, read_only=True) as db:
        return db.info()["snapshot_digest"]


@pytest.fixture
def odd(tmp_path: Path) -> Any:
    path = tmp_path / "odd.iqdb"
    make(path, RECORDS)
    return path


SELECTIONS = {
    "all": RECORDS,
    "integers": RECORDS[:2],
    "text": [RECORDS[2], RECORDS[3], RECORDS[7]],
    "bytes": RECORDS[4:6],
    "no metadata at all": [(1, [1.0, 2.0, 3.0], None), (2, [1.0, 2.0, 3.0], None)],
    "empty mappings only": [(1, [1.0, 2.0, 3.0], {}), (2, [1.0, 2.0, 3.0], {})],
    "empty mappings and none": [(1, [1.0, 2.0, 3.0], {}), (2, [1.0, 2.0, 3.0], None)],
    "the first without metadata": [(1, [1.0, 2.0, 3.0], None), (2, [1.0, 2.0, 3.0], {"a": None})],
    "same keys everywhere": [(n, [n, 0.0, 0.0], {"n": n, "t": f"t{n}"}) for n in range(100)],
}


@pytest.mark.parametrize("records", SELECTIONS.values(), ids=SELECTIONS.keys())
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "npy", "npy + parquet"])
def test_an_import_of_an_export_has_the_same_content_digest(
    iqdb: Any, tmp_path: Path, kind: Any, records: Any
) -> None:
    source, again = tmp_path / "source.iqdb", tmp_path / "again.iqdb"
    expected = make(source, records)
    out, arguments, beside = tmp_path / f"out.{kind.split()[0]}", [], []
    if kind.startswith("npy"):
        ids = tmp_path / ("ids.npy" if kind == "npy" and one_kind(records) else "ids.jsonl")
        metadata = tmp_path / ("m.parquet" if kind == "npy + parquet" and any_mapping(records) else "m.jsonl")
        arguments = ["--ids-out", ids, "--metadata-out", metadata]
        beside = ["--ids", ids, "--metadata", metadata]
    outcome = iqdb("export", source, "-o", out, *arguments)
    assert outcome.status == 0, outcome.stderr
    assert f"{len(records)} records exported" in outcome.stderr
    outcome = iqdb("import", again, out, *beside, "--metric", "dot")
    assert outcome.status == 0, outcome.stderr
    assert digest(again) == expected


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def one_kind(records: Any) -> Any:
    return len({type(record[0]) for record in records}) == 1


def any_mapping(records: Any) -> Any:
    return any(record[2] is not None for record in records)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
IDS = st.integers(0, 2**64 - 1) | TEXT.filter(bool) | st.binary(min_size=1, max_size=12)
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | TEXT
RECORD_LISTS = st.lists(
    st.tuples(
        IDS,
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        st.none() | st.dictionaries(TEXT, VALUES, max_size=4),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda record: (type(record[0]).__name__, record[0]),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORD_LISTS, kind=st.sampled_from(["jsonl", "parquet", "npy"]))
def test_whatever_records_there_are_survive_export_and_import(iqdb: Any, records: Any, kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = make(folder / "source.iqdb", records)
        out, ids, metadata = folder / f"out.{kind}", folder / "ids.jsonl", folder / "metadata.jsonl"
        npy = kind == "npy"
        exported = ["--ids-out", ids, "--metadata-out", metadata] if npy else []
        assert iqdb("export", folder / "source.iqdb", "-o", out, *exported).status == 0
        beside = ["--ids", ids, "--metadata", metadata] if npy else []
        outcome = iqdb("import", folder / "again.iqdb", out, "--metric", "dot", *beside)
        assert outcome.status == 0, outcome.stderr
        assert digest(folder / "again.iqdb") == expected


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_an_export_goes_through_a_pipe(iqdb: Any, odd: Any, tmp_path: Path, kind: Any) -> None:
    exported = iqdb("export", odd, "--format", kind)
    assert exported.status == 0
    again = tmp_path / "again.iqdb"
    outcome = iqdb("import", again, "-", "--metric", "dot", stdin=exported.stdout)
    assert outcome.status == 0, outcome.stderr
    assert digest(again) == digest(odd)


def test_large_databases_are_exported_in_batches_and_in_order(iqdb: Any, tmp_path: Path) -> None:
    count = 70_001
    records = [(n, [n, 0.0, 0.0], {"n": n} if n % 3 else None) for n in range(count)]
    source = tmp_path / "source.iqdb"
    make(source, records)
    with Iqdb.open_existing(source) as db:
        db.delete_many(range(100, 200))
        db.upsert(5, [0.5, 0.5, 0.5], {"n": -5})
        db.close(compact=False)
    out = tmp_path / "out.parquet"
    assert iqdb("export", source, "-o", out).status == 0
    table = pq.read_table(out)
    expected = [n for n in range(count) if not 100 <= n < 200]
    assert table["id"].to_pylist() == expected
    assert table["n"].to_pylist()[5] == -5
    assert pq.ParquetFile(out).metadata.num_row_groups > 1


def test_json_lines_have_the_fields_id_vector_and_metadata(iqdb: Any, database: Path, vectors: Any) -> None:
    outcome = iqdb("export", database)
    records = [json.loads(line) for line in outcome.lines]
    assert len(records) == 200
    assert list(records[0]) == ["id", "vector", "metadata"]
    assert records[9]["metadata"] is None
    assert records[4]["metadata"] == {"word": "wort-4", "n": 4, "even": True, "weight": 1.0}
    assert np.array_equal(np.array([record["vector"] for record in records], np.float32), vectors)


def test_numpy_reads_the_arrays(iqdb: Any, database: Path, vectors: Any, tmp_path: Path) -> None:
    out, ids = tmp_path / "v.npy", tmp_path / "ids.npy"
    assert iqdb("export", database, "-o", out, "--ids-out", ids).status == 0
    assert np.array_equal(np.load(out), vectors)
    assert np.load(ids).tolist() == list(range(200))
    assert np.load(ids).dtype == np.uint64


def test_a_filter_selects_what_is_exported(iqdb: Any, database: Path, tmp_path: Path) -> None:
    for kind in ("npy", "parquet", "jsonl"):
        out = tmp_path / f"out.{kind}"
        assert iqdb("export", database, "-o", out, "--filter", "n < 10 and even = true").status == 0
    assert np.load(tmp_path / "out.npy").shape == (5, 8)
    assert pq.read_table(tmp_path / "out.parquet")["id"].to_pylist() == [0, 2, 4, 6, 8]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 5


def test_a_filter_that_does_not_parse_is_wrong_usage(iqdb: Any, database: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    outcome = iqdb("export", database, "-o", out, "--filter", "n <")
    assert outcome.status == 2
    assert not out.exists()


@pytest.mark.parametrize("kind", ["npy", "parquet", "jsonl"])
def test_an_empty_database_is_exported_too(iqdb: Any, tmp_path: Path, kind: Any) -> None:
    db, out, again = tmp_path / "empty.iqdb", tmp_path / f"out.{kind}", tmp_path / "again.iqdb"
    expected = make(db, [])
    assert iqdb("export", db, "-o", out).status == 0
    if kind != "jsonl":  # without a record, JSON lines have no dimension
        assert iqdb("import", again, out, "--metric", "dot", "--allow-empty").status == 0
        assert digest(again) == expected


@pytest.mark.parametrize("option", ["--output", "--ids-out", "--metadata-out"])
def test_a_file_that_exists_is_replaced_only_by_force(
    iqdb: Any, database: Path, tmp_path: Path, option: Any
) -> None:
    files = {"--output": "v.npy", "--ids-out": "i.npy", "--metadata-out": "m.jsonl"}
    taken = tmp_path / files[option]
    taken.write_text("precious")
    arguments = [word for name, file in files.items() for word in (name, tmp_path / file)]
    outcome = iqdb("export", database, *arguments)
    assert outcome.status == 8
    assert "already exists" in outcome.stderr
    assert names(tmp_path) == sorted([taken.name, database.name])
    assert taken.read_text() == "precious"
    assert iqdb("export", database, *arguments, "--force").status == 0
    assert taken.read_bytes() != b"precious"


def test_the_database_itself_is_never_overwritten(iqdb: Any, database: Path) -> None:
    before = database.read_bytes()
    outcome = iqdb("export", database, "-o", database, "--force", "--format", "jsonl")
    assert outcome.status == 2
    assert database.read_bytes() == before


def test_a_device_is_written_to_without_force(iqdb: Any, database: Path) -> None:
    assert iqdb("export", database, "-o", "/dev/null", "--format", "parquet").status == 0


@pytest.mark.parametrize("kind", ["npy", "parquet", "jsonl"])
def test_a_full_disk_is_an_error_of_output(iqdb: Any, database: Path, kind: Any) -> None:
    with Path("/dev/full").open("wb") as full:
        outcome = subprocess.run(
            iqdb.command("export", database, "--format", kind),
            stdout=full,
            stderr=subprocess.PIPE,
            env=iqdb.environment(),
            check=False,
        )
    assert outcome.returncode == 8
    assert b"No space left on device" in outcome.stderr
    assert b"Traceback" not in outcome.stderr


@pytest.mark.parametrize("kind", ["npy", "parquet", "jsonl"])
def test_a_reader_that_stops_early_is_no_error(iqdb: Any, tmp_path: Path, kind: Any) -> None:
    db = tmp_path / "large.iqdb"
    make(db, [(n, [n, 0.0, 0.0], {"n": n, "t": f"text {n * 7919}"}) for n in range(60_000)])
    command = iqdb.command("export", db, "--format", kind)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=iqdb.environment()
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 0
    assert err == b""


def test_files_beside_go_with_npy_only(iqdb: Any, database: Path, tmp_path: Path) -> None:
    outcome = iqdb("export", database, "-o", tmp_path / "a.jsonl", "--ids-out", tmp_path / "i.npy")
    assert outcome.status == 2
    assert "go with npy" in outcome.stderr


def test_outputs_have_different_names(iqdb: Any, database: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    assert iqdb("export", database, "-o", out, "--ids-out", out).status == 2


@pytest.mark.parametrize("records", [RECORDS, [("a\0", [1.0, 2.0, 3.0], None)]], ids=["kinds", "zero"])
def test_ids_that_an_array_cannot_hold_are_refused_with_a_way_out(
    iqdb: Any, tmp_path: Path, records: Any
) -> None:
    db, out = tmp_path / "db.iqdb", tmp_path / "v.npy"
    make(db, records)
    outcome = iqdb("export", db, "-o", out, "--ids-out", tmp_path / "ids.npy")
    assert outcome.status == 2
    assert "name the file .jsonl" in outcome.stderr
    assert names(tmp_path) == ["db.iqdb"]


def test_two_spellings_of_one_name_are_no_two_files(iqdb: Any, database: Path, tmp_path: Path) -> None:
    name = tmp_path / "v.npy"
    outcome = iqdb("export", database, "-o", name, "--ids-out", f"{tmp_path}/./v.npy")
    assert outcome.status == 2
    assert outcome.stderr == "iqdb: --output, --ids-out and --metadata-out must name different files\n"
    assert not name.exists()


@pytest.mark.parametrize("extension", [".csv", ".iqdb", ".arrow"])
def test_an_extension_that_promises_another_format_is_asked_about(
    iqdb: Any, database: Path, tmp_path: Path, extension: str
) -> None:
    name = tmp_path / f"records{extension}"
    outcome = iqdb("export", database, "-o", name)
    assert outcome.status == 2
    assert outcome.stderr.endswith("name a .npy, .parquet or .jsonl file or add --format\n")
    assert not name.exists()
    assert iqdb("export", database, "-o", name, "--format", "jsonl").status == 0
    assert len(name.read_text().splitlines()) == 200


def test_a_filter_that_nothing_meets_is_told(iqdb: Any, database: Path) -> None:
    outcome = iqdb("export", database, "--filter", "wrod = 1")
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert "no record has the key wrod, expected one of even, n, weight, word" in outcome.stderr
