"""A progress bar on stderr, on a terminal only: rows or bytes, rate, remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from iqdb_cli import terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

REFRESH_SECONDS: Final = 0.1


class ProgressBar:
    """Shows how far a command has come. Without a terminal it shows nothing and costs nothing."""

    def __init__(
        self,
        label: str,
        fraction: Callable[[], float | None],
        *,
        shown: bool | None = None,
        text: Callable[[int, float], str] | None = None,
    ) -> None:
        """Prepare the bar.

        Args:
            label: what is going on, such as "import".
            fraction: says how much is done, from 0 to 1; None when that cannot be known.
            shown: whether to show it; None asks whether stderr is a terminal.
            text: what the bar says of a number of rows (or whatever `update` is told) and the seconds that
                they took; None says the rows and how many a second.
        """
        self._text = rows_text if text is None else text
        self._label = label
        self._fraction = fraction
        self._shown = terminal.stderr_is_terminal() if shown is None else shown
        self._started = self._last = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._shown:
            self._bar = _make_bar()
            self._task = self._bar.add_task(self._label, total=None, rows="")
            self._bar.start()
        return self

    def update(self, rows: int) -> None:
        """Say how many rows, or bytes, were taken so far."""
        if self._bar is None or self._task is None:
            return
        now = time.monotonic()
        if now - self._last < REFRESH_SECONDS:
            return
        self._last = now
        fraction = self._fraction()
        text = self._text(rows, max(now - self._started, 1e-9))
        if fraction is None:
            self._bar.update(self._task, rows=text)
            return
        # Once everything is read it is written out, and nobody knows how long the disk takes.
        label = "finish" if fraction >= 1.0 else self._label
        self._bar.update(self._task, total=1.0, completed=fraction, rows=text, description=label)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def rows_text(rows: int, seconds: float) -> str:
    """Return what a bar says of rows."""
    return f"{rows:,} rows  {rows / seconds:,.0f} rows/s"


def bytes_text(size: int, seconds: float) -> str:
    """Return what a bar says of bytes."""
    return f"{size / 1e9:,.2f} GB  {size / seconds / 1e9:,.2f} GB/s"


def rate_text(rows: int, seconds: float) -> str:
    """Return "1,000 rows in 0.50 s (2,000 rows/s)"."""
    rows_noun = "row" if rows == 1 else "rows"
    return f"{rows:,} {rows_noun} in {seconds:.2f} s ({rows / max(seconds, 1e-9):,.0f} rows/s)"
