"""Writers and kernels that do something wrong on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sabotage
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 60


def rows(run: Run) -> list[Row]:
    """Let every case happen in every operation."""
    tally, unnoticed = run.total(sabotage.run, [{"part": (i, run.jobs)} for i in range(run.jobs)])
    if tally is None:
        return []
    return [
        Row("sabotage that happened", f"{tally.happened:,}"),
        Row("caught before the rename, without effect", f"{tally.caught} / {tally.harmless}"),
        Row("sabotage that was not noticed", str(unnoticed), bad=unnoticed > 0),
    ]
