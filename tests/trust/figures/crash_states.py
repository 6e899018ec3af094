"""Crash states: disks that a power cut or a kill may leave, and what was found on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import crashes
import workloads
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 10

# Workload, policy, states in the short form and in the long one (None: all), with a second crash.
HISTORIES = [
    ("life", "always", 300, 4000, 24),
    ("life", "periodic", 150, 1000, 10),
    ("life", "never", 100, 600, 6),
    ("imported", "always", 150, 2000, 16),
    ("plain", "always", 100, 1000, 10),
    ("many_frames", "always", 150, 2500, 16),
    ("many_frames", "periodic", 100, 1000, 10),
    ("many_frames", "never", 50, 400, 6),
    ("nothing_kept", "always", 100, None, 16),
    ("nothing_kept", "never", 150, 1000, 6),
    ("timer", "periodic", 100, None, 10),
    ("left_stale", "always", 200, 2000, 10),
    ("loaded_twice", "always", 200, 2000, 10),
    ("killed", "periodic", 100, 2000, 10),
    ("alike", "periodic", 60, 1000, 10),
    ("hnsw", "always", 200, 3000, 16),
    ("hnsw", "never", 60, 400, 6),
    ("ivf", "always", 200, 3000, 16),
    ("ivf", "periodic", 60, 1000, 6),
    ("ivf_pq", "always", 200, 3000, 16),
    ("hnsw_imported", "always", 100, 1500, 10),
    ("ivf_pq_imported", "always", 100, 1500, 10),
]


def part(index: int, part: tuple[int, int], seed: int, *, long: bool) -> crashes.Tally:
    """Try a part of the crash states of one history."""
    name, policy, short_limit, long_limit, doubles = HISTORIES[index]
    return crashes.run(
        getattr(workloads, name),
        policy,
        seed,
        limit=long_limit if long else short_limit,
        double_limit=doubles if long else 2,
        part=part,
        every=1 if long else 4,
    )


def rows(run: Run) -> list[Row]:
    """Try crash states of every history."""
    calls = [
        {"index": index, "part": (i, run.jobs), "seed": run.seed, "long": run.long}
        for index in range(len(HISTORIES))
        for i in range(run.jobs)
    ]
    tally, violations = run.total(part, calls)
    if tally is None:
        return []
    return [
        Row("moments of a crash", f"{tally.moments:,}"),
        Row("crash states tried", f"{tally.states:,} of {tally.distinct:,} different ones"),
        Row("crashes during recovery", f"{tally.double:,}"),
        Row("refused with an error, by a policy that never syncs", f"{tally.refused:,}"),
        Row("violations", str(violations), bad=violations > 0),
    ]
