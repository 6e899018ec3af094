"""Whole commands over files that are anything: importers with what is beside them, and what reads databases.

A command ends with a status that is documented, never with the one of an unexpected error. What it only reads
stays as it was, what fails leaves nothing behind, and a database that it makes is whole.
"""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import damage_databases
import mutators
import mutators_arrays
import mutators_legacy
import mutators_text
import numpy as np

from iqdb_cli.app import run
from iqdb_cli.exit_codes import ExitStatus, guarded
from iqdb_core import Iqdb, repair
from iqdb_core.errors import NotADatabaseError, NotRepairableError, UnsupportedVersionError
from iqdb_core.verification import verify

PATH, LOG_PATH = damage_databases.PATH, damage_databases.LOG_PATH
_EDIT = struct.Struct("<IBH")
_KNOWN_ROWS = 600


class CommandError(AssertionError):
    """A command ended in a way in which none may end."""


def run_words(words: list[str], stdin: bytes = b"") -> int:
    """Run a command in this process.

    Raises:
        CommandError: it met an error that it did not expect.
    """
    saved = sys.stdin, sys.stdout, sys.stderr
    said = io.BytesIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(said, encoding="utf-8", errors="backslashreplace", write_through=True)
    try:
        status = guarded(lambda: run(words))
        sys.stdout.flush()
    finally:
        sys.stderr.detach()
        sys.stdin, sys.stdout, sys.stderr = saved
    if status not in set(ExitStatus) - {ExitStatus.UNEXPECTED, ExitStatus.INTERRUPTED}:
        raise CommandError(f"iqdb {' '.join(words)}: status {status}: {said.getvalue().decode()}")
    return status


@contextlib.contextmanager
def _folder(folder: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="iqdb-fuzz-", dir=folder) as name:
        yield Path(name)


def _must_be_whole(path: Path) -> None:
    report = verify(path, threads=1)
    assert report.ok, report.findings


# --- Databases ------------------------------------------------------------------------------------

_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("inspect", "DB"),
    ("inspect", "DB", "--json"),
    ("verify", "DB", "--level", "records", "--json", "--threads", "1"),
    ("export", "DB", "--format", "jsonl"),
    ("export", "DB", "-o", "OUT.jsonl", "--filter", "n >= 1 or exists name"),
    ("export", "DB", "-o", "OUT.parquet"),
    ("export", "DB", "-o", "OUT.npy", "--ids-out", "OUT-ids.jsonl", "--metadata-out", "OUT-meta.jsonl"),
    ("export", "DB", "--format", "iqdb2", "-o", "NEW.iqdb"),
    ("repair", "DB", "-o", "NEW.iqdb", "--threads", "1"),
    ("repair", "DB", "-o", "NEW.iqdb", "--without-ids", "OUT.jsonl", "--json", "--threads", "1"),
    ("get", "DB", "7", "id 1", "--missing-ok"),
    ("search", "DB", "--like", "7", "-k", "3", "--explain", "--format", "csv"),
    ("compact", "DB", "-o", "NEW.iqdb", "--threads", "1"),
    ("compact", "DB", "--json", "--threads", "1"),
    ("import", "NEW.iqdb", "DB", "--threads", "1"),
    ("recall", "DB", "--sample", "3", "--json", "--threads", "1"),
)  # fmt: skip


def run_commands(data: bytes, folder: str | None = None) -> str:
    """Do one command with a snapshot and its log, of any version. The first byte of an input says which."""
    words = _COMMANDS[(data[0] if data else 0) % len(_COMMANDS)]
    snapshot, log = mutators_legacy.parted(data[1:])
    with _folder(folder) as place:
        path = place / "a.iqdb"
        log_path = Path(f"{path}.wal")
        path.write_bytes(snapshot)
        if log:
            log_path.write_bytes(log)
        changes = words[0] == "compact" and "-o" not in words
        new = place / "NEW.iqdb"
        status = run_words([_word(word, place) for word in words])
        if not changes or status:
            assert path.read_bytes() == snapshot, f"{words}: the database was changed"
            assert not log or changes or log_path.read_bytes() == log, f"{words}: the log was changed"
        done = status in (ExitStatus.DONE, ExitStatus.LOSSES)
        if words[0] not in ("verify", "inspect") and not done:
            left = {item.name for item in place.iterdir()} - {path.name, log_path.name}
            assert not left, f"{words}: {left} were left behind"
        if "NEW.iqdb" in words and done:
            # Of iqdb 1.x, one that this makes and reads too.
            if "iqdb2" not in words:
                _must_be_whole(new)
            assert run_words(["export", str(new), "--format", "jsonl"]) == ExitStatus.DONE
        return f"{words[0]}: {status}"


def _word(word: str, place: Path) -> str:
    if word == "DB":
        return str(place / "a.iqdb")
    return str(place / word) if word.startswith(("OUT", "NEW")) else word


def command_seeds() -> Iterator[bytes]:
    """Yield every command, with databases with and without a log, of every index kind and of 1.x."""
    databases = list(_databases())
    for number in range(2 * len(_COMMANDS)):
        yield bytes([number % len(_COMMANDS)]) + databases[(number * 5 // 3) % len(databases)]


def _databases() -> Iterator[bytes]:
    small = damage_databases.with_log()
    yield mutators_legacy.joined(small.images[PATH], small.images[LOG_PATH])
    for index in damage_databases.INDEXES:
        yield mutators_legacy.joined(damage_databases.small(index, "none").images[PATH], b"")
    golden = Path(__file__).parent.parent.parent / "formats" / "golden-1x"
    for path in sorted(golden.glob("*.iqdb")):
        log = path.with_name(f"{path.name}.wal")
        if log.exists() and path.stat().st_size + log.stat().st_size <= 20_000:
            yield mutators_legacy.joined(path.read_bytes(), log.read_bytes())


def mutate_commands(data: bytes, rng: mutators.Random) -> bytes:
    """Change the snapshot or the log, under right checksums as often as not, or what is done with them."""
    if rng.randrange(6) == 0:
        return bytes([rng.randrange(len(_COMMANDS))]) + data[1:]
    first, (snapshot, log) = data[:1] or b"\0", mutators_legacy.parted(data[1:])
    if snapshot[8:12] in (b"\x01\0\0\0", b"\x02\0\0\0"):
        return first + mutators_legacy.mutate_legacy(data[1:], rng)
    if log and rng.randrange(2):
        return first + mutators_legacy.joined(snapshot, mutators.mutate_log(log, rng))
    change = mutators.mutate_bytes if rng.randrange(3) == 0 else mutators.mutate_snapshot
    return first + mutators_legacy.joined(change(snapshot, rng), log)


# --- Repair of what is known ----------------------------------------------------------------------


@cache
def _known(number: int) -> tuple[bytes, bytes, frozenset[tuple[Any, bytes, str]]]:
    """Return a snapshot, its log, and every version of a record that the two have ever held."""
    small = damage_databases.with_log()
    snapshot, log = small.images[PATH], small.images[LOG_PATH]
    if number:
        # Of several blocks a section: where one is damaged, others are not.
        index = list(damage_databases.INDEXES)[number % 4]
        config = damage_databases.config_of(index, damage_databases.COMPRESSIONS[number // 4])
        with _folder(None) as place, Iqdb.create(place / "a.iqdb", config) as db:
            db.upsert_many(*damage_databases.records(_KNOWN_ROWS, integers=number % 2 == 1))
            db.compact()
            snapshot, log = (place / "a.iqdb").read_bytes(), b""
    versions: set[tuple[Any, bytes, str]] = set()
    model = mutators.LogModel.of(log)
    frames = [] if model is None else model.frames
    for count in range(len(frames) + 1):
        with _folder(None) as place:
            path = place / "a.iqdb"
            path.write_bytes(snapshot)
            if model is not None:
                part = mutators.LogModel(model.header, frames[:count], b"")
                Path(f"{path}.wal").write_bytes(part.build({}, {}))
            with Iqdb.open_existing(path, read_only=True) as db:
                versions.update(_version(*record) for record in damage_databases.contents(db))
    return snapshot, log, frozenset(versions)


def _version(record_id: Any, vector: bytes, metadata: Any) -> tuple[Any, bytes, str]:
    return (type(record_id).__name__, record_id), vector, repr(metadata)


def run_repair(data: bytes, folder: str | None = None) -> str:
    """Damage a database whose records are known, without knowing of checksums, and repair it.

    An input is the number of the database and edits: a place, what to do there, and an argument.
    """
    number = data[0] % 12 if data else 0
    snapshot, log, versions = _known(number)
    whole = bytearray(snapshot + log)
    cut = len(whole)
    for at in range(1, len(data) - _EDIT.size + 1, _EDIT.size):
        offset, kind, argument = _EDIT.unpack_from(data, at)
        offset %= len(whole)
        length = argument % 4096 + 1
        match kind % 5:
            case 0:
                whole[offset] ^= 1 << argument % 8
            case 1:
                whole[offset : offset + length] = bytes(len(whole[offset : offset + length]))
            case 2:
                other = argument * 4096 % len(whole)
                moved = whole[other : other + length]
                whole[offset : offset + len(moved)] = moved[: len(whole) - offset]
            case 3:
                whole[offset] = argument & 0xFF
            case _ if argument % 4 == 0:
                cut = offset
    ends = min(cut, len(snapshot))
    with _folder(folder) as place:
        path, new = place / "a.iqdb", place / "new.iqdb"
        path.write_bytes(whole[: ends if cut < len(snapshot) else len(snapshot)])
        if log:
            Path(f"{path}.wal").write_bytes(whole[len(snapshot) : max(cut, len(snapshot))])
        before = path.read_bytes()
        try:
            report = repair(path, new, threads=1)
        except (NotRepairableError, NotADatabaseError, UnsupportedVersionError) as error:
            assert not new.exists()
            return type(error).__name__
        finally:
            assert path.read_bytes() == before
        _must_be_whole(new)
        with Iqdb.open_existing(new, read_only=True) as db:
            found = damage_databases.contents(db)
            assert len(found) == report.n_records
            for record in found:
                version = _version(*record)
                bare = record[2] is None and report.rows_without_metadata
                is_known = version in versions or (bare and any(v[:2] == version[:2] for v in versions))
                assert is_known, f"{record[0]!r} was altered or invented"
        return "whole" if report.complete else "partly"


def repair_seeds() -> Iterator[bytes]:
    """Yield a few edits of each database."""
    for number in range(12):
        for kind in range(5):
            yield bytes([number]) + _EDIT.pack(4096 * (kind + 1) + 17, kind, 300 * kind + 1)


def mutate_repair(data: bytes, rng: mutators.Random) -> bytes:
    """Add, drop or change an edit."""
    edits = [data[at : at + _EDIT.size] for at in range(1, len(data), _EDIT.size)]
    edits = [edit for edit in edits if len(edit) == _EDIT.size]
    if edits and rng.randrange(3) == 0:
        edits.pop(rng.randrange(len(edits)))
    while not edits or rng.randrange(2):
        edits.append(_EDIT.pack(rng.randrange(1 << 18), rng.randrange(5), rng.randrange(1 << 16)))
    first = bytes([rng.randrange(12)]) if rng.randrange(4) == 0 else data[:1] or b"\0"
    return first + b"".join(edits[:8])


# --- Imports --------------------------------------------------------------------------------------

_IMPORTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("a.npy", "", ("--metric", "euclidean")),
    ("a.npy", "", ("--metric", "cosine", "--compression", "lz4")),
    ("a.npy", "ids.npy", ("--metric", "dot", "--ids")),
    ("a.npy", "ids.txt", ("--metric", "hamming", "--ids")),
    ("a.npy", "meta.jsonl", ("--metric", "manhattan", "--metadata")),
    ("a.npy", "meta.parquet", ("--metric", "euclidean", "--metadata")),
    ("a.jsonl", "", ("--metric", "cosine")),
    ("a.jsonl", "", ("--metric", "cosine", "--id-field", "id", "--index", "hnsw")),
    ("a.parquet", "", ("--metric", "cosine")),
    ("a.parquet", "", ("--metric", "dot", "--no-metadata", "--on-duplicate", "error")),
    ("a", "", ("--metric", "euclidean")),
    ("a.npy", "", ("--metric", "euclidean", "--first-id", "18446744073709551614")),
)


def import_input(choice: int, source: bytes, beside: bytes = b"") -> bytes:
    """Return the input that says: import `source` in that way, with a file beside it."""
    return bytes([choice]) + struct.pack("<I", len(source)) + source + beside


def run_import(data: bytes, folder: str | None = None) -> str:
    """Import a file, with ids or metadata in another, into a new database; then search by it as queries."""
    name, beside, options = _IMPORTS[(data[0] if data else 0) % len(_IMPORTS)]
    size = int.from_bytes(data[1:5], "little")
    with _folder(folder) as place:
        source, new = place / name, place / "new.iqdb"
        source.write_bytes(data[5:][:size])
        words = ["import", str(new), str(source), *options, "--threads", "1"]
        if beside:
            other = place / beside
            other.write_bytes(data[5:][size:])
            at = len(words) - 2
            words[at:at] = [str(other)]
        known = {item.name for item in place.iterdir()}
        status = run_words(words)
        left = {item.name for item in place.iterdir()} - known
        if status == ExitStatus.DONE:
            assert left == {new.name}
            _must_be_whole(new)
            assert run_words(["export", str(new), "--format", "jsonl"]) == ExitStatus.DONE
            run_words(["search", str(new), str(source), "-k", "2", "--format", "jsonl"])
        else:
            assert not left, f"{words}: {left} were left behind"
        return f"{name} {beside}: {status}"


def import_seeds() -> Iterator[bytes]:
    """Yield a source of each kind, with what fits beside it."""
    arrays = list(mutators_arrays.npy_seeds())
    lines = list(mutators_text.jsonl_seeds())
    tables = list(mutators_arrays.parquet_seeds())
    beside = {
        "": [b""],
        "ids.npy": [_npy(np.arange(2, dtype="<u8")), _npy(np.array(["a", "b"]))],
        "ids.txt": [b"1\n2\n", b'"a"\n"b"\n'],
        "meta.jsonl": [b'{"n":1}\nnull\n'],
        "meta.parquet": tables[:1],
    }
    for choice, (name, other, _) in enumerate(_IMPORTS):
        sources = {
            "a.npy": arrays,
            "a.jsonl": lines[:4],
            "a.parquet": tables,
            "a": [arrays[0], lines[0], tables[0]],
        }
        for source in sources[name][:4]:
            for second in beside[other]:
                yield import_input(choice, source, second)


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def mutate_import(data: bytes, rng: mutators.Random) -> bytes:
    """Change the source, or what stands beside it, in the way of its kind."""
    choice = data[0] if data else 0
    size = int.from_bytes(data[1:5], "little")
    source, beside = data[5:][:size], data[5:][size:]
    name, other, _ = _IMPORTS[choice % len(_IMPORTS)]
    changes = {
        "npy": mutators_arrays.mutate_npy, "jsonl": mutators_text.mutate_jsonl,
        "txt": mutators_text.mutate_ids, "parquet": mutators.mutate_bytes, "a": mutators.mutate_bytes,
    }  # fmt: skip
    if rng.randrange(8) == 0:
        choice = rng.randrange(len(_IMPORTS))
    elif other and rng.randrange(2):
        beside = changes[other.rpartition(".")[2]](beside, rng)
    else:
        source = changes[name.rpartition(".")[2]](source, rng)
    return import_input(choice, source, beside)
