"""Results on their way out: to stdout, or to a file that appears when all of it is written."""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

from iqdb_cli import terminal
from iqdb_cli.exit_codes import OutputClosedError, UsageError, flush_stdout
from iqdb_cli.replaced_files import place_of, replaced_files
from iqdb_core.errors import FileIOError
from iqdb_core.storage.files import OS_FILES, FileSystem

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
    with open_outputs([path or "-"], database=database, files=files) as (out,):
        yield out


@contextlib.contextmanager
def open_outputs(
    paths: Sequence[str], *, database: str | None = None, files: FileSystem = OS_FILES
) -> Iterator[list[Output]]:
    """Open the destinations of one result that goes to several files; see `open_output`.

    The first file stands for all of them. After a kill or a power cut in the moment in which they get their
    names all are old, or all are new, or the first one is missing: old and new ones cannot be read together.

    Raises:
        UsageError: a path is the database or its log, or two are the same file.
        FileIOError: a file cannot be written.
    """
    places = {path: place_of(path, files) for path in paths if path != "-"}
    for path in places:
        if database is not None and is_part_of(path, database):
            raise UsageError(f"{path} is the database itself; choose another output file")
    # A device or a FIFO is written in place; a directory fails there with the system's words.
    replaced = [p for p in places.values() if p.before is None or stat.S_ISREG(p.before.st_mode)]
    if len({place.target for place in replaced}) < len(replaced):
        raise UsageError(f"{' and '.join(p.shown for p in replaced)} name one file; choose different ones")
    with contextlib.ExitStack() as stack:
        # What cannot be taken back is written before files get their names: it is left first.
        outs: dict[str, Output] = {}
        if replaced:
            new = stack.enter_context(replaced_files(replaced, files))
            outs = {file.place.shown: Output(file, file.place.shown) for file in new}
        for path in paths:
            if path == "-":
                outs[path] = stack.enter_context(_standard_output())
            elif path not in outs:
                outs[path] = stack.enter_context(_opened(path, places[path].target))
        yield [outs[path] for path in paths]
        for path in reversed(paths):
            outs[path].flush()


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
def _standard_output() -> Iterator[Output]:
    if sys.stdout is None:
        raise FileIOError("standard output", "write", OSError(0, "it is closed"))
    # What others printed comes first. Output has its own buffer, so the raw stream is enough.
    flush_stdout()
    yield Output(getattr(sys.stdout.buffer, "raw", sys.stdout.buffer), "standard output")


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
