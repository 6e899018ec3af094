"""What is fuzzed: decoders of bytes from outside, each with a rule for what it may do with them.

A target takes any bytes and returns what it did with them, as a word for statistics. Errors of iqdb's own
are part of that; any other exception is a crash. Where something can be read, it is read and searched.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import command_targets
import damage_databases
import kernels
import mutators
import mutators_arrays
import mutators_legacy
import mutators_text
from memory_files import MemoryFiles

from iqdb_cli.id_arguments import _parse_line
from iqdb_cli.ids import format_id, id_from_json, id_to_json, parse_id
from iqdb_cli.inputs.reader import InputOptions
from iqdb_cli.inputs.readers import Inputs
from iqdb_cli.inputs.source import InputKind
from iqdb_cli.queries import parse_json, read_queries
from iqdb_core import Iqdb, IqdbConfig
from iqdb_core.errors import Error, InvalidFilterError, PersistError
from iqdb_core.filters_text import format_filter, parse_filter
from iqdb_core.storage.inspect import inspect_file
from iqdb_core.verification import verify

ROOT = Path(__file__).parent.parent.parent
FORMATS = ROOT / "formats"
PATH, LOG_PATH = damage_databases.PATH, damage_databases.LOG_PATH
NATIVE = ("text", "bytes", "bits", "codes", "graph", "lists", "stored", "train")
"""Harnesses over the kernels, in `native/`; their inputs are in folders named native-NAME."""
MAX_RECORDS = 300
"""Of what opened, so many records are read; a file may say that it has more than there is time for."""

Mutate = Callable[[bytes, "mutators.Random"], bytes]


@dataclass(frozen=True)
class Target:
    """One thing to fuzz.

    Attributes:
        name: of its folders in the corpus and the regressions.
        run: does it; raises what no input may make it raise.
        seeds: yields valid inputs to begin with.
        mutate: returns another input that still gets past the first checks more often than not.
        max_bytes: no input needs to be longer.
    """

    name: str
    run: Callable[[bytes], str]
    seeds: Callable[[], Iterator[bytes]]
    mutate: Mutate
    max_bytes: int


# --- Databases ------------------------------------------------------------------------------------


def _ask(files: MemoryFiles) -> str:
    """Open the database in memory, read and search it, inspect and verify it."""
    outcome = "read"
    try:
        db = Iqdb.open_existing(PATH, read_only=True, files=files, threads=1)
    except PersistError as error:
        outcome = type(error).__name__
    else:
        failed = _read(db)
        if failed:
            outcome = f"opened, {failed}"
        db.close()
    with contextlib.suppress(PersistError):
        inspect_file(PATH, files=files)
    with contextlib.suppress(PersistError):
        verify(PATH, level="records", threads=1, files=files)
    return outcome


def _read(db: Iqdb) -> str:
    """Do what a reader does; return the class of the last error of the file."""
    query = [0.5] * db.dim
    asked: list[Callable[[], Any]] = [
        lambda: (len(db), repr(db), db.info()),
        lambda: [hit.metadata for hit in db.search(query, 3)],
        lambda: [hit.to_dict() for hit in db.search(query, 3, exact=True)],
        lambda: db.search(query, 3, filter="n >= 1 and exists name or even = true"),
        lambda: db.search(query, 5, filter="name contains 'a'", exact=True),
        lambda: db.search_batch([query] * 2, 70),
        lambda: db.explain(query, 3),
        lambda: [db.get(id_) for id_ in list(islice(db.ids(), 12))],
        lambda: [db.get(id_) for id_ in (7, "id 1", b"\0")],
        # One at a time: what a reader keeps of it is no matter of the file.
        lambda: sum(len(_plain(batch)) for batch in islice(db.batches(batch_rows=64), MAX_RECORDS // 64)),
        lambda: list(islice(db.batches(filter="even = true"), 2)),
    ]
    failed = ""
    for ask in asked:
        try:
            ask()
        except PersistError as error:
            failed = type(error).__name__
    return failed


def _plain(batch: Any) -> Any:
    return batch.ids.to_list(), batch.vectors.tobytes(), batch.metadata and batch.metadata.to_dicts()


def run_snapshot(data: bytes) -> str:
    """Read a snapshot, of any version."""
    return _ask(MemoryFiles({PATH: bytearray(data)}))


def run_log(data: bytes) -> str:
    """Replay a log over a good snapshot, and fold it in."""
    snapshot = damage_databases.with_log().images[PATH]
    outcome = _ask(MemoryFiles({PATH: bytearray(snapshot), LOG_PATH: bytearray(data)}))
    with tempfile.TemporaryDirectory(prefix="iqdb-fuzz-", dir=_memory_folder()) as folder:
        path, log = Path(folder) / "a.iqdb", Path(folder) / "a.iqdb.wal"
        path.write_bytes(snapshot)
        log.write_bytes(data)
        try:
            db = Iqdb.open_existing(path, fsync="never", threads=1, auto_compact=None)
        except PersistError:
            assert log.read_bytes() == data
            return outcome
        with db:
            n_records = len(db)
            db.compact()
        assert verify(path, threads=1).n_rows == n_records
    return outcome


def run_compact(data: bytes) -> str:
    """Open a snapshot for writing, change something and compact it. A file that is refused stays as it is."""
    with tempfile.TemporaryDirectory(prefix="iqdb-fuzz-", dir=_memory_folder()) as folder:
        path = Path(folder) / "a.iqdb"
        path.write_bytes(data)
        try:
            db = Iqdb.open_existing(path, fsync="never", threads=1, auto_compact=None)
        except PersistError as error:
            assert path.read_bytes() == data
            return type(error).__name__
        outcome = "compacted"
        try:
            db.upsert("another", [1.0] * db.dim, {"n": 1})
            db.compact()
        except PersistError as error:
            outcome = type(error).__name__
            assert path.read_bytes() == data
        finally:
            db.close(compact=False)
        if outcome == "compacted":
            report = verify(path, threads=1)
            # What is derived is carried over as it was: a dishonest index stays one, and harms no record.
            assert all(_derived(finding.part) for finding in report.findings), report.findings
        return outcome


def _derived(part: str) -> bool:
    return part.startswith(("section hnsw.", "section ivf.", "index"))


@cache
def _memory_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _snapshot_seeds() -> Iterator[bytes]:
    for index in damage_databases.INDEXES:
        for compression in damage_databases.COMPRESSIONS:
            yield damage_databases.small(index, compression).images[PATH]
    for path in sorted((FORMATS / "golden").glob("*.iqdb")):
        if path.stat().st_size <= 100_000:
            yield path.read_bytes()


def _log_seeds() -> Iterator[bytes]:
    yield damage_databases.with_log().images[LOG_PATH]
    base = mutators.LogModel.of(damage_databases.with_log().images[LOG_PATH])
    for path in sorted(FORMATS.glob("*/*.wal")):
        if 64 <= path.stat().st_size <= 20_000:
            # The frames of another log, as if they had been written behind this snapshot.
            other = mutators.LogModel.of(path.read_bytes())
            if other is not None and base is not None:
                yield other.behind(base.header)


def run_legacy(data: bytes) -> str:
    """Read a database of iqdb 1.x with its log."""
    snapshot, log = mutators_legacy.parted(data)
    return _ask(MemoryFiles({PATH: bytearray(snapshot), LOG_PATH: bytearray(log)}))


def _legacy_seeds() -> Iterator[bytes]:
    for path in sorted((FORMATS / "golden-1x").glob("*.iqdb")):
        log = path.with_name(f"{path.name}.wal")
        data = mutators_legacy.joined(path.read_bytes(), log.read_bytes() if log.exists() else b"")
        if len(data) <= 20_000:
            yield data


# --- Inputs of commands ---------------------------------------------------------------------------


def _read_source(data: bytes, kind: InputKind, options: list[dict[str, Any]]) -> str:
    """Read a source with one of some options, which the length of the data decides."""
    chosen = options[len(data) % len(options)]
    with tempfile.NamedTemporaryFile(prefix="iqdb-fuzz-", dir=_memory_folder()) as file:
        file.write(data)
        file.flush()
        try:
            with Inputs([file.name], InputOptions(kind=kind, **chosen)) as inputs:
                for batch in inputs.batches():
                    _plain(batch)
                inputs.fraction()
        except Error as error:
            return type(error).__name__
    return "read"


def run_npy(data: bytes) -> str:
    """Read vectors, and queries, from .npy."""
    with tempfile.NamedTemporaryFile(prefix="iqdb-fuzz-", dir=_memory_folder()) as file:
        file.write(data)
        file.flush()
        try:
            for _ in read_queries(file.name, 3):
                pass
        except Error:
            pass
    return _read_source(data, InputKind.NPY, [{}])


def run_jsonl(data: bytes) -> str:
    """Read records from JSON lines."""
    options: list[dict[str, Any]] = [
        {},
        {"id_field": "id"},
        {"columns": ("n", "s")},
        {"no_metadata": True},
        {"metadata_field": "metadata"},
        {"vector_field": "vector", "batch_rows": 2},
    ]
    return _read_source(data, InputKind.JSONL, options)


def run_parquet(data: bytes) -> str:
    """Read records from Parquet."""
    options: list[dict[str, Any]] = [{}, {"no_metadata": True}, {"columns": ("s",)}, {"batch_rows": 2}]
    return _read_source(data, InputKind.PARQUET, options)


def run_filter(data: bytes) -> str:
    """Parse a filter expression, spell it, parse that, and search with it."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    try:
        parsed = parse_filter(text)
    except InvalidFilterError:
        return "refused"
    spelt = format_filter(parsed)
    again = parse_filter(spelt)
    # Not the filters themselves: a NaN is not equal to itself.
    assert format_filter(again) == spelt, (text, spelt)
    db = _searched()
    assert _ids(db, parsed) == _ids(db, again) == _matching(db, parsed), text
    return "searched"


def _ids(db: Iqdb, condition: Any) -> set[Any]:
    return {hit.id for hit in db.search([1.0, 2.0], 99, filter=condition)}


def _matching(db: Iqdb, condition: Any) -> set[Any]:
    """Return the ids of the records that a filter matches by itself, one mapping at a time."""
    return {id_ for id_ in db.ids() if condition.matches(db.metadata(id_))}


@cache
def _searched() -> Iqdb:
    db = Iqdb.open_in_memory_with(IqdbConfig(dim=2))
    metadata = [
        None
        if i % 5 == 0
        else {"n": i - 3, "f": i / 4, "b": i % 2 == 0, "s": f"v{i % 4}", "z": None, "a.b": i}
        for i in range(20)
    ]
    db.upsert_many(list(range(20)), [[1.0, i] for i in range(20)], metadata)
    return db


def run_ids(data: bytes) -> str:
    """Parse an id as typed, as a line of stdin, and as JSON; what comes out is spelt and parsed again."""
    outcome = "refused"
    text = data.decode("utf-8", "surrogateescape")
    attempts: list[Callable[[], Any]] = [
        lambda: parse_id(text, "argument"),
        lambda: _parse_line(data, "stdin", 1),
        lambda: id_from_json(_json(data), "place"),
    ]
    for attempt in attempts:
        try:
            found = attempt()
        except Error:
            continue
        outcome = "parsed"
        assert parse_id(format_id(found)) == found
        assert id_from_json(id_to_json(found)) == found
    return outcome


def _json(data: bytes) -> Any:
    try:
        return parse_json(data)
    except ValueError:
        return None


# --- Whole commands -------------------------------------------------------------------------------


def run_commands(data: bytes) -> str:
    """Run a command over a database of any content."""
    return command_targets.run_commands(data, _memory_folder())


def run_repair(data: bytes) -> str:
    """Repair a damaged database of which everything is known."""
    return command_targets.run_repair(data, _memory_folder())


def run_import(data: bytes) -> str:
    """Import a source of any content."""
    return command_targets.run_import(data, _memory_folder())


TARGETS = {
    target.name: target
    for target in (
        Target("snapshot", run_snapshot, _snapshot_seeds, mutators.mutate_snapshot, 1 << 18),
        Target("log", run_log, _log_seeds, mutators.mutate_log, 1 << 16),
        Target("compact", run_compact, _snapshot_seeds, mutators.mutate_snapshot, 1 << 18),
        Target("legacy", run_legacy, _legacy_seeds, mutators_legacy.mutate_legacy, 1 << 15),
        Target("filter", run_filter, mutators_text.filter_seeds, mutators_text.mutate_filter, 1 << 12),
        Target("npy", run_npy, mutators_arrays.npy_seeds, mutators_arrays.mutate_npy, 1 << 14),
        Target("jsonl", run_jsonl, mutators_text.jsonl_seeds, mutators_text.mutate_jsonl, 1 << 14),
        Target("parquet", run_parquet, mutators_arrays.parquet_seeds, mutators.mutate_bytes, 1 << 16),
        Target("ids", run_ids, mutators_text.id_seeds, mutators_text.mutate_ids, 1 << 10),
        Target(
            "commands", run_commands, command_targets.command_seeds, command_targets.mutate_commands, 1 << 18
        ),
        Target("repair", run_repair, command_targets.repair_seeds, command_targets.mutate_repair, 1 << 8),
        Target("import", run_import, command_targets.import_seeds, command_targets.mutate_import, 1 << 16),
        Target("kernels", kernels.run_kernels, kernels.kernel_seeds, kernels.mutate_kernels, 1 << 11),
    )
}
