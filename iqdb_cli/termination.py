"""SIGTERM and SIGHUP end a writing command as Ctrl-C does: what it has begun is taken back first."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_PATIENCE_SECONDS = 2.0


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end. The exit status is the shell's for the signal: 128 and its number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.exit_status = 128 + signal_number


@contextlib.contextmanager
def taken_back_when_terminated() -> Iterator[None]:
    """Let the block be unwound by a signal that would else end the process where it stands.

    A second signal ends the process at once. A signal that is ignored, as under nohup, stays ignored, and
    a handler of somebody else stays in place. A handler runs between two steps of Python, and building an
    index is one step: where that does not end within two seconds the process ends as it stands, and the
    next writer removes what it left. Only the main thread hears of signals.
    """
    installed: list[int] = []
    unwinding = threading.Event()

    def unwind(number: int, _: FrameType | None) -> None:
        unwinding.set()
        while installed:
            signal.signal(installed.pop(), signal.SIG_DFL)
        raise TerminatedError(number)

    with contextlib.suppress(ValueError):  # not the main thread
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                installed.append(number)
                signal.signal(number, unwind)
    if not installed:
        yield
        return
    with _ended_when_stuck(unwinding):
        try:
            yield
        finally:
            while installed:
                signal.signal(installed.pop(), signal.SIG_DFL)


@contextlib.contextmanager
def _ended_when_stuck(unwinding: threading.Event) -> Iterator[None]:
    """End the process when a signal has come and the main thread does not get to its handler."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)

    def watch() -> None:
        while number := os.read(wake, 1):
            if number[0] in _SIGNALS and not unwinding.wait(_PATIENCE_SECONDS):
                os._exit(128 + number[0])

    thread = threading.Thread(target=watch, name="iqdb-terminated", daemon=True)
    before = signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        unwinding.set()
        signal.set_wakeup_fd(before)
        os.close(woken)
        thread.join()
        os.close(wake)
