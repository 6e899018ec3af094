"""What is known of the terminal, and plain lines on stderr."""

from __future__ import annotations

import os
import sys

DEFAULT_WIDTH = 80


def stdin_is_terminal() -> bool:
    """Whether somebody would have to type what is read from stdin."""
    return _is_terminal(0)


def stdout_is_terminal() -> bool:
    """Whether results go to somebody's eyes."""
    return _is_terminal(1)


def stderr_is_terminal() -> bool:
    """Whether progress would be seen."""
    return _is_terminal(2)


def _is_terminal(descriptor: int) -> bool:
    stream = (sys.stdin, sys.stdout, sys.stderr)[descriptor]
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def width() -> int:
    """The number of columns of the terminal that results go to; `COLUMNS` overrides it."""
    text = os.environ.get("COLUMNS", "")
    if text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0:
        return int(text)
    try:
        return os.get_terminal_size(1).columns or DEFAULT_WIDTH
    except (OSError, ValueError):
        return DEFAULT_WIDTH


def bold(text: str) -> str:
    """Return text that stands out on a terminal, and is as it was elsewhere (also with `NO_COLOR`)."""
    if not stdout_is_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[1m{text}\x1b[0m"


def note(text: str) -> None:
    """Write one message to stderr. Failing to is no failure of the command."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(printable(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass


def printable(text: str) -> str:
    r"""Return `text` with control characters as `\xNN`, so that data cannot steer the terminal.

    Line feeds stay. What stderr's encoding lacks is escaped by the stream itself.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char == "\n" or char.isprintable() or "\ud800" <= char <= "\udfff" else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
