"""Crash states: disks that a power cut or a kill may leave, and what was found on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import crashes
import workloads
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 10

# Workload, policy, states in the short form, and in the long one, which tries all, those with a second crash.
HISTORIES = [
    ("life", "always", 300, 24),
    ("life", "periodic", 150, 10),
    ("life", "never", 100, 6),
    ("imported", "always", 150, 16),
    ("plain", "always", 100, 10),
    ("many_frames", "always", 150, 16),
    ("many_frames", "periodic", 100, 10),
    ("many_frames", "never", 50, 6),
    ("nothing_kept", "always", 100, 16),
    ("nothing_kept", "never", 150, 6),
    ("timer", "periodic", 100, 10),
    ("left_stale", "always", 200, 10),
    ("loaded_twice", "always", 200, 10),
    ("killed", "periodic", 100, 10),
    ("alike", "periodic", 60, 10),
    ("hnsw", "always", 200, 16),
    ("hnsw", "never", 60, 6),
    ("ivf", "always", 200, 16),
    ("ivf", "periodic", 60, 6),
    ("ivf_pq", "always", 200, 16),
    ("hnsw_imported", "always", 100, 10),
    ("ivf_pq_imported", "always", 100, 10),
]


def part(index: int, part: tuple[int, int], seed: int, *, long: bool) -> crashes.Tally:
    """Try a part of the crash states of one history."""
    name, policy, limit, doubles = HISTORIES[index]
    return crashes.run(
        getattr(workloads, name),
        policy,
        seed,
        limit=None if long else limit,
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
