"""Branch coverage of `iqdb_core/storage` by the tests of storage and of damaged files.

The gate asks for this figure: a branch of storage that no test takes is found there. What runs in other
processes does not count, nor do the tests of crashes, faults and kills, which take minutes and add a branch
or two.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from figure import Row, not_measured

if TYPE_CHECKING:
    from figure import Run

POSITION = 80
ROOT = Path(__file__).parents[3]
WHAT = "branch coverage of storage"
MINIMUM = 0.98
"""The least share of branches; below it the figure is bad, and the gate fails."""
TESTS = [
    "tests/core/storage",
    "tests/core/test_bulk.py",
    "tests/core/test_opening.py",
    "tests/core/test_plain_load.py",
    "tests/formats/test_dishonest.py",
    "tests/formats/test_damaged.py::test_a_damaged_file_gives_its_error_and_nothing_worse",
    "tests/formats/test_damaged.py::test_verification_of_a_damaged_file_finds_the_damage",
]
LONG_TESTS = ["tests/core", "tests/formats", "tests/legacy", "tests/trust"]


def rows(run: Run) -> list[Row]:
    """Run the tests under coverage."""
    if importlib.util.find_spec("coverage") is None:
        return not_measured(WHAT, "coverage is not installed")
    with tempfile.TemporaryDirectory() as folder:
        data, report = Path(folder, "data"), Path(folder, "report.json")
        # Not from the working directory: what counts is what is installed, with its compiled kernels.
        coverage = [sys.executable, "-P", "-m", "coverage"]
        measured = [*coverage, "run", "--branch", "--source", "iqdb_core.storage", "--data-file", str(data)]
        tests = subprocess.run(
            [*measured, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(LONG_TESTS if run.long else TESTS)],
            cwd=ROOT,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if not data.exists():
            run.failures.append(tests.stdout[-2000:] + tests.stderr[-2000:])
            return [Row(WHAT, "the tests did not run", bad=True)]
        subprocess.run(
            [*coverage, "json", "--data-file", str(data), "-o", str(report)],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        found = json.loads(report.read_text())
    if tests.returncode != 0:
        run.failures.append(tests.stdout[-2000:])
    row = judged(found["totals"])
    if row.bad:
        run.failures.append(f"{WHAT} is below {MINIMUM:.0%}; not taken: {missing(found['files'])}")
    return [row._replace(bad=row.bad or tests.returncode != 0)]


def judged(totals: dict[str, int]) -> Row:
    """Return the row for what coverage counted."""
    share = totals["covered_branches"] / max(1, totals["num_branches"])
    lines = totals["covered_lines"] / max(1, totals["num_statements"])
    branches = f"{totals['covered_branches']:,} of {totals['num_branches']:,} branches"
    return Row(WHAT, f"{share:.1%} ({branches}; {lines:.1%} of the lines)", bad=share < MINIMUM)


def missing(files: dict[str, dict[str, list[list[int]]]]) -> str:
    """Return which branches no test takes: a line, and the one that never follows it (negative: the end)."""
    return "; ".join(
        f"{Path(name).name} {', '.join(f'{a}->{b}' for a, b in file['missing_branches'])}"
        for name, file in sorted(files.items())
        if file["missing_branches"]
    )
