"""What a damaged file is described by, and the databases that are damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from golden_cases import BASE, UPSERT, Case, Operation, Row, mixed_ids, plain, words
from images import LogPart, SnapshotImage

Damage: TypeAlias = Callable[[SnapshotImage], None]
LogDamage: TypeAlias = Callable[[LogPart], None]


@dataclass(frozen=True)
class Damaged:
    """One damaged database.

    Attributes:
        name: of its files.
        says: what is wrong.
        error: the class of the error; "" when a reader need not notice.
        when: "open": opening fails. "read": opening works, and reading all records fails. "never": all
            records can be read, and only a verification finds it.
        strict: what a reader that checks everything calls it: a kind of independent_reader.FormatError.
        snapshot, log: what is done to the files.
        base: which database it is done to.
    """

    name: str
    says: str
    error: str
    when: str
    strict: str
    snapshot: Damage | None = None
    log: LogDamage | None = None
    base: str = "plain"


def numbered(n: int) -> list[Row]:
    return [(i, components, None) for i, (_, components, _) in enumerate(words(n, 64))]


LOG: list[Operation] = [UPSERT, ("delete", [30]), ("upsert", [(50, [5.0, 5.0], {"n": 50})]), ("delete", [50])]

BASES = {
    "plain": Case("damaged-plain", "", plain(3, 2)),
    "mixed": Case("damaged-mixed", "", mixed_ids()),
    "described": Case(
        "damaged-described",
        "",
        [
            (i, components, {"word": f"w{i % 3}", "n": i, "text": f"text {i}"} if i != 4 else None)
            for i, (_, components, _) in enumerate(mixed_ids())
        ],
    ),
    "wide": Case("damaged-wide", "", plain(4, 600)),
    "unordered": Case("damaged-unordered", "", plain(3, 2)[::-1]),
    "lz4": Case("damaged-lz4", "", numbered(30), compression="lz4"),
    "zstd": Case("damaged-zstd", "", numbered(30), compression="zstd:3"),
    "log": Case("damaged-log", "", BASE, LOG),
}
