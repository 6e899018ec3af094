"""Arguments for the native module out of the bytes of an input."""

from __future__ import annotations

from typing import Any

import numpy as np

from iqdb_core import _kernels

REFUSED = (ValueError, TypeError, OverflowError, BufferError)
"""What a call may raise: the arguments are not what it takes."""


class Feed:
    """Numbers and arrays out of the bytes of an input; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, limit: int) -> int:
        """Return a number below a limit of at most 2^16."""
        return int.from_bytes(self._take(2), "little") % limit

    def array(self, dtype: str, *shape: int) -> Any:
        """Return an array; once in a while of another shape than was asked for."""
        if self.below(64) == 1:
            shape = (*shape[:-1], max(0, shape[-1] + (-1, 1, 5)[self.below(3)]))
        if self.below(128) == 1:
            dtype = ("u1", "f4", "f8", "u8", "i4")[self.below(5)]
        count = int(np.prod(shape))
        size = np.dtype(dtype).itemsize
        # A short input fills an array over and over, or else all but its start would be zeros.
        some = self._take(min(count * size, 512)) or b"\0"
        raw = (some * (1 + count * size // len(some)))[: count * size]
        return np.frombuffer(bytearray(raw), dtype, count).reshape(shape)

    def numbers(self, dtype: str, count: int, limit: int) -> Any:
        """Return numbers most of which are below a limit."""
        found = self.array(dtype, count)
        if self.below(8) and found.dtype.kind in "iu":
            found %= np.asarray(max(1, limit + self.below(2)), found.dtype)
        return found

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken


def blocks_of(feed: Feed, array: Any) -> tuple[Any, Any, int] | None:
    """Return checksums of blocks, as kernels take them; None: all is verified."""
    if feed.below(2):
        return None
    n_blocks = -(-array.nbytes // 4096)
    crcs = np.empty(n_blocks, np.uint32)
    _kernels.crc32c_blocks(array.reshape(-1).view(np.uint8), 7, 0, crcs)
    return crcs, bytearray(n_blocks + (feed.below(32) == 1)), 7 if feed.below(8) else 8


def outputs(n_queries: int, k: int) -> tuple[Any, Any, Any]:
    """Return what a search fills: rows, distances, counts."""
    return np.empty((n_queries, k), np.int64), np.empty((n_queries, k)), np.empty(n_queries, np.int64)


def query_of(feed: Feed, *shape: int) -> Any:
    """Return queries, which are finite."""
    return np.nan_to_num(feed.array("<f4", *shape))


def model_of(feed: Feed, dim: int, metric: int) -> Any:
    """Return a code model."""
    return np.concatenate(
        [[float(metric != 2), 10.0, 1.0 + feed.below(3)], np.zeros(dim + (feed.below(64) == 1))]
    )


def mask_of(feed: Feed, n: int) -> Any:
    """Return a mask of rows, or None."""
    return feed.array("u1", (n + 7) // 8) if feed.below(2) else None
