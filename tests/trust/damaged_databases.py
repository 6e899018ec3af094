"""Small databases whose contents are known, and every way to damage them, for `repairs.py`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iqdb_core import FlatConfig, HnswConfig, Iqdb, IqdbConfig, IvfConfig
from iqdb_core.storage.layout import (
    FRAME_HEADER_BYTES,
    FRAME_MARKER,
    HEADER_BYTES,
    LOG_HEADER_BYTES,
    SectionEntry,
    decode_header,
    decode_section_table,
    padded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS, DIM = 1100, 8
BLOCK = 4096

SHAPES: dict[str, dict[str, Any]] = {
    "flat": {},
    "flat-order": {"ids": "shuffled"},
    "flat-texts": {"ids": "mixed"},
    "flat-bare": {"metadata": False},
    "flat-lz4": {"compression": "lz4", "ids": "mixed", "dim": 64},
    "flat-zstd": {"compression": "zstd:3", "dim": 64},
    "hnsw": {"index": HnswConfig(m=4, ef_construction=16)},
    "hnsw-zstd": {"index": HnswConfig(m=4, ef_construction=16), "compression": "zstd:3", "ids": "shuffled"},
    "ivf": {"index": IvfConfig(n_clusters=8)},
    "ivf-pq": {"index": IvfConfig(n_clusters=8, use_pq=True, pq_subvectors=4), "metric": "euclidean"},
    "log": {"log": True, "ids": "shuffled"},
    "log-texts": {"log": True, "ids": "mixed", "index": HnswConfig(m=4, ef_construction=16)},
}


class Frame(NamedTuple):
    """A frame of the log: where it is, and the model's change."""

    offset: int
    end: int
    upserts: list[tuple[Any, bytes, Any]]
    deletes: list[Any]


class Subject:
    """A database whose contents are known, to be damaged."""

    def __init__(self, name: str, folder: Path) -> None:
        shape = {"ids": "numbers", "metadata": True, "log": False, "compression": "none", **SHAPES[name]}
        self.name = name
        self.dim = dim = shape.get("dim", DIM)
        self.path = folder / f"{name}.iqdb"
        self.log_path = Path(f"{self.path}.wal")
        rng = np.random.default_rng(len(name))
        self.ids = _ids(shape["ids"], rng)
        vectors = rng.standard_normal((ROWS, dim)).astype(np.float32)
        metadata = [_metadata(row) if shape["metadata"] else None for row in range(ROWS)]
        config = IqdbConfig(
            dim=dim,
            metric=shape.get("metric", "cosine"),
            index=shape.get("index", FlatConfig()),
            compression=shape["compression"],
            database_id=bytes(range(7, 23)),
        )
        with Iqdb.create(self.path, config) as db:
            db.upsert_many(self.ids, vectors, metadata)
        self.rows = list(zip(self.ids, map(bytes, vectors), metadata, strict=True))
        self.frames: list[Frame] = []
        if shape["log"]:
            self._write_log(rng)
        self.image = self.path.read_bytes()
        self.log = self.log_path.read_bytes() if self.log_path.exists() else b""
        self.header = decode_header(self.image[:HEADER_BYTES])
        self.sections = decode_section_table(self.image[self.header.section_table_offset :])

    def _write_log(self, rng: np.random.Generator) -> None:
        db = Iqdb.open_existing(self.path)
        for number in range(12):
            # The file itself is longer: room is written ahead of the frames.
            before = max(db.info()["log_bytes"], LOG_HEADER_BYTES)
            upserts: list[tuple[Any, bytes, Any]] = []
            deletes: list[Any] = []
            if number % 4 == 3:
                deletes = [self.ids[(number * 17 + i) % ROWS] for i in range(3)] + [f"new-{number - 1}"]
                db.delete_many(deletes)
            else:
                chosen = [self.ids[(number * 31 + i) % ROWS] for i in range(4)] + [f"new-{number}", 10**6]
                if number % 4 == 0 and number:
                    # Deleted a frame ago: it has lost its place.
                    chosen.append(self.ids[(number - 1) * 17 % ROWS])
                vectors = rng.standard_normal((len(chosen), self.dim)).astype(np.float32)
                metadata = [None if i % 2 else {"frame": number} for i in range(len(chosen))]
                db.upsert_many(chosen, vectors, metadata)
                upserts = list(zip(chosen, map(bytes, vectors), metadata, strict=True))
            self.frames.append(Frame(before, db.info()["log_bytes"], upserts, deletes))
        db.close(compact=False)

    def expected(self, lost_frames: set[int]) -> dict[Any, tuple[bytes, Any]]:
        """Return what the database holds, in order, when some frames were never written."""
        state = {record_id: (vector, metadata) for record_id, vector, metadata in self.rows}
        for number, frame in enumerate(self.frames):
            if number in lost_frames:
                continue
            for record_id, vector, metadata in frame.upserts:
                state[record_id] = vector, metadata
            for record_id in frame.deletes:
                state.pop(record_id, None)
        return state

    # --- Which rows a changed byte belongs to -------------------------------------------------------

    def rows_of(self, name: str, start: int, stop: int) -> set[int] | None:
        """Return the rows to which blocks of a section belong, when that can be told from offsets alone."""
        entry = self.section(name)
        first = (start - entry.offset) // BLOCK * BLOCK
        last = min(padded(stop - entry.offset), entry.stored_bytes)
        if entry.codec:
            return None
        if name == "vectors":
            return set(range(first // (4 * self.dim), -(-last // (4 * self.dim))))
        if name == "ids":
            return set(range(first // 8, -(-last // 8)))
        return None

    def section(self, name: str) -> SectionEntry:
        """Return a section of the file."""
        return next(entry for entry in self.sections if entry.name == name)


def _ids(kind: str, rng: np.random.Generator) -> list[Any]:
    if kind == "numbers":
        return [3 * row + row % 3 for row in range(ROWS)]
    if kind == "shuffled":
        return [int(item) for item in rng.permutation(5 * ROWS)[:ROWS]]
    return [row if row % 3 == 0 else f"id-{row}" if row % 3 == 1 else b"id-%d" % row for row in range(ROWS)]


def _metadata(row: int) -> dict[str, Any] | None:
    if row % 11 == 5:
        return None
    found: dict[str, Any] = {"n": row, "kind": f"k{row % 5}", "text": f"text of row {row}"}
    if row % 3 == 0:
        found["x"] = row / 7
    return found


class Case(NamedTuple):
    """A damaged database: the bytes, and what is known of the damage."""

    what: str
    image: bytes
    log: bytes
    section: str = ""
    start: int = 0
    stop: int = 0
    lost_frames: frozenset[int] = frozenset()
    may_be_impossible: bool = False


def _spoiled(data: bytes, start: int, stop: int, way: str, rng: random.Random) -> bytes:
    out = bytearray(data)
    if way == "bit":
        at = rng.randrange(start, stop)
        out[at] ^= 1 << rng.randrange(8)
    elif way == "zeros":
        out[start:stop] = bytes(stop - start)
    else:
        out[start:stop] = rng.randbytes(stop - start)
    return bytes(out)


def snapshot_cases(subject: Subject, rng: random.Random) -> Iterator[Case]:
    """Yield a damage of each kind to each block of each section, and to everything between them."""
    image, log = subject.image, subject.log
    for entry in subject.sections:
        for start in range(entry.offset, entry.offset + entry.stored_bytes, BLOCK):
            stop = min(start + BLOCK, entry.offset + entry.stored_bytes)
            for way in ("bit", "zeros", "noise"):
                spoiled = _spoiled(image, start, stop, way, rng)
                if spoiled != image:
                    # What stands in one block may be what all records need: kinds, or where chunks begin.
                    last = stop == entry.offset + entry.stored_bytes
                    whole = entry.codec != 0 and (last or entry.raw_bytes <= entry.chunk_bytes)
                    whole = whole or entry.name == "ids.kinds"
                    yield Case(
                        f"{way} in {entry.name} at {start}",
                        spoiled,
                        log,
                        entry.name,
                        start,
                        stop,
                        may_be_impossible=whole,
                    )
    table = subject.header.section_table_offset
    area = subject.sections[0].checksums_offset
    for what, start, stop in (
        ("header", 0, HEADER_BYTES),
        ("checksums", area, table),
        ("table", table, len(image)),
    ):
        for size in (1, 8, 96, 512):
            for _ in range(6):
                at = rng.randrange(start, max(start + 1, stop - size))
                end = min(at + size, stop)
                for way in ("bit", "zeros", "noise"):
                    spoiled = _spoiled(image, at, end, way, rng)
                    if spoiled != image:
                        yield Case(f"{way} in {what}, {size} bytes at {at}", spoiled, log, what, at, end)
        for way in ("zeros", "noise"):
            yield Case(
                f"all of {what} {way}",
                _spoiled(image, start, stop, way, rng),
                log,
                what,
                start,
                stop,
                may_be_impossible=what != "table",
            )


def truncations(subject: Subject, rng: random.Random) -> Iterator[Case]:
    """Yield the file cut at every page, at every byte of its last entry, and somewhere."""
    size = len(subject.image)
    cuts = {*range(0, size, BLOCK), *range(size - 96, size, 7), *(rng.randrange(size) for _ in range(10))}
    for cut in sorted(cuts):
        yield Case(
            f"cut at {cut}", subject.image[:cut], subject.log, "end", cut, size, may_be_impossible=True
        )
    yield Case("longer", subject.image + b"more", subject.log, "end", size, size)


def log_cases(subject: Subject, rng: random.Random) -> Iterator[Case]:
    """Yield damage to every frame's header and body, to the log's header, and the log cut."""
    image, log = subject.image, subject.log
    last = len(subject.frames) - 1
    for number, frame in enumerate(subject.frames):
        for start, stop in (
            (frame.offset, frame.offset + FRAME_HEADER_BYTES),
            (frame.offset + FRAME_HEADER_BYTES, frame.end),
        ):
            for way in ("bit", "zeros", "noise"):
                spoiled = _spoiled(log, start, stop, way, rng)
                yield Case(
                    f"{way} in frame {number}", image, spoiled, "log", start, stop, frozenset({number})
                )
        if number < last:
            after = subject.frames[number + 1]
            parts = log[frame.offset : frame.end], log[after.offset : after.end]
            swapped = log[: frame.offset] + parts[1] + parts[0] + log[after.end :]
            yield Case(f"frames {number} and the next exchanged", image, swapped, "log")
            gone = log[: frame.offset] + log[frame.end :]
            yield Case(f"frame {number} removed", image, gone, "log", lost_frames=frozenset({number}))
        doubled = log[: frame.end] + log[frame.offset : frame.end] + log[frame.end :]
        yield Case(f"frame {number} doubled", image, doubled, "log")
    for cut in sorted({rng.randrange(LOG_HEADER_BYTES, len(log)) for _ in range(20)}):
        torn = frozenset(n for n, frame in enumerate(subject.frames) if frame.end > cut)
        yield Case(f"log cut at {cut}", image, log[:cut], "log", cut, len(log), torn)
    for way in ("bit", "zeros", "noise"):
        yield Case(f"{way} in the log's header", image, _spoiled(log, 0, LOG_HEADER_BYTES, way, rng), "log")
    assert log.count(FRAME_MARKER) >= len(subject.frames)


def cases(subject: Subject, seed: int) -> list[Case]:
    """Return every case for a database."""
    rng = random.Random(f"{subject.name} {seed}")
    found = [*snapshot_cases(subject, rng), *truncations(subject, rng)]
    if subject.log:
        found += log_cases(subject, rng)
    return found
