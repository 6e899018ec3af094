"""The table of figures is complete, and a figure that is bad is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import figure
import pytest
from figure import Row

PROGRAM = Path(__file__).parent / "run.py"


def test_every_figure_says_what_it_is_and_where_it_stands() -> None:
    modules = figure.modules()
    assert {"crash_states", "faults", "kills", "sabotage"} <= set(modules)
    for name, module in modules.items():
        assert module.__doc__, name
        assert callable(module.rows), name
    assert len({module.POSITION for module in modules.values()}) == len(modules)


def test_the_command_names_the_figures() -> None:
    result = subprocess.run(
        [sys.executable, str(PROGRAM), "--help"], capture_output=True, text=True, check=True
    )
    for name in figure.modules():
        assert name in result.stdout


def fails(**arguments: Any) -> None:
    raise AssertionError(f"lost {arguments}")


def test_a_failure_is_counted_and_told_and_hides_no_other_figure() -> None:
    run = figure.Run(long=False, seed=1, jobs=1)

    def rows(run: figure.Run) -> list[Row]:
        tally, failed = run.total(fails, [{"index": 7}])
        assert tally is None
        return [Row("violations", str(failed), bad=failed > 0)]

    run._pool = SimpleNamespace(submit=lambda function, **a: _Future(function, a))  # type: ignore[assignment]
    found = figure.measured("example", SimpleNamespace(rows=rows), run)  # type: ignore[arg-type]
    assert found == [Row("violations", "1", bad=True)]
    assert "lost {'index': 7}" in run.failures[0]


class _Future:
    def __init__(self, function: Any, arguments: Any) -> None:
        self.result = lambda: function(**arguments)


def test_a_figure_that_cannot_be_measured_because_of_an_error_is_bad() -> None:
    def rows(_: figure.Run) -> list[Row]:
        raise ValueError("no such thing")

    run = figure.Run(long=False, seed=1, jobs=1)
    (row,) = figure.measured("example", SimpleNamespace(rows=rows), run)  # type: ignore[arg-type]
    assert row.bad
    assert "no such thing" in run.failures[0]


@pytest.mark.parametrize(("covered", "bad"), [(979, True), (980, False), (0, True)])
def test_too_little_coverage_is_bad(covered: int, *, bad: bool) -> None:
    coverage = figure.modules()["coverage"]
    counts = {"covered_lines": 50, "num_statements": 100, "covered_branches": covered, "num_branches": 1000}
    row = coverage.judged(counts)
    assert row.bad == bad
    assert f"{covered / 10:.1f}% ({covered} of 1,000 branches; 50.0% of the lines)" in row.figure
    files = {"a/x.py": {"missing_branches": [[3, 5], [4, -1]]}, "a/y.py": {"missing_branches": []}}
    assert coverage.missing(files) == "x.py 3->5, 4->-1"


def test_the_gate_asks_for_the_coverage() -> None:
    gate = (PROGRAM.parents[2] / ".ci" / "run").read_text()
    assert "tests/trust/run.py --figures coverage" in gate


@pytest.mark.parametrize("arguments", [["--figures", "nothing"], ["--seed", "x"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
