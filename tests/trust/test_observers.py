"""Readers in other processes see acknowledged states only, and never an older one than they must."""

from __future__ import annotations

import observers


def test_readers_beside_a_writer_see_acknowledged_states_only() -> None:
    tally = observers.run(5, seconds=2, readers=2)
    assert tally.anomalies == 0
    assert min(tally.observations, tally.versions, tally.refreshes, tally.distinct) > 1
    assert tally.compactions > 0


def test_an_old_state_and_a_mixed_one_are_noticed() -> None:
    observer = observers.Observer("unused", None, 1)
    state: observers.State = {}
    history = [[]]
    for version in range(1, 30):
        observers.apply(state, version)
        history.append(list(state.items()))
    assert observer.judge(history[10], 10, 10) is None
    assert observer.judge(history[12], 11, 13) is None
    assert observer.judge(history[13], 14, 20) is not None  # it had been acknowledged that there is more
    assert observer.judge(history[21], 14, 20) is not None  # it had not begun
    mixed = history[15][:-1]
    assert observer.judge(mixed, 14, 20) is not None
    assert observer.judge(list(reversed(history[20])), 20, 20) is not None
    assert observer.tally.anomalies == 4
