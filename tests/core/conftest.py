"""A file layer that fails where a test says so."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from iqdb_core.errors import FileIOError
from iqdb_core.storage.files import FileSystem

OPERATIONS = (
    "create",
    "open_write",
    "write",
    "truncate",
    "sync",
    "sync_data",
    "sync_directory",
    "rename",
    "link",
    "unlink",
    "lock",
    "status",
    "map_read",
)


class FailingFiles(FileSystem):
    """Counts the operations and lets one of them fail, before or after it took place.

    Attributes:
        calls: the name of every operation so far.
        fail: which operation fails, by name and how many of that name come first; None: none does.
        after: fail after the operation was carried out.
        error_number: the system's number of the error, or an exception class to raise instead.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: tuple[str, int] | None = None
        self.after = False
        self.error_number: int | type[BaseException] = errno.EIO

    def arm(self, name: str, skip: int = 0, *, after: bool = False, error: Any = errno.EIO) -> None:
        self.fail, self.after, self.error_number = (name, skip), after, error

    def _fails(self, name: str, path: str) -> None:
        if self.fail is None or self.fail[0] != name:
            return
        if self.fail[1] > 0:
            self.fail = (name, self.fail[1] - 1)
            return
        self.fail = None
        if isinstance(self.error_number, int):
            raise FileIOError(path, name, OSError(self.error_number, "this failure was asked for"))
        raise self.error_number


def _counting(name: str) -> Any:
    def operation(self: FailingFiles, *arguments: Any, **named: Any) -> Any:
        self.calls.append(name)
        path = str(getattr(arguments[0], "path", arguments[0]))
        if not self.after:
            self._fails(name, path)
        result = getattr(FileSystem, name)(self, *arguments, **named)
        if self.after:
            self._fails(name, path)
        return result

    return operation


for _name in OPERATIONS:
    setattr(FailingFiles, _name, _counting(_name))


@pytest.fixture
def failing_files() -> FailingFiles:
    return FailingFiles()
