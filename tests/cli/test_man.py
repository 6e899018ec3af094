"""Manual pages: equal to --help, complete, and free of roff errors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "man").glob("*.[15]"))


def test_every_command_has_a_page_equal_to_its_help() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "man" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_there_is_a_page_for_the_program_and_one_for_the_format() -> None:
    assert {"iqdb.1", "iqdb-search.1", "iqdb.5"} <= {page.name for page in PAGES}


@pytest.mark.skipif(shutil.which("man") is None, reason="needs the man program")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_renders_without_warnings(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings=w", "-l", str(page)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
    )
    assert done.returncode == 0
    assert done.stderr == ""
    assert "NAME" in done.stdout
