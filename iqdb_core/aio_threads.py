"""The threads of an asynchronous handle."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from iqdb_core.errors import ClosedError
from iqdb_core.search_request import at_least_one

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

P = ParamSpec("P")
T = TypeVar("T")

_MAX_DEFAULT_WORKERS = 32


class HandleThreads:
    """Several threads that read and one that writes.

    One thread for all writes keeps them in the order of their calls, and the writes that wait for one
    another from taking the threads that searches need.
    """

    def __init__(self, path: str, workers: int | None) -> None:
        self._path = path
        self._closing = False
        self._readers = ThreadPoolExecutor(worker_count(workers), "iqdb-read")
        self._writer = ThreadPoolExecutor(1, "iqdb-write")

    async def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `work(*args, **kwargs)` in one of the reading threads."""
        return await self._run(self._readers, partial(work, *args, **kwargs))

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `work(*args, **kwargs)` in the writing thread."""
        return await self._run(self._writer, partial(work, *args, **kwargs))

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closing:
            raise ClosedError(self._path)
        return await asyncio.wrap_future(_submit(executor, work))

    async def close(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Await one last work in the writing thread, and end all threads behind what they have to do.

        It takes place whether or not the awaiting task is cancelled. A second call does nothing.
        """
        if self._closing:
            return
        self._closing = True
        future = _submit(self._writer, partial(self._finish, partial(work, *args, **kwargs)))
        self._writer.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(future))

    def _finish(self, work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            self._readers.shutdown(wait=True)


class Steps(Generic[T]):
    """The steps of a generator, taken in threads. It is closed behind the step at work, if there is one."""

    def __init__(self, generator: Iterator[T]) -> None:
        self._generator: Any = generator
        self._at_work = threading.Lock()
        self._closed = False

    def next(self) -> T | None:
        """Return what comes next, or None at the end."""
        try:
            with self._at_work:
                item: T | None = next(self._generator, None)
                return item
        finally:
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close the generator without waiting for the step at work, which closes it then."""
        self._closed = True
        # The flag is set before the lock is tried, and looked at after the lock was given back, so
        # that one of the two sides closes.
        if self._at_work.acquire(blocking=False):
            try:
                self._generator.close()
            finally:
                self._at_work.release()


async def run_alone(
    work: Callable[..., T], *args: Any, unclaimed: Callable[[T], object] | None = None, **kwargs: Any
) -> T:
    """Await `work(*args, **kwargs)` in a thread of its own.

    Args:
        work: what to do.
        *args: its arguments.
        unclaimed: takes the result when the awaiting task was cancelled and does not.
        **kwargs: its arguments by name.
    """
    executor = ThreadPoolExecutor(1, "iqdb-open")
    future = _submit(executor, partial(work, *args, **kwargs))
    executor.shutdown(wait=False)
    try:
        return await asyncio.wrap_future(future)
    except BaseException:
        if unclaimed is not None:
            future.add_done_callback(partial(_give_back, unclaimed))
        raise


def _give_back(unclaimed: Callable[[T], object], future: Future[T]) -> None:
    if not future.cancelled() and future.exception() is None:
        unclaimed(future.result())


def _submit(executor: ThreadPoolExecutor, work: Callable[[], T]) -> Future[T]:
    # As with asyncio.to_thread, the work sees the context variables of its task.
    return executor.submit(contextvars.copy_context().run, work)


def worker_count(workers: int | None) -> int:
    """Return the number of reading threads to use.

    Raises:
        InvalidParameterError: it is no integer of at least 1.
    """
    if workers is None:
        return min(_MAX_DEFAULT_WORKERS, (os.cpu_count() or 1) + 4)
    return at_least_one("workers", workers)
