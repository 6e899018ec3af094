"""System calls that fail: each call of a workload, in each way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import crashes
import faults
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 20


def power_cuts(policy: str, kind: str, seed: int, *, long: bool) -> crashes.Tally:
    """Cut the power after a failed call and a reopening."""
    done = crashes.Tally()
    skip = 0
    while (tally := crashes.run_failed(kind, skip, policy, seed, limit=60 if long else 10)) is not None:
        done = done.plus(tally)
        skip += 1
    return done


def rows(run: Run) -> list[Row]:
    """Try faults, and power cuts behind them."""
    parts = [
        {"seed": run.seed, "share": 1 if run.long else 8, "part": (i, run.jobs)} for i in range(run.jobs)
    ]
    tally, lost = run.total(faults.run, parts)
    cases = [
        {"policy": policy, "kind": kind, "seed": run.seed, "long": run.long}
        for policy in ("always", "periodic")
        for kind in ("sync", "write")
    ]
    cuts, lost_by_cuts = run.total(power_cuts, cases)
    if tally is None or cuts is None:
        return []
    return [
        Row("fault points tried", f"{tally.points:,} of {tally.of:,}"),
        Row("handle poisoned, or went on unharmed", f"{tally.poisoned:,} / {tally.went_on:,}"),
        Row("power cuts after a fault and a reopening", f"{cuts.states:,}"),
        Row(
            "faults that lost or invented something",
            str(lost + lost_by_cuts),
            bad=lost + lost_by_cuts > 0,
        ),
    ]
