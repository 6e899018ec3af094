"""Results on their way out: to stdout, or to a file that appears when all of it is written."""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import sys
from collections.abc import Iterator
from typing import Protocol

from iqdb_cli import terminal
from iqdb_cli.exit_codes import OutputClosedError, UsageError, flush_stdout
from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.errors import FileIOError
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile

_BUFFER_BYTES = 64 * 1024


class OutputFormat(enum.Enum):
    """How results are written."""

    TABLE = "table"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    NPY = "npy"


BINARY_FORMATS = frozenset({OutputFormat.PARQUET, OutputFormat.ARROW, OutputFormat.NPY})
_FORMAT_OF_SUFFIX = {
    ".jsonl": OutputFormat.JSONL,
    ".ndjson": OutputFormat.JSONL,
    ".csv": OutputFormat.CSV,
    ".json": OutputFormat.JSONL,
    ".parquet": OutputFormat.PARQUET,
    ".pq": OutputFormat.PARQUET,
    ".arrow": OutputFormat.ARROW,
    ".npy": OutputFormat.NPY,
}


class Sink(Protocol):
    """The part of a binary stream, raw or buffered, that an output needs."""

    def write(self, data: memoryview, /) -> int | None:
        """Write some of `data`; return how much, or None when it would have to wait."""
        ...

    def flush(self) -> None:
        """Pass on what is buffered."""
        ...

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


class Output:
    """Bytes to one destination, with one kind of failure each for a full disk and a closed pipe."""

    def __init__(self, stream: Sink, name: str) -> None:
        self.name = name
        self._stream = stream
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes, in time.

        Raises:
            OutputClosedError: nobody reads them any more.
            FileIOError: the system refused, for example because the disk is full.
        """
        self._pending.append(bytes(data))
        self._pending_bytes += len(data)
        if self._pending_bytes >= _BUFFER_BYTES:
            self._drain()

    def write_line(self, text: str) -> None:
        """Write a line of text in UTF-8."""
        # Text of our own and from UTF-8 files always encodes; a path of other bytes keeps them.
        self.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def flush(self) -> None:
        """Write out everything that was given."""
        self._drain()
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failure(error) from error

    def _drain(self) -> None:
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        view = memoryview(data)
        try:
            # A raw stream may take a part, or nothing just now if whoever made it set O_NONBLOCK.
            while view:
                written = self._stream.write(view)
                if written is None:
                    self._wait()
                else:
                    view = view[written:]
        except OSError as error:
            raise self._failure(error) from error

    def _wait(self) -> None:
        import select

        select.select([], [self._stream], [])

    def _failure(self, error: OSError) -> Exception:
        if isinstance(error, BrokenPipeError):
            return OutputClosedError()
        return FileIOError(self.name, "write", error)


def choose_format(wanted: OutputFormat | None, path: str | None) -> OutputFormat:
    """Return the format to write: the one asked for, else by the file's suffix, else by who reads.

    Raises:
        UsageError: a binary format would go to a terminal.
    """
    to_terminal = path is None and terminal.stdout_is_terminal()
    if wanted is None and path is not None:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - start-up: pathlib is not needed
        wanted = _FORMAT_OF_SUFFIX.get(suffix)
    if wanted is None:
        wanted = OutputFormat.TABLE if to_terminal else OutputFormat.JSONL
    if wanted in BINARY_FORMATS and to_terminal:
        raise UsageError(f"{wanted.value} is binary and stdout is a terminal; add --output FILE or a pipe")
    return wanted


@contextlib.contextmanager
def open_output(
    path: str | None = None, *, database: str | None = None, files: FileSystem = OS_FILES
) -> Iterator[Output]:
    """Open the destination of results: stdout for None and "-", else a file.

    A regular file is written beside its name, and is durable when it gets its name at the end of the
    block. After an error, an interrupt or a request to end nothing is left of it and the old file is as it
    was; what a killed process leaves is removed by the next that writes to the same name.

    Args:
        path: where results go.
        database: the database that is read, which must not be the file that is written.
        files: the file layer.

    Raises:
        UsageError: `path` is the database or its log.
        FileIOError: the file cannot be written.
    """
    if path is None or path == "-":
        if sys.stdout is None:
            raise FileIOError("standard output", "write", OSError(0, "it is closed"))
        # What others printed comes first. Output has its own buffer, so the raw stream is enough.
        flush_stdout()
        out = Output(getattr(sys.stdout.buffer, "raw", sys.stdout.buffer), "standard output")
        yield out
        out.flush()
        return
    if database is not None and is_part_of(path, database):
        raise UsageError(f"{path} is the database itself; choose another output file")
    with _replaced_file(path, files) as out:
        yield out


def is_part_of(path: str, database: str) -> bool:
    """Say whether a path names a database or its log, be they there already or not."""
    base = os.path.realpath(database)
    return is_same_file(path, base) or is_same_file(path, base + ".wal")


def is_same_file(path: str, other: str) -> bool:
    """Say whether two paths lead to one file. By name too: a file that is not there yet may come to be."""
    target, base = os.path.realpath(path), os.path.realpath(other)
    if target == base:
        return True
    with contextlib.suppress(OSError):
        return os.path.samefile(target, base)  # noqa: PTH121 - start-up: pathlib is not needed
    return False


@contextlib.contextmanager
def _replaced_file(path: str, files: FileSystem) -> Iterator[Output]:
    with _reported_of(path):
        target = files.resolve(path)
        before = files.status_at(target)
    if before is not None and not stat.S_ISREG(before.st_mode):
        # A device or a FIFO is written in place; a directory fails here with the system's words.
        with _opened(path, target) as out:
            yield out
            out.flush()
        return
    with taken_back_when_terminated():
        with _reported_of(path):
            # A run that was killed left its temporary file behind; one that is being written is locked.
            files.sweep_temporaries(target)
            # Not even for a moment may others open what they could not open before.
            file = files.create_temporary(target, 0o666 if before is None else 0o600)
        temporary = file.path
        try:
            out = Output(_FileSink(file, files, path), path)
            yield out
            out.flush()
            with _reported_of(path):
                if before is not None:
                    files.copy_permissions(file, before)
                files.sync(file)
                files.rename(temporary, target)
                file.path = target
                files.sync_directory(target)
        except BaseException:
            if file.path != target:
                with contextlib.suppress(FileIOError):
                    files.unlink(temporary)
            raise
        finally:
            files.release(file)


@contextlib.contextmanager
def _reported_of(path: str) -> Iterator[None]:
    """Let errors name the file that was asked for, not the temporary one."""
    try:
        yield
    except FileIOError as error:
        cause = error.__cause__
        raise FileIOError(
            path, "write", cause if isinstance(cause, OSError) else OSError(str(error))
        ) from cause


class _FileSink:
    """A file of the storage layer as a stream."""

    def __init__(self, file: OpenFile, files: FileSystem, shown: str) -> None:
        self._file = file
        self._files = files
        self._shown = shown
        self._size = 0

    def write(self, data: memoryview, /) -> int:
        """Append all of `data`."""
        with _reported_of(self._shown):
            self._files.write(self._file, data, self._size)
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is written is with the system."""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file.fd


@contextlib.contextmanager
def _opened(shown: str, path: str) -> Iterator[Output]:
    try:
        stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CLOEXEC), "wb")
    except OSError as error:
        raise FileIOError(shown, "write", error) from error
    try:
        yield Output(stream, shown)
    finally:
        # Everything was flushed, or an error is already on its way.
        with contextlib.suppress(OSError):
            stream.close()
