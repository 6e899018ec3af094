"""Damage to stored bytes: whatever changes, a reader gives a documented error or the undamaged answer.

Every state is a database whose files lie in memory, with one thing changed: a bit flipped, the file cut
short, two pieces exchanged. In each state the database is opened, searched by its index, exactly and with a
filter, asked for records, for its length and for all records, and verified. Each of these either raises an
error of iqdb's own or answers as if nothing had happened; everything else is a silent change.

One exception is documented (log format, section 9): damage in the last frame of a log looks like a torn
tail, and the database is then what it was before that frame. Such states are counted apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from damage_databases import DIM, FILTER, LOG_PATH, PATH, Small, contents
from memory_files import MemoryFiles

from iqdb_core import Iqdb
from iqdb_core.errors import PersistError
from iqdb_core.storage import layout, verify
from iqdb_core.storage.snapshot import Snapshot

QUERIES = ([1.0, 0.0, -1.0, 2.0, 0.5, 0.0, 0.0, 1.0], [-2.0] * DIM)
CELL_BYTES = 64
Answers = dict[str, Any]


class SilentChangeError(AssertionError):
    """A damaged database gave an answer that is neither an error nor the right one."""


@dataclass
class Tally:
    """What was tried and what came of it.

    Attributes:
        bits: bits flipped, each alone.
        padding_bits: of these, in padding, which no reader looks at; verify must.
        truncations, swaps: other states.
        refused: states in which something raised an error.
        unharmed: states in which every answer was right and verify found the damage.
        torn: states of a log whose end, cut or damaged, was taken for a torn tail.
        silent: silent changes.
        unseen: changed snapshots in which verify found nothing.
    """

    bits: int = 0
    padding_bits: int = 0
    truncations: int = 0
    swaps: int = 0
    refused: int = 0
    unharmed: int = 0
    torn: int = 0
    silent: int = 0
    unseen: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return the sum of two tallies."""
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def verified(files: MemoryFiles, level: verify.Level) -> verify.VerifyReport:
    """Verify the database, on this thread: starting others would take longer than all else."""
    return verify.verify_file(PATH, threads=1, level=level, files=files)


def answers(files: MemoryFiles, ids: list[Any]) -> Answers:
    """Ask the database everything; where it raises an error of its own, the error stands for the answer."""
    try:
        db = Iqdb.open_existing(PATH, read_only=True, files=files, threads=1)
    except PersistError as error:
        return {"open": error}
    asked: dict[str, Callable[[], Any]] = {
        "length": lambda: len(db),
        "search": lambda: [hits(db.search(query, 4)) for query in QUERIES],
        "exact": lambda: [hits(db.search(query, 4, exact=True)) for query in QUERIES],
        "filtered": lambda: hits(db.search(QUERIES[0], 4, filter=FILTER)),
        "get": lambda: [record(db, id_) for id_ in ids[:: len(ids) // 5]],
        "absent": lambda: db.get(999_999),
        "records": lambda: contents(db),
    }
    found: Answers = {}
    try:
        for name, ask in asked.items():
            try:
                found[name] = ask()
            except PersistError as error:
                found[name] = error
    finally:
        db.close()
    return found


def hits(found: Iterable[Any]) -> list[tuple[Any, float, Any]]:
    """Return hits as plain values."""
    return [(hit.id, hit.distance, hit.metadata) for hit in found]


def record(db: Iqdb, id_: Any) -> Any:
    """Return a record as plain values."""
    got = db.get(id_)
    return None if got is None else (got[0].tobytes(), got[1])


class Damaged:
    """One database, and what its answers must be.

    Checksums see every change there is, so verify need not look at more; another `level` lets it.
    """

    def __init__(self, small: Small, level: verify.Level = "checksums") -> None:
        self.small = small
        self.level = level
        self.images = {path: bytearray(image) for path, image in small.images.items()}
        self.files = MemoryFiles(self.images)
        self.right = answers(self.files, small.ids)
        assert not any(isinstance(answer, Exception) for answer in self.right.values()), self.right
        if small.states:
            assert self.right["records"] == small.states[-1]
        report = verified(self.files, self.level)
        assert report.ok, report.findings
        self.tally = Tally()
        self._by_frames: dict[int, Answers] = {}

    def _after_frames(self, frames: int) -> Answers:
        """Return the right answers when the log ends behind so many frames."""
        if frames in self._by_frames:
            return self._by_frames[frames]
        whole = MemoryFiles({path: bytearray(image) for path, image in self.small.images.items()})
        whole.sizes[LOG_PATH] = self.small.frame_ends[frames]
        found = answers(whole, self.small.ids)
        assert found["records"] == self.small.states[frames]
        self._by_frames[frames] = found
        return found

    def _torn_from(self, path: str, first: int, last: int) -> int | None:
        """Return how many frames are left when damage to these bytes of a log looks like a torn tail.

        It does when the last frame is damaged: then nothing says that what is before it had been settled.
        """
        if path != LOG_PATH or last < self.small.frame_ends[-2] or first < self.small.frame_ends[0]:
            return None
        return self._frames_before(first)

    def _frames_before(self, offset: int) -> int:
        return max((n for n, end in enumerate(self.small.frame_ends) if end <= offset), default=0)

    # --- Judging a state ----------------------------------------------------------------------------

    def judge(self, what: str, *, torn_from: int | None = None) -> None:
        """Ask the database as it is now, and count what it says.

        With `torn_from` it may also be what it was after so many frames.
        """
        found = answers(self.files, self.small.ids)
        wrong = self._wrong(found, self.right)
        torn = bool(wrong) and torn_from is not None and not self._wrong(found, self._after_frames(torn_from))
        if wrong and not torn:
            self.tally.silent += 1
            raise SilentChangeError(f"{self.small.name}: {what}: {wrong}")
        errors = [answer for answer in found.values() if isinstance(answer, Exception)]
        self.tally.torn += torn
        self.tally.refused += bool(errors)
        self.tally.unharmed += not errors and not torn
        try:
            seen = not (report := verified(self.files, self.level)).ok or any(
                "torn" in note for note in report.notes
            )
        except PersistError:
            seen = True
        if not seen:
            self.tally.unseen += 1
            raise SilentChangeError(f"{self.small.name}: {what}: verify finds nothing")

    @staticmethod
    def _wrong(found: Answers, right: Answers) -> str:
        """Return the first answer that is neither an error nor right."""
        for name, answer in found.items():
            if not isinstance(answer, Exception) and answer != right[name]:
                return f"{name} is {answer!r}, expected {right[name]!r}"
        return ""

    # --- Changing bytes -----------------------------------------------------------------------------

    def flip(self, path: str, offset: int, bit: int) -> None:
        """Judge the state in which one bit is another."""
        image = self.images[path]
        image[offset] ^= 1 << bit
        self.tally.bits += 1
        torn_from = self._torn_from(path, offset, offset)
        try:
            self.judge(f"{path}: bit {bit} of byte {offset} flipped", torn_from=torn_from)
        finally:
            image[offset] ^= 1 << bit

    def flip_part(self, name: str, step: int = 1) -> None:
        """Flip the bits of one part of the snapshot, or every `step`-th of them, one at a time.

        The part is "header", "checksums", "table" or a section.
        """
        snapshot = Snapshot.from_buffer(self.small.images[PATH])
        table = snapshot.header.section_table_offset
        first = next(iter(snapshot.sections.values())).entry.checksums_offset
        parts = {
            "header": (0, layout.HEADER_BYTES),
            "checksums": (first, table),
            "table": (table, len(self.images[PATH])),
            **{
                n: (s.entry.offset, s.entry.offset + s.entry.stored_bytes)
                for n, s in snapshot.sections.items()
            },
        }
        start, stop = parts[name]
        bits = [(at, bit) for at in self.meaning() if start <= at < stop for bit in range(8)]
        for offset, bit in bits[::step]:
            self.flip(PATH, offset, bit)

    def cut(self, path: str, size: int) -> None:
        """Judge the state in which a file is shorter."""
        self.tally.truncations += 1
        self.files.sizes[path] = size
        try:
            if path == PATH:
                self.judge(f"{path} cut to {size} bytes")
                return
            # A shorter log is a log (section 9): it must hold exactly the frames before the cut.
            frames = self._frames_before(size)
            found = answers(self.files, self.small.ids)["records"]
            if isinstance(found, Exception) or found != self.small.states[frames]:
                self.tally.silent += 1
                raise SilentChangeError(f"log cut to {size} bytes: {found!r}")
            self.tally.torn += 1
        finally:
            del self.files.sizes[path]

    def swap(self, path: str, first: int, second: int, size: int) -> None:
        """Judge the state in which two pieces have changed places, unless they are equal."""
        image = self.images[path]
        one, other = image[first : first + size], image[second : second + size]
        if len(other) < size:
            one = one[: len(other)]
        if one == other:
            return
        image[first : first + len(one)], image[second : second + len(other)] = other, one
        self.tally.swaps += 1
        torn_from = self._torn_from(path, first, second)
        try:
            what = f"{path}: {len(one)} bytes at {first} and {second} exchanged"
            self.judge(what, torn_from=torn_from)
        finally:
            image[first : first + len(one)], image[second : second + len(other)] = one, other

    # --- Padding ------------------------------------------------------------------------------------

    def fill_padding(self, fill: Callable[[int], bytes]) -> None:
        """Judge the state in which all padding holds something else at once."""
        saved = bytes(self.images[PATH])
        for start, stop in self.padding():
            self.images[PATH][start:stop] = fill(stop - start)
        try:
            self.judge("other bytes in all padding")
        finally:
            self.images[PATH][:] = saved

    def flip_padding(self, bits: Iterable[tuple[int, int]]) -> None:
        """Flip bits of the padding, and see that the part of verify that looks at it finds each."""
        image = self.images[PATH]
        file = self.files.open_read(PATH)
        verifier = verify.Verifier(file, self.files, "checksums", 1, None)
        header = verifier.read_header()
        assert header is not None
        entries = verifier.read_table(header)
        assert entries is not None
        for offset, bit in bits:
            image[offset] ^= 1 << bit
            verifier.report.findings.clear()
            verifier._padding(entries)
            image[offset] ^= 1 << bit
            self.tally.bits += 1
            self.tally.padding_bits += 1
            if verifier.report.ok:
                self.tally.unseen += 1
                raise SilentChangeError(f"{self.small.name}: padding at {offset}: verify finds nothing")
            self.tally.unharmed += 1

    # --- Where things are ---------------------------------------------------------------------------

    def padding(self) -> list[tuple[int, int]]:
        """Return the ranges of the snapshot that belong to nothing."""
        snapshot = Snapshot.from_buffer(self.small.images[PATH])
        entries = [section.entry for section in snapshot.sections.values()]
        ranges = []
        for entry in entries:
            end = entry.offset + entry.stored_bytes
            ranges.append((end, layout.padded(end)))
        end = 0
        for entry in entries:
            end = entry.checksums_offset + 4 * -(-entry.stored_bytes // layout.BLOCK_BYTES)
            ranges.append((end, layout.padded(end, 8)))
        ranges.append((layout.padded(end, 8), snapshot.header.section_table_offset))
        return [(start, stop) for start, stop in ranges if stop > start]

    def meaning(self) -> Iterator[int]:
        """Yield the offsets of all bytes of the snapshot but the padding."""
        start = 0
        for stop, next_start in [*self.padding(), (len(self.images[PATH]), 0)]:
            yield from range(start, stop)
            start = next_start

    def cells(self) -> list[int]:
        """Return where the 64-byte pieces begin that are not all padding or reserved."""
        image = self.images[PATH]
        starts = sorted({offset // CELL_BYTES * CELL_BYTES for offset in self.meaning()})
        return [start for start in starts if any(image[start : start + CELL_BYTES])]


# --- Everything that is done to one database ------------------------------------------------------


def run(
    small: Small,
    seed: int,
    *,
    share: int = 1,
    part: tuple[int, int] = (0, 1),
    level: verify.Level = "checksums",
) -> Tally:
    """Damage one database in every way; of each kind of state try one of `share`, evenly chosen.

    `part` is (number, count): of what is to be tried, take every count-th state from number on.
    """
    damaged = Damaged(small, level)
    rng = random.Random(seed)
    for name, states in states_of(damaged, rng).items():
        first = rng.randrange(share) if share > 1 else 0
        chosen = states[first::share][part[0] :: part[1]]
        if name == "padding":
            damaged.flip_padding(chosen)
            continue
        for state in chosen:
            getattr(damaged, name)(*state)
    return damaged.tally


def states_of(damaged: Damaged, rng: random.Random) -> dict[str, list[tuple[Any, ...]]]:
    """Return all states of a database, as arguments of the methods of `Damaged` that make them."""
    if LOG_PATH in damaged.images:
        size = len(damaged.images[LOG_PATH])
        return {
            "flip": [(LOG_PATH, offset, bit) for offset in range(size) for bit in range(8)],
            "cut": [(LOG_PATH, length) for length in range(size)],
            "swap": [(LOG_PATH, i, j, 8) for i in range(0, size, 8) for j in range(i + 8, size, 8)],
        }
    size = len(damaged.images[PATH])
    pages = range(0, size, layout.BLOCK_BYTES)
    cells = damaged.cells()
    padding = [offset for start, stop in damaged.padding() for offset in range(start, stop)]
    fills: list[Callable[[int], bytes]] = [lambda n: b"\xff" * n, *[rng.randbytes] * 7]
    return {
        "flip": [
            *((PATH, offset, bit) for offset in damaged.meaning() for bit in range(8)),
            # Of the padding so many go through everything; all of them go through `flip_padding`.
            *((PATH, offset, rng.randrange(8)) for offset in padding[:: 1 + len(padding) // 400]),
        ],
        "padding": [(offset, bit) for offset in padding for bit in range(8)],
        "fill_padding": [(fill,) for fill in fills],
        "cut": [(PATH, length) for length in range(size)],
        "swap": [
            *((PATH, i, j, layout.BLOCK_BYTES) for i in pages for j in pages if i < j),
            *((PATH, i, j, CELL_BYTES) for i in cells for j in cells if i < j),
            # Neighbours everywhere else: most of these pieces are padding, and equal.
            *((PATH, i, i + CELL_BYTES, CELL_BYTES) for i in range(0, size - CELL_BYTES, CELL_BYTES)),
        ],
    }
