"""Loading plain vectors gives the bytes that the general way gives, or nothing at all."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    DamagedError,
    DatabaseExistsError,
    FileIOError,
    Ids,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    RecordBatch,
)
from iqdb_core import plain_load as plain_module
from iqdb_core.plain_load import create_from_plain, is_loadable
from iqdb_core.storage.files import FileSystem

DATABASE_ID = bytes(range(16))


class Vectors:
    """Vectors in memory, as a source."""

    def __init__(self, values: Any) -> None:
        self.values = np.ascontiguousarray(values, np.float32)
        self.n_rows, self.dim = self.values.shape

    def read_into(self, buffer: memoryview, row: int) -> None:
        """Copy what stands there."""
        count = len(buffer) // (4 * self.dim)
        buffer[:] = self.values[row : row + count].tobytes()

    def where(self, row: int) -> str:
        """Name a row."""
        return f"row {row}"


def config(dim: int, threads: int = 2) -> IqdbConfig:
    return IqdbConfig(dim=dim, metric="euclidean", database_id=DATABASE_ID, threads=threads)


def some_vectors(n_rows: int, dim: int) -> Any:
    return np.random.default_rng(n_rows).normal(size=(n_rows, dim)).astype(np.float32)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces of few bytes, and writes that end inside them."""
    monkeypatch.setattr(plain_module, "_PIECE_BYTES", 8192)
    monkeypatch.setattr(plain_module, "WRITE_BYTES", 5000)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("n_rows", "dim"), [(1, 1), (1, 4096), (5, 3), (1024, 1), (5000, 7), (700, 384)])
def test_the_bytes_are_those_of_the_general_way(n_rows: int, dim: int, threads: int, tmp_path: Path) -> None:
    values = some_vectors(n_rows, dim)
    seen: list[int] = []
    report = create_from_plain(
        tmp_path / "plain.iqdb", config(dim, threads), Vectors(values), first_id=7, progress=seen.append
    )
    ids = Ids.from_u64(np.arange(7, 7 + n_rows, dtype=np.uint64))
    expected = Iqdb.create_from(tmp_path / "general.iqdb", config(dim), [RecordBatch(ids, values)])
    assert (tmp_path / "plain.iqdb").read_bytes() == (tmp_path / "general.iqdb").read_bytes()
    assert report == expected
    assert seen == sorted(seen)
    assert seen[-1] == n_rows


def test_pieces_of_the_usual_size_give_the_same_bytes(tmp_path: Path) -> None:
    values = some_vectors(30_000, 100)
    create_from_plain(tmp_path / "plain.iqdb", config(100), Vectors(values))
    ids = Ids.from_u64(np.arange(30_000, dtype=np.uint64))
    Iqdb.create_from(tmp_path / "general.iqdb", config(100), [RecordBatch(ids, values)])
    assert (tmp_path / "plain.iqdb").read_bytes() == (tmp_path / "general.iqdb").read_bytes()


def test_pieces_begin_blocks_and_stay_small() -> None:
    for dim in (*range(1, 3000), 4096, 65_536):
        size = 4 * dim * plain_module._piece_rows(dim)
        assert size % 4096 == 0
        assert is_loadable(dim) == (size <= 8 << 20)
    assert all(is_loadable(dim) for dim in (384, 768, 1000, 1536, 2047, 3072, 4096))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("row", [0, 1500, 2999])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_infinity_is_named_and_nothing_is_left(row: int, value: float, tmp_path: Path) -> None:
    values = some_vectors(3000, 6)
    values[row:, 4] = value
    with pytest.raises(InvalidVectorError, match=rf"row {row}\b.*holds {value}") as caught:
        create_from_plain(tmp_path / "a.iqdb", config(6), Vectors(values))
    assert caught.value.component == 4
    assert list(tmp_path.iterdir()) == []


def test_an_existing_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.iqdb").write_bytes(b"mine")
    with pytest.raises(DatabaseExistsError):
        create_from_plain(tmp_path / "a.iqdb", config(3), Vectors(some_vectors(3, 3)))
    assert (tmp_path / "a.iqdb").read_bytes() == b"mine"


class OneCall(FileSystem):
    """The real files, of which one write of vectors fails or alters its bytes."""

    def __init__(self, number: int, *, alter: bool) -> None:
        self.left = number
        self.alter = alter

    def write(self, file: Any, data: Any, offset: int) -> None:
        """Write, or do what was asked for."""
        self.left -= 1
        if self.left == 0:
            if not self.alter:
                raise FileIOError(file.path, "write", OSError(errno.ENOSPC, "No space left on device"))
            data = bytearray(data)
            data[len(data) // 2] ^= 1
        super().write(file, data, offset)


@pytest.mark.usefixtures("small_pieces")
def test_every_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    source = Vectors(some_vectors(2000, 6))
    failed = 0
    for number in range(1, 100):
        try:
            create_from_plain(tmp_path / "a.iqdb", config(6), source, files=OneCall(number, alter=False))
        except FileIOError:
            assert list(tmp_path.iterdir()) == []
            failed += 1
        else:
            break
    assert failed > 8


@pytest.mark.usefixtures("small_pieces")
def test_every_write_that_alters_a_bit_is_found_before_the_file_has_its_name(tmp_path: Path) -> None:
    source = Vectors(some_vectors(2000, 6))
    for number in range(1, 9):
        with pytest.raises(DamagedError):
            create_from_plain(tmp_path / "a.iqdb", config(6), source, files=OneCall(number, alter=True))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_pieces")
def test_a_reader_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Vectors):
        def read_into(self, buffer: memoryview, row: int) -> None:
            if row:
                raise FileIOError("vectors.npy", "read", OSError(errno.EIO, "Input/output error"))
            super().read_into(buffer, row)

    with pytest.raises(FileIOError, match=r"vectors\.npy"):
        create_from_plain(tmp_path / "a.iqdb", config(6), Broken(some_vectors(2000, 6)))
    assert list(tmp_path.iterdir()) == []
