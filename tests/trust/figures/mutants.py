"""Mistakes planted in the storage layer, and the part of the tests that noticed each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mutants
from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 65
PARTS = 12
"""Into so many pieces of work the long form is cut."""


def rows(run: Run) -> list[Row]:
    """Plant every mistake, or the quick ones, and run what judges them without any."""
    names = [name for name, mutant in mutants.MUTANTS.items() if run.long or mutant.quick]
    # Without a mistake these take long, and are what the figure of faults runs in any case.
    controls = [
        c for c in mutants.controls(names) if run.long or not c.startswith(('["fault"', '["power_cut"'))
    ]
    work = [*names, *controls]
    parts = PARTS if run.long else run.jobs
    found = [
        verdict
        for verdicts in run.parallel(mutants.judged, [{"names": work[i::parts]} for i in range(parts)])
        for verdict in verdicts
    ]
    judged = {verdict.name: verdict for verdict in found}
    equivalent = [name for name in names if mutants.MUTANTS[name].equivalent]
    noticed = [name for name in names if name in judged and judged[name].result == "noticed"]
    wrong = [name for name in names if (name in noticed) == (name in equivalent)]
    alarms = [name for name in controls if name not in judged or judged[name].result != "not noticed"]
    for name in (*wrong, *alarms):
        run.failures.append(f"mutants, {name}: {judged.get(name)}")
    return [
        Row("planted mistakes", f"{len(names)} of {len(mutants.MUTANTS)}"),
        Row("of them noticed", f"{len(noticed)} by {len(controls)} parts of the tests"),
        Row("of them without effect, with the reason", str(len(equivalent))),
        Row("of them not noticed", str(len(wrong)), bad=bool(wrong)),
        Row("alarms of the same parts where nothing was planted", str(len(alarms)), bad=bool(alarms)),
    ]
