"""How many threads there may be, and work shared out to them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, TypeVar

from iqdb_core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Piece = TypeVar("Piece")


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


def share_out(threads: int, pieces: Sequence[Piece], work: Callable[[Piece], object], name: str) -> None:
    """Call `work` with each piece, in order, in threads that take the next one as they come free.

    After an exception no other piece is begun; it is raised again once all threads have ended.

    Args:
        threads: how many to use at most.
        pieces: what there is to do.
        work: does one of them.
        name: what the names of the threads begin with.
    """
    if threads <= 1 or len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    from concurrent.futures import ThreadPoolExecutor

    left = iter(pieces)
    guard = threading.Lock()
    stopped = threading.Event()

    def run() -> None:
        try:
            while not stopped.is_set():
                with guard:
                    try:
                        piece = next(left)
                    except StopIteration:
                        return
                work(piece)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(min(threads, len(pieces)), name) as pool:
        running = [pool.submit(run) for _ in range(min(threads, len(pieces)))]
        try:
            for done in running:
                done.result()
        finally:
            stopped.set()
