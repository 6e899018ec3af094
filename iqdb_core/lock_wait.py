"""Waiting for the lock that another writer holds: asking again, ever less often, until the time is up."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, TypeVar

from iqdb_core.errors import InvalidParameterError, LockedError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

# A waiting process notices within the last of these that the lock is free. Asking is two system calls.
_FIRST_PAUSE_SECONDS = 0.002
_LAST_PAUSE_SECONDS = 0.1


def check_lock_wait(seconds: float) -> None:
    """Refuse what is no time to wait.

    Raises:
        InvalidParameterError: it is not a finite number of at least 0.
    """
    plain = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not plain or not math.isfinite(seconds) or seconds < 0:
        raise InvalidParameterError("lock_wait", seconds, "a finite number of seconds, at least 0")


def when_unlocked(take: Callable[[], _T], seconds: float) -> _T:
    """Return what `take` returns; when another handle holds the lock, try for so many seconds.

    A blocking `flock` would take the lock of a file that a compaction has replaced meanwhile, and could
    not be given a time; and Ctrl-C ends a pause at once.

    Raises:
        LockedError: the lock was held all the time; it says how long that was.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return take()
        except LockedError as error:
            left = deadline - time.monotonic()
            if left <= 0:
                if seconds:
                    raise LockedError(error.path, seconds) from error
                raise
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LAST_PAUSE_SECONDS)
