"""Every bit flipped, every truncation, every swap; `run.py --long` does this too.

    python tests/trust/run_damage.py [--long] [--seed N] [--jobs N]

The short form tries one state of 200, the long one all of them, which takes about an hour of one core. It
ends with status 1 when something changed in silence.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import damage
import damage_databases
import damage_lazy

SMALL = [
    (index, compression)
    for index in damage_databases.INDEXES
    for compression in damage_databases.COMPRESSIONS
]
PARTS = 8
"""Into so many pieces of work each database is cut."""
HANG_SECONDS = 1200
"""A piece of work that takes longer has met a hang."""


def damage_part(case: int, part: int, seed: int, *, share: int) -> damage.Tally:
    """Try a part of the states of one database; the one behind the last of `SMALL` has a log."""
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    try:
        small = damage_databases.small(*SMALL[case]) if case < len(SMALL) else damage_databases.with_log()
        return damage.run(small, seed, share=share, part=(part, PARTS))
    finally:
        faulthandler.cancel_dump_traceback_later()


def lazy_part(case: int, seed: int, flips: int) -> damage_lazy.LazyTally:
    """Try damage to one large file."""
    return damage_lazy.run(*damage_lazy.CASES[case], seed, flips)


def run(
    pool: ProcessPoolExecutor, seed: int, *, long: bool
) -> tuple[damage.Tally, damage_lazy.LazyTally, list[str]]:
    """Do all of it in a pool; return what was tried and what failed."""
    share = 1 if long else 200
    parts = [
        pool.submit(damage_part, case, part, seed, share=share)
        for case in range(len(SMALL) + 1)
        for part in range(PARTS)
    ]
    lazy = [
        pool.submit(lazy_part, case, seed, 1000 if long else 40) for case in range(len(damage_lazy.CASES))
    ]
    tally, lazy_tally, failures = damage.Tally(), damage_lazy.LazyTally(), []
    for future in parts:
        try:
            tally = tally.plus(future.result())
        except AssertionError as error:
            failures.append(f"damage: {error}")
            tally.silent += 1
    for other in lazy:
        try:
            lazy_tally = lazy_tally.plus(other.result())
        except AssertionError as error:
            failures.append(f"damage: {error}")
            lazy_tally.silent += 1
    return tally, lazy_tally, failures


def rows(tally: damage.Tally, lazy: damage_lazy.LazyTally) -> list[tuple[str, object]]:
    """Return the lines of the table."""
    return [
        (
            "damage: bits flipped, of them in padding / truncations / swaps",
            f"{tally.bits:,}, {tally.padding_bits:,} / {tally.truncations:,} / {tally.swaps:,}",
        ),
        (
            "  refused with an error / right all the same / end of a log taken for torn",
            f"{tally.refused:,} / {tally.unharmed:,} / {tally.torn:,}",
        ),
        ("  silent changes", tally.silent),
        ("  changed snapshots in which verify found nothing", tally.unseen),
        (
            "damage to large files: bits flipped, answers, of them refused, silent changes",
            f"{lazy.flips:,}, {lazy.answers:,}, {lazy.refused:,}, {lazy.silent}",
        ),
    ]


def main() -> int:
    """Run it, print what was tried, and return the status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", action="store_true", help="try all of it")
    parser.add_argument("--seed", type=int, default=1, help="of the samples (default: 1)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: the cores)"
    )
    options = parser.parse_args()
    started = time.monotonic()
    with ProcessPoolExecutor(max(1, options.jobs), get_context("spawn")) as pool:
        tally, lazy, failures = run(pool, options.seed, long=options.long)
    for what, figure in rows(tally, lazy):
        print(f"{what.strip()}: {figure}")
    print(
        f"bits flipped {tally.bits + lazy.flips}, truncations {tally.truncations}, swaps {tally.swaps}, "
        f"silent changes {tally.silent + lazy.silent}"
    )
    print(f"{time.monotonic() - started:.0f} s, {options.jobs} processes")
    for failure in failures:
        print(f"FAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
