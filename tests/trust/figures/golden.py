"""Golden files, and by how many readers each is read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from figure import Row

if TYPE_CHECKING:
    from figure import Run

POSITION = 68
ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "formats" / "golden"


def rows(run: Run) -> list[Row]:
    """Read every golden file by the program, an independent reader and the parser that Kaitai generates."""
    snapshots = len(list(GOLDEN.glob("*.iqdb")))
    logs = len(list(GOLDEN.glob("*.wal")))
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"),
            *("tests/formats/test_golden.py", "tests/formats/test_kaitai.py"),
            "tests/formats/test_big_endian.py",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = result.returncode != 0
    if failed:
        run.failures.append(result.stdout[-2000:])
    reason = re.search(r"^SKIPPED .*test_kaitai\.py:\d+: (.*)$", result.stdout, re.MULTILINE)
    others = "not measured: " + reason[1] if reason else f"{snapshots} snapshots, {logs} logs"
    missing = re.search(r"^SKIPPED .*test_big_endian\.py:\d+: (.*)$", result.stdout, re.MULTILINE)
    foreign = "not measured: " + missing[1] if missing else str(snapshots)
    return [
        Row("golden files of snapshot 3 and log 2", f"{snapshots} snapshots, {logs} logs", bad=failed),
        Row("golden files read by the generated parser", others, bad=failed),
        Row("golden snapshots whole on an emulated big-endian machine", foreign, bad=failed),
    ]
