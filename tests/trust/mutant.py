"""What a planted mistake is, and the places that the tables of them name."""

from __future__ import annotations

from typing import NamedTuple

from planting import Change

Judge = tuple[str | int, ...]


class Mutant(NamedTuple):
    """One mistake.

    Attributes:
        name: what is wrong, in words.
        changes: the changes of the source that make it so.
        judge: the part of the tests that must notice it, and its arguments; see `mutants.JUDGES`.
        equivalent: why nothing can notice it; empty: something must.
        quick: it is noticed within a second or two, and is in the short form too.
    """

    name: str
    changes: tuple[Change, ...]
    judge: Judge
    equivalent: str = ""
    quick: bool = False


def mutant(
    name: str,
    place: str,
    old: str,
    new: str,
    judge: Judge,
    *more: Change,
    equivalent: str = "",
    quick: bool = False,
) -> Mutant:
    """Return a mutant of one change, or of `more`."""
    return Mutant(name, (Change(place, old, new), *more), judge, equivalent, quick)


WAL = "iqdb_core.storage.wal:LogWriter."
FILES = "iqdb_core.storage.files:FileSystem."
SCAN = "iqdb_core.storage.log_scan:"
LIFE = ("crash", "life")
STALE = ("crash", "left_stale", "always", 200)
LOADED = ("crash", "loaded_twice", "always", 200)
FRAMES_PERIODIC = ("crash", "many_frames", "periodic", 50)

DAMAGED_FILES = ("tested", "tests/formats/test_damaged.py")
PRIVATE = (
    "tested",
    "tests/trust/test_crash_states.py::test_no_crash_leaves_a_copy_of_a_private_database_that_others_may_read",
)
