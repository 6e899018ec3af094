"""Exit statuses, and the one place where errors become messages."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable

import typer

from iqdb_cli.terminal import note
from iqdb_cli.termination import TerminatedError
from iqdb_core import errors


class ExitStatus(enum.IntEnum):
    """What the process tells its caller."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    BAD_INPUT = 4
    LOCKED = 5
    DAMAGED = 6
    UNSUPPORTED = 7
    INPUT_OUTPUT = 8
    LOSSES = 9
    INTERRUPTED = 130
    TERMINATED = 143


# What the manual says of each status.
EXIT_STATUSES: tuple[tuple[ExitStatus, str], ...] = (
    (ExitStatus.DONE, "Done; also when the reader of a pipe has seen enough, as with | head."),
    (ExitStatus.UNEXPECTED, "Something unexpected: a defect of iqdb, or memory ran out."),
    (
        ExitStatus.USAGE,
        "Wrong usage: an unknown option, a setting out of range, a filter that does not parse.",
    ),
    (
        ExitStatus.NOT_FOUND,
        "Not found: the database, a source file, an id, or a setting that reaches a target.",
    ),
    (ExitStatus.BAD_INPUT, "Bad input: vectors, ids, metadata or a file that cannot be taken."),
    (ExitStatus.LOCKED, "Locked: another process is writing to the database."),
    (ExitStatus.DAMAGED, "Damaged: a checksum or the structure of the database is wrong."),
    (ExitStatus.UNSUPPORTED, "The file has a format version or a feature that this release does not know."),
    (ExitStatus.INPUT_OUTPUT, "Input or output failed: permissions, a full disk, a path that is taken."),
    (ExitStatus.LOSSES, "Repaired, but not everything could be kept; the new database is in place."),
    (ExitStatus.INTERRUPTED, "Interrupted (Ctrl-C)."),
    (
        ExitStatus.TERMINATED,
        "Terminated (SIGTERM; 129 for SIGHUP). What was being written anew was taken back.",
    ),
)

# The first class that an error is an instance of decides, so a subclass stands before its base.
_STATUSES: tuple[tuple[type[errors.Error], ExitStatus], ...] = (
    (errors.ConfigError, ExitStatus.USAGE),
    (errors.InvalidFilterError, ExitStatus.USAGE),
    (errors.InvalidMetricError, ExitStatus.USAGE),
    (errors.InvalidParameterError, ExitStatus.USAGE),
    (errors.VectorIndexError, ExitStatus.BAD_INPUT),
    (errors.DatabaseNotFoundError, ExitStatus.NOT_FOUND),
    (errors.NotADatabaseError, ExitStatus.BAD_INPUT),
    (errors.UnsupportedVersionError, ExitStatus.UNSUPPORTED),
    (errors.UnsupportedFeatureError, ExitStatus.UNSUPPORTED),
    (errors.LegacyFormatError, ExitStatus.UNSUPPORTED),
    (errors.NotRepresentableError, ExitStatus.UNSUPPORTED),
    (errors.LockedError, ExitStatus.LOCKED),
    (errors.DamagedError, ExitStatus.DAMAGED),
    (errors.PersistError, ExitStatus.INPUT_OUTPUT),
)

# typer has its own copy of click, and older releases use click itself: the base class of usage errors
# is found through the one name that both export.
_USAGE_ERROR = typer.BadParameter.__mro__[1]


class OutputClosedError(Exception):
    """Whoever read our stdout has stopped, as `head` does. The command ends quietly."""


class UsageError(errors.Error):
    """The command line asks for something that cannot be; nothing was done."""

    exit_status = ExitStatus.USAGE


def status_of(error: errors.Error) -> int:
    """Return the exit status for an error; a class of the command line's own carries its own."""
    own = getattr(error, "exit_status", None)
    if own is not None:
        return int(own)
    for error_class, status in _STATUSES:
        if isinstance(error, error_class):
            return status
    return ExitStatus.UNEXPECTED


def debugging() -> bool:
    """Whether tracebacks are wanted (`--debug` sets the variable too)."""
    return os.environ.get("IQDB_DEBUG", "") not in {"", "0"}


def guarded(action: Callable[[], int]) -> int:
    """Run `action` and return the exit status; report an error on stderr in one or two plain lines."""
    try:
        status = action()
        flush_stdout()
    except OutputClosedError:
        status = ExitStatus.DONE
        _abandon_stdout()
    except BaseException as error:  # noqa: BLE001 - this is the end of the program
        if debugging() and not isinstance(error, (SystemExit, typer.Exit)):
            import traceback

            traceback.print_exc()
        status = _report(error)
        _abandon_stdout_if_full()
    return status


def flush_stdout() -> None:
    """Write out what stdout still holds.

    Raises:
        OutputClosedError: nobody reads it any more.
        FileIOError: it cannot be written, for example because the disk is full.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosedError from None
    except OSError as error:
        raise errors.FileIOError("standard output", "write", error) from error


def _report(error: BaseException) -> int:
    if isinstance(error, errors.Error):
        note(f"iqdb: {error}")
        return status_of(error)
    if isinstance(error, _USAGE_ERROR):
        return _report_usage(error)
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, TerminatedError):
        note("iqdb: terminated")
        return error.exit_status
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        note("iqdb: interrupted")
        return ExitStatus.INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _abandon_stdout()
        return ExitStatus.DONE
    if isinstance(error, OSError):
        note(f"iqdb: {error.filename or 'standard output'}: {error.strerror or error}")
        return ExitStatus.INPUT_OUTPUT
    if isinstance(error, ImportError) and str(error).startswith("IQDB_KERNELS: "):
        note(f"iqdb: {error}")
        return ExitStatus.USAGE
    if isinstance(error, MemoryError):
        note("iqdb: not enough memory for this")
        return ExitStatus.UNEXPECTED
    what = f"{type(error).__name__}: {error}".split("\n", 1)[0]
    note(f"iqdb: unexpected error ({what})")
    if not debugging():
        note('This is a defect of iqdb; run it again as "iqdb --debug ..." to see where it happened.')
    return ExitStatus.UNEXPECTED


def _report_usage(error: BaseException) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "iqdb"
    message = str(getattr(error, "format_message", error.__str__)()).strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        note(message)
        return ExitStatus.USAGE
    # Choices come one a line from typer; an error is a line.
    message = " ".join(message.split())
    note(f'{command}: {message[:1].lower()}{message[1:]}\nTry "{command} --help".')
    return ExitStatus.USAGE


def _abandon_stdout() -> None:
    # What is still buffered has no reader. With the descriptor on /dev/null the interpreter's own flush
    # at exit has nothing to complain about.
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    except OSError:
        pass


def _abandon_stdout_if_full() -> None:
    try:
        flush_stdout()
    except (OutputClosedError, errors.FileIOError, ValueError):
        _abandon_stdout()
