"""The 23 ways in which iqdb 1.x loses data or refuses its own files, and that none of them happens here.

The files named `made-way-N` were brought into that state by the crate itself; its reading of them is in
their JSON.
"""

from __future__ import annotations

import math
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard

from iqdb_core import (
    BatchTooLargeError,
    ChecksumError,
    DatabaseExistsError,
    DimensionMismatchError,
    FileIOError,
    FsyncPolicy,
    InvalidIdError,
    InvalidMetadataError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    LegacyDamagedError,
    LockedError,
    LogDamagedError,
    LogMismatchError,
    PoisonedError,
    SnapshotMissingError,
    TruncatedError,
)
from iqdb_core.legacy.compressed import decompress
from iqdb_core.legacy.report import verify_legacy
from iqdb_core.legacy.values import MalformedError
from iqdb_core.storage.codecs import ChunkError, decompress_chunk
from iqdb_core.storage.layout import CODEC_ZSTD


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def written(path: Path, count: int, dim: int = 2) -> bytes:
    """Make a database with `count` logged records and return its log."""
    with Iqdb.open(path, dim, "euclidean") as db:
        for i in range(count):
            db.upsert(i, [i] * dim)
        db.close(compact=False)
    return Path(f"{path}.wal").read_bytes()


def ids_of(path: Path) -> list[Any]:
    with Iqdb.open_existing(path, read_only=True) as db:
        return list(db.ids())


def upserted(path: Path, record_id: int) -> None:
    with Iqdb.open(path, 2, "euclidean") as db:
        db.upsert(record_id, [1, 1])
        db.close(compact=False)


def test_way_01_records_written_after_a_torn_tail_are_kept(tmp_path: Path, golden: Any) -> None:
    """Fails if a writer appends behind the torn bytes, or a reader of 1.x passes over what is behind them."""
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    whole = written(path, 5)
    for cut in range(1, 40, 7):
        log.write_bytes(whole[:-cut])
        assert ids_of(path) == [0, 1, 2, 3]
        upserted(path, 100)
        assert ids_of(path) == [0, 1, 2, 3, 100]
    old = golden("made-way-1")
    with pytest.raises(LogDamagedError) as caught:
        ids_of(old)
    assert (caught.value.frame, caught.value.offset_bytes) == (2, 99)
    (finding,) = verify_legacy(old).findings
    assert "drops this and the 2 whole frames (150 bytes)" in finding.effect


def test_way_02_a_log_shorter_than_its_header_gets_one_again(tmp_path: Path, golden: Any) -> None:
    """Fails if a write goes into a log without a header, or such a log of 1.x counts as empty."""
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    whole = written(path, 1)
    for size in (0, 1, 11, 63):
        log.write_bytes(b"" if size == 0 else whole[:size] if size < 8 else bytes(size))
        assert ids_of(path) == []
        upserted(path, 100)
        assert ids_of(path) == [100]
    for name in ("damaged-wal-empty0", "damaged-wal-short5"):
        assert len(ids_of(golden(name))) == 39
    with pytest.raises(LegacyDamagedError, match="log magic at byte 0"):
        ids_of(golden("made-way-2"))


@pytest.mark.parametrize("count", [8, 16, 40, 4096])
def test_way_03_zero_bytes_at_the_tail_are_no_frame(tmp_path: Path, golden: Any, count: int) -> None:
    """Fails if the checksum of nothing makes a frame of zeros, in either log."""
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    log.write_bytes(written(path, 3) + bytes(count))
    assert ids_of(path) == [0, 1, 2]
    upserted(path, 100)
    assert ids_of(path) == [0, 1, 2, 100]
    old = golden("cosine-flat-wal")
    expected = ids_of(old)
    old_log = Path(f"{old}.wal")
    old_log.write_bytes(old_log.read_bytes() + bytes(count))
    assert ids_of(old) == expected


def test_way_04_a_crash_between_rename_and_removal_of_the_log_replays_nothing_twice(
    tmp_path: Path, failing: Any
) -> None:
    """Fails if a log that the new snapshot holds is applied to it: the deleted 7 would move to the end."""
    path = tmp_path / "a.iqdb"
    written(path, 9)
    db = Iqdb.open_existing(path, files=failing)
    db.delete(7)
    db.upsert(7, [7, 7])
    db.upsert(100, [1, 1])
    db.delete(3)
    failing.armed = "unlink"
    with pytest.raises(FileIOError):
        db.compact()
    db.close()
    assert Path(f"{path}.wal").exists()
    for _ in range(2):
        assert ids_of(path) == [0, 1, 2, 4, 5, 6, 8, 7, 100]
        with Iqdb.open_existing(path) as again:
            assert len(again) == 9
    assert names_in(tmp_path) == ["a.iqdb"]


def test_way_05_another_databases_log_is_refused(tmp_path: Path, golden: Any) -> None:
    """Fails if a log is replayed onto a snapshot that it does not name.

    The logs of 1.x name none: there the length of the vectors is all that can give them away, and
    verify says so.
    """
    path = tmp_path / "a.iqdb"
    written(path, 2)
    Path(f"{path}.wal").write_bytes(written(tmp_path / "b.iqdb", 3))
    for read_only in (True, False):
        with pytest.raises(LogMismatchError):
            Iqdb.open_existing(path, read_only=read_only)
    with pytest.raises(LogDamagedError, match="length of the vector is 6, expected 4"):
        ids_of(golden("made-way-5"))
    assert "cannot be checked" in " ".join(verify_legacy(golden("cosine-flat-wal")).notes)


def test_way_06_nothing_is_logged_before_it_is_validated(tmp_path: Path) -> None:
    """Fails if one byte of a record that is refused reaches the log."""
    with Iqdb.open(tmp_path / "a.iqdb", 2) as db:
        db.upsert(1, [1, 2])
        before = (tmp_path / "a.iqdb.wal").read_bytes()
        for record in [(1, [1]), (1, [1, math.inf]), (-1, [1, 2]), (b"", [1, 2]), (1, [1, 2], {"a": 2**63})]:
            with pytest.raises(
                (InvalidVectorError, DimensionMismatchError, InvalidIdError, InvalidMetadataError)
            ):
                db.upsert(*record)
        assert (tmp_path / "a.iqdb.wal").read_bytes() == before


def test_way_07_records_written_after_a_half_written_one_are_kept(tmp_path: Path, failing: Any) -> None:
    """Fails if writing goes on behind a record that a full disk cut in half."""
    path = tmp_path / "a.iqdb"
    written(path, 3)
    db = Iqdb.open_existing(path, files=failing)
    db.upsert(50, [1, 1])
    failing.armed = "write half"
    with pytest.raises(FileIOError):
        db.upsert(51, [1, 1])
    # Space is there again, but the handle has lost its word.
    with pytest.raises(PoisonedError):
        db.upsert(52, [1, 1])
    db.close()
    assert ids_of(path) == [0, 1, 2, 50]
    upserted(path, 53)
    assert ids_of(path) == [0, 1, 2, 50, 53]


def test_way_08_a_record_whose_sync_failed_does_not_come_back(tmp_path: Path, failing: Any) -> None:
    """Fails if a write that was reported as failed is there after a reopen, or later syncs are believed."""
    path = tmp_path / "a.iqdb"
    written(path, 3)
    db = Iqdb.open_existing(path, files=failing)
    db.upsert(50, [1, 1])
    failing.armed = "sync_data"
    with pytest.raises(FileIOError):
        db.upsert(51, [1, 1])
    assert 51 not in db
    with pytest.raises(PoisonedError):
        db.delete(50)
    db.close()
    assert ids_of(path) == [0, 1, 2, 50]


def test_way_09_a_record_too_large_for_a_frame_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    """Fails if more than 256 MiB are acknowledged, or what comes after is not there."""
    path = tmp_path / "a.iqdb"
    text = "x" * (16 * 2**20)
    with Iqdb.open(path, 1) as db:
        db.upsert(1, [1])
        with pytest.raises(BatchTooLargeError):
            db.upsert_many(range(17), [[1]] * 17, [{"a": text}] * 17)
        db.upsert(2, [1])
        db.close(compact=False)
    assert ids_of(path) == [1, 2]


def test_way_10_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Fails if two processes can append to one log."""
    path = tmp_path / "a.iqdb"
    with Iqdb.open(path, 2) as db:
        program = f"from iqdb_core import Iqdb\nIqdb.open_existing({str(path)!r})"
        other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert "LockedError" in other.stderr
        with pytest.raises(LockedError):
            Iqdb.open(path, 2)
        db.upsert(1, [1, 1])
    assert ids_of(path) == [1]


def test_way_11_one_flipped_bit_before_valid_frames_is_reported(tmp_path: Path, golden: Any) -> None:
    """Fails if the first of 100 frames can vanish with those behind it, here or in a log of 1.x."""
    path, log = tmp_path / "a.iqdb", tmp_path / "a.iqdb.wal"
    damaged = bytearray(written(path, 100))
    damaged[64 + 50] ^= 1
    log.write_bytes(damaged)
    for read_only in (True, False):
        with pytest.raises(LogDamagedError) as caught:
            Iqdb.open_existing(path, read_only=read_only)
        assert caught.value.frame == 0
    assert log.read_bytes() == damaged
    for name, frame in (("made-way-11", 0), ("damaged-wal-midcrc", 7)):
        with pytest.raises(LogDamagedError) as caught:
            ids_of(golden(name))
        assert caught.value.frame == frame


def test_way_12_a_bare_file_name_can_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Any
) -> None:
    """Fails if a path without a folder cannot be compacted, converted or exported."""
    from iqdb_core.legacy.writer import write_legacy
    from iqdb_core.legacy_opening import convert

    golden("cosine-flat-wal", "old")
    monkeypatch.chdir(tmp_path)
    with Iqdb.open("a.iqdb", 1) as db:
        db.upsert(1, [1])
        db.compact()
        monkeypatch.chdir("/")
        db.upsert(2, [1])
    assert ids_of(tmp_path / "a.iqdb") == [1, 2]
    monkeypatch.chdir(tmp_path)
    convert("old.iqdb", "new.iqdb")
    with Iqdb.open_existing("new.iqdb") as db:
        write_legacy("back.iqdb", db.config, db.batches)
    assert names_in(tmp_path) == ["a.iqdb", "back.iqdb", "new.iqdb", "old.iqdb", "old.iqdb.wal"]


def test_way_13_creating_never_destroys(tmp_path: Path, golden: Any) -> None:
    """Fails if anything that makes a file changes one that is there, of this format or of 1.x."""
    from iqdb_core.legacy.writer import write_legacy
    from iqdb_core.legacy_opening import convert

    path = tmp_path / "a.iqdb"
    written(path, 2)
    old = golden("cosine-flat-wal", "old")
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    with Iqdb.open_in_memory(2) as db:
        for taken in (path, old):
            for attempt in (
                lambda p=taken: Iqdb.create(p, IqdbConfig(dim=2)),
                lambda p=taken: Iqdb.create_from(p, IqdbConfig(dim=2), []),
                lambda p=taken: convert(old, p),
                lambda p=taken: write_legacy(p, db.config, db.batches),
            ):
                with pytest.raises(DatabaseExistsError):
                    attempt()
        # A log that 1.x would replay onto the new snapshot stands in the way as well.
        (tmp_path / "c.iqdb.wal").write_bytes(b"")
        with pytest.raises(DatabaseExistsError, match=r"c\.iqdb\.wal"):
            write_legacy(tmp_path / "c.iqdb", db.config, db.batches)
        (tmp_path / "c.iqdb.wal").unlink()
    assert {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)} == before


def test_way_14_no_way_to_open_ignores_a_log_that_holds_records(tmp_path: Path, golden: Any) -> None:
    """Fails if a setting or a mode leaves acknowledged records out."""
    path = tmp_path / "a.iqdb"
    written(path, 2)
    for handle in (
        lambda: Iqdb.open_existing(path, read_only=True),
        lambda: Iqdb.open_existing(path, fsync=FsyncPolicy.NEVER),
        lambda: Iqdb.open(path, 2, "euclidean"),
        lambda: Iqdb.open_with(path, IqdbConfig(dim=2, metric="euclidean")),
    ):
        with handle() as db:
            assert len(db) == 2
            db.close(compact=False)
    assert len(ids_of(golden("cosine-flat-wal"))) == 41


def test_way_15_the_mode_is_kept_and_no_temporary_file_stays(tmp_path: Path, golden: Any) -> None:
    """Fails if a private file becomes readable by a save, or a crashed writer's file is never swept."""
    from iqdb_core.legacy_opening import convert

    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    path.chmod(0o600)
    (tmp_path / ".a.iqdb.tmp-0123abcd").write_bytes(b"left by a crash")
    with Iqdb.open_existing(path) as db:
        db.upsert(9, [1, 1])
        assert stat.S_IMODE(Path(f"{path}.wal").stat().st_mode) == 0o600
        db.compact()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names_in(tmp_path) == ["a.iqdb"]
    old = golden("cosine-flat-wal", "old")
    old.chmod(0o600)
    convert(old, tmp_path / "new.iqdb")
    assert stat.S_IMODE((tmp_path / "new.iqdb").stat().st_mode) == 0o600


def test_way_16_trailing_and_missing_bytes_are_refused(tmp_path: Path, golden: Any) -> None:
    """Fails if a file longer or shorter than it says opens, checksum right or not."""
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    whole = path.read_bytes()
    for image in (whole + b"\0", whole[:-1], whole[:5000]):
        path.write_bytes(image)
        with pytest.raises(TruncatedError):
            Iqdb.open_existing(path, read_only=True)
    # 1.x opens this one: its checksum covers the byte that is too many.
    with pytest.raises(LegacyDamagedError, match="uncompressed length at byte 51 is 508, expected the 509"):
        ids_of(golden("made-way-16"))


def test_way_17_decompression_is_bounded_while_it_runs() -> None:
    """Fails if more comes out of a block than was declared before anybody looks."""
    import tracemalloc

    zeros = bytes(1 << 30)
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(zeros)
    sized = zstandard.ZstdCompressor().compress(zeros)
    del zeros
    tracemalloc.start()
    with pytest.raises(ChunkError):
        decompress_chunk(CODEC_ZSTD, sized, 1 << 20)
    # The frame does not say how long it is, and its beginning is as long as it should be.
    with pytest.raises(MalformedError, match="the frame goes on"):
        decompress(1, bomb, 1 << 20)
    # A length beyond all reason is refused before anything is decoded.
    for scheme in (1, 2):
        with pytest.raises(MalformedError, match="at most"):
            decompress(scheme, b"\0" * 40, 1 << 40)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 << 20


def test_way_18_the_directory_is_synced_before_the_first_write_is_acknowledged(
    tmp_path: Path, failing: Any
) -> None:
    """Fails if the log's name can vanish in a power cut together with what was acknowledged."""
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    with Iqdb.open_existing(path, files=failing) as db:
        failing.calls.clear()
        db.upsert(1, [1, 1])
        calls = failing.calls
        assert calls.index("create") < calls.index("sync_directory")
        assert calls[-2:] == ["write", "sync_data"]


def test_way_19_the_periodic_policy_syncs_though_no_write_follows(tmp_path: Path, failing: Any) -> None:
    """Fails if the tail stays unsynced as long as nothing is written."""
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 1).close()
    with Iqdb.open_existing(path, fsync=FsyncPolicy.periodic(0.05), files=failing) as db:
        failing.calls.clear()
        db.upsert(1, [1])
        deadline = time.monotonic() + 30
        while "sync_data" not in failing.calls:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_way_20_a_flipped_bit_in_the_header_is_reported(tmp_path: Path, golden: Any) -> None:
    """Fails if a header field can change unnoticed. 1.x has no checksum there, but says it twice."""
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 2).close()
    damaged = bytearray(path.read_bytes())
    damaged[88] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ChecksumError):
        Iqdb.open_existing(path, read_only=True)
    with pytest.raises(LegacyDamagedError, match="dim at byte 68 is 8, expected 9"):
        ids_of(golden("damaged-snap-hdrdim"))


def test_way_21_snapshot_and_log_of_two_moments_are_not_put_together(tmp_path: Path, golden: Any) -> None:
    """Fails if an old snapshot takes a newer log, or one of 1.x that is replaced meanwhile is kept."""
    path = tmp_path / "a.iqdb"
    written(path, 2)
    with Iqdb.open_existing(path) as db:
        db.compact()
        old = path.read_bytes()
        db.upsert(8, [1, 1])
        db.compact()
        db.upsert(9, [1, 1])
        db.close(compact=False)
    path.write_bytes(old)
    with pytest.raises(LogMismatchError, match="extends snapshot"):
        Iqdb.open_existing(path)

    from iqdb_core.storage.files import FileSystem

    legacy = golden("cosine-flat-wal")
    expected = ids_of(legacy)
    newer = golden("euclidean-hnsw-snap", "newer")

    class Replacing(FileSystem):
        """Does, between snapshot and log, what the flush of 1.x does: rename, then an empty log."""

        done = False

        def exists(self, at: str) -> bool:
            if at == f"{legacy}.wal" and not self.done:
                self.done = True
                newer.rename(legacy)
                Path(at).write_bytes(b"IQDBWAL\0\x01\0\0\0")
            return super().exists(at)

    with Iqdb.open_existing(legacy, read_only=True, files=Replacing()) as db:
        assert Replacing.done is False
        assert db.metric.value == "euclidean"
        assert len(db) == 39
    assert len(expected) == 41


def test_way_22_an_empty_id_is_refused_at_the_door(tmp_path: Path, golden: Any) -> None:
    """Fails if an empty id gets into a file; in a log of 1.x it is named, with the frame that has it."""
    with Iqdb.open(tmp_path / "a.iqdb", 1) as db:
        for call in (
            lambda: db.upsert(b"", [1]),
            lambda: db.upsert_many([b""], [[1]]),
            lambda: db.delete(b""),
            lambda: db.get(b""),
            lambda: db.upsert("", [1]),
        ):
            with pytest.raises(InvalidIdError, match="empty"):
                call()
    with pytest.raises(LogDamagedError, match=r"frame 0 at byte 12 .* id is empty"):
        ids_of(golden("made-way-22"))


def test_way_23_a_missing_snapshot_is_no_empty_database(tmp_path: Path, golden: Any) -> None:
    """Fails if a log without its snapshot is truncated, or anything opens in its place."""
    path, old = tmp_path / "a.iqdb", golden("cosine-flat-wal")
    written(path, 2)
    for gone in (path, old):
        log = Path(f"{gone}.wal").read_bytes()
        gone.unlink()
        for handle in (
            lambda p=gone: Iqdb.open(p, 2, "euclidean"),
            lambda p=gone: Iqdb.create(p, IqdbConfig(dim=2)),
            lambda p=gone: Iqdb.open_existing(p),
            lambda p=gone: Iqdb.open_existing(p, read_only=True),
            lambda p=gone: Iqdb.create_from(p, IqdbConfig(dim=2), []),
        ):
            with pytest.raises(SnapshotMissingError, match=r"\.iqdb\.wal"):
                handle()
        assert Path(f"{gone}.wal").read_bytes() == log


def test_there_is_one_test_for_each_of_the_23_ways() -> None:
    ways = [name for name in globals() if name.startswith("test_way_")]
    assert [int(name.split("_")[2]) for name in ways] == list(range(1, 24))
    assert all("Fails if" in (globals()[name].__doc__ or "") for name in ways)
