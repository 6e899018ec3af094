"""Files that appear under their names when all of them are written, one or several that belong together.

Several files cannot get their names at once. So the first one stands for all: its old file goes before
anything else changes, and the new one gets its name last. Whoever finds the first file finds the others that
belong to it, whenever the process was killed or the power failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from iqdb_cli.termination import taken_back_when_terminated
from iqdb_core.errors import FileIOError

if TYPE_CHECKING:
    import os

    from iqdb_core.storage.files import FileSystem


class Place(NamedTuple):
    """Where a file goes.

    Attributes:
        shown: the path that was asked for, which is what errors name.
        target: the path of the file itself, without symbolic links.
        before: the status of what stands there, None for nothing.
    """

    shown: str
    target: str
    before: os.stat_result | None


def place_of(path: str, files: FileSystem) -> Place:
    """Look at what stands at a path.

    Raises:
        FileIOError: the system refused.
    """
    with _reported_of(path):
        target = files.resolve(path)
        return Place(path, target, files.status_at(target))


class NewFile:
    """A file that is written under a temporary name beside its own, as a stream.

    Attributes:
        place: where it goes.
    """

    def __init__(self, place: Place, files: FileSystem) -> None:
        """Create the temporary file; what a run that was killed left of one is removed."""
        self.place = place
        self._files = files
        self._size = 0
        with _reported_of(place.shown):
            # One that is being written by another process is locked, and stays.
            files.sweep_temporaries(place.target)
            # Not even for a moment may others open what they could not open before.
            self._file = files.create_temporary(place.target, 0o666 if place.before is None else 0o600)
        self._temporary = self._file.path

    def write(self, data: memoryview, /) -> int:
        """Append all of `data`."""
        with _reported_of(self.place.shown):
            self._files.write(self._file, data, self._size)
        self._size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is written is with the system."""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file.fd

    def settle(self) -> None:
        """Give the file its mode, and make it durable, still under its temporary name."""
        with _reported_of(self.place.shown):
            if self.place.before is not None:
                self._files.copy_permissions(self._file, self.place.before)
            self._files.sync(self._file)

    def install(self) -> None:
        """Put the file in the place of what stands there."""
        with _reported_of(self.place.shown):
            self._files.rename(self._temporary, self.place.target)
            self._file.path = self.place.target

    def sync_name(self) -> None:
        """Make durable what happened to the names beside this file."""
        with _reported_of(self.place.shown):
            self._files.sync_directory(self.place.target)

    def uninstall(self) -> None:
        """Take away what `install` has put there, if it has: an interrupt may have come between its steps."""
        if not self._files.exists(self._temporary):
            self._files.unlink(self.place.target)
            self._file.path = self._temporary

    def discard(self) -> None:
        """Remove the file, unless it has its name."""
        if self._file.path != self.place.target:
            with contextlib.suppress(FileIOError):
                self._files.unlink(self._temporary)

    def close(self) -> None:
        """Close the file; it must have been installed or discarded."""
        self._files.release(self._file)


@contextlib.contextmanager
def replaced_files(places: Sequence[Place], files: FileSystem) -> Iterator[list[NewFile]]:
    """Write files which get their names at the end of the block, and are durable then.

    After an error, an interrupt or a request to end, nothing is left of them, and the old files are as they
    were. A process that is killed, or a power cut, leaves all old files, or all new ones, or the first of
    `places` missing; one file alone is the old or the new one. What else it leaves is removed by the next
    process that writes to the same name.

    Args:
        places: where regular files stand, or nothing.
        files: the file layer.

    Raises:
        FileIOError: a file cannot be written.
    """
    with taken_back_when_terminated(), contextlib.ExitStack() as stack:
        new: list[NewFile] = []
        for place in places:
            file = NewFile(place, files)
            stack.callback(file.close)
            stack.callback(file.discard)
            new.append(file)
        yield new
        for file in new:
            file.settle()
        if len(new) == 1:
            new[0].install()
            new[0].sync_name()
        elif new:
            _exchange(new, files)


def _exchange(new: list[NewFile], files: FileSystem) -> None:
    """Put several files that are durable in the place of the old ones."""
    first, *others = new
    exchange = _Aside(files)
    try:
        exchange.put(first)
        # Durable before anything else changes: the old first file must not come back beside new ones.
        if first.place.before is not None:
            first.sync_name()
        for file in others:
            exchange.put(file)
            file.install()
        for file in others:
            file.sync_name()
        first.install()
        first.sync_name()
    except BaseException as error:
        exchange.put_back(error)
        raise
    exchange.remove()


class _Aside:
    """Old files under temporary names while new ones take their places."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._moved: list[tuple[NewFile, str | None]] = []

    def put(self, file: NewFile) -> None:
        """Put the old file of a new one aside, if there is one."""
        place = file.place
        name = None if place.before is None else self._files.temporary_name(place.target)
        # Noted first: an interrupt may come between any two steps.
        self._moved.append((file, name))
        if name is not None:
            with _reported_of(place.shown):
                self._files.rename(place.target, name)

    def put_back(self, cause: BaseException) -> None:
        """Put all old files back; the first one goes away first and comes last, as on the way there.

        Raises:
            FileIOError: that failed as well; the message says where an old file is.
        """
        (first, _), *others = self._moved
        self._restore(first, None, cause)
        for file, name in others:
            self._restore(file, name, cause)
        for file, _ in others:
            with contextlib.suppress(FileIOError):  # nothing better can be done than going on
                file.sync_name()
        self._restore(*self._moved[0], cause)

    def _restore(self, file: NewFile, name: str | None, cause: BaseException) -> None:
        try:
            if name is None:
                file.uninstall()
            elif self._files.exists(name):
                self._files.rename(name, file.place.target)
        except FileIOError as error:
            doing = "write" if name is None else f"write, nor put the old file back from {name}"
            reason = error.__cause__
            raise FileIOError(
                file.place.shown, doing, reason if isinstance(reason, OSError) else OSError(str(error))
            ) from cause

    def remove(self) -> None:
        """Remove the old files. What fails here is left to the next run."""
        for _, name in self._moved:
            if name is not None:
                with contextlib.suppress(FileIOError):
                    self._files.unlink(name)


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
