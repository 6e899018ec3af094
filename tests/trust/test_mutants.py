"""Mistakes in the storage layer are noticed: a sample of what `run.py --figures mutants --long` plants."""

from __future__ import annotations

import mutants
import planting
import pytest
from mutant import mutant
from planting import Change, RottenError

from iqdb_core.storage.layout import padded

# One of each family that is noticed within moments.
SAMPLE = (
    "what was not settled is not written once more",
    "a stale log is removed before the rename is durable",
    "any bad frame is taken for a torn tail",
    "a frame that failed is not taken back",
    "a poisoned handle goes on",
    "the digest is not compared before the rename",
    "a block's checksum is not compared",
    "verify skips a section",
    "repair does not say which records are lost",
)
ROUNDS = Change("iqdb_core.storage.layout:padded", "return", "return 1 |")


def test_every_mistake_can_still_be_planted() -> None:
    for planned in mutants.MUTANTS.values():
        assert planting.changed_code(planned.changes), planned.name
    assert len(mutants.MUTANTS) == len(mutants.TABLE), "two have one name"


def test_a_sample_of_mistakes_is_noticed_and_their_absence_is_not() -> None:
    controls = mutants.controls(SAMPLE[5:])
    found = {verdict.name: verdict for verdict in mutants.judged([*SAMPLE, *controls])}
    assert {name: found[name].result for name in SAMPLE} == dict.fromkeys(SAMPLE, "noticed"), found
    assert [found[name].result for name in controls] == ["not noticed"] * len(controls), found


def test_a_change_of_the_source_is_there_for_the_block_alone() -> None:
    with planting.planted([ROUNDS]):
        assert padded(8, 8) == 9
    assert padded(8, 8) == 8


@pytest.mark.parametrize("old", ["there is no such text", "size"])
def test_a_change_whose_text_is_gone_or_ambiguous_is_refused(old: str) -> None:
    with pytest.raises(RottenError, match="times"), planting.planted([ROUNDS._replace(old=old)]):
        pass


def test_a_change_of_a_function_that_is_gone_is_refused() -> None:
    with pytest.raises(RottenError, match="0 definitions"):
        planting.changed_code([ROUNDS._replace(place="iqdb_core.storage.layout:nothing")])


def test_a_mutant_that_only_breaks_the_code_does_not_count_as_noticed() -> None:
    judge = ("sabotaged", "", "compact")
    broken = mutant(
        "a name that nobody knows", "iqdb_core.fold:fold", "store.check_writable()", "nobody()", judge
    )
    assert mutants.verdict_on(broken)[0] == "broken"
    harmless = mutant("nothing", "iqdb_core.fold:fold", "store.check_writable()", "pass", judge)
    assert mutants.verdict_on(harmless) == ("not noticed", "")
