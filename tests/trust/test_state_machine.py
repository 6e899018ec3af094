"""A handle shows what a dict shows, whatever is done to it and wherever it crashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test
from recorder import MemoryFiles
from state_machine import Machine, chosen_settings

from iqdb_core import PersistError
from iqdb_core.log_link import LogLink


def test_a_handle_shows_what_a_dict_shows_through_crashes_and_reopenings() -> None:
    before = Machine.steps, Machine.crashes, Machine.observations
    run_state_machine_as_test(Machine, settings=chosen_settings(30, 30, vary=False))
    assert Machine.steps - before[0] > 300
    assert Machine.crashes > before[1]
    assert Machine.observations > before[2]


def lost_by_a_crash() -> bool:
    """Write one record, then crash in many ways; say whether the machine noticed a loss."""
    for seed in range(40):
        machine = Machine()
        machine.begin(in_memory=False, policy="always", auto=None, cached=False, index="ivf", codec="none")
        try:
            machine.upsert(1, None)
            machine.compact(None)
            machine.upsert(2, None)
            machine.crash(back=seed % 20, kill=False, seed=seed)
            machine.shows_what_the_model_has()
        except (AssertionError, PersistError):
            return True
        finally:
            machine.teardown()
    return False


def test_crashes_of_the_machine_are_survived() -> None:
    assert not lost_by_a_crash()


def test_a_log_that_is_never_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = MemoryFiles.sync

    def forgetful(self: MemoryFiles, file: Any) -> None:
        if not file.path.endswith(".wal"):
            sync(self, file)

    monkeypatch.setattr(MemoryFiles, "sync", forgetful)
    assert lost_by_a_crash()


def test_a_compaction_without_a_fold_frame_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogLink, "append_fold", lambda self, identity: None)
    assert lost_by_a_crash()
