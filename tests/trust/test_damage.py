"""A sample of what `run.py --figures damage --long` does in full: an error or the undamaged answer."""

from __future__ import annotations

from typing import Any

import damage
import damage_databases
import damage_lazy
import pytest

from iqdb_core.storage import section

CASES = [
    (index, compression)
    for index in damage_databases.INDEXES
    for compression in damage_databases.COMPRESSIONS
]


@pytest.mark.parametrize(("index", "compression"), CASES)
def test_no_damage_to_a_snapshot_changes_an_answer_in_silence(index: str, compression: str) -> None:
    tally = damage.run(damage_databases.small(index, compression), seed=1, share=700, level="structure")

    assert tally.bits > 400
    assert tally.truncations > 50
    assert tally.swaps
    assert (tally.silent, tally.unseen) == (0, 0)
    assert tally.refused > 100


@pytest.mark.parametrize(("part", "step"), [("header", 29), ("checksums", 1), ("table", 11), ("ids", 7)])
def test_no_bit_of_what_everything_is_found_through_changes_in_silence(part: str, step: int) -> None:
    damaged = damage.Damaged(damage_databases.small("ivf", "none"), level="structure")

    damaged.flip_part(part, step)

    assert damaged.tally.bits > 100
    assert damaged.tally.refused + damaged.tally.unharmed == damaged.tally.bits


def test_no_damage_to_a_log_changes_an_answer_in_silence() -> None:
    tally = damage.run(damage_databases.with_log(), seed=1, share=200, level="structure")

    assert tally.bits > 70
    assert tally.swaps > 100
    assert tally.silent == 0
    assert tally.torn


def test_the_log_has_frames_of_every_kind() -> None:
    small = damage_databases.with_log()
    log = small.images[damage_databases.LOG_PATH]

    assert {log[at + 28] for at in small.frame_ends[:-1]} == {1, 2, 3}
    assert len(small.states) == len(small.frame_ends)


def test_damaged_padding_changes_no_answer_and_is_found() -> None:
    damaged = damage.Damaged(damage_databases.small("hnsw", "lz4"))

    damaged.fill_padding(lambda size: b"\xff" * size)

    assert damaged.tally.unharmed == 1


@pytest.mark.parametrize(("index", "compression"), damage_lazy.CASES)
def test_an_answer_from_a_large_file_is_right_whatever_it_did_not_touch(index: str, compression: str) -> None:
    tally = damage_lazy.run(index, compression, seed=2, flips=16)

    assert tally.refused
    assert tally.refused < tally.answers
    assert tally.silent == 0


def test_a_reader_that_does_not_compare_checksums_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself must be able to fail."""
    damaged = damage.Damaged(damage_databases.small("flat", "none"))

    def unchecked(
        stored: Any, crcs: Any, verified: bytearray, prefix: int, first: int, last: int, _: int
    ) -> int:
        verified[first:last] = b"\1" * (last - first)
        return -1

    monkeypatch.setattr(section, "verify_blocks", unchecked)
    start = next(s for s in damaged.meaning() if s >= 4096)

    def flip_all() -> None:
        for offset in range(start, start + 64):
            damaged.flip(damage_databases.PATH, offset, 6)

    with pytest.raises(damage.SilentChangeError, match="flipped"):
        flip_all()
    assert damaged.tally.silent == 1
