"""SIGTERM and SIGHUP end a writing command as Ctrl-C does: what it has begun is taken back first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end. The exit status is the shell's for the signal: 128 and its number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.exit_status = 128 + signal_number


@contextlib.contextmanager
def taken_back_when_terminated() -> Iterator[None]:
    """Let the block be unwound by a signal that would else end the process where it stands.

    A second signal ends the process at once. A signal that is ignored, as under nohup, stays ignored, and
    a handler of somebody else stays in place. Only the main thread hears of signals.
    """
    installed: list[int] = []

    def unwind(number: int, _: FrameType | None) -> None:
        while installed:
            signal.signal(installed.pop(), signal.SIG_DFL)
        raise TerminatedError(number)

    with contextlib.suppress(ValueError):  # not the main thread
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                installed.append(number)
                signal.signal(number, unwind)
    try:
        yield
    finally:
        while installed:
            signal.signal(installed.pop(), signal.SIG_DFL)
