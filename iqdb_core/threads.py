"""How many threads the kernels may use."""

from __future__ import annotations

import os

from iqdb_core.errors import InvalidConfigError


def resolve_threads(threads: int | None) -> int:
    """Return how many threads to use: the setting, else `IQDB_NUM_THREADS`, else all cores.

    Raises:
        InvalidConfigError: the environment variable or the setting is not a whole number from 1 to 1024.
    """
    if threads is not None:
        if type(threads) is not int or not 1 <= threads <= 1_024:
            raise InvalidConfigError("threads", threads, "an integer in 1..1024")
        return threads
    text = os.environ.get("IQDB_NUM_THREADS", "")
    if text:
        if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 1_024):
            raise InvalidConfigError("IQDB_NUM_THREADS", text, "a whole number in 1..1024")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
