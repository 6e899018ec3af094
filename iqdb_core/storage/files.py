"""The one seam between iqdb and the operating system's files.

Everything that creates, changes, names, locks or removes a file goes through a `FileSystem`, so a
test can record the operations, replay any prefix of them as a crash, or make one of them fail.
`OS_FILES` is the real one. Every `OSError` becomes a `FileIOError` that names the path.
"""

# This is the layer under pathlib: plain names and descriptors, one system call each.
# ruff: noqa: PTH104, PTH108, PTH116, PTH118, PTH120, PTH208

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import stat
from typing import TYPE_CHECKING, NoReturn

from iqdb_core.errors import DatabaseExistsError, FileIOError, LockedError, NotADatabaseError

if TYPE_CHECKING:
    from types import TracebackType

_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_O_TMPFILE: int | None = getattr(os, "O_TMPFILE", None)
_F_FULLFSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_FDATASYNC = getattr(os, "fdatasync", os.fsync)

# Some file systems cannot sync a directory, or have no hard links; that is no failure of ours.
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


class OpenFile:
    """An open file, the path under which it was opened, and the one that its errors name.

    The two differ for a temporary file: its errors name the file that it is going to be.
    """

    __slots__ = ("fd", "path", "shown")

    def __init__(self, fd: int, path: str, shown: str | None = None) -> None:
        self.fd = fd
        self.path = path
        self.shown = path if shown is None else shown

    def __repr__(self) -> str:
        return f"OpenFile({self.fd}, {self.path!r})"


def _refuse_creation(path: str, error: FileIOError) -> NoReturn:
    """Raise the failure to create a temporary file as one of the file that was asked for."""
    cause = error.__cause__
    if not isinstance(cause, OSError):
        raise error
    directory = os.path.dirname(path) or "."
    if cause.errno == errno.ENOENT and not os.path.lexists(directory):
        cause = OSError(errno.ENOENT, f"there is no folder {directory}")
    raise FileIOError(path, error.operation, cause) from cause


class _Reported:
    """Turn an `OSError` of the block into a `FileIOError`."""

    __slots__ = ("operation", "path")

    def __init__(self, path: str, operation: str) -> None:
        self.path = path
        self.operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise FileIOError(self.path, self.operation, error) from error


class FileSystem:
    """File operations, each of which either happens or raises `FileIOError`."""

    def resolve(self, path: str | os.PathLike[str]) -> str:
        """Return the absolute path of the file itself, with symbolic links followed.

        A database is resolved once, when it is opened, so that its log and temporary files stand
        beside the file and a rename replaces the file, never a link to it.
        """
        text = os.fsdecode(path)
        with _Reported(text, "resolve the path"):
            if "\0" in text:
                raise OSError(errno.EINVAL, "the path contains a NUL character")
            if not text:
                raise OSError(errno.ENOENT, "the path is empty")
            return os.path.realpath(text)

    def exists(self, path: str) -> bool:
        """Say whether anything stands at the path, be it a dangling link."""
        return os.path.lexists(path)

    def open_read(self, path: str) -> OpenFile:
        """Open an existing regular file for reading.

        Raises:
            NotADatabaseError: a directory, FIFO, socket or device stands there. A FIFO is refused
                without waiting for its other end.
        """
        return self._open(path, _READ_FLAGS, "open")

    def open_write(self, path: str) -> OpenFile:
        """Open an existing regular file for reading and writing."""
        return self._open(path, _WRITE_FLAGS, "open for writing")

    def create(self, path: str, mode: int = 0o666) -> OpenFile:
        """Create a file that must not exist yet. `mode` is subject to the umask."""
        with _Reported(path, "create"):
            return OpenFile(os.open(path, _CREATE_FLAGS, mode), path)

    def create_temporary(self, path: str, mode: int = 0o666) -> OpenFile:
        """Create a temporary file beside `path`, named `.NAME.tmp-<8 hex digits>`, and lock it.

        The lock tells `sweep_temporaries` in another process that the file is still being written.
        """
        while True:
            temporary = self.temporary_name(path)
            try:
                file = self.create(temporary, mode)
            except FileIOError as error:
                if error.errno == errno.EEXIST:
                    continue
                _refuse_creation(path, error)
            file.shown = path
            try:
                self.lock(file)
                if self.status(file).st_nlink:
                    return file
            except LockedError:
                pass
            except BaseException:
                self.close(file)
                self.unlink(temporary)
                raise
            # A sweep came between creation and lock. It removes the name; we take another one.
            self.close(file)

    def temporary_name(self, path: str) -> str:
        """Return a name for a temporary file beside `path`."""
        directory, name = os.path.split(path)
        return os.path.join(directory, f".{name}.tmp-{os.urandom(4).hex()}")

    def create_spool(self, path: str) -> OpenFile:
        """Create a nameless scratch file on the file system of `path`; it vanishes when closed."""
        directory = os.path.dirname(path) or "."
        if _O_TMPFILE is not None:
            try:
                return OpenFile(os.open(directory, os.O_RDWR | os.O_CLOEXEC | _O_TMPFILE, 0o600), path)
            except OSError as error:
                if error.errno not in {errno.EISDIR, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL}:
                    raise FileIOError(path, "create a scratch file beside it", error) from error
        file = self.create_temporary(path, 0o600)
        self.unlink(file.path)
        return OpenFile(file.fd, path)

    def close(self, file: OpenFile) -> None:
        """Close a file. A second call does nothing."""
        fd, file.fd = file.fd, -1
        if fd >= 0:
            with _Reported(file.shown, "close"):
                os.close(fd)

    def status(self, file: OpenFile) -> os.stat_result:
        """Return what `fstat` says."""
        with _Reported(file.shown, "inspect"):
            return os.fstat(file.fd)

    def status_at(self, path: str) -> os.stat_result | None:
        """Return what `stat` says of the path, or None when nothing stands there."""
        try:
            return os.stat(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileIOError(path, "inspect", error) from error

    def map_read(self, file: OpenFile, size: int) -> mmap.mmap:
        """Map the first `size` (> 0) bytes read-only. The map outlives the open file."""
        with _Reported(file.shown, "map"):
            try:
                return mmap.mmap(file.fd, size, access=mmap.ACCESS_READ)
            except (ValueError, OverflowError) as error:
                raise OSError(errno.ENOMEM, str(error)) from error

    def read(self, file: OpenFile, size: int, offset: int) -> bytes:
        """Return up to `size` bytes at `offset`; fewer only at the end of the file."""
        with _Reported(file.shown, "read"):
            data = os.pread(file.fd, size, offset)
            if len(data) == size or not data:
                return data
            parts = [data]
            got = len(data)
            while got < size and (data := os.pread(file.fd, size - got, offset + got)):
                parts.append(data)
                got += len(data)
            return b"".join(parts)

    def read_into(self, file: OpenFile, buffer: memoryview, offset: int) -> int:
        """Fill a writable byte buffer from `offset` and return how much there was."""
        got = 0
        with _Reported(file.shown, "read"):
            while got < len(buffer):
                if hasattr(os, "preadv"):
                    count = os.preadv(file.fd, [buffer[got:]], offset + got)
                else:
                    data = os.pread(file.fd, min(len(buffer) - got, 1 << 20), offset + got)
                    count = len(data)
                    buffer[got : got + count] = data
                if count == 0:
                    break
                got += count
        return got

    def write(self, file: OpenFile, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`. After an error any part of it may have been written."""
        try:  # every acknowledged write waits for this: it takes no more steps than it has to
            written = os.pwrite(file.fd, data, offset)
        except OSError as error:
            raise FileIOError(file.shown, "write", error) from error
        if written == len(data):
            return
        with _Reported(file.shown, "write"):
            rest = memoryview(data)[written:]
            while rest:
                offset += written
                written = os.pwrite(file.fd, rest, offset)
                if written == 0:
                    raise OSError(errno.EIO, "the system wrote nothing")
                rest = rest[written:]

    def truncate(self, file: OpenFile, size: int) -> None:
        """Set the file's length."""
        with _Reported(file.shown, "truncate"):
            os.ftruncate(file.fd, size)

    def sync(self, file: OpenFile) -> None:
        """Return when the file's content and everything needed to read it is on stable storage."""
        with _Reported(file.shown, "sync"):
            if _F_FULLFSYNC is not None:
                # macOS: fsync leaves the data in the drive's cache.
                try:
                    fcntl.fcntl(file.fd, _F_FULLFSYNC)
                except OSError as error:
                    if error.errno not in _UNSUPPORTED:
                        raise
                else:
                    return
            os.fsync(file.fd)

    def sync_data(self, file: OpenFile) -> None:
        """Like `sync`, but leaves out metadata that is not needed to read the data, such as times."""
        if _F_FULLFSYNC is not None:
            self.sync(file)
            return
        try:
            _FDATASYNC(file.fd)
        except OSError as error:
            raise FileIOError(file.shown, "sync", error) from error

    def sync_directory(self, path: str) -> None:
        """Make the names in the directory of `path` durable: creations, renames and removals."""
        directory = os.path.dirname(path) or "."
        with _Reported(directory, "sync the directory"):
            fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            finally:
                os.close(fd)

    def rename(self, source: str, target: str) -> None:
        """Put `source` in place of `target` at once."""
        with _Reported(target, "replace"):
            os.rename(source, target)

    def install_new(self, temporary: str, path: str) -> None:
        """Give a finished temporary file its name, provided that nothing has the name yet.

        Raises:
            DatabaseExistsError: something stands at `path`; the temporary file is still there.
        """
        try:
            self.link(temporary, path)
        except FileIOError as error:
            if error.errno == errno.EEXIST:
                raise DatabaseExistsError(path) from error
            if error.errno not in _NO_LINKS:
                raise
            # Without hard links (FAT, some network file systems) there is a moment between the
            # check and the rename; nothing better exists there.
            if self.exists(path):
                raise DatabaseExistsError(path) from error
            self.rename(temporary, path)
            return
        self.unlink(temporary)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name that must not exist yet."""
        with _Reported(target, "create"):
            os.link(source, target)

    def unlink(self, path: str) -> None:
        """Remove a name. A name that is gone already is no error."""
        with _Reported(path, "remove"), contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def copy_permissions(self, file: OpenFile, original: os.stat_result) -> None:
        """Give a new file the mode and, where the system allows it, the owner of the one it replaces."""
        with _Reported(file.shown, "set the mode of"):
            mine = os.fstat(file.fd)
            if (mine.st_uid, mine.st_gid) != (original.st_uid, original.st_gid):
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fd, original.st_uid, original.st_gid)
            os.fchmod(file.fd, stat.S_IMODE(original.st_mode))

    def lock(self, file: OpenFile) -> None:
        """Take the exclusive lock of an open file.

        The lock belongs to the open file and to every duplicate of its descriptor, maps included,
        so it is given back with `unlock` rather than left to the last close.

        Raises:
            LockedError: another handle, in this process or another one, holds it.
        """
        try:
            fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}:
                raise LockedError(file.shown) from error
            raise FileIOError(file.shown, "lock", error) from error

    def unlock(self, file: OpenFile) -> None:
        """Give the lock back."""
        with _Reported(file.shown, "unlock"):
            fcntl.flock(file.fd, fcntl.LOCK_UN)

    def release(self, file: OpenFile) -> None:
        """Give the lock back and close the file; it is closed even if the first fails."""
        try:
            self.unlock(file)
        finally:
            self.close(file)

    def list_names(self, directory: str) -> list[str]:
        """Return the names in a directory."""
        with _Reported(directory or ".", "list"):
            return os.listdir(directory or ".")

    def sweep_temporaries(self, path: str) -> list[str]:
        """Remove what crashed writers of the database at `path` left behind, and say what it was.

        The holder of the database's lock calls this, and whoever is about to create or replace the file at
        `path`. It removes regular files in the directory named `.NAME.tmp-<8 hex digits>` for exactly this
        NAME, and of these only those whose lock it gets: a locked one is being written by a living process.
        A creation that ended between `link` and `unlink` left a second name of the database itself: that
        one goes without a lock, which the caller holds already. Where names cannot be listed nothing is
        swept; what the caller does next says what is wrong there.
        """
        directory, name = os.path.split(path)
        pattern = re.compile(re.escape(f".{name}.tmp-") + "[0-9a-f]{8}")
        removed: list[str] = []
        database = self.status_at(path)
        try:
            names = self.list_names(directory)
        except FileIOError:
            return removed
        for entry in sorted(filter(pattern.fullmatch, names)):
            leftover = os.path.join(directory, entry)
            try:
                file = self.open_write(leftover)
            except (FileIOError, NotADatabaseError):
                continue  # gone meanwhile, not ours to open, or no regular file: not our leftover
            try:
                if database is None or not os.path.samestat(self.status(file), database):
                    self.lock(file)
                self.unlink(leftover)
                removed.append(leftover)
            except LockedError:
                pass
            finally:
                self.close(file)
        return removed

    def _open(self, path: str, flags: int, operation: str) -> OpenFile:
        try:
            fd = os.open(path, flags)
        except OSError as error:
            if error.errno in {errno.EISDIR, errno.ENXIO}:
                self._refuse_special(path, os.stat(path).st_mode)
            raise FileIOError(path, operation, error) from error
        try:
            with _Reported(path, "inspect"):
                mode = os.fstat(fd).st_mode
            self._refuse_special(path, mode)
        except BaseException:
            os.close(fd)
            raise
        return OpenFile(fd, path)

    @staticmethod
    def _refuse_special(path: str, mode: int) -> None:
        if not stat.S_ISREG(mode):
            kind = next((text for is_kind, text in _KINDS if is_kind(mode)), "no regular file")
            raise NotADatabaseError(path, f"it is {kind}")


OS_FILES = FileSystem()
