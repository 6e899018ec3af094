"""Processes killed while they write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import kills
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 30


def rows(run: Run) -> list[Row]:
    """Kill processes at chosen operations and at random moments."""
    tally, lost = run.total(
        kills.run,
        [
            {
                "seed": run.seed + i,
                "random_kills": 160 if run.long else 40,
                "points": 40 if run.long else 4,
            }
            for i in range(run.jobs)
        ],
    )
    if tally is None:
        return []
    return [
        Row("kills", f"{tally.kills:,} in {tally.runs:,} runs, {tally.chosen:,} at chosen operations"),
        Row("acknowledged writes, lost", f"{tally.acknowledged:,} / {lost}", bad=lost > 0),
    ]
