"""The commands that read a database and write something else, and what a kill may leave of that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iqdb_core import Iqdb
from iqdb_core.legacy.writer import write_legacy
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.verification import verify

DEMO_ROWS = 1000
Records = dict[int, int]


class Output(NamedTuple):
    """A command and the files that it writes, each with a check that it is complete.

    A check returns whether the file holds the records, each of which is (id, value): the vector is
    [id, value, 1] and the metadata {"v": value}.
    """

    arguments: tuple[str, ...]
    files: dict[str, Callable[[Path, Records], bool]]

    def command(self, path: str) -> list[str]:
        """Return the arguments for the database at `path`."""
        return [text.format(db=path, out=Path(path).parent) for text in self.arguments]

    def clear(self, folder: Path) -> None:
        """Remove what is complete, so that it can be written again."""
        for name in self.files:
            (folder / name).unlink(missing_ok=True)


def prepare(action: str, database: Path) -> dict[str, bytes]:
    """Make what an action reads, and return all of it, by name: it must stay as it is."""
    source = database
    if action == "repair":
        source = _damaged(database)
    elif action == "convert":
        source = database.with_name("legacy.iqdb")
        with Iqdb.open_existing(database, read_only=True, threads=1) as db:
            write_legacy(source, db.config, db.batches)
    elif action == "search":
        queries = database.with_name("queries.jsonl")
        queries.write_text("[0, 0, 1]\n")
        return prepare("export", database) | {queries.name: queries.read_bytes()}
    names = [source, source.with_name(source.name + ".wal")]
    return {path.name: path.read_bytes() for path in names if path.exists()}


def _damaged(database: Path) -> Path:
    """Copy a database and its log, and change a byte of the index, if that was built."""
    damaged = database.with_name("damaged.iqdb")
    data = bytearray(database.read_bytes())
    for name, section in Snapshot.from_buffer(bytearray(data)).sections.items():
        if name.startswith("ivf.") and section.entry.stored_bytes:
            data[section.entry.offset] ^= 1
            break
    damaged.write_bytes(data)
    log = database.with_name(database.name + ".wal")
    if log.exists():
        damaged.with_name("damaged.iqdb.wal").write_bytes(log.read_bytes())
    return damaged


def check_output(action: str, folder: Path, records: Records) -> bool:
    """Say whether all files of an action are there.

    Raises:
        AssertionError: one is there and not complete.
    """
    there = []
    for name, complete in OUTPUTS[action].files.items():
        path = folder / name
        there.append(path.exists())
        if path.exists():
            assert complete(path, records), f"half of {name}"
    return all(there)


def _lines(path: Path) -> list[Any]:
    text = path.read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def _is_jsonl(path: Path, records: Records) -> bool:
    return {line["id"]: line["vector"][1] for line in _lines(path)} == records


def _is_parquet(path: Path, records: Records) -> bool:
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    return {row["id"]: row["vector"][1] for row in rows} == records


def _is_npy(path: Path, records: Records) -> bool:
    return {int(row[0]): int(row[1]) for row in np.load(path)} == records


def _is_ids(path: Path, records: Records) -> bool:
    return set(np.load(path).tolist()) == set(records)


def _is_metadata(path: Path, records: Records) -> bool:
    return sorted(line["v"] for line in _lines(path)) == sorted(records.values())


def _is_one_search(path: Path, records: Records) -> bool:
    return {line["id"] for line in _lines(path)} == set(records)


def _is_legacy(path: Path, records: Records) -> bool:
    with Iqdb.open_existing(path, read_only=True, threads=1) as db:
        batches = [(batch.ids.to_list(), batch.vectors) for batch in db.batches()]
    return {i: int(row[1]) for ids, rows in batches for i, row in zip(ids, rows, strict=True)} == records


def _is_database(path: Path, records: Records) -> bool:
    return _is_legacy(path, records) and verify(path, threads=1).ok


def _is_demo(path: Path, _: Records) -> bool:
    with Iqdb.open_existing(path, read_only=True, threads=1) as db:
        return len(db) == DEMO_ROWS


OUTPUTS = {
    "export": Output(("export", "{db}", "-o", "{out}/out.jsonl", "--force"), {"out.jsonl": _is_jsonl}),
    "export parquet": Output(("export", "{db}", "-o", "{out}/out.parquet"), {"out.parquet": _is_parquet}),
    "export npy": Output(
        (
            *("export", "{db}", "-o", "{out}/v.npy"),
            *("--ids-out", "{out}/ids.npy", "--metadata-out", "{out}/m.jsonl"),
        ),
        {"v.npy": _is_npy, "ids.npy": _is_ids, "m.jsonl": _is_metadata},
    ),
    "export iqdb2": Output(
        ("export", "{db}", "--format", "iqdb2", "-o", "{out}/old.iqdb"), {"old.iqdb": _is_legacy}
    ),
    "search": Output(
        ("search", "{db}", "{out}/queries.jsonl", "--k", "60", "--exact", "-o", "{out}/hits.jsonl"),
        {"hits.jsonl": _is_one_search},
    ),
    "repair": Output(("repair", "{out}/damaged.iqdb", "-o", "{out}/new.iqdb"), {"new.iqdb": _is_database}),
    "convert": Output(("compact", "{out}/legacy.iqdb", "-o", "{out}/new.iqdb"), {"new.iqdb": _is_database}),
    "demo": Output(("demo", "{out}/demo.iqdb"), {"demo.iqdb": _is_demo}),
}
