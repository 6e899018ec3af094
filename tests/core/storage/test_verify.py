"""How verification behaves. What it says of each kind of damage is in tests/formats/test_damaged.py."""

from __future__ import annotations

import json
import shutil
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core.config import IqdbConfig
from iqdb_core.database import Iqdb
from iqdb_core.errors import (
    DatabaseNotFoundError,
    FileIOError,
    NotADatabaseError,
    PersistError,
    UnsupportedVersionError,
)
from iqdb_core.storage.files import FileSystem, OpenFile
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.verify import verify_file

GOLDEN = Path(__file__).parents[3] / "formats" / "golden"
ROWS, DIM = 50_000, 64


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of 12.8 MB of vectors with ids in no order and metadata."""
    path = tmp_path_factory.mktemp("verify") / "large.iqdb"
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((ROWS, DIM), np.float32)
    ids = rng.permutation(ROWS)
    with Iqdb.create(path, IqdbConfig(dim=DIM)) as db:
        db.upsert_many(ids, vectors, [{"n": i, "kind": f"k{i % 5}"} for i in range(ROWS)])
    return path


@pytest.fixture
def copy(large: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(large, tmp_path / "copy.iqdb"))


def damage(path: Path, offset: int, data: bytes = b"\xaa\x55") -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def offset_of(path: Path, section: str) -> int:
    return Snapshot.open(path).sections[section].entry.offset


def test_a_whole_file_has_no_findings_and_the_digest_of_its_header(large: Path) -> None:
    report = verify_file(large)

    assert report.ok
    assert report.findings == []
    assert report.notes == []
    assert report.works == ["everything"]
    assert report.content_digest == Snapshot.open(large).digest.hex()
    assert report.n_rows == ROWS
    assert report.checked_bytes >= large.stat().st_size
    assert "section vectors" in report.whole


def test_checksums_alone_do_not_decode_the_records(large: Path) -> None:
    report = verify_file(large, level="checksums")

    assert report.ok
    assert report.content_digest is None


def test_verification_goes_on_after_the_first_problem(copy: Path) -> None:
    vectors, ids, order = (offset_of(copy, name) for name in ("vectors", "ids", "ids.order"))
    meta = offset_of(copy, "meta.data")
    for offset in (
        vectors + 4096 * 10,
        vectors + 4096 * 11,
        vectors + 4096 * 900,
        ids + 5,
        order + 9,
        meta + 9,
    ):
        damage(copy, offset)
    report = verify_file(copy, threads=2)

    parts = [finding.part for finding in report.findings]
    assert parts == [
        "section vectors: blocks 10 to 11",
        "section vectors: block 900",
        "section ids: block 0",
        "section ids.order: block 0",
        "section meta.data: block 0",
    ]
    assert report.findings[0].length_bytes == 8192
    assert "rows 160 to 191" in report.findings[0].effect
    assert "rows 0 to 511" in report.findings[2].effect
    assert report.content_digest is None
    assert {"header", "section table", "section config"} <= set(report.whole)
    assert not {"section vectors", "section ids", "section meta.data"} & set(report.whole)
    json.dumps(report.to_dict())


def test_damage_to_the_order_of_ids_leaves_searches_working(copy: Path) -> None:
    damage(copy, offset_of(copy, "ids.order") + 100)
    report = verify_file(copy)

    assert [finding.part for finding in report.findings] == ["section ids.order: block 0"]
    assert any("searches" in sentence for sentence in report.works)
    assert report.content_digest == Snapshot.open(copy).digest.hex()


def test_a_damaged_table_of_checksums_makes_its_section_untrusted(copy: Path) -> None:
    damage(copy, Snapshot.open(copy).sections["vectors"].entry.checksums_offset)
    report = verify_file(copy)

    assert [finding.part for finding in report.findings] == ["section vectors: block checksums"]
    assert report.content_digest is None


@pytest.mark.parametrize(("dim", "rows"), [(1, 3000), (3, 40_000), (100, 5000), (1025, 700), (5000, 130)])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bit_in_any_block_of_vectors_is_found_wherever_rows_begin(
    tmp_path: Path, dim: int, rows: int, threads: int
) -> None:
    path = tmp_path / "rows.iqdb"
    generator = np.random.default_rng(dim)
    with Iqdb.create(path, IqdbConfig(dim=dim)) as db:
        db.upsert_many(range(rows), generator.standard_normal((rows, dim), np.float32))
    assert verify_file(path, threads=threads).ok
    size, offset = 4 * dim * rows, offset_of(path, "vectors")
    image = bytearray(path.read_bytes())
    chosen = generator.choice(size, 5, replace=False).tolist()
    for place in (0, size - 1, *chosen):
        image[offset + place] ^= 16
    path.write_bytes(image)
    report = verify_file(path, threads=threads)

    found = {
        block
        for finding in report.findings
        for block in range(
            (finding.offset_bytes - offset) // 4096,
            -(-(finding.offset_bytes - offset + finding.length_bytes) // 4096),
        )
    }
    assert found == {place // 4096 for place in (0, size - 1, *chosen)}
    assert all(finding.part.startswith("section vectors: block") for finding in report.findings)
    assert report.content_digest is None


def test_findings_do_not_depend_on_the_number_of_threads(copy: Path) -> None:
    for block in range(0, 3000, 7):
        damage(copy, offset_of(copy, "vectors") + 4096 * block)

    one, three = verify_file(copy, threads=1), verify_file(copy, threads=3)

    assert one.findings == three.findings
    assert len(one.findings) == 429


def test_progress_is_told_and_ends_with_all_bytes(large: Path) -> None:
    told: list[tuple[int, int]] = []
    verify_file(large, progress=lambda done, total: told.append((done, total)))

    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > ROWS * DIM * 4


def test_memory_does_not_grow_with_the_vectors(large: Path) -> None:
    verify_file(large, threads=1)
    tracemalloc.start()
    try:
        verify_file(large, threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 << 20 < large.stat().st_size


def test_a_stale_log_and_a_torn_tail_are_notes_and_no_findings() -> None:
    stale = verify_file(GOLDEN / "log-stale.iqdb")
    torn = verify_file(GOLDEN / "log-torn-body.iqdb")

    assert stale.ok
    assert ["stale" in note for note in stale.notes] == [True]
    assert torn.ok
    assert ["torn tail" in note for note in torn.notes] == [True]


def test_checksums_alone_do_not_decode_the_frames_of_a_log() -> None:
    report = verify_file(GOLDEN / "log-upsert.iqdb", level="checksums")
    assert report.ok
    assert report.log_frames
    assert "log" in report.whole


@pytest.fixture
def with_log(tmp_path: Path) -> Path:
    for name in ("log-upsert.iqdb", "log-upsert.iqdb.wal"):
        shutil.copy(GOLDEN / name, tmp_path)
    return tmp_path / "log-upsert.iqdb"


def test_a_folder_in_the_place_of_the_log_is_a_finding(with_log: Path) -> None:
    log = with_log.with_name(with_log.name + ".wal")
    log.unlink()
    log.mkdir()
    (finding,) = verify_file(with_log).findings
    assert (finding.path, finding.part, finding.problem) == (str(log), "log", "it is a directory")
    assert "cannot be opened with this log" in finding.effect


def test_a_log_whose_creation_was_cut_off_is_a_note(with_log: Path) -> None:
    log = with_log.with_name(with_log.name + ".wal")
    log.write_bytes(log.read_bytes()[:20])
    report = verify_file(with_log)
    assert report.ok
    assert report.notes == ["the log's creation was cut off (20 bytes); it holds nothing"]


@pytest.mark.parametrize("suffix", ["", ".wal"])
def test_a_file_that_cannot_be_opened_is_no_damage(with_log: Path, suffix: str) -> None:
    class Refusing(FileSystem):
        def open_read(self, path: str) -> OpenFile:
            if path.endswith(f"iqdb{suffix}"):
                raise FileIOError(path, "open", OSError(13, "Permission denied"))
            return super().open_read(path)

    with pytest.raises(FileIOError, match=rf"upsert\.iqdb{suffix}: cannot open: Permission denied"):
        verify_file(with_log, files=Refusing())


@pytest.mark.parametrize("identity", [True, False])
def test_a_snapshot_that_is_replaced_meanwhile_is_not_held_against_its_log(
    with_log: Path, *, identity: bool
) -> None:
    """A compaction puts another snapshot in place after this one was opened, and then a log of its own."""

    class Replacing(FileSystem):
        def open_read(self, path: str) -> OpenFile:
            if path.endswith(".wal") and identity:
                with Iqdb.open_existing(with_log) as db:
                    db.compact()
                    db.upsert(4711, [1.0] * db.dim)
                    db.close(compact=False)
            elif path.endswith(".wal"):
                shutil.copy(GOLDEN / "metadata.iqdb", with_log.with_name("other.iqdb"))
                with_log.with_name("other.iqdb").rename(with_log)
                damage(Path(path), 20)
            return super().open_read(path)

    report = verify_file(with_log, files=Replacing())
    assert report.ok
    assert "log" not in report.whole
    assert identity or "the snapshot was replaced while it was verified" in report.notes[-1]


def test_frames_inside_a_whole_frame_behind_a_damaged_one_are_not_counted(tmp_path: Path) -> None:
    path = tmp_path / "nested.iqdb"
    with Iqdb.create(path, IqdbConfig(dim=1)) as db:
        db.upsert(1, [1.0])
        log = path.with_name("nested.iqdb.wal")
        db.upsert(2, [1.0])
        copy = log.read_bytes()
        db.upsert(3, [1.0], {"log": copy[64:].hex()})
        db.upsert(b"IQFRIQFRIQFRIQFR" * 8, [1.0])
        db.upsert(4, [1.0])
        db.close(compact=False)
    damage(log, 64 + 50)
    (finding,) = verify_file(path).findings
    assert finding.part == "frame 0"
    assert "no frame is whole before it, and 4 behind it" in finding.effect


def test_what_is_no_database_is_refused_rather_than_reported(tmp_path: Path) -> None:
    (tmp_path / "old.iqdb").write_bytes(b"IQDBPRST\2\0\0\0")
    (tmp_path / "text.iqdb").write_text("hello")
    with pytest.raises(DatabaseNotFoundError):
        verify_file(tmp_path / "absent.iqdb")
    with pytest.raises(UnsupportedVersionError):
        verify_file(tmp_path / "old.iqdb")
    with pytest.raises(NotADatabaseError):
        verify_file(tmp_path / "text.iqdb")
    with pytest.raises(NotADatabaseError, match="directory"):
        verify_file(tmp_path)


def test_a_read_that_the_system_refuses_is_an_io_error_and_no_damage(large: Path) -> None:
    class Broken(FileSystem):
        def read(self, file: OpenFile, size: int, offset: int) -> bytes:
            if offset > 1 << 20:
                raise FileIOError(file.path, "read", OSError(5, "Input/output error"))
            return super().read(file, size, offset)

    with pytest.raises(FileIOError, match="Input/output error"):
        verify_file(large, files=Broken())


IMAGES = {name: (GOLDEN / f"{name}.iqdb").read_bytes() for name in ("metadata", "ids-mixed", "zstd", "empty")}


@given(data=st.data(), name=st.sampled_from(sorted(IMAGES)))
def test_no_flipped_bit_anywhere_in_a_file_escapes_verification(
    data: st.DataObject, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = bytearray(IMAGES[name])
    offset = data.draw(st.integers(0, len(image) - 1))
    image[offset] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.iqdb"
    path.write_bytes(image)
    try:
        report = verify_file(path, threads=1)
    except PersistError:
        return  # magic or version
    assert not report.ok
    assert any(f.offset_bytes <= offset <= f.offset_bytes + f.length_bytes for f in report.findings)


def test_a_log_made_of_false_frames_is_judged_in_bounded_work(tmp_path: Path) -> None:
    """Every 40 bytes claim that the rest of the log is their body."""
    for name in ("log-upsert.iqdb", "log-upsert.iqdb.wal"):
        shutil.copy(GOLDEN / name, tmp_path)
    log = tmp_path / "log-upsert.iqdb.wal"
    size = 4 << 20
    frames = bytearray()
    while len(frames) < size:
        body_bytes = (size - len(frames)) // 40 * 40
        fields = (b"IQFR", body_bytes, 99, 1 << 20, 0, 1, bytes(3), 1, 0)
        frames += struct.pack("<4sIQQIB3sII", *fields)
    log.write_bytes(log.read_bytes() + bytes(64) + frames)
    report = verify_file(tmp_path / "log-upsert.iqdb")

    assert [finding.part for finding in report.findings] == ["frame 1"]
