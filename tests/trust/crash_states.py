"""The disk states that a crash may leave, from the trace of what was done.

**The model.** A disk holds files (a content and a mode each) and one directory (names of files). What was
done since is pending until it is synced:

* `sync` of a file makes everything durable that was done to *this file* before the sync began: writes,
  length, mode. It does nothing for its names, nor for other files.
* `sync_directory` makes everything durable that was done to names before it began.
* Nothing else orders anything. Of what is pending any part may have reached the disk, in any order:
  a later write without an earlier one, a rename without the creation before it, names without content
  and content without names.
* A write may be torn: 512-byte sectors (by their place in the file) are written or not. For the log it is
  torn at every byte as well. Where a write did not arrive, the old bytes stay; where the file was shorter,
  it either ends earlier or holds zeros (the length was updated, the data was not).
* A change of one name is atomic, with one exception: a rename may leave the old name behind as well.
* A `sync` that fails has written what it liked. The system takes the rest for written: no later sync
  writes it either, unless it is written to the file again. (So does Linux.)
* What is durable stays. Bytes that were never written read as zeros, never as remains of other files
  (every common file system sees to this). A sync that returned has done its work.

A killed process (and the system lives on) is the state in which all of it has arrived.

For each moment of a trace, before and after each operation and acknowledgement, the states are: all
pending work arrived; none of it; every prefix; all but one; only one; two in reverse order; one of them torn
or zeros, with all or none of what came after it; for each of these the file may also have its full length
already; all of it combined with what may have become of the other files (all or nothing) and of the names
(every subset of up to six changes; beyond that prefixes, all but one, only one). Combinations of two files
that are both half written are drawn at random. Equal states are tried once, with the strictest demand that
any moment makes on them.
"""

from __future__ import annotations

import random
from itertools import combinations, islice, pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from recorder import DATA_KINDS, EMPTY, NAME_KINDS, File, Image, Op

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SECTOR_BYTES = 512
_MAX_SUBSET_NAMES = 6
_RANDOM_COMBINATIONS = 4
_CUTS_OF_ZEROS = 4
# Of a long write to the log, this many bytes at each end are torn one by one, and what is between by sectors.
_EVERY_BYTE_OF = 1024
# The position of what a failed sync has given up: no sync comes after it.
_GIVEN_UP = 1 << 60

Content = tuple[bytes, int]
_Variant = TypeVar("_Variant")
Key = tuple[tuple[str, int, int, int], ...]


class CrashState(NamedTuple):
    """A disk after a crash, and what must be on it.

    Attributes:
        image: the disk.
        floor: the oldest version of the records that may be found.
        ceiling: the newest.
        lossless: everything that was done has arrived, as after a killed process.
        torn: the state was made by tearing a write.
    """

    image: Image
    floor: int
    ceiling: int
    lossless: bool
    torn: bool


class _Content:
    """Contents by number, so that states are compared and kept cheaply."""

    def __init__(self) -> None:
        self._numbers: dict[Content, int] = {}
        self._contents: list[Content] = []

    def number(self, content: Content) -> int:
        number = self._numbers.setdefault(content, len(self._contents))
        if number == len(self._contents):
            self._contents.append(content)
        return number

    def __getitem__(self, number: int) -> Content:
        return self._contents[number]


def _applied(durable: Content, ops: Iterable[Op]) -> Content:
    file = File(0, durable[0], durable[1])
    for op in ops:
        file.apply(op)
    return bytes(file.data), file.mode


def _cuts(op: Op, *, every_byte: bool) -> list[int]:
    end = op.offset + len(op.data)
    first = (op.offset // SECTOR_BYTES + 1) * SECTOR_BYTES
    cuts = [at - op.offset for at in range(first, end, SECTOR_BYTES)]
    if len(cuts) > _CUTS_OF_ZEROS and not any(op.data):
        # Room made in the log: wherever it is torn, what is there are zeros.
        return cuts[: _CUTS_OF_ZEROS // 2] + cuts[-_CUTS_OF_ZEROS // 2 :]
    if every_byte:
        size = len(op.data)
        inner = cuts if size > 2 * _EVERY_BYTE_OF else []
        cuts = sorted(
            {*inner, *range(1, min(size, _EVERY_BYTE_OF)), *range(max(1, size - _EVERY_BYTE_OF), size)}
        )
    return cuts


def _meet(one: Op, other: Op) -> bool:
    if one.kind != "write" or other.kind != "write":
        return True
    return one.offset < other.offset + len(other.data) and other.offset < one.offset + len(one.data)


def file_variants(durable: Content, pending: list[Op], *, every_byte: bool) -> Iterator[tuple[Content, bool]]:
    """Yield what a file may hold after a crash; the first is all, the second none of what is pending."""
    everything = _applied(durable, pending)
    yield everything, False
    yield durable, False
    yield from _with_length(durable, everything, torn=False)
    n = len(pending)
    plain: list[list[Op]] = [pending[:i] for i in range(1, n)]
    plain += [pending[:i] + pending[i + 1 :] for i in range(n)]
    plain += [[op] for op in pending]
    for i, j in combinations(range(n), 2):
        # What touches nothing else between the two gives the same content in any order.
        if any(_meet(pending[i], op) for op in pending[i + 1 : j + 1]) or any(
            _meet(op, pending[j]) for op in pending[i + 1 : j]
        ):
            swapped = list(pending)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            plain.append(swapped)
    for ops in plain:
        yield from _with_length(_applied(durable, ops), everything, torn=False)
    for i, op in enumerate(pending):
        if op.kind != "write":
            continue
        pieces = [op._replace(data=bytes(len(op.data)))] if op.offset + len(op.data) > len(durable[0]) else []
        cuts = _cuts(op, every_byte=every_byte)
        for cut in cuts:
            pieces.append(op._replace(data=op.data[:cut]))
            pieces.append(op._replace(offset=op.offset + cut, data=op.data[cut:]))
        pieces += [
            op._replace(offset=op.offset + a, data=op.data[a:b]) for a, b in pairwise(cuts) if b - a > 1
        ]
        for piece in pieces:
            for rest in ([], pending[i + 1 :]) if i + 1 < n else ([],):
                yield from _with_length(
                    _applied(durable, [*pending[:i], piece, *rest]), everything, torn=True
                )


def _with_length(content: Content, everything: Content, *, torn: bool) -> Iterator[tuple[Content, bool]]:
    yield content, torn
    missing = len(everything[0]) - len(content[0])
    if missing > 0:
        yield (content[0] + bytes(missing), content[1]), True


def _not_covered(given_up: list[Op], done: list[Op]) -> list[Op]:
    """Return what is left of writes that were given up once later ones have become durable."""
    pieces = [op for op in given_up if op.kind == "write"]
    for later in done:
        if later.kind == "chmod":
            continue
        start = later.offset
        stop = start + len(later.data) if later.kind == "write" else 1 << 62
        cut = []
        for op in pieces:
            end = op.offset + len(op.data)
            if op.offset < min(start, end):
                cut.append(op._replace(data=op.data[: max(0, min(end, start) - op.offset)]))
            if max(op.offset, stop) < end:
                cut.append(op._replace(offset=max(op.offset, stop), data=op.data[max(0, stop - op.offset) :]))
        pieces = cut
    return pieces


def _renamed(names: dict[str, int], ops: Iterable[tuple[Op, bool]]) -> dict[str, int]:
    """Apply changes of names; the flag of a rename says that it leaves the old name behind."""
    names = dict(names)
    for op, leaves in ops:
        if op.kind == "create":
            names[op.name] = op.inode
        elif op.kind == "unlink":
            names.pop(op.name, None)
        else:
            names[op.target] = op.inode
            if op.kind == "rename" and not leaves:
                names.pop(op.name, None)
    return names


def name_variants(durable: dict[str, int], pending: list[Op]) -> Iterator[dict[str, int]]:
    """Yield what the directory may hold; the first is all, the second none of what is pending."""
    plain = [(op, False) for op in pending]
    yield _renamed(durable, plain)
    yield dict(durable)
    n = len(plain)
    if n <= _MAX_SUBSET_NAMES:
        chosen = [list(ops) for size in range(1, n) for ops in combinations(plain, size)]
    else:
        chosen = [plain[:i] for i in range(1, n)] + [plain[:i] + plain[i + 1 :] for i in range(n)]
        chosen += [[op] for op in plain]
    for i, j in combinations(range(n), 2):
        swapped = list(plain)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        chosen.append(swapped)
    for i, op in enumerate(pending):
        if op.kind == "rename":
            left = [*plain[:i], (op, True), *plain[i + 1 :]]
            chosen += [left, left[: i + 1], [(op, True)]]
    for ops in chosen:
        yield _renamed(durable, ops)


def _nth(variants: Iterator[_Variant], n: int) -> _Variant:
    return next(islice(variants, n, None))


class Crashes:
    """All crash states of one trace.

    Attributes:
        moments: how many moments of the trace were looked at.
    """

    def __init__(
        self,
        trace: list[Op],
        start: Image = EMPTY,
        *,
        policy: str = "always",
        floor: int = 0,
        log_name: str = "",
        rng: random.Random,
        every_byte: bool = True,
        every: int = 1,
    ) -> None:
        """Prepare.

        Args:
            trace: what was done.
            start: the disk before it.
            policy: of the handle that wrote: always, periodic or never.
            floor: the version that `start` holds for sure.
            log_name: the name of the log.
            rng: draws combinations.
            every_byte: tear the log at every byte, not only at sectors.
            every: look at one moment in so many, drawn at random, and at the last.
        """
        self._trace = trace
        self._policy = policy
        self._rng = rng
        self._every_byte = every_byte
        self._every = every
        self._contents = _Content()
        self._durable = dict(start.files)
        self._names = dict(start.names)
        self._pending: dict[int, list[tuple[int, Op]]] = {}
        self._pending_names: list[tuple[int, Op]] = []
        self._log_name = log_name
        self._logs = {start.names[log_name]} if log_name in start.names else set()
        self._logs |= {op.inode for op in trace if op.kind == "create" and op.name == log_name}
        self._acked: list[tuple[int, int]] = []
        self._floor = floor
        self._ceiling = floor
        self._found: dict[Key, tuple[int, int, bool, bool]] = {}
        self._variants: dict[tuple[int, Content, tuple[int, ...]], list[tuple[int, bool]]] = {}
        self.moments = 0

    def states(self) -> list[CrashState]:
        """Return every distinct state, in the order in which they can occur."""
        self._collect()
        for position, op in enumerate(self._trace):
            self._take(position, op)
            if self._every == 1 or position == len(self._trace) - 1 or not self._rng.randrange(self._every):
                self._collect()
        return self._listed()

    def states_at(self, position: int) -> list[CrashState]:
        """Return the states after the first `position` entries of the trace."""
        for at, op in enumerate(self._trace[:position]):
            self._take(at, op)
        self._collect()
        return self._listed()

    def _listed(self) -> list[CrashState]:
        found = []
        for key, (floor, ceiling, lossless, torn) in self._found.items():
            names = {name: inode for name, inode, _, _ in key}
            files = {inode: self._contents[content] for _, inode, content, _ in key}
            found.append(CrashState(Image(names, files), floor, ceiling, lossless, torn))
        return found

    def final_extremes(self) -> list[Image]:
        """Return the disks after the whole trace on which all, or none, of what is pending arrived."""
        for position, op in enumerate(self._trace):
            self._take(position, op)
        images = []
        for base in (0, 1):
            names = _nth(name_variants(self._names, [op for _, op in self._pending_names]), base)
            files = {}
            for number in names.values():
                pending = [op for _, op in self._pending.get(number, [])]
                files[number], _ = _nth(file_variants(self._durable[number], pending, every_byte=False), base)
            images.append(Image(names, files))
        return images[:1] if images[0] == images[1] else images

    def _take(self, position: int, op: Op) -> None:
        if op.kind == "begin":
            self._ceiling = max(self._ceiling, op.value)
        elif op.kind == "refuse":
            self._ceiling = op.value
        elif op.kind == "ack":
            self._acked.append((position, op.value))
            if self._policy == "always" or op.durable:
                self._floor = max(self._floor, op.value)
        elif op.kind in DATA_KINDS:
            self._pending.setdefault(op.inode, []).append((position, op))
        elif op.kind in NAME_KINDS:
            self._pending_names.append((position, op))
            if op.kind == "create":
                # A new file has its mode and no content; durable by its name alone.
                self._durable.setdefault(op.inode, (b"", op.value))
        elif op.kind == "sync":
            waiting = self._pending.pop(op.inode, [])
            done = [pending for at, pending in waiting if at < op.upto]
            self._durable[op.inode] = _applied(self._durable[op.inode], done)
            left = [(at, pending) for at, pending in waiting if _GIVEN_UP > at >= op.upto]
            given_up = [pending for at, pending in waiting if at == _GIVEN_UP]
            left = [(_GIVEN_UP, piece) for piece in _not_covered(given_up, done)] + left
            if left:
                self._pending[op.inode] = left
            if op.inode in self._logs and self._policy == "periodic":
                for at, value in self._acked:
                    if at < op.upto:
                        self._floor = max(self._floor, value)
        elif op.kind == "sync_failed":
            waiting = self._pending.pop(op.inode, [])
            self._pending[op.inode] = [
                (_GIVEN_UP if at < op.upto else at, pending) for at, pending in waiting
            ]
        elif op.kind == "sync_directory":
            done = [(pending, False) for at, pending in self._pending_names if at < op.upto]
            self._names = _renamed(self._names, done)
            self._pending_names = [(at, p) for at, p in self._pending_names if at >= op.upto]

    def _file_variants(self, number: int) -> list[tuple[int, bool]]:
        durable = self._durable[number]
        pending = self._pending.get(number, [])
        key = (number, durable, tuple(at for at, _ in pending))
        found = self._variants.get(key)
        if found is None:
            seen: dict[int, bool] = {}
            order: list[int] = []
            every_byte = self._every_byte and number in self._logs
            variants = file_variants(durable, [op for _, op in pending], every_byte=every_byte)
            for content, torn in variants:
                index = self._contents.number(content)
                if len(order) < 2 or index not in seen:
                    order.append(index)
                seen[index] = seen.get(index, True) and torn
            found = self._variants[key] = [(index, seen[index]) for index in order]
        return found

    def _collect(self) -> None:
        self.moments += 1
        files = {number: self._file_variants(number) for number in self._durable}
        directories: list[dict[str, int]] = []
        for names in name_variants(self._names, [op for _, op in self._pending_names]):
            if names not in directories or len(directories) < 2:
                directories.append(names)
        for index, names in enumerate(directories):
            used = sorted(set(names.values()))
            for base in (0, 1):
                rest = {number: files[number][base] for number in used}
                self._add(names, rest, lossless=index == 0 and base == 0)
                for number in used:
                    for variant in files[number][2:]:
                        self._add(names, {**rest, number: variant})
            if sum(len(files[number]) > 2 for number in used) > 1:
                for _ in range(_RANDOM_COMBINATIONS):
                    self._add(names, {number: self._rng.choice(files[number]) for number in used})

    def _add(
        self, names: dict[str, int], chosen: dict[int, tuple[int, bool]], *, lossless: bool = False
    ) -> None:
        key: Key = tuple(
            (name, inode, chosen[inode][0], self._contents[chosen[inode][0]][1])
            for name, inode in sorted(names.items())
        )
        torn = any(is_torn for _, is_torn in chosen.values())
        # Whoever is killed, and the system lives on, has lost nothing that was written.
        floor = max((value for _, value in self._acked), default=self._floor) if lossless else self._floor
        known = self._found.get(key)
        if known is None:
            self._found[key] = (floor, self._ceiling, lossless, torn)
        else:
            self._found[key] = (
                max(known[0], floor),
                min(known[1], self._ceiling),
                known[2] or lossless,
                known[3] and torn,
            )
