"""Two file layers that record what is done to files, and the trace in which they record it.

`RecordedFiles` works on real files. `MemoryFiles` is a whole file system in memory: names, files that
may have several names or none, locks, and a crash that costs nothing. A test runs the same work on both
and compares the traces, so what is found out in memory holds for the calls that real files would see.

The trace also takes marks of the test: `begin(n)` before a write, `ack(n)` when the call has returned.
So the order of acknowledgements and system calls is known exactly.
"""

from __future__ import annotations

import errno
import os
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from iqdb_core.errors import FileIOError, LockedError
from iqdb_core.storage.files import FileSystem, OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable


class Op(NamedTuple):
    """One entry of a trace.

    `kind` is one of: write, truncate, chmod (of a file); create, link, unlink, rename (of names);
    sync, sync_failed, sync_directory; begin, ack, refuse (marks). `upto` of a sync is the length of the trace
    when it began: what came later is not covered by it.
    """

    kind: str
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    name: str = ""
    target: str = ""
    upto: int = 0
    value: int = 0
    durable: bool = False


DATA_KINDS = frozenset({"write", "truncate", "chmod"})
NAME_KINDS = frozenset({"create", "link", "unlink", "rename"})


class Trace(list[Op]):
    """What was done, in order."""

    def begin(self, version: int) -> None:
        """Mark that a write begins which makes `version` of the records."""
        self.append(Op("begin", value=version))

    def ack(self, version: int, *, durable: bool = False) -> None:
        """Mark that the write of `version` was acknowledged; `durable`: it survives under every policy."""
        self.append(Op("ack", value=version, durable=durable))

    def refuse(self, version: int) -> None:
        """Mark that the newest write was refused: `version` is the newest there is."""
        self.append(Op("refuse", value=version))


class File:
    """A file without its names. `data` is bytes until somebody changes it."""

    __slots__ = ("data", "mode", "number")

    def __init__(self, number: int, data: bytes | bytearray = b"", mode: int = 0o644) -> None:
        self.number = number
        self.data = data
        self.mode = mode

    def change(self) -> bytearray:
        """Return the content, which may be changed."""
        if not isinstance(self.data, bytearray):
            self.data = bytearray(self.data)
        return self.data

    def apply(self, op: Op) -> None:
        """Carry out a recorded operation."""
        if op.kind == "chmod":
            self.mode = op.value
        elif op.kind == "truncate":
            data = self.change()
            del data[op.offset :]
            data.extend(bytes(op.offset - len(data)))
        else:
            data = self.change()
            if op.offset > len(data):
                data.extend(bytes(op.offset - len(data)))
            data[op.offset : op.offset + len(op.data)] = op.data


class Image(NamedTuple):
    """A disk at rest: names -> file number, and file number -> (content, mode)."""

    names: dict[str, int]
    files: dict[int, tuple[bytes, int]]

    def content(self, name: str) -> bytes | None:
        """Return what the file of a name holds, None when nothing has the name."""
        return self.files[self.names[name]][0] if name in self.names else None


EMPTY = Image({}, {})


class MemoryFiles(FileSystem):
    """One directory in memory that behaves like a POSIX directory and records what is done to it.

    Attributes:
        trace: what was done.
        on_sync: called in the middle of every `sync` and `sync_data`, after the sync has begun.
    """

    def __init__(self, image: Image = EMPTY) -> None:
        self.trace = Trace()
        self.on_sync: Callable[[OpenFile], None] | None = None
        self._files = {number: File(number, data, mode) for number, (data, mode) in image.files.items()}
        self._names = {name: self._files[number] for name, number in image.names.items()}
        self._open: dict[int, File] = {}
        self._locks: dict[int, int] = {}
        self._next_fd = 1000
        self._next_number = max(image.files, default=0) + 1
        self._temporaries = 0
        self._mutex = threading.RLock()

    def image(self) -> Image:
        """Return the disk as a clean shutdown would leave it."""
        names = {name: file.number for name, file in self._names.items()}
        files = {file.number: (bytes(file.data), file.mode) for file in self._names.values()}
        return Image(names, files)

    @property
    def n_open(self) -> int:
        """How many files are open."""
        return len(self._open)

    # --- Names ----------------------------------------------------------------------------------

    def resolve(self, path: str | os.PathLike[str]) -> str:
        return os.fspath(path)  # type: ignore[return-value]

    def exists(self, path: str) -> bool:
        return path in self._names

    def _file_at(self, path: str, operation: str) -> File:
        file = self._names.get(path)
        if file is None:
            raise FileIOError(path, operation, FileNotFoundError(errno.ENOENT, "No such file"))
        return file

    def _opened(self, file: File, path: str) -> OpenFile:
        with self._mutex:
            self._next_fd += 1
            self._open[self._next_fd] = file
            return OpenFile(self._next_fd, path)

    def open_read(self, path: str) -> OpenFile:
        return self._opened(self._file_at(path, "open"), path)

    def open_write(self, path: str) -> OpenFile:
        return self._opened(self._file_at(path, "open for writing"), path)

    def create(self, path: str, mode: int = 0o666) -> OpenFile:
        if path in self._names:
            raise FileIOError(path, "create", FileExistsError(errno.EEXIST, "File exists"))
        file = File(self._next_number, b"", mode & ~0o022)
        self._next_number += 1
        self._files[file.number] = self._names[path] = file
        self.trace.append(Op("create", file.number, name=path, value=file.mode))
        return self._opened(file, path)

    def temporary_name(self, path: str) -> str:
        directory, name = os.path.split(path)
        while True:
            self._temporaries += 1
            found = f"{directory}/.{name}.tmp-{self._temporaries:08x}"
            if found not in self._names:
                return found

    def create_spool(self, path: str) -> OpenFile:
        file = File(-self._next_fd)
        return self._opened(file, path)

    def list_names(self, directory: str) -> list[str]:
        return [os.path.basename(name) for name in self._names if os.path.dirname(name) == directory]  # noqa: PTH119, PTH120

    def rename(self, source: str, target: str) -> None:
        file = self._file_at(source, "replace")
        self._names[target] = file
        del self._names[source]
        self.trace.append(Op("rename", file.number, name=source, target=target))

    def link(self, source: str, target: str) -> None:
        if target in self._names:
            raise FileIOError(target, "create", FileExistsError(errno.EEXIST, "File exists"))
        file = self._names[target] = self._file_at(source, "create")
        self.trace.append(Op("link", file.number, name=source, target=target))

    def unlink(self, path: str) -> None:
        file = self._names.pop(path, None)
        if file is not None:
            self.trace.append(Op("unlink", file.number, name=path))

    def sync_directory(self, path: str) -> None:
        self.trace.append(Op("sync_directory", upto=len(self.trace)))

    # --- Open files -----------------------------------------------------------------------------

    def close(self, file: OpenFile) -> None:
        fd, file.fd = file.fd, -1
        with self._mutex:
            if self._open.pop(fd, None) is not None:
                for number, holder in list(self._locks.items()):
                    if holder == fd:
                        del self._locks[number]

    def _status(self, file: File) -> Any:
        links = sum(other is file for other in self._names.values())
        return SimpleNamespace(
            st_mode=0o100000 | file.mode,
            st_ino=file.number,
            st_dev=1,
            st_nlink=links,
            st_uid=0,
            st_gid=0,
            st_size=len(file.data),
            st_mtime_ns=0,
        )

    def status(self, file: OpenFile) -> Any:
        return self._status(self._open[file.fd])

    def status_at(self, path: str) -> Any:
        file = self._names.get(path)
        return None if file is None else self._status(file)

    def map_read(self, file: OpenFile, size: int) -> Any:
        return bytes(self._open[file.fd].data[:size])

    def read(self, file: OpenFile, size: int, offset: int) -> bytes:
        return bytes(self._open[file.fd].data[offset : offset + size])

    def read_into(self, file: OpenFile, buffer: memoryview, offset: int) -> int:
        data = self._open[file.fd].data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def _change(self, file: OpenFile, op: Op) -> None:
        target = self._open[file.fd]
        with self._mutex:
            target.apply(op)
            if target.number > 0:
                self.trace.append(op._replace(inode=target.number))

    def write(self, file: OpenFile, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._change(file, Op("write", offset=offset, data=bytes(data)))

    def truncate(self, file: OpenFile, size: int) -> None:
        self._change(file, Op("truncate", offset=size))

    def sync(self, file: OpenFile) -> None:
        upto = len(self.trace)
        if self.on_sync is not None:
            self.on_sync(file)
        with self._mutex:
            self.trace.append(Op("sync", self._open[file.fd].number, upto=upto))

    def sync_data(self, file: OpenFile) -> None:
        self.sync(file)

    def copy_permissions(self, file: OpenFile, original: Any) -> None:
        self._change(file, Op("chmod", value=original.st_mode & 0o777))

    def lock(self, file: OpenFile) -> None:
        number = self._open[file.fd].number
        with self._mutex:
            if self._locks.get(number, file.fd) != file.fd:
                raise LockedError(file.path)
            self._locks[number] = file.fd

    def unlock(self, file: OpenFile) -> None:
        number = self._open[file.fd].number
        if self._locks.get(number) == file.fd:
            del self._locks[number]


class FailingMemory(MemoryFiles):
    """Files in memory, of which the n-th write, truncate or sync fails.

    A failed write leaves its first half behind. A failed sync has written what it liked, and the system
    takes what it has not written for written: a later sync succeeds and does not write it either.

    Attributes:
        fail: the kind of call that fails, and how many of them come first; None: none does.
    """

    def __init__(self, kind: str, skip: int) -> None:
        super().__init__()
        self.fail: tuple[str, int] | None = (kind, skip)

    def _fails(self, kind: str) -> bool:
        if self.fail is None or self.fail[0] != kind:
            return False
        left = self.fail[1]
        self.fail = (kind, left - 1) if left else None
        return not left

    def write(self, file: OpenFile, data: bytes | bytearray | memoryview, offset: int) -> None:
        if self._fails("write"):
            super().write(file, memoryview(data)[: len(data) // 2], offset)
            raise FileIOError(file.path, "write", OSError(errno.ENOSPC, "this failure was asked for"))
        super().write(file, data, offset)

    def truncate(self, file: OpenFile, size: int) -> None:
        if self._fails("truncate"):
            raise FileIOError(file.path, "truncate", OSError(errno.EIO, "this failure was asked for"))
        super().truncate(file, size)

    def sync(self, file: OpenFile) -> None:
        if self._fails("sync"):
            self.trace.append(Op("sync_failed", self._open[file.fd].number, upto=len(self.trace)))
            raise FileIOError(file.path, "sync", OSError(errno.EIO, "this failure was asked for"))
        super().sync(file)


class RecordedFiles(FileSystem):
    """The real files, recorded."""

    def __init__(self) -> None:
        self.trace = Trace()
        self._numbers: dict[int, int] = {}
        self._paths: dict[str, int] = {}
        self._temporaries = 0

    def _number(self, file: OpenFile) -> int:
        return self._numbers.get(file.fd, 0)

    def open_write(self, path: str) -> OpenFile:
        file = super().open_write(path)
        self._numbers[file.fd] = self._paths.setdefault(path, len(self._paths) + 1)
        return file

    def create(self, path: str, mode: int = 0o666) -> OpenFile:
        file = super().create(path, mode)
        number = self._numbers[file.fd] = self._paths[path] = max(self._paths.values(), default=0) + 1
        self.trace.append(Op("create", number, name=path, value=super().status(file).st_mode & 0o777))
        return file

    def temporary_name(self, path: str) -> str:
        directory, name = os.path.split(path)
        self._temporaries += 1
        return f"{directory}/.{name}.tmp-{self._temporaries:08x}"

    def write(self, file: OpenFile, data: bytes | bytearray | memoryview, offset: int) -> None:
        super().write(file, data, offset)
        self.trace.append(Op("write", self._number(file), offset, bytes(data)))

    def truncate(self, file: OpenFile, size: int) -> None:
        super().truncate(file, size)
        self.trace.append(Op("truncate", self._number(file), size))

    def copy_permissions(self, file: OpenFile, original: os.stat_result) -> None:
        super().copy_permissions(file, original)
        self.trace.append(Op("chmod", self._number(file), value=original.st_mode & 0o777))

    def sync(self, file: OpenFile) -> None:
        upto = len(self.trace)
        super().sync(file)
        self.trace.append(Op("sync", self._number(file), upto=upto))

    def sync_data(self, file: OpenFile) -> None:
        upto = len(self.trace)
        super().sync_data(file)
        self.trace.append(Op("sync", self._number(file), upto=upto))

    def sync_directory(self, path: str) -> None:
        upto = len(self.trace)
        super().sync_directory(path)
        self.trace.append(Op("sync_directory", upto=upto))

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        number = self._paths[target] = self._paths.pop(source)
        self.trace.append(Op("rename", number, name=source, target=target))

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        number = self._paths[target] = self._paths[source]
        self.trace.append(Op("link", number, name=source, target=target))

    def unlink(self, path: str) -> None:
        there = self.exists(path)
        super().unlink(path)
        if there:
            self.trace.append(Op("unlink", self._paths.pop(path, 0), name=path))
