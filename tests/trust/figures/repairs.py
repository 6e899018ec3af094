"""Damaged databases that were repaired, and what the account of the loss left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import repairs
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 70


def rows(run: Run) -> list[Row]:
    """Damage every part of small databases of every kind, repair them and compare with a model."""
    limit = None if run.long else 40
    tally, wrong = run.total(
        repairs.run, [{"name": name, "seed": run.seed, "limit": limit} for name in repairs.SHAPES]
    )
    if tally is None:
        return []
    return [
        Row("damaged databases repaired", f"{tally.cases:,} of {len(repairs.SHAPES)} shapes"),
        Row(
            "nothing lost / account of the loss exact / refused, for nothing can be proved",
            f"{tally.complete:,} / {tally.partial:,} / {tally.impossible:,}",
        ),
        Row("shapes with a record altered, invented or missing without a word", str(wrong), bad=wrong > 0),
    ]
