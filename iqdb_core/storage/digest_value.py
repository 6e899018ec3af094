"""The content digest as a value: two sums modulo 2^64. Computing one takes `iqdb_core.digest`."""

from __future__ import annotations

import struct
from typing import NamedTuple

_MASK = (1 << 64) - 1
_PAIR = struct.Struct("<QQ")


class ContentDigest(NamedTuple):
    """The sum over all records of both record hashes (snapshot format, "Content digest").

    Sums wrap at 2^64 and do not depend on the order of the records, so the digest of a union of
    disjoint sets is the sum of their digests and a removed record can be subtracted.
    """

    lo: int = 0
    hi: int = 0

    def plus(self, other: ContentDigest) -> ContentDigest:
        """Return the digest of this set of records together with another, disjoint one."""
        return ContentDigest((self.lo + other.lo) & _MASK, (self.hi + other.hi) & _MASK)

    def minus(self, other: ContentDigest) -> ContentDigest:
        """Return the digest of this set of records without a subset of it."""
        return ContentDigest((self.lo - other.lo) & _MASK, (self.hi - other.hi) & _MASK)

    def hex(self) -> str:
        """Return the printed form: 32 hexadecimal digits, the seed-0 sum first."""
        return f"{self.lo:016x}{self.hi:016x}"

    def to_bytes(self) -> bytes:
        """Return the 16 bytes of the header field `content_digest`."""
        return _PAIR.pack(self.lo, self.hi)

    @classmethod
    def from_bytes(cls, data: bytes) -> ContentDigest:
        """Read the 16 bytes of the header field `content_digest`."""
        return cls(*_PAIR.unpack(data))
