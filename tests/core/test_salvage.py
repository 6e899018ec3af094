"""Repairs in particular; tests/trust/repairs.py damages everything there is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import Iqdb, IqdbConfig, repair, verify
from iqdb_core._kernels import crc32c
from iqdb_core.errors import NotRepairableError
from iqdb_core.salvage.seed import agreed_seed, seed_of_block
from iqdb_core.storage.layout import decode_header, decode_section_table

ROWS = 40_000  # three metadata groups
DATABASE_ID = bytes(range(40, 56))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("salvage") / "a.iqdb"
    vectors = np.random.default_rng(2).standard_normal((ROWS, 4), np.float32)
    config = IqdbConfig(dim=4, metric="euclidean", database_id=DATABASE_ID, provenance={"model": "m"})
    with Iqdb.create(path, config) as db:
        db.upsert_many(np.arange(ROWS), vectors, [{"n": row} for row in range(ROWS)])
    return path.read_bytes()


@pytest.fixture
def damaged(tmp_path: Path, image: bytes) -> Any:
    """Write the database with parts of it overwritten: section (or None), offset, bytes."""

    def write(*changes: tuple[str | None, int, bytes]) -> Path:
        out = bytearray(image)
        for name, offset, data in changes:
            start = offset if name is None else places(image)[name] + offset
            out[start : start + len(data)] = data
        path = tmp_path / "damaged.iqdb"
        path.write_bytes(out)
        return path

    return write


def places(image: bytes) -> dict[str, int]:
    table = image[decode_header(image[:4096]).section_table_offset :]
    return {entry.name: entry.offset for entry in decode_section_table(table)}


def bounds(image: bytes) -> tuple[int, ...]:
    return struct.unpack_from("<4Q", image, places(image)["meta.groups"])


def test_groups_are_found_by_their_own_words(damaged: Any, tmp_path: Path) -> None:
    path = damaged(("meta.rows", 8, b"\xff" * 8), ("meta.groups", 8, b"\xff" * 8))
    report = repair(path, tmp_path / "new.iqdb")
    assert report.complete
    assert report.proved
    assert report.rows_kept == ROWS


def test_a_group_whose_beginning_is_lost_costs_its_metadata_alone(
    damaged: Any, image: bytes, tmp_path: Path
) -> None:
    start = bounds(image)[1]
    path = damaged(("meta.data", start + 4, b"\xff"))
    report = repair(path, tmp_path / "new.iqdb")
    # The damaged block also holds the last integers of the group before.
    count = 16_384 + start % 4096 // 8
    assert [(loss.what, loss.first, loss.count) for loss in report.losses] == [
        ("metadata", 32_768 - count, count)
    ]
    assert report.rows_kept == ROWS
    assert report.rows_without_metadata == count
    with Iqdb.open_existing(tmp_path / "new.iqdb", read_only=True) as db:
        assert db.metadata(32_767 - count) == {"n": 32_767 - count}
        assert db.metadata(16_384) is None
        assert db.metadata(32_768) == {"n": 32_768}


def test_a_damaged_value_costs_the_metadata_of_the_rows_of_its_block(
    damaged: Any, image: bytes, tmp_path: Path
) -> None:
    path = damaged(("meta.data", bounds(image)[1] + 50_000, b"\xff"))
    report = repair(path, tmp_path / "new.iqdb")
    # A block holds the integers of 512 rows.
    assert 512 <= report.rows_without_metadata <= 513
    assert {loss.what for loss in report.losses} == {"metadata"}


def test_groups_behind_one_that_is_lost_are_lost_only_if_nothing_says_where_they_are(
    damaged: Any, image: bytes, tmp_path: Path
) -> None:
    start = bounds(image)[1]
    path = damaged(("meta.rows", 8, b"\xff"), ("meta.groups", 8, b"\xff"), ("meta.data", start + 4, b"\xff"))
    report = repair(path, tmp_path / "new.iqdb")
    assert report.rows_kept == ROWS
    first = 16_384 - start % 4096 // 8
    assert [(loss.what, loss.first, loss.count) for loss in report.losses] == [
        ("metadata", first, ROWS - first)
    ]


def test_ids_between_others_are_restored_and_proved(damaged: Any, tmp_path: Path) -> None:
    report = repair(damaged(("ids", 4096 * 3, bytes(4096))), tmp_path / "new.iqdb")
    assert report.complete
    assert report.ids_restored == 512
    assert report.proved


def test_the_last_ids_follow_from_nothing(damaged: Any, tmp_path: Path) -> None:
    given = []
    report = repair(
        damaged(("ids", 8 * (ROWS - 1), b"\xff")),
        tmp_path / "new.iqdb",
        without_id=lambda row, vector, metadata: given.append((row, len(vector), metadata)),
    )
    count = ROWS % 512
    assert report.rows_without_ids == count
    assert given == [(row, 4, {"n": row}) for row in range(ROWS - count, ROWS)]


def test_a_lost_database_id_is_in_the_log(damaged: Any, tmp_path: Path) -> None:
    path = damaged()
    db = Iqdb.open_existing(path)
    db.upsert("more", [1, 2, 3, 4])
    db.close(compact=False)
    raw = bytearray(path.read_bytes())
    raw[0:4096] = bytes(4096)
    path.write_bytes(raw)
    report = repair(path, tmp_path / "new.iqdb")
    assert report.complete
    assert (report.n_records, report.log_frames) == (ROWS + 1, 1)
    with Iqdb.open_existing(tmp_path / "new.iqdb", read_only=True) as db:
        assert db.config.database_id == DATABASE_ID
        assert db.config.provenance == {"model": "m"}


def test_without_header_and_log_the_new_file_has_a_new_id_and_every_record(
    damaged: Any, tmp_path: Path
) -> None:
    report = repair(damaged((None, 0, bytes(4096))), tmp_path / "new.iqdb")
    assert report.complete
    assert not report.proved
    assert "the database id is lost; the new file has a new one" in report.notes
    assert verify(tmp_path / "new.iqdb", level="records").ok


def test_a_damaged_configuration_is_replaced_by_defaults_and_reported(damaged: Any, tmp_path: Path) -> None:
    report = repair(damaged(("config", 3, b"\0")), tmp_path / "new.iqdb")
    assert [loss.what for loss in report.losses] == ["settings"]
    assert report.rows_kept == ROWS
    with Iqdb.open_existing(tmp_path / "new.iqdb", read_only=True) as db:
        assert (db.dim, db.metric.value, db.config.provenance) == (4, "euclidean", {})


def test_a_file_without_checksums_is_proved_by_its_digest_or_not_at_all(image: bytes, tmp_path: Path) -> None:
    area = decode_section_table(image[decode_header(image[:4096]).section_table_offset :])[0].checksums_offset
    (tmp_path / "a.iqdb").write_bytes(image[:area])
    report = repair(tmp_path / "a.iqdb", tmp_path / "new.iqdb")
    assert report.complete
    assert report.proved
    spoiled = bytearray(image[:area])
    spoiled[5000] ^= 1
    (tmp_path / "a.iqdb").write_bytes(spoiled)
    with pytest.raises(NotRepairableError, match="another content digest"):
        repair(tmp_path / "a.iqdb", tmp_path / "other.iqdb")
    assert not (tmp_path / "other.iqdb").exists()


def test_header_and_table_together_are_too_much(damaged: Any, image: bytes, tmp_path: Path) -> None:
    path = damaged((None, 60, b"\xff"), (None, len(image) - 100, b"\xff"))
    with pytest.raises(NotRepairableError, match="so is its section table"):
        repair(path, tmp_path / "new.iqdb")
    assert [item.name for item in tmp_path.iterdir()] == ["damaged.iqdb"]


def test_a_record_that_the_log_replaces_is_not_lost_with_its_row(damaged: Any, tmp_path: Path) -> None:
    path = damaged()
    db = Iqdb.open_existing(path)
    db.upsert_many(range(0, 256, 2), np.ones((128, 4)))
    db.delete_many(range(1, 11, 2))
    db.close(compact=False)
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = bytes(4096)  # rows 0 to 255
    path.write_bytes(raw)
    report = repair(path, tmp_path / "new.iqdb")
    assert (report.rows_replaced, report.rows_deleted, report.rows_lost) == (128, 5, 123)
    assert [record_id for loss in report.losses for record_id in loss.ids] == list(range(11, 256, 2))
    with Iqdb.open_existing(tmp_path / "new.iqdb", read_only=True) as db:
        assert [record_id for batch in db.batches() for record_id in batch.ids.to_list()] == [
            *range(0, 256, 2), *range(256, ROWS),
        ]  # fmt: skip


def test_the_seed_of_a_checksum_is_found_again() -> None:
    generator = np.random.default_rng(3)
    for size in (1, 7, 4096):
        data, name = generator.bytes(size), b"vectors".ljust(24, b"\0")
        seed = crc32c(generator.bytes(16))
        checksum = crc32c(data, crc32c(name + (9).to_bytes(8, "little"), seed))
        assert seed_of_block(name, 9, data, checksum) == seed
    assert agreed_seed([1, 2, 2, None]) == 2
    assert agreed_seed([1, 2, None]) is None
    assert agreed_seed([1, 1, 2, 2]) is None
    assert agreed_seed([]) is None
