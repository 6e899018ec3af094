from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqdb_core.digest import batch_digest
from iqdb_core.errors import (
    ChecksumError,
    DimensionMismatchError,
    FileIOError,
    InvalidParameterError,
    NotADatabaseError,
)
from iqdb_core.records import MetadataColumns, RecordBatch
from iqdb_core.storage import metadata_sections, section_stream, snapshot_writer
from iqdb_core.storage.files import OS_FILES
from iqdb_core.storage.layout import GROUP_ROWS
from iqdb_core.storage.read_back import read_back, sync_and_read_back
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.snapshot_writer import SnapshotWriter

if TYPE_CHECKING:
    from collections.abc import Callable

COMPRESSIONS = ["none", "lz4", "zstd:3"]
MIXED = [5, "text", b"\xff\0", 2**64 - 1, "t", b"t", 0, "ü", 7]
TAGS: list[dict[str, Any] | None] = [
    {"pos": "noun", "n": 1},
    None,
    {},
    {"n": 2.5, "pos": "verb", "ok": True},
    {"gone": None},
] * 20


def content(snapshot: Snapshot) -> list[tuple[Any, bytes, Any]]:
    return [
        (snapshot.id_at(row), bytes(snapshot.vector_bytes(row)), snapshot.metadata_at(row))
        for row in range(snapshot.n_rows)
    ]


def expected_content(batch: RecordBatch) -> list[tuple[Any, bytes, Any]]:
    metadata = [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
    vectors = [vector.tobytes() for vector in batch.vectors]
    return list(zip(batch.ids.to_list(), vectors, metadata, strict=True))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("ids", [100, range(100, 0, -1), MIXED, ["b", "a"], [], [3]])
@pytest.mark.parametrize("with_metadata", [False, True])
def test_what_was_written_is_read(
    image: Callable[..., bytes],
    records: Callable[..., RecordBatch],
    ids: Any,
    compression: str,
    with_metadata: bool,
) -> None:
    count = ids if isinstance(ids, int) else len(ids)
    batch = records(ids, metadata=TAGS[:count] if with_metadata else None)
    snapshot = Snapshot.from_buffer(image(batch, compression))
    assert content(snapshot) == expected_content(batch)
    assert snapshot.digest == batch_digest(batch)
    assert snapshot.config["provenance"] == {"source": "test"}
    for row, record_id in enumerate(batch.ids.to_list()):
        assert snapshot.find(record_id) == row


@settings(max_examples=30)
@given(st.data())
def test_bytes_do_not_depend_on_how_records_were_cut_into_batches(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], data: st.DataObject
) -> None:
    ids = data.draw(
        st.lists(st.integers(0, 50) | st.text(min_size=1, max_size=3), min_size=1, max_size=60, unique=True)
    )
    mappings = st.none() | st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.text(max_size=2))
    rows = data.draw(st.lists(mappings, min_size=len(ids), max_size=len(ids)))
    batch = records(ids, metadata=rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    compression = data.draw(st.sampled_from(COMPRESSIONS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata_sections, "GROUP_ROWS", 16)
        whole = image(batch, compression)
        assert image(batch, compression, cuts=cuts, threads=2) == whole
    assert content(Snapshot.from_buffer(whole)) == expected_content(batch)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bytes_do_not_depend_on_threads_spools_or_sink(
    tmp_path: Path,
    image: Callable[..., bytes],
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
    compression: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = records([f"id {i * 7919 % 20_000}" for i in range(20_000)], 16, TAGS * 200)
    expected = image(batch, compression)
    monkeypatch.setattr(section_stream, "_SPOOL_BYTES", 5000)
    monkeypatch.setattr(section_stream, "WRITE_BYTES", 7000)
    monkeypatch.setattr(snapshot_writer, "_OVERLAP_BYTES", 1)
    file = OS_FILES.create_temporary(str(tmp_path / "db"))
    with SnapshotWriter(file, config(16, compression), database_id, threads=3) as writer:
        for start in range(0, 20_000, 3333):
            writer.append(batch.slice(start, min(start + 3333, 20_000)))
        summary = writer.finish(sync=True)
    assert Path(file.path).read_bytes() == expected
    assert summary.file_bytes == len(expected)
    assert summary.identity == Snapshot.from_buffer(expected).identity
    assert sync_and_read_back(file, threads=2).digest == summary.digest == batch_digest(batch)
    OS_FILES.close(file)
    assert [entry.name for entry in tmp_path.iterdir()] == [Path(file.path).name]


def test_ids_stay_integers_until_another_kind_comes(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    assert "ids" in Snapshot.from_buffer(image(records(1000))).sections
    late = Snapshot.from_buffer(image(records([*range(1000), "end"]), cuts=[10, 1000]))
    assert {"ids.kinds", "ids.offsets", "ids.bytes"} <= set(late.sections)
    assert [late.id_at(row) for row in (0, 999, 1000)] == [0, 999, "end"]


@pytest.mark.parametrize(
    ("ids", "ordered"),
    [
        (range(9), False),
        ([2, 1], True),
        ([1, b"a", "a"], False),
        (["a", b"a"], True),
        ([256, 255, "x"], True),
    ],
)
def test_the_order_is_stored_only_where_ids_do_not_ascend(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], ids: Any, ordered: bool
) -> None:
    assert ("ids.order" in Snapshot.from_buffer(image(records(list(ids)))).sections) is ordered


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([1, 2, 1, 3, 2, 1], [5, 4, 3]),
        (["b", "a", "b"], [2, 1]),
        ([7, 7], [1]),
        ([1, b"1", "1", 1], [3, 1, 2]),
        ([1, 2, 3], None),
        (["long enough", "long enougi", "long enough"], [2, 1]),
    ],
)
def test_ids_that_repeat_are_reported_as_the_rows_to_keep(
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
    ids: Any,
    kept: Any,
    compression: str,
) -> None:
    batch = records(ids, metadata=TAGS[: len(ids)])
    sink = bytearray()
    with SnapshotWriter(sink, config(3, compression), database_id) as writer:
        writer.append(batch)
        summary = writer.finish()
    assert (summary.kept_rows if kept is None else summary.kept_rows.tolist()) == kept
    if kept is not None:
        taken = Snapshot.from_buffer(sink).take(summary.kept_rows)
        assert expected_content(taken) == [expected_content(batch)[row] for row in kept]


def test_metadata_that_comes_late_is_preceded_by_groups_without_any(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_sections, "GROUP_ROWS", 10)
    rows: list[Any] = [None] * 33 + [{"late": 1}] + [None] * 5
    batch = records(len(rows), metadata=rows)
    whole = image(batch)
    parts = [(0, 8, False), (8, 33, False), (33, 39, True)]
    sink = bytearray()
    with SnapshotWriter(sink, Snapshot.from_buffer(whole).config, bytes(range(16))) as writer:
        for start, stop, told in parts:
            part = batch.slice(start, stop)
            writer.append(part if told else RecordBatch(part.ids, part.vectors))
        writer.finish()
    assert bytes(sink) == whole
    snapshot = Snapshot.from_buffer(whole)
    assert [snapshot.group_rows(group) for group in range(snapshot.n_groups)] == [
        (0, 10),
        (10, 20),
        (20, 30),
        (30, 39),
    ]
    assert [snapshot.metadata_at(row) for row in range(39)] == rows


def test_a_group_closes_with_the_row_that_reaches_the_weight(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_sections, "MAX_GROUP_WEIGHT", 100)
    sizes = [10, 10, 80, 200, 0, 57, 1, 9]  # weights are 17 more: 27 54 151 | 217 | 17 91 109 | 26
    batch = records(8, metadata=[{"k": "x" * size} for size in sizes])
    for cuts in ([], [1, 2, 3, 4, 5, 6, 7], [4]):
        snapshot = Snapshot.from_buffer(image(batch, cuts=cuts))
        assert snapshot.array("meta.rows").tolist() == [0, 3, 4, 7, 8]
        assert content(snapshot) == expected_content(batch)


def test_sections_without_records_or_metadata_are_left_out(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    empty = Snapshot.from_buffer(image(records(0)))
    assert set(empty.sections) == {"vectors", "ids", "config"}
    assert empty.n_rows == 0
    assert not empty.has_metadata
    assert empty.vectors().buffer.nbytes == 0
    assert empty.find(1) == -1


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    "ranges", [[(0, 95)], [(0, 30), (40, 95)], [(3, 30), (30, 60), (60, 95)], [(16, 95), (0, 16)]]
)
def test_copied_rows_give_the_bytes_that_fresh_ones_give(
    image: Callable[..., bytes],
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
    monkeypatch: pytest.MonkeyPatch,
    compression: str,
    ranges: list[tuple[int, int]],
) -> None:
    monkeypatch.setattr(metadata_sections, "GROUP_ROWS", 16)
    monkeypatch.setattr(snapshot_writer, "_COPY_BYTES", 256)
    batch = records([*range(50), *map(str, range(45))], metadata=TAGS[:95])
    extra = records(range(1000, 1020), metadata=TAGS[:20])
    source = Snapshot.from_buffer(image(batch, compression))
    fresh = RecordBatch.concat([*(batch.slice(*part) for part in ranges), extra])
    sink = bytearray()
    with SnapshotWriter(sink, config(3, compression), database_id) as writer:
        for start, stop in ranges:
            writer.append_rows(source, start, stop)
        writer.append_rows(source, 5, 5)
        writer.append(extra)
        writer.finish(batch_digest(fresh))
    assert bytes(sink) == image(fresh, compression)


def test_copied_rows_need_the_digest_from_the_caller(
    image: Callable[..., bytes],
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
) -> None:
    source = Snapshot.from_buffer(image(records(4)))
    with SnapshotWriter(bytearray(), config(), database_id) as writer:
        writer.append_rows(source, 0, 4)
        with pytest.raises(AssertionError, match="digest"):
            writer.finish()


def test_index_sections_keep_type_shape_and_order(
    records: Callable[..., RecordBatch], config: Callable[..., dict[str, Any]], database_id: bytes
) -> None:
    sink = bytearray()
    graph = np.arange(12, dtype=np.uint32).reshape(4, 3)
    codes = np.array([-1, 2, -3], np.int8)
    with SnapshotWriter(sink, config(), database_id) as writer:
        writer.append(records(4))
        before = writer.finish()
        summary = writer.add_index(
            {"hnsw.links": graph, "hnsw.codes": codes, "hnsw.none": np.zeros(0, np.float64)}
        )
        snapshot = Snapshot.from_buffer(writer.memory)
    assert (summary.digest, summary.n_rows) == (before.digest, 4)
    assert summary.identity == snapshot.identity != before.identity
    assert summary.file_bytes == snapshot.header.file_bytes
    assert list(snapshot.sections)[-3:] == ["hnsw.links", "hnsw.codes", "hnsw.none"]
    assert np.array_equal(np.asarray(snapshot.array("hnsw.links")), graph)
    assert np.array_equal(np.asarray(snapshot.array("hnsw.codes")), codes)
    assert snapshot.array("hnsw.none").nbytes == 0
    assert snapshot.sections["hnsw.links"].entry.flags == 1


def test_wrong_batches_are_refused(
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot_writer, "MAX_ROWS", 5)
    with SnapshotWriter(bytearray(), config(3), database_id) as writer:
        with pytest.raises(DimensionMismatchError):
            writer.append(records(2, dim=4))
        writer.append(records(5))
        with pytest.raises(InvalidParameterError, match="number of records is 6, expected at most 5"):
            writer.append(records(1))


def test_buffers_of_a_batch_may_be_reused(
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
    image: Callable[..., bytes],
) -> None:
    batch = records(10, metadata=[{"n": i} for i in range(10)])
    sink = bytearray()
    with SnapshotWriter(sink, config(), database_id) as writer:
        for start in (0, 5):
            part = batch.slice(start, start + 5)
            assert part.metadata is not None
            assert part.ids.u64 is not None
            ids, vectors, numbers = part.ids.u64.copy(), part.vectors.copy(), part.metadata.columns[0].values
            numbers = np.array(numbers)
            column = part.metadata.columns[0]
            metadata = MetadataColumns(5, None, (type(column)(column.key, column.type, None, numbers),))
            writer.append(RecordBatch(type(part.ids)(ids), vectors, metadata))
            ids[:] = 99
            vectors[:] = 99
            numbers[:] = 99
        writer.finish()
    assert bytes(sink) == image(batch)


def test_a_full_disk_is_an_error_and_leaves_no_valid_file(
    tmp_path: Path,
    files: Any,
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
) -> None:
    # Without the failure: one write for vectors, one for each other section, the tables, the header.
    for successes in range(7):
        files.fail = {"write": successes}
        file = files.create_temporary(str(tmp_path / "db"))
        with SnapshotWriter(file, config(), database_id, files) as writer:
            writer.append(records(500, metadata=TAGS * 5))
            with pytest.raises(FileIOError, match="No space left"):
                writer.finish()
        with pytest.raises(NotADatabaseError):
            Snapshot.open(file.path)
        files.close(file)
    files.fail = {}


def test_a_full_disk_while_vectors_stream_reaches_the_caller(
    tmp_path: Path,
    files: Any,
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
) -> None:
    file = files.create_temporary(str(tmp_path / "db"))
    with SnapshotWriter(file, config(128), database_id, files) as writer:
        writer.append(records(4096, 128))
        files.fail = {"write": 1}
        with pytest.raises(FileIOError, match="No space left"):
            writer.append(records(range(5000, 9096), 128))


def test_reading_back_finds_every_changed_block(
    tmp_path: Path,
    records: Callable[..., RecordBatch],
    image: Callable[..., bytes],
) -> None:
    batch = records([f"id {i}" for i in range(3000, 0, -1)], 8, TAGS * 30)
    for compression in COMPRESSIONS:
        whole = bytearray(image(batch, compression))
        snapshot = Snapshot.from_buffer(bytes(whole))
        places = [
            section.entry.offset + place
            for section in snapshot.sections.values()
            for place in (0, section.entry.stored_bytes - 1)
        ]
        places += [section.entry.checksums_offset for section in snapshot.sections.values()]
        file = OS_FILES.create(str(tmp_path / f"db-{compression}"))
        OS_FILES.write(file, whole, 0)
        assert read_back(file).digest == batch_digest(batch)
        for place in places:
            OS_FILES.write(file, bytes([whole[place] ^ 1]), place)
            with pytest.raises(ChecksumError):
                read_back(file)
            OS_FILES.write(file, whole[place : place + 1], place)
        assert read_back(file, threads=2).digest == batch_digest(batch)
        OS_FILES.close(file)


def test_reading_back_computes_the_digest_from_the_records(
    tmp_path: Path,
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
    image: Callable[..., bytes],
) -> None:
    batch = records(100)
    source = Snapshot.from_buffer(image(batch))
    file = OS_FILES.create(str(tmp_path / "db"))
    with SnapshotWriter(file, config(), database_id) as writer:
        writer.append_rows(source, 0, 99)
        writer.finish(source.digest)
    assert Snapshot.open(file.path).digest == source.digest
    assert read_back(file).digest == batch_digest(batch.slice(0, 99)) != source.digest
    OS_FILES.close(file)


def test_a_failing_sync_is_reported_though_the_content_is_right(
    tmp_path: Path,
    files: Any,
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
) -> None:
    file = files.create_temporary(str(tmp_path / "db"))
    with SnapshotWriter(file, config(), database_id, files) as writer:
        writer.append(records(10))
        writer.finish()
    files.fail = {"sync": 0}
    with pytest.raises(FileIOError, match="cannot sync"):
        sync_and_read_back(file, files)


def test_memory_stays_bounded_by_a_batch(
    tmp_path: Path,
    records: Callable[..., RecordBatch],
    config: Callable[..., dict[str, Any]],
    database_id: bytes,
) -> None:
    import resource

    vectors = np.ones((16384, 64), np.float32)
    batch = records(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = OS_FILES.create(str(tmp_path / "db"))
    with SnapshotWriter(file, config(64), database_id, threads=2) as writer:
        for start in range(0, 40 * 16384, 16384):
            ids = np.arange(start, start + 16384, dtype=np.uint64)
            writer.append(RecordBatch(type(batch.ids)(ids), vectors))
        writer.finish()
    read_back(file, threads=2)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert OS_FILES.status(file).st_size > 160 << 20
    assert grown * (1 if os.uname().sysname == "Darwin" else 1024) < 64 << 20
    OS_FILES.close(file)


def test_every_group_but_the_last_is_full(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    count = 2 * GROUP_ROWS + 5
    snapshot = Snapshot.from_buffer(
        image(records(count, 1, [{"n": i} for i in range(count)]), cuts=[7, 20_000])
    )
    assert snapshot.array("meta.rows").tolist() == [0, GROUP_ROWS, 2 * GROUP_ROWS, count]
    assert snapshot.metadata_at(GROUP_ROWS) == {"n": GROUP_ROWS}
