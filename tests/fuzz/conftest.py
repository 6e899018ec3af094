"""Lets the tests here import the programs beside them, and those that damage and read files."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
for _folder in (HERE, HERE.parent / "trust"):
    sys.path.insert(0, str(_folder))
