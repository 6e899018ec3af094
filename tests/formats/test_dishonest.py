"""What only a verification sees: files of a dishonest writer, whose checksums are all right.

Those that a small change makes out of a golden-like file are kept in formats/damaged; these need other limits
or other sections than the writer would write, so they are made here.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from images import SnapshotImage
from independent_log import read_database
from independent_reader import FormatError

from iqdb_core.errors import StructureError
from iqdb_core.records import Column, ColumnType, Ids, MetadataColumns, RecordBatch
from iqdb_core.storage import layout, metadata_sections, verify_records
from iqdb_core.storage.codecs import compress_chunk
from iqdb_core.storage.files import OS_FILES
from iqdb_core.storage.read_back import read_back
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.snapshot_writer import SnapshotWriter
from iqdb_core.storage.verify import verify_file
from iqdb_core.storage.verify_report import VerifyReport

U64 = struct.Struct("<Q").pack
U32 = struct.Struct("<I").pack
CONFIG: dict[str, Any] = {
    "compression": "none",
    "dim": 1,
    "index": {"kind": "flat"},
    "metric": "cosine",
    "provenance": {},
}


def made(
    ids: list[Any],
    metadata: list[Any] | MetadataColumns | None = None,
    *,
    index: dict[str, Any] | None = None,
) -> SnapshotImage:
    vectors = np.arange(1, len(ids) + 1, dtype=np.float32).reshape(-1, 1)
    columns = MetadataColumns.from_dicts(metadata) if isinstance(metadata, list) else metadata
    sink = bytearray()
    with SnapshotWriter(sink, CONFIG, bytes(range(16))) as writer:
        writer.append(RecordBatch(Ids.from_list(ids), vectors, columns))
        writer.finish()
        if index:
            writer.add_index(index, derived=True)
        return SnapshotImage(bytes(writer.memory))


def verified(image: SnapshotImage, path: Path) -> VerifyReport:
    path.write_bytes(image.data)
    report = verify_file(path, threads=2)
    assert report.ok == (not report.findings)
    return report


def problems(image: SnapshotImage, path: Path) -> list[tuple[str, str]]:
    """Return what is found, which must be something; an independent reader must refuse it as well."""
    report = verified(image, path)
    assert not report.ok
    with pytest.raises(FormatError):
        read_database(path)
    return [(finding.part, finding.problem) for finding in report.findings]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dishonest.iqdb"


def refused_when_read_back(path: Path, match: str) -> None:
    file = OS_FILES.open_read(str(path))
    with pytest.raises(StructureError, match=match):
        read_back(file)
    OS_FILES.close(file)


def test_a_component_that_is_no_number_among_vectors_with_integer_ids(path: Path) -> None:
    image = made([1, 2])
    image.write("vectors", 4, struct.pack("<f", float("nan")))
    found = problems(image, path)
    assert found[0] == ("section vectors: row 1", "component 0 is nan, expected a finite number")
    refused_when_read_back(path, "component 0 of row 1 is another, expected a finite number")


# --- Metadata -----------------------------------------------------------------------------------


def test_sections_of_metadata_without_any_mapping(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_sections, "_any_mapping", lambda _: True)
    report = verified(made([1, 2], [None, None]), path)
    assert [(finding.part, finding.problem) for finding in report.findings] == [
        ("section meta.rows", "is there, though no record has metadata")
    ]


def test_groups_that_close_too_early(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_sections, "GROUP_ROWS", 2)
    report = verified(made([1, 2, 3], [{"a": 1}] * 3), path)
    assert [(finding.part, finding.problem) for finding in report.findings] == [
        ("section meta.data: group 0", "has 2 rows, though a group closes here after 16384")
    ]


def test_groups_that_close_too_late(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = made([1, 2, 3], [{"a": "x" * 43}] * 3)  # each weighs 60
    assert verified(image, path).ok
    monkeypatch.setattr(verify_records, "MAX_GROUP_WEIGHT", 120)
    report = verified(image, path)
    assert [finding.problem for finding in report.findings] == [
        "has 3 rows, though a group closes here after 2"
    ]


def many_rows() -> SnapshotImage:
    count = layout.GROUP_ROWS + 100
    return made(list(range(count)), [{"a": 1}] * count)


def test_a_group_of_more_rows_than_a_group_has(path: Path) -> None:
    count = layout.GROUP_ROWS + 100
    image = many_rows()
    image.write("meta.rows", 8, U64(count - 1))
    assert problems(image, path) == [("section meta.rows", "has a group of more than 16384 rows")]


def test_groups_of_other_numbers_of_rows_than_they_say(path: Path) -> None:
    image = many_rows()
    image.write("meta.rows", 8, U64(layout.GROUP_ROWS - 1))
    assert problems(image, path) == [
        ("section meta.data: group 0", "n_rows is 16384, expected 16383"),
        ("section meta.data: group 1", "n_rows is 100, expected 101"),
    ]
    with pytest.raises(StructureError, match="metadata group 0 is 16384, expected 16383 rows"):
        Snapshot.open(path).metadata_at(5)
    refused_when_read_back(path, "metadata group 0 is 16384, expected 16383 rows")


def test_a_record_of_more_keys_than_a_record_has(path: Path) -> None:
    zero = np.zeros(1, np.int64)
    many = [Column(f"{n:04}", ColumnType.INT64, None, zero) for n in range(layout.MAX_KEYS_PER_RECORD + 1)]
    report = verified(made([1], MetadataColumns(1, None, tuple(many))), path)
    assert "a record has 4097 keys, the limit is 4096" in [finding.problem for finding in report.findings]


def test_a_record_that_weighs_more_than_a_record_may(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = made([1], [{"a": "x" * 100}])
    assert verified(image, path).ok
    monkeypatch.setattr(verify_records, "MAX_RECORD_WEIGHT", 116)
    report = verified(image, path)
    assert [finding.problem for finding in report.findings] == ["a record weighs 117, the limit is 116"]


# --- Ids ----------------------------------------------------------------------------------------


def test_an_order_of_integers_that_is_not_needed(path: Path) -> None:
    image = made([2, 1])
    image.write("ids", 0, U64(1) + U64(2))
    image.write("ids.order", 0, U32(0) + U32(1))
    found = problems(image, path)
    assert ("section ids.order", "is there, though the ids ascend by row") in found


def test_an_order_of_text_that_is_not_needed(path: Path) -> None:
    image = made(["b", "a"])
    image.write("ids.bytes", 0, b"ab")
    image.write("ids.order", 0, U32(0) + U32(1))
    found = problems(image, path)
    assert ("section ids.order", "is there, though the ids ascend by row") in found


def test_an_order_of_text_that_is_another(path: Path) -> None:
    image = made(["b", "a"])
    image.write("ids.order", 0, U32(0) + U32(1))
    assert problems(image, path) == [("section ids.order: order", "place 0 is row 0, expected row 1")]


def test_text_that_does_not_ascend_without_an_order(path: Path) -> None:
    image = made(["a", "b"])
    image.write("ids.bytes", 0, b"ba")
    found = problems(image, path)
    assert ("section ids.kinds: order", "place 0 is row 0, expected row 1") in found


def test_two_records_with_one_text(path: Path) -> None:
    image = made(["x", "b", "a"])
    image.write("ids.bytes", 0, b"xxa")
    found = problems(image, path)
    assert ("section ids.order: order", "rows 0 and 1 have the same id 'x'") in found


def test_integers_in_the_encoding_for_others(path: Path) -> None:
    image = made([b"01234567", b"89abcdef"])
    image.write("ids.kinds", 0, bytes(2))
    found = problems(image, path)
    assert ("section ids.kinds", "id_encoding is 1, though every id is an integer") in found


@pytest.mark.parametrize("offsets", [(1, 2, 3), (0, 1, 2)])
def test_offsets_of_ids_that_leave_bytes_out(path: Path, offsets: tuple[int, ...]) -> None:
    image = made(["a", "bc"])
    image.write("ids.offsets", 0, struct.pack("<3Q", *offsets))
    found = problems(image, path)
    assert ("section ids.offsets", "does not reach from 0 to 3") in found


# --- Index --------------------------------------------------------------------------------------


def test_a_compressed_index_is_decoded_and_said_to_be_damaged_when_it_does_not(path: Path) -> None:
    raw = b"neighbours " * 900
    chunk = compress_chunk(layout.CODEC_LZ4, 1, raw)
    padding = bytes(-len(chunk) % 8)
    stored = chunk + padding + U64(0) + U64(len(chunk))
    image = made([1, 2], index={"future.graph": np.frombuffer(stored, np.uint8)})
    shape = {"shape0": len(raw), "raw_bytes": len(raw)}
    image.set_entry("future.graph", codec=layout.CODEC_LZ4, chunk_bytes=65536, **shape)
    assert verified(image, path).ok
    image.write("future.graph", 0, b"\xff" * 9)
    report = verified(image, path)
    assert [finding.part for finding in report.findings] == ["section future.graph"]
    assert "chunk 0" in report.findings[0].problem
    assert "exact search (search --exact)" in report.works
