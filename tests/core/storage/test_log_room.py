"""Room: zeros that a writer puts behind the frames of a log, and frames that it writes over them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core import FsyncPolicy, Iqdb
from iqdb_core.errors import FileIOError, LogDamagedError
from iqdb_core.storage.files import FileSystem
from iqdb_core.storage.inspect import inspect_file
from iqdb_core.storage.verify import verify_file
from iqdb_core.storage.wal import LogWriter, read_log

if TYPE_CHECKING:
    from iqdb_core.storage.files import OpenFile
    from iqdb_core.storage.wal import LogContents

DATABASE_ID = bytes(range(16))
IDENTITY = 77
DIM = 4
ALWAYS = FsyncPolicy.ALWAYS
FRAME_BYTES = 40 + 16 + 16 + 4 * DIM
ROOM_BYTES = 64 << 10


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes.iqdb.wal")


def create(path: str, policy: FsyncPolicy = ALWAYS, **options: Any) -> LogWriter:
    return LogWriter.create(path, DATABASE_ID, IDENTITY, DIM, policy, **options)


def write(writer: LogWriter, *ids: int) -> None:
    for id_ in ids:
        writer.append_single_upsert(id_, np.full(DIM, id_, np.float32).tobytes(), None)


def read(path: str, **options: Any) -> LogContents:
    return read_log(path, DATABASE_ID, IDENTITY, DIM, **options)


def ids_in(path: str, **options: Any) -> list[Any]:
    with read(path, **options) as contents:
        return [id_ for frame in contents.frames() for id_ in frame.batch.ids.to_list()]  # type: ignore[union-attr]


def test_the_second_small_frame_gets_room_behind_it_and_close_cuts_that_off(path: str) -> None:
    writer = create(path)
    write(writer, 1)
    assert Path(path).stat().st_size == writer.size == 64 + FRAME_BYTES
    write(writer, 2)
    length = Path(path).stat().st_size
    assert writer.size == 64 + 2 * FRAME_BYTES
    assert length % 4096 == 0
    assert 0 <= length - writer.size - ROOM_BYTES < 4096
    while writer.size + FRAME_BYTES <= length:
        write(writer, 3)
        assert Path(path).stat().st_size == length
    write(writer, 4)
    assert Path(path).stat().st_size - writer.size >= 2 * ROOM_BYTES
    with read(path) as contents:
        assert (contents.valid_bytes, contents.torn_bytes) == (writer.size, 0)
        assert contents.room_bytes == Path(path).stat().st_size - writer.size
    writer.close()
    assert Path(path).stat().st_size == writer.size
    assert set(ids_in(path)) == {1, 2, 3, 4}


@pytest.mark.parametrize("policy", [FsyncPolicy.NEVER, FsyncPolicy.periodic(5)])
def test_room_is_made_only_where_every_frame_is_synced(path: str, policy: FsyncPolicy) -> None:
    writer = create(path, policy)
    write(writer, 1, 2, 3)
    assert Path(path).stat().st_size == writer.size
    writer.close()


def test_large_frames_and_fold_frames_get_no_room(path: str) -> None:
    from iqdb_core.records import Ids

    writer = create(path)
    many = np.zeros((5000, DIM), np.float32)
    for _ in range(3):
        writer.append_upsert(Ids.from_u64(np.arange(5000, dtype=np.uint64)), many, None)
        writer.append_fold(5)
        assert Path(path).stat().st_size == writer.size
    writer.close()


class NoRoom(FileSystem):
    """A disk that has space for frames, and none for room; it keeps a part of what it refuses."""

    def __init__(self) -> None:
        self.refused = 0

    def write(self, file: OpenFile, data: bytes | bytearray | memoryview, offset: int) -> None:
        if not any(data):
            self.refused += 1
            super().write(file, bytes(data)[:100], offset)
            raise FileIOError(file.path, "write", OSError(errno.ENOSPC, "No space left on device"))
        super().write(file, data, offset)


def test_a_disk_without_space_for_room_stores_every_frame_that_fits(path: str) -> None:
    files = NoRoom()
    writer = create(path, files=files)
    write(writer, *range(20))
    assert files.refused == 1
    assert ids_in(path) == list(range(20))
    writer.close()
    assert Path(path).stat().st_size == writer.size


def test_a_torn_frame_in_room_is_dropped_and_the_log_goes_on(path: str) -> None:
    writer = create(path)
    write(writer, 1, 2)
    end = writer.size
    write(writer, 9)
    data = Path(path).read_bytes()  # the writer is killed here
    for kept in range(FRAME_BYTES):
        torn = data[:end] + data[end : end + kept] + bytes(len(data) - end - kept)
        Path(path).write_bytes(torn)
        with read(path) as contents:
            assert contents.n_frames == 2
            assert contents.torn_bytes <= kept
            assert contents.valid_bytes + contents.torn_bytes + contents.room_bytes == len(data)
            again = LogWriter.open_for_append(contents, ALWAYS)
        assert Path(path).stat().st_size == end
        write(again, 3)
        assert ids_in(path) == [1, 2, 3]
        again.close()


def test_a_frame_lost_in_room_before_a_settled_one_is_damage(path: str) -> None:
    writer = create(path)
    write(writer, 1, 2, 3, 4)
    data = bytearray(Path(path).read_bytes())
    start = 64 + FRAME_BYTES
    data[start : start + FRAME_BYTES] = bytes(FRAME_BYTES)
    Path(path).write_bytes(data)
    with pytest.raises(LogDamagedError) as caught:
        read(path)
    assert (caught.value.frame, caught.value.offset_bytes) == (1, start)


class Behind(FileSystem):
    """Shows every reader's first look at some bytes as they were before a writer filled them."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.looked = 0

    def open_read(self, path: str) -> OpenFile:
        self.looked = 0
        return super().open_read(path)

    def read(self, file: OpenFile, size: int, offset: int) -> bytes:
        data = bytearray(super().read(file, size, offset))
        first, last = max(self.start - offset, 0), min(self.stop - offset, len(data))
        if first < last:
            self.looked += 1
            if self.looked == 1:
                data[first:last] = bytes(last - first)
        return bytes(data)


@pytest.mark.parametrize("n_bytes", [1, 40, FRAME_BYTES, 2 * FRAME_BYTES])
def test_a_reader_that_a_writer_overtakes_in_room_looks_again(path: str, n_bytes: int) -> None:
    """It had read zeros where a frame is by now, and whole frames behind them: that is no damage."""
    writer = create(path)
    write(writer, *range(8))
    start = 64 + 3 * FRAME_BYTES
    files = Behind(start, start + n_bytes)
    assert ids_in(path, files=files) == list(range(8))
    assert files.looked > 1
    writer.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "notes.iqdb"
    with Iqdb.open(path, dim=DIM) as db:
        db.upsert("first", [1.0] * DIM)
    return path


def test_refresh_finds_a_frame_that_changed_neither_length_nor_time(database: Path) -> None:
    log = Path(f"{database}.wal")
    with Iqdb.open_existing(database) as db:
        db.upsert(1, [1.0] * DIM)
        db.upsert(2, [1.0] * DIM)
        reader = Iqdb.open_existing(database, read_only=True)
        for id_ in range(3, 6):
            before = log.stat()
            db.upsert(id_, [1.0] * DIM)
            os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))  # a clock that has not ticked
            assert log.stat().st_size == before.st_size
            assert reader.refresh()
            assert id_ in reader
            assert not reader.refresh()
        reader.close()


def test_refresh_finds_that_the_log_was_made_anew_while_it_looked(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Iqdb.open_existing(database) as db:
        for id_ in range(1, 5):
            db.upsert(id_, [1.0] * DIM)
        reader = Iqdb.open_existing(database, read_only=True)
        db.compact()
        db.upsert("later", [1.0] * DIM)
        # What a reader sees that has asked for the status just before the compaction.
        before = reader._store
        names = before.view().base.snapshot
        monkeypatch.setattr("iqdb_core.opening.log_status", lambda *_: before.log_status)
        monkeypatch.setattr(names, "inode", (database.stat().st_dev, database.stat().st_ino))
        assert reader.refresh()
        assert "later" in reader
        reader.close()


def test_room_left_by_a_killed_writer_is_accounted_for_and_no_finding(database: Path) -> None:
    log = Path(f"{database}.wal")
    with Iqdb.open_existing(database) as db:
        for id_ in range(3):
            db.upsert(id_, [1.0] * DIM)
        end, left = db.info()["log_bytes"], log.read_bytes()
        db.close(compact=False)
    log.write_bytes(left)
    facts = inspect_file(database)
    assert facts["log"]["room_bytes"] == len(left) - end
    assert facts["log"]["torn_bytes"] == 0
    assert facts["log_bytes"] == sum(e["bytes"] for e in facts["ledger"] if e["file"] == "log") == len(left)
    report = verify_file(database)
    assert report.ok
    assert report.notes == []
    with Iqdb.open_existing(database) as db:
        assert len(db) == 4
        db.upsert("next", [1.0] * DIM)
        assert log.stat().st_size < end + 2 * FRAME_BYTES + 8 * DIM
        db.close(compact=False)
    assert len(Iqdb.open_existing(database, read_only=True)) == 5


def test_a_forked_child_that_ends_does_not_cut_off_what_came_later(database: Path) -> None:
    with Iqdb.open_existing(database) as db:
        db.upsert(1, [1.0] * DIM)
        db.upsert(2, [1.0] * DIM)
        go_read, go_write = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(go_read, 1)
            assert db._store.log is None  # the log is the parent's
            db._store.close()  # what the end of its interpreter would do
            os._exit(0)
        db.upsert(3, [1.0] * DIM)
        os.write(go_write, b"x")
        assert os.waitpid(child, 0)[1] == 0
        os.close(go_read)
        os.close(go_write)
        db.close(compact=False)
    with Iqdb.open_existing(database, read_only=True) as reader:
        assert [id_ in reader for id_ in (1, 2, 3)] == [True] * 3
