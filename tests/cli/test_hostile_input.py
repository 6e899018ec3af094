"""Wrong, damaged and hostile input: one line of error, the documented exit status, nothing changed."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DIM = 8
GOOD_LINE = json.dumps({"id": 1, "vector": [0.5] * DIM})


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def header(descr: Any, shape: Any, *, fortran: Any = False) -> bytes:
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def parquet(vectors: Any, **columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"v": vectors, **columns}), out)
    return out.getvalue()


def line(**fields: Any) -> bytes:
    return (GOOD_LINE + "\n" + json.dumps({"id": 2, "vector": [0.5] * DIM, **fields}) + "\n").encode()


def raw_line(text: str) -> bytes:
    return (GOOD_LINE + "\n" + text + "\n").encode()


def array_with(value: float, dtype: str) -> bytes:
    array = np.zeros((10, DIM), dtype)
    array[7, 3] = value
    return npy(array)


ZEROS = [0.0] * DIM
UNSIGNED = pa.array([2**63], pa.uint64())

# A name for each case, the file's name, its content, and what the message must say beside the name.
CASES: list[tuple[str, str, bytes, list[str]]] = [
    ("wrong dimension, array", "v.npy", npy(np.zeros((3, 5))), ["5 components", "dimension 8"]),
    ("wrong dimension, table", "v.parquet", parquet([[0.0] * 5]), ["5 components", "dimension 8"]),
    ("wrong dimension, line", "v.jsonl", raw_line('{"id": 2, "vector": [1, 2]}'), ["line 2", "2 components"]),
    ("NaN, array", "v.npy", array_with(np.nan, "<f4"), ["row 7", "nan", "component 3"]),
    ("NaN, double", "v.npy", array_with(np.nan, "<f8"), ["row 7", "nan", "component 3"]),
    ("infinity, half", "v.npy", array_with(-np.inf, "<f2"), ["row 7", "inf", "component 3"]),
    ("too large for float32", "v.npy", array_with(1e39, "<f8"), ["row 7", "1e+39", "component 3"]),
    ("NaN, table", "v.parquet", parquet([ZEROS, [*ZEROS[1:], float("nan")]]), ["row 1", "nan"]),
    ("NaN, line", "v.jsonl", raw_line('{"id": 2, "vector": [NaN, 0, 0, 0, 0, 0, 0, 0]}'), ["line 2", "NaN"]),
    ("empty file", "v.npy", b"", ["empty"]),
    ("empty table", "v.parquet", b"", ["empty"]),
    ("empty lines", "v.jsonl", b"", ["no records"]),
    ("empty, unknown", "v", b"", ["empty"]),
    ("blank lines only", "v.jsonl", b"\n\n", ["no records"]),
    ("array without rows", "v.npy", npy(np.zeros((0, DIM))), ["no records"]),
    ("array without components", "v.npy", npy(np.zeros((3, 0))), ["0 components"]),
    ("table without rows", "v.parquet", parquet(pa.array([], pa.list_(pa.float32(), DIM))), ["no records"]),
    ("huge declared rows", "v.npy", header("<f4", (10**15, DIM)), ["declares", "found 0"]),
    ("huge declared dimension", "v.npy", header("<f4", (1, 10**12)), ["declares", "found 0"]),
    ("more bytes than 64 bits", "v.npy", header("<f8", (2**62, 2**62)), ["more than any file"]),
    ("negative shape", "v.npy", header("<f4", (-1, DIM)), ["shape"]),
    ("shape of floats", "v.npy", header("<f4", (1.5, DIM)), ["shape"]),
    ("shape of booleans", "v.npy", header("<f4", (True, DIM)), ["shape"]),
    ("three dimensions", "v.npy", npy(np.zeros((2, 2, 2))), ["3 dimensions"]),
    ("truncated array", "v.npy", npy(np.zeros((10, DIM)))[:-1], ["declares", "found"]),
    ("bytes after the array", "v.npy", npy(np.zeros((10, DIM))) + b"x", ["declares", "found"]),
    ("truncated header", "v.npy", npy(np.zeros((10, DIM)))[:40], ["header"]),
    ("no array", "v.npy", b"PK\x03\x04 not an array", [".npy"]),
    ("header that is code", "v.npy", header("<f4", (1,)).replace(b"(1,)", b"f(1)"), ["header"]),
    ("huge header", "v.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", ["header"]),
    ("pickled", "v.npy", npy(np.array([{"a": 1}], object)), ["pickled"]),
    ("object type", "v.npy", header("|O8", (2, DIM)) + bytes(128), ["pickled"]),
    ("structured type", "v.npy", npy(np.zeros(3, [("a", "<f4")])), ["several fields"]),
    ("complex", "v.npy", npy(np.zeros((2, DIM), complex)), ["element type"]),
    ("text", "v.npy", npy(np.array(["a", "b"])), ["element type"]),
    ("a bare pickle", "v.npy", pickle.dumps([1.0] * DIM), [".npy"]),
    ("duplicate key", "v.jsonl", raw_line('{"id": 2, ' + GOOD_LINE[1:]), ["line 2", "twice"]),
    ("duplicate key, late", "v.jsonl", raw_line(GOOD_LINE[:-1] + ', "a": 1, "a": 1}'), ["line 2", "twice"]),
    ("integer above int64", "v.jsonl", line(n=2**63), ["line 2", "2^63"]),
    ("integer below int64", "v.jsonl", line(n=-(2**63) - 1), ["line 2", "2^63"]),
    ("integer above int64, table", "v.parquet", parquet([ZEROS], n=UNSIGNED), ["row 0", "2^63"]),
    ("number beyond float64", "v.jsonl", raw_line(GOOD_LINE[:-1] + ', "x": 1e999}'), ["line 2", "float64"]),
    ("id above 2^64-1", "v.jsonl", line(id=2**64), ["line 2", "id"]),
    ("negative id", "v.jsonl", line(id=-1), ["line 2", "id"]),
    ("empty id", "v.jsonl", line(id=""), ["line 2", "id"]),
    ("null id", "v.parquet", parquet([ZEROS, ZEROS], id=["a", None]), ["row 1", "null"]),
    ("lone surrogate", "v.jsonl", raw_line(GOOD_LINE[:-1] + ', "t": "\\udc00"}'), ["line 2", "surrogate"]),
    ("no UTF-8", "v.jsonl", GOOD_LINE.encode() + b'\n{"\xff": 1}\n', ["line 2", "UTF-8"]),
    ("cut line", "v.jsonl", raw_line(GOOD_LINE[:-5]), ["line 2"]),
    ("deep nesting", "v.jsonl", raw_line(GOOD_LINE[:-1] + ', "o": ' + "[" * 100_000), ["line 2"]),
    ("deep nesting at first", "v.jsonl", b"[" * 100_000, ["line 1"]),
    ("binary lines", "v.jsonl", bytes(range(256)) * 10, ["line 1"]),
    ("array of records", "v.json", b"[" + GOOD_LINE.encode() + b"]", ["line 1", "array", "object"]),
    ("null vector", "v.parquet", parquet(pa.array([ZEROS, None])), ["row 1", "null"]),
    ("null component", "v.parquet", parquet(pa.array([ZEROS, [*ZEROS[1:], None]])), ["row 1", "null"]),
    ("short vector", "v.parquet", parquet(pa.array([ZEROS, ZEROS[1:]])), ["row 1", "7 components"]),
    ("integers as vectors", "v.parquet", parquet(pa.array([[1] * DIM])), ["no column of lists of float"]),
    ("truncated table", "v.parquet", parquet([ZEROS] * 100)[:-20], ["Parquet"]),
    ("half a table", "v.parquet", parquet([ZEROS] * 100)[:200], ["Parquet"]),
    ("table without its end", "v.parquet", parquet([ZEROS] * 100)[:-4] + b"XXXX", ["Parquet"]),
    ("no table", "v.parquet", b"hello, this is text\n", ["Parquet"]),
    ("unknown bytes", "v", b"\x00\x01\x02\x03", ["begins with", "--input-format"]),
]  # fmt: skip


@pytest.fixture(params=CASES, ids=[case[0] for case in CASES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[str]]:
    _, name, content, words = request.param
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / name).write_bytes(content)
    return folder / name, words


def assert_refused(outcome: Any, source: Path | str, words: list[str], status: int = 4) -> None:
    assert outcome.status == status, outcome.stderr
    assert outcome.stdout == b""
    messages = [text for text in outcome.stderr.splitlines() if text.startswith("iqdb: ")]
    assert len(messages) == 1, outcome.stderr
    assert str(source) in messages[0]
    for word in words:
        assert word in messages[0]
    assert "Traceback" not in outcome.stderr
    assert len(messages[0]) < 600


def test_import_refuses_it_and_changes_nothing(iqdb: Any, database: Path, case: Any) -> None:
    before = database.read_bytes()
    source, words = case
    assert_refused(iqdb("import", database, source), source, words)
    assert database.read_bytes() == before
    assert not Path(f"{database}.wal").exists()
    assert sorted(path.name for path in database.parent.iterdir()) == [database.name, "source"]


def test_import_creates_nothing_from_it(iqdb: Any, tmp_path: Path, case: Any) -> None:
    source, words = case
    if any("dimension" in word or "components" in word for word in words):
        words = []  # without a database there is no dimension to compare with
    outcome = iqdb("import", tmp_path / "new.iqdb", source, "--metric", "dot")
    if outcome.status == 0:
        assert "dimension" in " ".join(case[1])
        return
    assert_refused(outcome, source, words)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_upsert_keeps_what_came_before_it_and_nothing_else(iqdb: Any, database: Path, case: Any) -> None:
    before = database.read_bytes()
    source, words = case
    outcome = iqdb("upsert", database, source, "--first-id", "1000")
    assert outcome.status == 4
    assert outcome.stdout == b""
    message = outcome.stderr.splitlines()[-1]
    assert str(source) in message
    assert all(word in message for word in words)
    assert database.read_bytes() == before


@pytest.mark.parametrize("kind", [[], ["--input-format", "npy"], ["--input-format", "parquet"]])
def test_a_directory_is_no_source(iqdb: Any, database: Path, tmp_path: Path, kind: list[str]) -> None:
    before = database.read_bytes()
    for command in ("import", "upsert"):
        outcome = iqdb(command, database, tmp_path, *kind)
        assert_refused(outcome, tmp_path, ["is a directory, expected a file"])
    assert database.read_bytes() == before


def test_a_missing_source_is_not_found(iqdb: Any, database: Path, tmp_path: Path) -> None:
    for command in ("import", "upsert"):
        outcome = iqdb(command, database, tmp_path / "absent.npy")
        assert_refused(outcome, tmp_path / "absent.npy", ["no such file"], status=3)


def test_a_source_that_may_not_be_read_is_an_error_of_input(
    iqdb: Any, database: Path, tmp_path: Path
) -> None:
    source = tmp_path / "v.npy"
    source.write_bytes(npy(np.zeros((1, DIM))))
    source.chmod(0)
    if os.access(source, os.R_OK):  # root reads everything; what the system refuses root is a loop of links
        source.unlink()
        source.symlink_to(source)
    assert_refused(iqdb("import", database, source), source, ["cannot open"], status=8)


@pytest.mark.parametrize("kind", ["npy", "jsonl", "parquet"])
def test_a_fifo_is_a_source(iqdb: Any, tmp_path: Path, kind: str) -> None:
    content: dict[str, bytes] = {
        "npy": npy(np.zeros((3, DIM))),
        "jsonl": (GOOD_LINE + "\n").encode(),
        "parquet": parquet([ZEROS]),
    }
    fifo = tmp_path / f"fifo.{kind}"
    os.mkfifo(fifo)
    writer = in_thread(lambda: fifo.write_bytes(content[kind]))
    outcome = iqdb("import", tmp_path / "new.iqdb", fifo, "--metric", "dot")
    writer.join()
    assert outcome.status == 0, outcome.stderr


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", ["npy", "jsonl", "parquet"])
def test_a_fifo_that_ends_at_once_is_empty(iqdb: Any, database: Path, tmp_path: Path, kind: str) -> None:
    before = database.read_bytes()
    fifo = tmp_path / f"fifo.{kind}"
    os.mkfifo(fifo)
    writer = in_thread(lambda: fifo.write_bytes(b""))
    outcome = iqdb("import", database, fifo)
    writer.join()
    assert_refused(outcome, fifo, [])
    assert database.read_bytes() == before


@pytest.mark.parametrize("command", ["import", "upsert"])
def test_closed_standard_input_is_an_error_of_input(iqdb: Any, database: Path, command: str) -> None:
    before = database.read_bytes()
    words = iqdb.command(command, database, "-")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *words], capture_output=True, env=iqdb.environment(), check=False
    )
    assert done.returncode == 8
    assert b"standard input: cannot open" in done.stderr
    assert b"Traceback" not in done.stderr
    assert database.read_bytes() == before


def limited(iqdb: Any, limit_bytes: int, *args: str | Path, stdin: bytes = b"") -> Any:
    """Run a command whose files cannot grow beyond a limit, as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return iqdb.process(*args, stdin=stdin, preexec_fn=limit)


def test_an_import_onto_a_full_disk_changes_nothing(iqdb: Any, database: Path, tmp_path: Path) -> None:
    before = database.read_bytes()
    source = tmp_path / "v.npy"
    source.write_bytes(npy(np.zeros((100_000, DIM), np.float32)))
    outcome = limited(iqdb, 1_000_000, "import", database, source)
    assert outcome.status == 8, outcome.stderr
    assert "File too large" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert database.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [database.name, "v.npy"]


def test_a_database_is_not_created_on_a_full_disk(iqdb: Any, tmp_path: Path) -> None:
    source = tmp_path / "v.npy"
    source.write_bytes(npy(np.zeros((100_000, DIM), np.float32)))
    outcome = limited(iqdb, 1_000_000, "import", tmp_path / "new.iqdb", source, "--metric", "dot")
    assert outcome.status == 8, outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_an_upsert_onto_a_full_disk_keeps_what_was_acknowledged(iqdb: Any, database: Path) -> None:
    lines = "".join(json.dumps({"id": 1000 + n, "vector": [0.5] * DIM}) + "\n" for n in range(5000))
    outcome = limited(iqdb, 100_000, "upsert", database, "--batch-size", "500", stdin=lines.encode())
    assert outcome.status == 8, outcome.stderr
    notes = [text for text in outcome.stderr.splitlines() if "acknowledged" in text]
    assert len(notes) == 1
    acknowledged = int(notes[0].split()[1].replace(",", ""))
    assert 0 < acknowledged < 5000
    code = f"from iqdb_core import Iqdb; print(len(Iqdb.open_existing({str(database)!r}, read_only=True)))"
    assert int(subprocess.check_output([sys.executable, "-c", code])) == 200 + acknowledged


def test_an_export_onto_a_full_disk_leaves_no_file(iqdb: Any, database: Path, tmp_path: Path) -> None:
    for kind in ("npy", "parquet", "jsonl"):
        out = tmp_path / f"out.{kind}"
        outcome = limited(iqdb, 2_000, "export", database, "-o", out)
        assert outcome.status == 8, outcome.stderr
        assert str(out) in outcome.stderr
        assert "Traceback" not in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == [database.name]


def test_a_pipe_cannot_make_a_spool_outgrow_the_disk(iqdb: Any, database: Path) -> None:
    before = database.read_bytes()
    content = parquet([ZEROS]) + bytes(300_000)
    outcome = limited(iqdb, 100_000, "import", database, "-", "--input-format", "parquet", stdin=content)
    assert outcome.status == 8, outcome.stderr
    assert "copy standard input to" in outcome.stderr
    assert database.read_bytes() == before


def test_an_endless_line_is_refused_in_bounded_memory(iqdb: Any, database: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    with Path("/dev/zero").open("rb") as zeros:
        done = subprocess.run(
            iqdb.command("import", database, "-", "--input-format", "jsonl"),
            stdin=zeros,
            capture_output=True,
            env=iqdb.environment(),
            preexec_fn=limit,
            check=False,
        )
    assert done.returncode == 4, done.stderr
    assert b"line 1: is longer than" in done.stderr


def test_ids_and_metadata_beside_are_checked_too(iqdb: Any, database: Path, tmp_path: Path) -> None:
    before = database.read_bytes()
    folder = tmp_path / "files"
    folder.mkdir()
    vectors = folder / "v.npy"
    vectors.write_bytes(npy(np.zeros((2, DIM))))
    files = {
        "object.npy": npy(np.array(["a", None], object)),
        "short.npy": npy(np.arange(1)),
        "cut.npy": npy(np.arange(2))[:-1],
        "empty.npy": b"",
        "bad.jsonl": b'1\n{"hex": "0"}\n',
        "long.jsonl": b"1\n2\n3\n",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
        assert_refused(iqdb("import", database, vectors, "--ids", folder / name), folder / name, [])
    files = {
        "short.jsonl": b"{}\n",
        "list.jsonl": b"{}\n[]\n",
        "twice.jsonl": b'{}\n{"a": 1, "a": 2}\n',
        "nested.jsonl": b'{}\n{"a": [1]}\n',
        "large.jsonl": b'{}\n{"a": 9223372036854775808}\n',
        "cut.parquet": parquet([ZEROS])[:-8],
        "array.npy": npy(np.zeros(2)),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
        assert_refused(iqdb("import", database, vectors, "--metadata", folder / name), folder / name, [])
    assert database.read_bytes() == before
