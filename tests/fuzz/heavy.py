"""Small files that say much: what a reader must allocate for them is measured, and that it is bounded.

They are made here rather than kept, for most of them are large when they are no longer compressed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import damage_databases
import numpy as np
from mutators import LogModel

from iqdb_core import Compression, Iqdb, IqdbConfig
from iqdb_core.column_type import ColumnType
from iqdb_core.record_strings import CodedStrings
from iqdb_core.records import Column, Ids, MetadataColumns, RecordBatch, StringValues

_TEXT_BYTES = 4 << 20


class Heavy(NamedTuple):
    """One input; `columns` says how many pairs of key and type its metadata have."""

    name: str
    data: bytes
    columns: int


def heavy_inputs(target: str) -> Iterator[Heavy]:
    """Yield the heavy inputs of a target."""
    for made, columns in _MAKERS.get(target, {}).items():
        yield Heavy(f"heavy{made.__name__}", made(), columns)


def _database(metadata: list[Any], *, dim: int = 1, compression: str = "none") -> bytes:
    """Return the snapshot of records with vectors of zeros."""
    config = IqdbConfig(
        dim=dim, metric="euclidean", compression=Compression.parse(compression), fsync="never"
    )
    with tempfile.TemporaryDirectory(prefix="iqdb-fuzz-") as folder:
        path = Path(folder) / "a.iqdb"
        with Iqdb.create(path, config) as db:
            db.upsert_many(list(range(len(metadata))), np.zeros((len(metadata), dim), np.float32), metadata)
            db.compact()
        return path.read_bytes()


def _repeated_text() -> bytes:
    """A dictionary of two entries, and many rows that name them: 4 KiB each."""
    texts = ["a" * 4096, "b" * 4096]
    return _database([{"s": texts[i % 2]} for i in range(6144)])


def _zeros() -> bytes:
    """Vectors that zstd takes down to almost nothing."""
    return _database([None] * 8, dim=65536, compression="zstd:19")


def _wide_text() -> bytes:
    """A text of one character beyond the 16 bits among many that take one byte; zstd makes it small."""
    text = "x" * _TEXT_BYTES + "\U0001f600"
    return _database([{"s": text}], compression="zstd:19")


def _nulls() -> bytes:
    """Columns of nulls, of which the file holds no more than the names."""
    row = {f"k{i}": None for i in range(500)}
    return _database([row] * 2048)


def _sparse_bits() -> bytes:
    """Columns of bools in every second row: a bit for the row, and one for the value."""
    rows = [{f"k{i}": i % 3 == 0 for i in range(100)} if r % 2 else {} for r in range(4096)]
    return _database(rows)


def _columns() -> bytes:
    """One row with very many columns."""
    return _database([{f"{i:x}": i for i in range(2048)}])


def _log(write: Callable[[Iqdb], None]) -> bytes:
    """Return a log of what is written, behind the snapshot over which logs are read here."""
    small = damage_databases.with_log()
    with tempfile.TemporaryDirectory(prefix="iqdb-fuzz-") as folder:
        path = Path(folder) / "a.iqdb"
        config = damage_databases.config_of("flat", "none").with_fsync("never")
        with Iqdb.create(path, config) as db:
            write(db)
            model = LogModel.of(Path(f"{path}.wal").read_bytes())
    base = LogModel.of(small.images[damage_databases.LOG_PATH])
    assert model is not None
    assert base is not None
    return model.behind(base.header)


def _small_frames() -> bytes:
    """A log of many writes of one small record each."""

    def write(db: Iqdb) -> None:
        for i in range(4000):
            db.upsert(i, [1.0] * damage_databases.DIM, {"n": i})

    return _log(write)


def _texts(rows: int, text_bytes: int, first: int = 0) -> RecordBatch:
    """Return records each of which has one of two texts."""
    entries = StringValues.from_str(["a" * text_bytes, "b" * text_bytes])
    codes = np.arange(rows, dtype=np.uint32) % np.uint32(2)
    column = Column("name", ColumnType.STRING, None, CodedStrings(entries, codes))
    vectors = np.zeros((rows, damage_databases.DIM), np.float32)
    metadata = MetadataColumns(rows, None, (column,))
    return RecordBatch(Ids.from_list(list(range(first, first + rows))), vectors, metadata)


def _repeated_log() -> bytes:
    """One write whose records say almost all of the 256 MiB that a metadata group may."""
    return _log(lambda db: db.upsert_batch(_texts(16_000, 16_384)) and None)


def _repeated_writes() -> bytes:
    """Writes of so few records that they would wait as dicts, each with a dictionary of large texts."""

    def write(db: Iqdb) -> None:
        for i in range(12):
            db.upsert_batch(_texts(120, 1 << 17, 120 * i))

    return _log(write)


def _repeated_small_writes() -> bytes:
    """The same with smaller texts, which do wait as dicts until there are enough of them."""

    def write(db: Iqdb) -> None:
        for i in range(100):
            db.upsert_batch(_texts(120, 2000, 120 * i))

    return _log(write)


def _many_keys() -> bytes:
    """Lines of JSON that each bring keys of their own."""
    keys = [",".join(f'"{line:x}{i:x}":1' for i in range(400)) for line in range(40)]
    return b"".join(b'{"vector":[1,2],%s}\n' % text.encode() for text in keys)


_MAKERS: dict[str, dict[Callable[[], bytes], int]] = {
    "snapshot": {
        _repeated_text: 1,
        _zeros: 0,
        _wide_text: 1,
        _nulls: 500,
        _sparse_bits: 100,
        _columns: 2048,
    },
    "compact": {_repeated_text: 1, _wide_text: 1, _nulls: 500},
    "log": {_small_frames: 1, _repeated_log: 1, _repeated_writes: 1, _repeated_small_writes: 1},
    "jsonl": {_many_keys: 40 * 400},
}
