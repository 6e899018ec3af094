"""A process that is killed at any moment loses nothing that it has acknowledged."""

from __future__ import annotations

import kills
import pytest

SEED = 11


@pytest.mark.parametrize("action", kills.ACTIONS)
def test_a_process_killed_at_chosen_operations_loses_nothing(action: str) -> None:
    tally = kills.run(SEED, random_kills=0, points=4, actions=(action,))
    assert tally.chosen >= 2
    assert tally.lost == 0


def test_processes_killed_at_random_moments_lose_nothing() -> None:
    tally = kills.run(SEED, random_kills=40, points=0)
    assert tally.runs == 40
    assert tally.kills > 0
    assert tally.lost == 0


def test_a_lost_acknowledgement_is_noticed() -> None:
    with kills.Supervisor(SEED) as supervisor:
        supervisor.run("batch")
        assert supervisor._state
        # Somebody takes the last frame away.
        log = supervisor._path.with_name("a.iqdb.wal")
        if log.exists():
            log.unlink()
        else:
            supervisor._create()
        supervisor._state = {59: 777}
        with pytest.raises(kills.LostError):
            supervisor.run("compact")
