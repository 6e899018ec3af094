"""The files of iqdb 1.x: the ways in which it loses data, and the golden files that it wrote."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from figure import ROOT, Row, run_tests

if TYPE_CHECKING:
    from figure import Run

POSITION = 69
WAYS = 23
GOLDEN = ROOT / "formats" / "golden-1x"


def rows(run: Run) -> list[Row]:
    """Run the named test of each way to lose data, and read every golden file of formats 1 and 2."""
    module = "tests/legacy/test_ways_to_lose_data.py"
    passed, printed = run_tests(run, "-vv", module)
    kept = set(re.findall(rf"^{re.escape(module)}::test_way_(\d\d)\S* PASSED", printed, re.MULTILINE))
    kept -= set(re.findall(rf"^{re.escape(module)}::test_way_(\d\d)\S* (?!PASSED)", printed, re.MULTILINE))
    read, _ = run_tests(run, "tests/legacy/test_golden_files.py")
    databases = len(list(GOLDEN.glob("*.json")))
    return [
        Row(
            "ways in which 1.x loses data, none of which happens here",
            f"{len(kept)} of {WAYS}",
            bad=not passed or len(kept) != WAYS,
        ),
        Row("golden databases of 1.x, formats 1 and 2", str(databases), bad=not read),
    ]
