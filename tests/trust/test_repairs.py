"""What a repair keeps is what was there, and what it lost it says.

The program `repairs.py` beside this file tries every case.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import repairs

SEED = 5


@pytest.mark.parametrize("name", sorted(repairs.SHAPES))
def test_a_repair_accounts_for_every_record(name: str) -> None:
    tally = repairs.run(name, SEED, limit=9)
    assert tally.cases == 9
    assert tally.records_kept > 0


@pytest.mark.parametrize("name", ["flat", "log-texts"])
def test_every_kind_of_damage_is_among_the_cases(name: str, tmp_path: Path) -> None:
    subject = repairs.Subject(name, tmp_path)
    tried = {case.section for case in repairs.cases(subject, SEED)}
    assert {entry.name for entry in subject.sections} | {"header", "checksums", "table", "end"} <= tried
    assert ("log" in tried) == bool(subject.log)


def test_an_altered_record_would_be_noticed(tmp_path: Path) -> None:
    subject = repairs.Subject("flat-bare", tmp_path)
    record_id, vector, metadata = subject.rows[3]
    subject.rows[3] = record_id, vector[::-1], metadata
    with pytest.raises(AssertionError, match="was altered"):
        repairs.check(subject, repairs.Case("nothing", subject.image, b""), tmp_path)
    subject.rows[3] = 77_777, vector, metadata
    with pytest.raises(AssertionError, match="was invented"):
        repairs.check(subject, repairs.Case("nothing", subject.image, b""), tmp_path)
