"""Which results a full cache gives up: LRU, LFU, FIFO and ARC behind one protocol.

A policy knows keys only; `iqdb_core.cache` has the results, the lock and the statistics. Every operation
takes constant time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from iqdb_core.cache_config import CachePolicy

if TYPE_CHECKING:
    from collections.abc import Hashable


class EvictionPolicy(Protocol):
    """The keys that a cache keeps, at most as many as its capacity, and the order in which they go."""

    def __init__(self, capacity: int) -> None:
        """Begin without keys; `capacity` is at least 1."""

    def touch(self, key: Hashable) -> None:
        """Note that a kept key was asked for."""

    def admit(self, key: Hashable) -> Hashable | None:
        """Keep a key that is not kept yet, and return the key that is given up for it, if one is."""

    def forget(self, key: Hashable) -> None:
        """Stop keeping a kept key, as if it had never been asked for."""

    def clear(self) -> None:
        """Forget everything."""

    def __len__(self) -> int: ...


class FifoPolicy:
    """First in, first out: the key that was admitted first goes, however often it was asked for."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[Hashable, None] = OrderedDict()

    def touch(self, key: Hashable) -> None:
        """Do nothing: use does not count."""

    def admit(self, key: Hashable) -> Hashable | None:
        """Keep a key, if need be in the place of the oldest."""
        gone = None
        if len(self._keys) >= self._capacity:
            gone, _ = self._keys.popitem(last=False)
        self._keys[key] = None
        return gone

    def forget(self, key: Hashable) -> None:
        """Stop keeping a key."""
        del self._keys[key]

    def clear(self) -> None:
        """Forget everything."""
        self._keys.clear()

    def __len__(self) -> int:
        return len(self._keys)


class LruPolicy(FifoPolicy):
    """Least recently used: the key goes that was not asked for, or admitted, for the longest time."""

    def touch(self, key: Hashable) -> None:
        """Make a key the last to go."""
        self._keys.move_to_end(key)


class LfuPolicy:
    """Least frequently used: the key goes that was asked for least often, of equals the least recent.

    Keys stand in one queue for each count (Matani, Shah and Mitra, "An O(1) algorithm for implementing the
    LFU cache eviction scheme", 2010). A key's count begins at 1 and is lost when the key goes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[Hashable, int] = {}
        self._queues: dict[int, OrderedDict[Hashable, None]] = {}
        self._least = 0

    def touch(self, key: Hashable) -> None:
        """Count one more use of a key."""
        count = self._counts[key]
        if self._leave(key, count) and count == self._least:
            self._least = count + 1
        self._enter(key, count + 1)

    def admit(self, key: Hashable) -> Hashable | None:
        """Keep a key, if need be in the place of the least used."""
        gone = None
        if len(self._counts) >= self._capacity:
            gone = next(iter(self._queues[self._least]))
            self._leave(gone, self._least)
            del self._counts[gone]
        self._enter(key, 1)
        self._least = 1
        return gone

    def forget(self, key: Hashable) -> None:
        """Stop keeping a key."""
        count = self._counts.pop(key)
        if self._leave(key, count) and count == self._least:
            # The one search for the least count: the other operations know where it is.
            self._least = min(self._queues, default=0)

    def clear(self) -> None:
        """Forget everything."""
        self._counts.clear()
        self._queues.clear()

    def __len__(self) -> int:
        return len(self._counts)

    def _enter(self, key: Hashable, count: int) -> None:
        self._counts[key] = count
        queue = self._queues.get(count)
        if queue is None:
            queue = self._queues[count] = OrderedDict()
        queue[key] = None

    def _leave(self, key: Hashable, count: int) -> bool:
        """Take a key out of its queue, and say whether that queue is gone."""
        queue = self._queues[count]
        del queue[key]
        if queue:
            return False
        del self._queues[count]
        return True


class ArcPolicy:
    """Adaptive replacement: recency and frequency share the capacity as recent misses suggest.

    The algorithm of N. Megiddo and D. S. Modha, "ARC: a self-tuning, low overhead replacement cache",
    FAST 2003, figure 4, with its names: `t1` holds keys asked for once lately, `t2` those asked for more
    often, `b1` and `b2` remember keys that were given up from either, and `p` is the size that `t1` shall
    have. Keys that are forgotten leave the cache less than full, which the paper has no case for: nothing
    is given up then.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._t1: OrderedDict[Hashable, None] = OrderedDict()
        self._t2: OrderedDict[Hashable, None] = OrderedDict()
        self._b1: OrderedDict[Hashable, None] = OrderedDict()
        self._b2: OrderedDict[Hashable, None] = OrderedDict()
        self._p = 0.0

    def touch(self, key: Hashable) -> None:
        """Case I: a kept key becomes the most recent of `t2`."""
        if key in self._t1:
            del self._t1[key]
            self._t2[key] = None
        else:
            self._t2.move_to_end(key)

    def admit(self, key: Hashable) -> Hashable | None:
        """Cases II to IV: a key that is not kept, but may be remembered."""
        b1, b2 = self._b1, self._b2
        if key in b1:
            self._p = min(self._p + max(len(b2) / len(b1), 1.0), float(self._capacity))
            gone = self._replace(in_b2=False)
            del b1[key]
            self._t2[key] = None
            return gone
        if key in b2:
            self._p = max(self._p - max(len(b1) / len(b2), 1.0), 0.0)
            gone = self._replace(in_b2=True)
            del b2[key]
            self._t2[key] = None
            return gone
        gone = self._make_room()
        self._t1[key] = None
        return gone

    def _make_room(self) -> Hashable | None:
        """Case IV: let something go for a key that is neither kept nor remembered."""
        n_once = len(self._t1) + len(self._b1)
        if n_once >= self._capacity:
            if not self._b1:
                # Not remembered in b1: the capacity is all t1's already.
                gone, _ = self._t1.popitem(last=False)
                return gone
            self._b1.popitem(last=False)
        elif n_once + len(self._t2) + len(self._b2) >= 2 * self._capacity:
            self._b2.popitem(last=False)
        return self._replace(in_b2=False)

    def _replace(self, *, in_b2: bool) -> Hashable | None:
        """REPLACE: give up the oldest of `t1` or `t2`, and remember it, if the cache is full."""
        n_once = len(self._t1)
        if n_once + len(self._t2) < self._capacity:
            return None
        if n_once and (n_once > self._p or (in_b2 and n_once == self._p)):
            gone, _ = self._t1.popitem(last=False)
            self._b1[gone] = None
        else:
            gone, _ = self._t2.popitem(last=False)
            self._b2[gone] = None
        return gone

    def forget(self, key: Hashable) -> None:
        """Stop keeping a key, and do not remember it."""
        del (self._t1 if key in self._t1 else self._t2)[key]

    def clear(self) -> None:
        """Forget everything."""
        for keys in (self._t1, self._t2, self._b1, self._b2):
            keys.clear()
        self._p = 0.0

    def __len__(self) -> int:
        return len(self._t1) + len(self._t2)


POLICIES: dict[CachePolicy, type[EvictionPolicy]] = {
    CachePolicy.LRU: LruPolicy,
    CachePolicy.LFU: LfuPolicy,
    CachePolicy.FIFO: FifoPolicy,
    CachePolicy.ARC: ArcPolicy,
}
