"""`CacheConfig`: the settings of a handle's result cache."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final

from iqdb_core.config_builders import Replaceable, With
from iqdb_core.errors import InvalidConfigError
from iqdb_core.plain_dicts import known_fields

MAX_CACHED_RESULTS: Final = 2**24
MAX_TTL_SECONDS: Final = 365 * 86_400


class CachePolicy(enum.Enum):
    """Which result goes when the cache is full.

    lru: the one not used for the longest time. lfu: the one used least often, of equals the least recent.
    fifo: the oldest. arc: adapts itself between lru and lfu, and is not spoilt by queries that come once.
    """

    LRU = "lru"
    LFU = "lfu"
    FIFO = "fifo"
    ARC = "arc"

    @classmethod
    def parse(cls, text: str | CachePolicy) -> CachePolicy:
        """Return the policy that `text` names.

        Raises:
            InvalidConfigError: there is no such policy.
        """
        if isinstance(text, cls):
            return text
        try:
            return cls(text)
        except ValueError:
            names = ", ".join(policy.value for policy in cls)
            raise InvalidConfigError("cache.policy", text, f"one of {names}") from None


@dataclass(frozen=True, kw_only=True)
class CacheConfig(Replaceable):
    """Settings of a handle's cache of search results.

    The cache answers a query that `search`, `search_batch` or `search_buffers` answered before with the
    same arguments. Every change of what the handle sees (a write, a compaction, a refresh) empties it, so
    an answer never depends on whether there is a cache. `search_arrays` does not use it.

    Attributes:
        capacity: results that are kept, 1 to 2^24; a result is the hits of one query.
        policy: which one goes when there is no more room. A name such as "arc" is accepted too.
        ttl_seconds: how long a result may be used; None is for ever.
    """

    capacity: int = 1024
    policy: CachePolicy = CachePolicy.LRU
    ttl_seconds: float | None = None

    with_capacity = With[int]()
    with_policy = With[CachePolicy | str]()
    with_ttl_seconds = With[float | None]()

    def __post_init__(self) -> None:
        if type(self.capacity) is not int or not 1 <= self.capacity <= MAX_CACHED_RESULTS:
            expected = f"an integer in 1..{MAX_CACHED_RESULTS}"
            raise InvalidConfigError("cache.capacity", self.capacity, expected)
        object.__setattr__(self, "policy", CachePolicy.parse(self.policy))
        ttl = self.ttl_seconds
        if ttl is not None:
            number = isinstance(ttl, (int, float)) and not isinstance(ttl, bool)
            if not number or not 0 < ttl <= MAX_TTL_SECONDS:
                expected = f"None, or more than 0 and at most {MAX_TTL_SECONDS} seconds"
                raise InvalidConfigError("cache.ttl_seconds", ttl, expected)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that go through JSON; `from_dict` reads them back."""
        return {"capacity": self.capacity, "policy": self.policy.value, "ttl_seconds": self.ttl_seconds}

    @classmethod
    def from_dict(cls, value: object) -> CacheConfig:
        """Return the settings that a plain dict describes; absent keys have their defaults.

        Raises:
            InvalidConfigError: a key is unknown, or a value is out of range.
        """
        return cls(**known_fields("cache", value, cls))
