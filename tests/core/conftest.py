"""A file layer that fails where a test says so."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import Iqdb, IqdbConfig
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


def _some_records(n: int, dim: int = 6, seed: int = 0) -> tuple[list[Any], Any, list[Any]]:
    rng = np.random.default_rng(seed)
    kinds = [lambda i: i, lambda i: f"id {i}", lambda i: b"\0%d" % i]
    ids = [kinds[i % 3](i) for i in range(n)]
    metadata = [
        None if i % 5 == 0 else {"n": i, "half": i / 2, "even": i % 2 == 0, "name": f"n{i % 7}", "none": None}
        for i in range(n)
    ]
    return ids, rng.integers(-3, 4, (n, dim)).astype(np.float32), metadata


@pytest.fixture
def some_records() -> Any:
    """Make n records: ids of all kinds, small whole vectors, metadata of all types."""
    return _some_records


@pytest.fixture(params=["file", "memory", "reopened", "folded"])
def filled(request: Any, tmp_path: Path) -> Any:
    """A database of 300 records in each state that a search may meet."""
    ids, vectors, metadata = _some_records(300)
    config = IqdbConfig(dim=6, metric="euclidean", auto_compact=None)
    db = (
        Iqdb.open_in_memory_with(config)
        if request.param == "memory"
        else Iqdb.open_with(tmp_path / "a.iqdb", config)
    )
    db.upsert_many(ids[:200], vectors[:200], metadata[:200])
    if request.param == "folded":
        db.compact()
    db.upsert_many(ids[200:], vectors[200:], metadata[200:])
    if request.param == "reopened":
        db.close(compact=False)
        db = Iqdb.open_existing(tmp_path / "a.iqdb", auto_compact=None)
    yield db
    db.close()
