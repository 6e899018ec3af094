"""One contract for every policy, then what is special about each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core import CachePolicy
from iqdb_core.cache_policies import POLICIES, ArcPolicy, FifoPolicy, LfuPolicy, LruPolicy

# A trace is a sequence of what is done with small keys: asked for, or forgotten (None: all of them).
KEYS = st.integers(0, 11)
REQUESTS = st.lists(KEYS, max_size=200)
CAPACITIES = st.integers(1, 6)


class Cache:
    """The smallest cache that a policy can serve, with a record of what went."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy
        self.kept: set[int] = set()

    def ask(self, key: int) -> int | None:
        if key in self.kept:
            self.policy.touch(key)
            return None
        gone = self.policy.admit(key)
        self.kept.add(key)
        if gone is not None:
            self.kept.remove(gone)
        return gone

    def forget(self, key: int) -> None:
        if key in self.kept:
            self.policy.forget(key)
            self.kept.remove(key)


def evictions(policy: Any, requests: Any) -> list[int]:
    cache = Cache(policy)
    return [gone for key in requests if (gone := cache.ask(key)) is not None]


def test_every_named_policy_exists() -> None:
    assert set(POLICIES) == set(CachePolicy)


@pytest.mark.parametrize("policy", list(CachePolicy))
class TestContract:
    @given(
        capacity=CAPACITIES,
        trace=st.lists(st.tuples(st.sampled_from(["ask", "ask", "ask", "forget", "clear"]), KEYS)),
    )
    def test_it_keeps_at_most_its_capacity_and_only_what_was_admitted(
        self, policy: Any, capacity: Any, trace: Any
    ) -> None:
        cache = Cache(POLICIES[policy](capacity))
        for action, key in trace:
            if action == "ask":
                was_full = len(cache.kept) == capacity
                new = key not in cache.kept
                gone = cache.ask(key)
                # Something goes exactly when there is no room, and never what has just come.
                assert (gone is not None) == (was_full and new)
                assert key in cache.kept
            elif action == "forget":
                cache.forget(key)
            else:
                cache.policy.clear()
                cache.kept.clear()
            assert len(cache.policy) == len(cache.kept) <= capacity

    def test_a_capacity_of_one_keeps_the_last_key(self, policy: Any) -> None:
        assert evictions(POLICIES[policy](1), [1, 1, 2, 3, 3, 1]) == [1, 2, 3]

    def test_nothing_goes_while_there_is_room(self, policy: Any) -> None:
        assert evictions(POLICIES[policy](4), [1, 2, 3, 4, 1, 2, 3, 4]) == []

    @given(requests=REQUESTS, more=REQUESTS, capacity=CAPACITIES)
    def test_cleared_is_as_good_as_new(self, policy: Any, requests: Any, more: Any, capacity: Any) -> None:
        used = POLICIES[policy](capacity)
        evictions(used, requests)
        used.clear()
        assert evictions(used, more) == evictions(POLICIES[policy](capacity), more)


def test_lru_gives_up_what_was_not_used_for_longest() -> None:
    assert evictions(LruPolicy(3), [1, 2, 3, 1, 4, 5]) == [2, 3]


def test_fifo_gives_up_the_oldest_however_much_it_was_used() -> None:
    assert evictions(FifoPolicy(3), [1, 2, 3, 1, 1, 4, 5]) == [1, 2]


def test_lfu_gives_up_what_was_used_least() -> None:
    assert evictions(LfuPolicy(3), [1, 1, 2, 2, 3, 4, 4, 4, 5]) == [3, 1]


def test_lfu_gives_up_the_least_recent_of_equals() -> None:
    assert evictions(LfuPolicy(3), [1, 2, 3, 2, 1, 3, 4, 5]) == [2, 4]


@given(capacity=CAPACITIES, requests=REQUESTS)
def test_lru_agrees_with_a_sorted_list_of_times(capacity: Any, requests: Any) -> None:
    assert evictions(LruPolicy(capacity), requests) == by_rank(capacity, requests, lambda _, last: last)


@given(capacity=CAPACITIES, requests=REQUESTS)
def test_lfu_agrees_with_a_sorted_list_of_counts_and_times(capacity: Any, requests: Any) -> None:
    expected = by_rank(capacity, requests, lambda count, last: (count, last))
    assert evictions(LfuPolicy(capacity), requests) == expected


@given(capacity=CAPACITIES, trace=st.lists(st.tuples(st.booleans(), KEYS), max_size=200))
def test_lfu_agrees_with_the_sorted_list_when_keys_are_forgotten(capacity: Any, trace: Any) -> None:
    cache = Cache(LfuPolicy(capacity))
    state: dict[int, tuple[int, int]] = {}
    for now, (ask, key) in enumerate(trace):
        if not ask:
            cache.forget(key)
            state.pop(key, None)
            continue
        expected = None
        if key not in state and len(state) == capacity:
            expected = min(state, key=lambda kept: state[kept])
            del state[expected]
        state[key] = (state.get(key, (0, 0))[0] + 1, now)
        assert cache.ask(key) == expected


def by_rank(capacity: int, requests: list[int], rank: Any) -> list[int]:
    """What goes when the kept key with the least rank(count of uses, time of the last use) goes."""
    state: dict[int, tuple[int, int]] = {}
    gone = []
    for now, key in enumerate(requests):
        if key not in state and len(state) == capacity:
            gone.append(min(state, key=lambda kept: rank(*state[kept])))
            del state[gone[-1]]
        state[key] = (state.get(key, (0, 0))[0] + 1, now)
    return gone


class PaperArc:
    """Figure 4 of Megiddo and Modha (FAST 2003), line by line; lists run from LRU to MRU."""

    def __init__(self, c: int) -> None:
        self.c, self.p = c, 0.0
        self.t1: list[int] = []
        self.b1: list[int] = []
        self.t2: list[int] = []
        self.b2: list[int] = []

    def request(self, x: int) -> None:
        c, t1, b1, t2, b2 = self.c, self.t1, self.b1, self.t2, self.b2
        if x in t1 or x in t2:  # Case I
            (t1 if x in t1 else t2).remove(x)
            t2.append(x)
        elif x in b1:  # Case II
            delta1 = 1 if len(b1) >= len(b2) else len(b2) / len(b1)
            self.p = min(self.p + delta1, c)
            self.replace(x)
            b1.remove(x)
            t2.append(x)
        elif x in b2:  # Case III
            delta2 = 1 if len(b2) >= len(b1) else len(b1) / len(b2)
            self.p = max(self.p - delta2, 0)
            self.replace(x)
            b2.remove(x)
            t2.append(x)
        else:  # Case IV
            if len(t1) + len(b1) == c:  # Case A
                if len(t1) < c:
                    b1.pop(0)
                    self.replace(x)
                else:
                    t1.pop(0)
            else:  # Case B
                total = len(t1) + len(t2) + len(b1) + len(b2)
                if total >= c:
                    if total == 2 * c:
                        b2.pop(0)
                    self.replace(x)
            t1.append(x)

    def replace(self, x: int) -> None:
        if self.t1 and (len(self.t1) > self.p or (x in self.b2 and len(self.t1) == self.p)):
            self.b1.append(self.t1.pop(0))
        else:
            self.b2.append(self.t2.pop(0))


@given(capacity=st.integers(1, 8), requests=st.lists(st.integers(0, 20), max_size=400))
def test_arc_does_what_the_paper_says(capacity: Any, requests: Any) -> None:
    paper = PaperArc(capacity)
    policy = ArcPolicy(capacity)
    cache = Cache(policy)
    for key in requests:
        paper.request(key)
        cache.ask(key)
        assert list(policy._t1) == paper.t1
        assert list(policy._t2) == paper.t2
        assert list(policy._b1) == paper.b1
        assert list(policy._b2) == paper.b2
        assert policy._p == paper.p
        assert cache.kept == {*paper.t1, *paper.t2}


@given(capacity=CAPACITIES, trace=st.lists(st.tuples(st.booleans(), KEYS), max_size=300))
def test_arc_remembers_no_more_than_its_capacity_when_keys_are_forgotten(capacity: Any, trace: Any) -> None:
    policy = ArcPolicy(capacity)
    cache = Cache(policy)
    for ask, key in trace:
        cache.ask(key) if ask else cache.forget(key)
        kept, once, often = len(policy), len(policy._t1) + len(policy._b1), len(policy._t2) + len(policy._b2)
        assert kept <= capacity
        assert once <= capacity
        assert once + often <= 2 * capacity
        assert 0 <= policy._p <= capacity


def test_arc_is_not_spoilt_by_a_scan_where_lru_is() -> None:
    favourites = [1, 2, 3, 1, 2, 3] * 3
    scan = list(range(100, 140))
    lru, arc = Cache(LruPolicy(6)), Cache(ArcPolicy(6))
    for key in favourites + scan:
        lru.ask(key)
        arc.ask(key)
    assert {1, 2, 3} <= arc.kept
    assert not {1, 2, 3} & lru.kept
