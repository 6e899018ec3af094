"""Golden files, and by how many readers each is read."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from figure import ROOT, Row, run_tests

if TYPE_CHECKING:
    from figure import Run

POSITION = 68
GOLDEN = ROOT / "formats" / "golden"


def rows(run: Run) -> list[Row]:
    """Read every golden file by the program, an independent reader and the parser that Kaitai generates."""
    if not os.environ.get("NODE_PATH"):
        fetched = subprocess.run([ROOT / ".ci" / "kaitai"], capture_output=True, text=True, check=False)
        os.environ["NODE_PATH"] = fetched.stdout.strip()
    snapshots = len(list(GOLDEN.glob("*.iqdb")))
    logs = len(list(GOLDEN.glob("*.wal")))
    passed, printed = run_tests(
        run, "-rs", *(f"tests/formats/test_{name}.py" for name in ("golden", "kaitai", "big_endian"))
    )
    reason = re.search(r"^SKIPPED .*test_kaitai\.py:\d+: (.*)$", printed, re.MULTILINE)
    others = "not measured: " + reason[1] if reason else f"{snapshots} snapshots, {logs} logs"
    missing = re.search(r"^SKIPPED .*test_big_endian\.py:\d+: (.*)$", printed, re.MULTILINE)
    foreign = "not measured: " + missing[1] if missing else str(snapshots)
    return [
        Row("golden files of snapshot 3 and log 2", f"{snapshots} snapshots, {logs} logs", bad=not passed),
        Row("golden files read by the generated parser", others, bad=not passed),
        Row("golden snapshots whole on an emulated big-endian machine", foreign, bad=not passed),
    ]
