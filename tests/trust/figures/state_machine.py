"""Steps of machines that drive a handle against a dict, and what threads read meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 55


def machines(seed: int, examples: int) -> tuple[int, int, int]:
    """Run so many machines; return steps, crashes and observations by other threads."""
    import hypothesis
    from hypothesis.stateful import run_state_machine_as_test
    from state_machine import Machine, chosen_settings

    hypothesis.seed(seed)(Machine)
    before = Machine.steps, Machine.crashes, Machine.observations
    run_state_machine_as_test(Machine, settings=chosen_settings(examples, 50))
    return Machine.steps - before[0], Machine.crashes - before[1], Machine.observations - before[2]


def rows(run: Run) -> list[Row]:
    """Run machines."""
    # A long one in small parts, so that a failure does not end all of it.
    parts = 40 if run.long else run.jobs
    calls = [{"seed": 1000 * run.seed + i, "examples": 100 if run.long else 40} for i in range(parts)]
    results = run.parallel(machines, calls)
    steps, crashes, observations = map(sum, zip((0, 0, 0), *results, strict=True))
    failed = parts - len(results)
    return [
        Row("state-machine steps", f"{steps:,}"),
        Row("crashes among them", f"{crashes:,}"),
        Row("reads by other threads during writes", f"{observations:,}"),
        Row("deviations from the model", str(failed), bad=failed > 0),
    ]
