"""Damaged files: every bit flipped, every truncation, every pair of pieces exchanged."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

import damage
import damage_databases
import damage_lazy
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 40

SMALL = [
    (index, compression)
    for index in damage_databases.INDEXES
    for compression in damage_databases.COMPRESSIONS
]
PARTS = 8
"""Into so many pieces of work each database is cut."""
HANG_SECONDS = 1200
"""A piece of work that takes longer has met a hang."""


def part(case: int, number: int, seed: int, *, share: int) -> damage.Tally:
    """Try a part of the states of one database; the one behind the last of `SMALL` has a log."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        small = damage_databases.small(*SMALL[case]) if case < len(SMALL) else damage_databases.with_log()
        return damage.run(small, seed, share=share, part=(number, PARTS))
    finally:
        faulthandler.cancel_dump_traceback_later()


def lazy(case: int, seed: int, flips: int) -> damage_lazy.LazyTally:
    """Try damage to one large file."""
    return damage_lazy.run(*damage_lazy.CASES[case], seed, flips)


def rows(run: Run) -> list[Row]:
    """Damage small files in every way, and large ones here and there."""
    share = 1 if run.long else 400
    cases = [
        {"case": case, "number": number, "seed": run.seed, "share": share}
        for case in range(len(SMALL) + 1)
        for number in range(PARTS)
    ]
    tally, silent = run.total(part, cases)
    flips = 1000 if run.long else 40
    large, silent_large = run.total(
        lazy, [{"case": case, "seed": run.seed, "flips": flips} for case in range(len(damage_lazy.CASES))]
    )
    if tally is None or large is None:
        return []
    return [
        Row(
            "damage: bits flipped / truncations / swaps",
            f"{tally.bits:,} ({tally.padding_bits:,} in padding) / {tally.truncations:,} / {tally.swaps:,}",
        ),
        Row(
            "refused with an error / right all the same / end of a log taken for torn",
            f"{tally.refused:,} / {tally.unharmed:,} / {tally.torn:,}",
        ),
        Row(
            "large files: bits flipped / answers / of them refused",
            f"{large.flips:,} / {large.answers:,} / {large.refused:,}",
        ),
        Row("silent changes", str(silent + silent_large), bad=silent + silent_large > 0),
    ]
