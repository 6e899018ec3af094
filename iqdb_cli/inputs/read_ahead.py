"""Reading ahead: an iterator that runs in a thread of its own, a bounded number of items ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

# How long closing waits for the thread. A thread that is blocked on a silent pipe cannot be woken; it is
# a daemon, so the process does not wait for it either.
JOIN_SECONDS: Final = 0.2


class _End:
    """The last thing a reader hands over; carries the error that stopped it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def read_ahead(items: Iterator[T], depth: int) -> Generator[T]:
    """Yield what `items` yields, produced by a thread.

    At most `depth` items exist at a time, among them the one being produced and the one that the
    consumer holds: an item may live in a buffer of a ring of `depth` buffers, and its buffer is used
    again only after the consumer has asked for the next item. An error of `items` is raised here, at
    its place in the order.
    """
    slots = threading.Semaphore(depth)
    ready: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    stopped = threading.Event()

    def produce() -> None:
        error: BaseException | None = None
        try:
            while True:
                slots.acquire()
                if stopped.is_set():
                    break
                try:
                    item = next(items)
                except StopIteration:
                    break
                ready.put(item)
        except BaseException as caught:  # noqa: BLE001 - it is raised again in the consumer's thread
            error = caught
        ready.put(_End(error))

    thread = threading.Thread(target=produce, name="iqdb-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            slots.release()
    finally:
        stopped.set()
        slots.release()
        thread.join(JOIN_SECONDS)
