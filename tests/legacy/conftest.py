"""What the tests of the files of iqdb 1.x share."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core.errors import FileIOError
from iqdb_core.storage.files import FileSystem

GOLDEN = Path(__file__).parent.parent.parent / "formats" / "golden-1x"


class Failing(FileSystem):
    """Lets the next operation of one name fail, and notes the names of all."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.armed = ""
        self.wrote = 0

    def _noted(self, name: str, path: str) -> None:
        self.calls.append(name)
        if self.armed == name:
            self.armed = ""
            raise FileIOError(path, name, OSError(errno.ENOSPC, "this failure was asked for"))

    def write(self, file: Any, data: Any, offset: int) -> None:
        if self.armed == "write half":
            self.armed = "write"
            super().write(file, data[: len(data) // 2], offset)
        self._noted("write", file.path)
        super().write(file, data, offset)

    def create(self, path: str, mode: int = 0o666) -> Any:
        self._noted("create", path)
        return super().create(path, mode)

    def sync_data(self, file: Any) -> None:
        self._noted("sync_data", file.path)
        super().sync_data(file)

    def sync(self, file: Any) -> None:
        self._noted("sync", file.path)
        super().sync(file)

    def sync_directory(self, path: str) -> None:
        self._noted("sync_directory", path)
        super().sync_directory(path)

    def rename(self, source: str, target: str) -> None:
        self._noted("rename", target)
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._noted("unlink", path)
        super().unlink(path)


@pytest.fixture
def failing() -> Failing:
    return Failing()


@pytest.fixture
def golden(tmp_path: Path) -> Any:
    """Return a function that copies a golden database into the test's folder and returns its path."""

    def copy(name: str, to: str | None = None) -> Path:
        target = tmp_path / f"{to or name}.iqdb"
        for suffix in ("", ".wal"):
            source = GOLDEN / f"{name}.iqdb{suffix}"
            if source.exists():
                shutil.copyfile(source, f"{target}{suffix}")
        assert target.exists()
        return target

    return copy


def facts_of(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return facts


def bits(words: list[str]) -> Any:
    return np.array([int(word, 16) for word in words], np.uint32).view(np.float32)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def facts() -> Any:
    """Return a function that reads what is said of a golden file."""
    return facts_of


@pytest.fixture
def words() -> Any:
    """Return a function that makes a vector of the bits of its components."""
    return bits
