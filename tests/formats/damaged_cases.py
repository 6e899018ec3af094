"""All damaged files. Written by generate_damaged, checked by test_damaged."""

from __future__ import annotations

from damaged_content import CONTENT
from damaged_kinds import BASES, Damaged
from damaged_logs import LOGS
from damaged_snapshots import BLOCKS, FILE, HEADER, TABLE

CASES = [*FILE, *HEADER, *TABLE, *BLOCKS, *CONTENT, *LOGS]
assert len({case.name for case in CASES}) == len(CASES)

__all__ = ["BASES", "CASES", "Damaged"]
