"""Records, images of snapshots and a file layer that fails, for the tests of storage."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core.errors import FileIOError
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage.files import FileSystem
from iqdb_core.storage.snapshot_writer import SnapshotWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from iqdb_core.storage.files import OpenFile
    from iqdb_core.storage.section_stream import Bytes

DATABASE_ID = bytes(range(16))


def _config(dim: int = 3, compression: str = "none", metric: str = "cosine") -> dict[str, Any]:
    return {
        "compression": compression,
        "dim": dim,
        "index": {"kind": "flat"},
        "metric": metric,
        "provenance": {"source": "test"},
    }


def _records(
    ids: Sequence[int | bytes | str] | int,
    dim: int = 3,
    metadata: Sequence[dict[str, Any] | None] | None = None,
    seed: int = 7,
) -> RecordBatch:
    every = list(range(ids)) if isinstance(ids, int) else list(ids)
    vectors = np.random.default_rng(seed).standard_normal((len(every), dim)).astype(np.float32)
    columns = None if metadata is None else MetadataColumns.from_dicts(metadata)
    return RecordBatch(Ids.from_list(every), vectors, columns)


def _image(
    batch: RecordBatch, compression: str = "none", *, cuts: Sequence[int] = (), **options: Any
) -> bytes:
    sink = bytearray()
    config = _config(batch.vectors.shape[1], compression)
    with SnapshotWriter(sink, config, DATABASE_ID, **options) as writer:
        for start, stop in zip([0, *cuts], [*cuts, len(batch)], strict=True):
            writer.append(batch.slice(start, stop))
        writer.finish()
    return bytes(sink)


@pytest.fixture(scope="session")
def database_id() -> bytes:
    return DATABASE_ID


@pytest.fixture(scope="session")
def config() -> Callable[..., dict[str, Any]]:
    """Build a stored configuration: config(dim, compression, metric)."""
    return _config


@pytest.fixture(scope="session")
def records() -> Callable[..., RecordBatch]:
    """Build a batch: records(ids or their number, dim, metadata, seed)."""
    return _records


@pytest.fixture(scope="session")
def image() -> Callable[..., bytes]:
    """Write a batch into memory, cut into batches at `cuts`: image(batch, compression, cuts=...)."""
    return _image


class RecordingFiles(FileSystem):
    """The real file layer, which notes every change and refuses those it is told to.

    Attributes:
        calls: (operation, file name, size or offset) of every change, in order.
        fail: operation -> how many more calls of it succeed before one fails; it then stays failing.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, int]] = []
        self.fail: dict[str, int] = {}
        self.partial_bytes: int | None = None

    def names(self) -> list[str]:
        """Return the operations so far."""
        return [call[0] for call in self.calls]

    def _note(self, operation: str, path: str, number: int = 0) -> None:
        self.calls.append((operation, Path(path).name, number))
        if operation in self.fail:
            if self.fail[operation] <= 0:
                raise FileIOError(path, operation, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            self.fail[operation] -= 1

    def create(self, path: str, mode: int = 0o666) -> OpenFile:
        self._note("create", path)
        return super().create(path, mode)

    def write(self, file: OpenFile, data: Bytes, offset: int) -> None:
        try:
            self._note("write", file.path, offset)
        except FileIOError:
            if self.partial_bytes is not None:
                super().write(file, bytes(data)[: self.partial_bytes], offset)
            raise
        super().write(file, data, offset)

    def truncate(self, file: OpenFile, size: int) -> None:
        self._note("truncate", file.path, size)
        super().truncate(file, size)

    def sync(self, file: OpenFile) -> None:
        self._note("sync", file.path)
        super().sync(file)

    def sync_data(self, file: OpenFile) -> None:
        self._note("sync_data", file.path)
        super().sync_data(file)

    def sync_directory(self, path: str) -> None:
        self._note("sync_directory", path)
        super().sync_directory(path)

    def rename(self, source: str, target: str) -> None:
        self._note("rename", target)
        super().rename(source, target)

    def link(self, source: str, target: str) -> None:
        self._note("link", target)
        super().link(source, target)

    def unlink(self, path: str) -> None:
        self._note("unlink", path)
        super().unlink(path)


@pytest.fixture
def files() -> RecordingFiles:
    return RecordingFiles()
