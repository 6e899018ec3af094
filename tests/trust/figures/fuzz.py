"""Fuzzing of everything that reads bytes from outside, and the memory and time that it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 42
ROOT = Path(__file__).parent.parent.parent.parent
PROGRAM = ROOT / "tests" / "fuzz" / "run.py"
CRASHES = ROOT / "build" / "fuzz" / "crashes"
"""Inputs that fail stay here, also those of the short form, whose other files go with a temporary folder."""
SHORT_MINUTES = 0.3
LONG_MINUTES = 20
# Building the harnesses of the kernels takes longer than all else in the short form, which leaves them out.
PYTHON = ("snapshot", "log", "filter", "jsonl", "parquet", "kernels")


def rows(run: Run) -> list[Row]:
    """Fuzz for some time: the decoders in the short form, the kernels too in the long one."""
    with tempfile.TemporaryDirectory(prefix="iqdb-fuzz-") as folder:
        figures = Path(folder) / "figures.json"
        command = [sys.executable, PROGRAM, "--json", figures, "--seed", run.seed, "--crashes", CRASHES]
        command += ["--minutes", LONG_MINUTES if run.long else SHORT_MINUTES]
        if not run.long:
            command += ["--work", folder, "--target", *PYTHON]
        ended = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, errors="replace"
        )
        if not figures.exists():
            raise AssertionError(ended.stderr[-4000:])
        done = json.loads(figures.read_text("utf-8"))
    if ended.returncode:
        run.failures.append(f"fuzz: {kept_of(done)}\n{ended.stderr[-4000:]}")
    return rows_of(done)


def kept_of(done: list[dict[str, Any]]) -> str:
    """Say where the inputs are that failed."""
    paths = [path for target in done for path in target["kept"]]
    return f"inputs that fail are kept: {', '.join(paths)}" if paths else "no input was kept"


def rows_of(done: list[dict[str, Any]]) -> list[Row]:
    """Return the rows for the figures of some targets."""
    crashes = sum(target["crashes"] for target in done)
    by = sorted({target["by"] for target in done})
    share = max(target["share_of_bound"] for target in done)
    return [
        Row("fuzz executions", f"{sum(target['executions'] for target in done):,} ({'; '.join(by)})"),
        Row("fuzz targets / inputs in the corpus", f"{len(done)} / {sum(t['corpus'] for t in done):,}"),
        Row("crashes, hangs, inputs beyond the memory bound", str(crashes), bad=crashes > 0),
        Row(
            "most memory for an input",
            f"{max(t['grown_mb'] for t in done):.1f} MiB, {share:.0%} of its bound",
        ),
        Row("slowest input", f"{max(target['slowest_seconds'] for target in done):.2f} s of a processor"),
    ]
