"""Where records come from: a file, a FIFO or standard input, read forward once.

Nothing here imports NumPy, so that the errors can be named without it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import sys
from typing import ClassVar, Final, Self

from iqdb_core.errors import Error, FileIOError

MAGIC_BYTES: Final = 8
NPY_MAGIC: Final = b"\x93NUMPY"
PARQUET_MAGIC: Final = b"PAR1"
IQDB_MAGIC: Final = b"IQDBPRST"
SPOOL_COPY_BYTES: Final = 1024 * 1024


class BadInputError(Error):
    """A source holds something that cannot become records.

    `row` counts from 0, `line` and `column` (in bytes) from 1; each is None where it has no meaning.
    """

    exit_status: ClassVar[int] = 4

    def __init__(
        self,
        source: str,
        reason: str,
        *,
        row: int | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str = "",
    ) -> None:
        self.source = source
        self.reason = reason
        self.row = row
        self.line = line
        self.column = column
        self.hint = hint
        place = place_of(source, row=row, line=line)
        if column is not None:
            place += f", column {column:,}"
        suffix = f"; {hint}" if hint else ""
        super().__init__(f"{place}: {reason}{suffix}")


class InputNotFoundError(Error):
    """There is no file at the path of a source."""

    exit_status: ClassVar[int] = 3

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(f"{source}: no such file")


class InputKind(enum.Enum):
    """The formats that records are read from."""

    NPY = "npy"
    PARQUET = "parquet"
    JSONL = "jsonl"
    IQDB = "iqdb"


_KIND_OF_EXTENSION: Final = {
    ".npy": InputKind.NPY,
    ".parquet": InputKind.PARQUET,
    ".pq": InputKind.PARQUET,
    ".jsonl": InputKind.JSONL,
    ".ndjson": InputKind.JSONL,
    ".json": InputKind.JSONL,
    ".iqdb": InputKind.IQDB,
}


def place_of(source: str, *, row: int | None = None, line: int | None = None) -> str:
    """Return how messages name a place in a source: "notes.npy, row 17"."""
    if line is not None:
        return f"{source}, line {line:,}"
    if row is not None:
        return f"{source}, row {row:,}"
    return source


class ByteSource:
    """The bytes behind a path or "-", read forward once.

    Attributes:
        name: how messages name it: the path, or "standard input".
        size_bytes: the size of a regular file from its start, None for a pipe or a device.
        offset: bytes handed out so far.
    """

    def __init__(self, path: str) -> None:
        """Open `path`, where "-" is standard input.

        Raises:
            InputNotFoundError: nothing is there.
            BadInputError: it is a directory.
            FileIOError: the operating system refused.
        """
        self.path = path
        self.name = "standard input" if path == "-" else path
        self.offset = 0
        self._head = b""
        try:
            if path == "-":
                # Its own descriptor stays open: that is not ours to close.
                self._fd = os.dup(sys.stdin.fileno())
            else:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise InputNotFoundError(self.name) from None
        except (OSError, AttributeError, ValueError) as error:
            cause = error if isinstance(error, OSError) else OSError(0, "standard input is closed")
            raise FileIOError(self.name, "open", cause) from None
        self._start = 0
        status = os.fstat(self._fd)
        if stat.S_ISDIR(status.st_mode):
            self.close()
            raise BadInputError(self.name, "is a directory, expected a file")
        self.size_bytes = self._regular_size(status)

    def _regular_size(self, status: os.stat_result) -> int | None:
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            # Standard input may be a file of which somebody has read the beginning.
            self._start = os.lseek(self._fd, 0, os.SEEK_CUR)
        except OSError as error:
            raise FileIOError(self.name, "read", error) from None
        return max(0, status.st_size - self._start)

    @property
    def is_regular(self) -> bool:
        """Whether this is a regular file, which can be read at any place."""
        return self.size_bytes is not None

    @property
    def position(self) -> int:
        """Where the next byte stands in a regular file, for `pread_into`."""
        return self._start + self.offset

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, or all there are, without consuming them."""
        while len(self._head) < count:
            piece = self._read_some(count - len(self._head))
            if not piece:
                break
            self._head += piece
        return self._head[:count]

    def read(self, count: int) -> bytes:
        """Return `count` bytes; fewer only at the end."""
        buffer = bytearray(count)
        got = self.readinto(memoryview(buffer))
        return bytes(buffer[:got])

    def readinto(self, view: memoryview) -> int:
        """Fill `view` and return the number of bytes written; fewer only at the end."""
        filled = 0
        while filled < len(view):
            got = self.readinto_some(view[filled:])
            if got == 0:
                break
            filled += got
        return filled

    def readinto_some(self, view: memoryview) -> int:
        """Put what is available into `view`, waiting for at least one byte; 0 at the end."""
        if self._head:
            got = min(len(self._head), len(view))
            view[:got] = self._head[:got]
            self._head = self._head[got:]
        else:
            try:
                got = os.readv(self._fd, [view])
            except OSError as error:
                raise FileIOError(self.name, "read", error) from None
        self.offset += got
        return got

    def _read_some(self, count: int) -> bytes:
        try:
            return os.read(self._fd, count)
        except OSError as error:
            raise FileIOError(self.name, "read", error) from None

    def pread_into(self, view: memoryview, offset: int) -> int:
        """Fill `view` from byte `offset` of a regular file; returns fewer only at its end."""
        filled = 0
        while filled < len(view):
            try:
                got = os.preadv(self._fd, [view[filled:]], offset + filled)
            except OSError as error:
                raise FileIOError(self.name, "read", error) from None
            if got == 0:
                break
            filled += got
        return filled

    def spool(self) -> None:
        """Make a pipe readable at any place, by copying its rest to an unlinked temporary file.

        A file that was read in part is copied too, so that the source begins at byte 0 afterwards.

        Raises:
            FileIOError: the temporary file could not be written.
        """
        if self.is_regular and self.position == 0:
            return
        import tempfile

        try:
            with tempfile.TemporaryFile(prefix="iqdb-") as spool:
                size = self._copy_rest(spool.fileno())
                os.dup2(spool.fileno(), self._fd, inheritable=False)
            os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError as error:
            raise FileIOError(tempfile.gettempdir(), f"copy {self.name} to", error) from None
        self.size_bytes = size
        self.offset = self._start = 0

    def _copy_rest(self, target_fd: int) -> int:
        view = memoryview(bytearray(SPOOL_COPY_BYTES))
        size = 0
        while got := self.readinto_some(view):
            size += got
            start = 0
            while start < got:
                start += os.write(target_fd, view[start:got])
        return size

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def close(self) -> None:
        """Release the descriptor; a second call does nothing."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def kind_of(source: ByteSource, wanted: InputKind | None) -> InputKind:
    """Return the format of a source: the one asked for, else by extension, else by its first bytes.

    Raises:
        BadInputError: it is empty, or neither says what it is.
    """
    if wanted is not None:
        return wanted
    extension = os.path.splitext(source.path)[1].lower()  # noqa: PTH122 - "-" is no path
    if extension in _KIND_OF_EXTENSION:
        return _KIND_OF_EXTENSION[extension]
    head = source.peek(MAGIC_BYTES)
    if not head:
        raise BadInputError(source.name, "is empty, expected records")
    if head.startswith(NPY_MAGIC):
        return InputKind.NPY
    if head.startswith(PARQUET_MAGIC):
        return InputKind.PARQUET
    if head.startswith(IQDB_MAGIC):
        return InputKind.IQDB
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[", b""):
        return InputKind.JSONL
    raise BadInputError(
        source.name,
        f"begins with {repr(head)[1:]}, expected .npy, Parquet, JSON lines or an iqdb database",
        hint="--input-format says which it is",
    )
