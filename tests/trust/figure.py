"""How a figure of trust is measured, and the rows of the table that it becomes.

A figure is a module in `figures/`: its docstring says what is measured, `POSITION` where its rows stand in
the table, and `rows(run)` measures and returns them. A module that is put there is found; nothing else
must know of it. What must hold is asserted by the code that measures, or a row is marked as bad.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "figures"


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: what was counted or measured, in a few words.
        figure: the number, with its unit; "not measured: REASON" where it cannot be had here.
        bad: the number is not what it must be: the run fails.
    """

    what: str
    figure: str
    bad: bool = False


def not_measured(what: str, reason: str) -> list[Row]:
    """Return the row of a figure that cannot be measured here; that is no failure."""
    return [Row(what, f"not measured: {reason}")]


class Run:
    """One run of the table.

    Attributes:
        long: try everything rather than a sample.
        seed: of the samples.
        jobs: processes to use.
        failures: what was found to be wrong, in full.
    """

    def __init__(self, *, long: bool, seed: int, jobs: int) -> None:
        self.long = long
        self.seed = seed
        self.jobs = jobs
        self.failures: list[str] = []
        self._pool: ProcessPoolExecutor | None = None

    def parallel(self, function: Callable[..., Any], calls: Iterable[dict[str, Any]]) -> list[Any]:
        """Call a function of a module with each of these arguments, in several processes.

        Returns:
            The results in order, without those of calls that raised; what they raised is in `failures`.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.jobs, get_context("spawn"))
        futures = [self._pool.submit(function, **arguments) for arguments in calls]
        results = []
        for future in futures:
            try:
                results.append(future.result())
            except Exception as error:  # noqa: BLE001 - one failure does not hide the others
                self.failures.append(f"{function.__module__}.{function.__name__}: {_told(error)}")
        return results

    def total(self, function: Callable[..., Any], calls: Iterable[dict[str, Any]]) -> tuple[Any, int]:
        """Like `parallel` for a function that returns a tally; return the sum (or None), and the failures."""
        calls = list(calls)
        results = self.parallel(function, calls)
        return (added(results) if results else None), len(calls) - len(results)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown()


def added(tallies: list[Any]) -> Any:
    """Add up dataclasses of numbers."""
    first = tallies[0]
    return type(first)(**{f.name: sum(getattr(tally, f.name) for tally in tallies) for f in fields(first)})


def run_tests(run: Run, *arguments: str) -> tuple[bool, str]:
    """Run tests of this project; return whether all passed, and what pytest printed.

    `arguments` are those of pytest: paths relative to the root of the project, and options.
    """
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        run.failures.append(f"pytest {' '.join(arguments)}:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return ended.returncode == 0, ended.stdout


def modules() -> dict[str, ModuleType]:
    """Return all figures by name, in the order of their rows."""
    names = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
    found = {name: importlib.import_module(f"figures.{name}") for name in names}
    return dict(sorted(found.items(), key=lambda item: (item[1].POSITION, item[0])))


def measured(name: str, module: ModuleType, run: Run) -> list[Row]:
    """Return the rows of one figure; an error becomes a row that is bad."""
    before = len(run.failures)
    try:
        rows: list[Row] = module.rows(run)
    except Exception as error:  # noqa: BLE001 - the other figures are measured all the same
        run.failures.append(f"{name}: {_told(error)}")
        rows = []
    if len(run.failures) > before and not any(row.bad for row in rows):
        rows.append(Row(f"failures of {name}", str(len(run.failures) - before), bad=True))
    return rows


def _told(error: BaseException) -> str:
    notes = "\n".join(getattr(error, "__notes__", []))
    if isinstance(error, AssertionError):
        return f"{error}\n{notes}"
    return f"{''.join(traceback.format_exception(error))}{notes}"


__all__ = ["Row", "Run", "added", "measured", "modules", "not_measured", "run_tests"]
