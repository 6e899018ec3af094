"""Branch coverage of `iqdb_core/storage` by the tests of storage, formats and trust."""

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
TESTS = [
    "tests/core/storage",
    "tests/core/test_fold.py",
    "tests/core/test_bulk.py",
    "tests/formats",
    "tests/trust",
]


def rows(run: Run) -> list[Row]:
    """Run the tests under coverage; what runs in other processes does not count."""
    if importlib.util.find_spec("coverage") is None:
        return not_measured(WHAT, "coverage is not installed")
    with tempfile.TemporaryDirectory() as folder:
        data, report = Path(folder, "data"), Path(folder, "report.json")
        coverage = [sys.executable, "-m", "coverage"]
        measured = [*coverage, "run", "--branch", "--source", "iqdb_core.storage", "--data-file", str(data)]
        chosen = TESTS if run.long else TESTS[:-1]
        tests = subprocess.run(
            [*measured, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *chosen],
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
        totals = json.loads(report.read_text())["totals"]
    branches = f"{totals['covered_branches']:,} of {totals['num_branches']:,} branches"
    share = totals["covered_branches"] / totals["num_branches"]
    failed = tests.returncode != 0
    if failed:
        run.failures.append(tests.stdout[-2000:])
    lines = totals["covered_lines"] / totals["num_statements"]
    return [Row(WHAT, f"{share:.1%} ({branches}; {lines:.1%} of the lines)", bad=failed)]
