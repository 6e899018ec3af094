"""A process that is killed at any moment loses nothing that it has acknowledged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import kills
import pytest

from iqdb_cli.app import COMMANDS

SEED = 11
# Commands that write nothing but what `search --output` writes too.
READERS = {"get", "inspect", "verify"}


def test_every_command_that_writes_is_killed() -> None:
    assert set(kills.ACTIONS.values()) - {None} == set(COMMANDS) - READERS


@pytest.fixture(scope="module")
def supervisor() -> Iterator[kills.Supervisor]:
    with kills.Supervisor(SEED) as supervisor:
        yield supervisor


@pytest.mark.parametrize("action", kills.ACTIONS)
def test_a_process_killed_at_chosen_operations_loses_nothing(
    supervisor: kills.Supervisor, action: str
) -> None:
    before = supervisor.tally.chosen
    kills.chosen_points(supervisor, action, 4, random.Random(action))
    assert supervisor.tally.chosen >= before + 2
    assert supervisor.tally.lost == 0


def test_processes_killed_at_random_moments_lose_nothing() -> None:
    tally = kills.run(SEED, random_kills=40, points=0)
    assert tally.runs == 40
    assert tally.kills > 0
    assert tally.lost == 0


def test_what_a_killed_export_leaves_is_noticed(
    supervisor: kills.Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.run("export")
    real = kills.prepare

    def prepare(action: str, database: Path) -> dict[str, bytes]:
        (database.parent / ".out.jsonl.tmp-x").touch()
        return real(action, database)

    monkeypatch.setattr(kills, "prepare", prepare)
    with pytest.raises(kills.LostError, match=r"left behind: .*\.out\.jsonl\.tmp-x"):
        supervisor.run("export")


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
