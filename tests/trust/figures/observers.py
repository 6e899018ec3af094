"""Readers in other processes, while one process writes and compacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import observers
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 35


def rows(run: Run) -> list[Row]:
    """Let readers look at everything again and again, and compare each look with what was acknowledged."""
    tally, failed = run.total(
        observers.run, [{"seed": run.seed, "seconds": 90 if run.long else 6, "readers": 3}]
    )
    if tally is None:
        return [Row("reader observations, anomalies", "see below", bad=True)]
    return [
        Row(
            "reader observations, anomalies",
            f"{tally.observations:,} ({tally.refreshes:,} by refresh) / {tally.anomalies}",
            bad=failed > 0 or tally.anomalies > 0,
        ),
        Row("versions written, compactions", f"{tally.versions:,} / {tally.compactions:,}"),
    ]
