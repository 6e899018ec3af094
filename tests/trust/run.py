"""Everything that makes trust measurable, in one table.

    python tests/trust/run.py [--long] [--seed N] [--jobs N]

The short form takes some minutes on two cores, the long one the better part of an hour, most of it for
damage. It ends with status 1 when anything was lost. The same code runs, with fewer cases, in the tests
beside this file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import crashes
import faults
import kills
import run_damage
import sabotage
import workloads

# Workload, policy, states in the short form and in the long one (None: all), with a second crash.
HISTORIES = [
    ("life", "always", 300, 4000, 24),
    ("life", "periodic", 150, 1000, 10),
    ("life", "never", 100, 600, 6),
    ("imported", "always", 150, 2000, 16),
    ("many_frames", "always", 150, 2500, 16),
    ("many_frames", "periodic", 100, 1000, 10),
    ("many_frames", "never", 50, 400, 6),
    ("nothing_kept", "always", 100, None, 16),
    ("timer", "periodic", 100, None, 10),
]


def crash_part(index: int, part: tuple[int, int], seed: int, *, long: bool) -> crashes.Tally:
    """Try a part of the crash states of one history."""
    name, policy, short_limit, long_limit, doubles = HISTORIES[index]
    return crashes.run(
        getattr(workloads, name),
        policy,
        seed,
        limit=long_limit if long else short_limit,
        double_limit=doubles if long else 2,
        part=part,
    )


def power_cuts(policy: str, kind: str, seed: int, *, long: bool) -> crashes.Tally:
    """Cut the power after a failed call and a reopening."""
    done = crashes.Tally()
    skip = 0
    while (tally := crashes.run_failed(kind, skip, policy, seed, limit=60 if long else 10)) is not None:
        done = done.plus(tally)
        skip += 1
    return done


def kill_part(seed: int, *, long: bool) -> kills.KillTally:
    """Kill some processes."""
    return kills.run(seed, random_kills=160 if long else 40, points=40 if long else 4)


def total(results: list[Any]) -> Any:
    """Add tallies up."""
    first = results[0]
    return type(first)(**{f.name: sum(getattr(result, f.name) for result in results) for f in fields(first)})


def main() -> int:
    """Run everything, print the table, and return the status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", action="store_true", help="try all of it")
    parser.add_argument("--seed", type=int, default=1, help="of the samples (default: 1)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: the cores)"
    )
    options = parser.parse_args()
    long, seed = options.long, options.seed
    jobs = max(1, options.jobs)

    work: dict[str, list[Future[Any]]] = {}
    started = time.monotonic()
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        work["crashes"] = [
            pool.submit(crash_part, index, (part, jobs), seed, long=long)
            for index in range(len(HISTORIES))
            for part in range(jobs)
        ]
        work["faults"] = [
            pool.submit(faults.run, seed=seed, share=1 if long else 8, part=(part, jobs))
            for part in range(jobs)
        ]
        work["cuts"] = [
            pool.submit(power_cuts, policy, kind, seed, long=long)
            for policy in ("always", "periodic")
            for kind in ("sync", "write")
        ]
        work["kills"] = [pool.submit(kill_part, seed + part, long=long) for part in range(jobs)]
        work["sabotage"] = [pool.submit(sabotage.run)]
        failures = []
        tallies: dict[str, Any] = {}
        for what, futures in work.items():
            done = []
            for future in futures:
                try:
                    done.append(future.result())
                except AssertionError as error:
                    failures.append(f"{what}: {error}\n" + "\n".join(getattr(error, "__notes__", [])))
            if done:
                tallies[what] = total(done)
        damaged, damaged_large, silent = run_damage.run(pool, seed, long=long)
        failures += silent
    seconds = time.monotonic() - started

    cuts = tallies["cuts"]
    crash, fault = tallies["crashes"], tallies["faults"]
    kill, sabotaged = tallies["kills"], tallies["sabotage"]
    rows = [
        ("moments of a crash", crash.moments),
        ("crash states tried", f"{crash.states:,} of {crash.distinct:,} different ones"),
        ("crashes during recovery", f"{crash.double:,}"),
        ("refused with an error, by a policy that never syncs", f"{crash.refused:,}"),
        ("violations", sum(failure.startswith("crashes") for failure in failures)),
        ("fault points tried", f"{fault.points:,} of {fault.of:,}"),
        ("  handle poisoned, or went on unharmed", f"{fault.poisoned:,} / {fault.went_on:,}"),
        ("  power cuts after a fault and a reopening", f"{cuts.states:,}"),
        ("  faults that lost or invented something", sum(f.startswith(("faults", "cuts")) for f in failures)),
        ("kills", f"{kill.kills:,} in {kill.runs:,} runs, {kill.chosen:,} at chosen operations"),
        ("  acknowledged writes, lost", f"{kill.acknowledged:,} / {kill.lost}"),
        ("sabotage that happened", sabotaged.happened),
        ("  caught before the rename, without effect", f"{sabotaged.caught} / {sabotaged.harmless}"),
        *run_damage.rows(damaged, damaged_large),
    ]
    print(f"| what | {'long' if long else 'short'} form, seed {seed} |\n|---|---|")
    for what, figure in rows:
        print(f"| {what.strip()} | {figure} |")
    print(f"\n{seconds:.0f} s, {jobs} processes")
    for failure in failures:
        print(f"\nFAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
