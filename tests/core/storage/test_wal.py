from __future__ import annotations

import stat
import threading
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqdb_core._kernels import crc32c
from iqdb_core.config import FsyncPolicy
from iqdb_core.errors import (
    BatchTooLargeError,
    ClosedError,
    FileIOError,
    LogDamagedError,
    LogMismatchError,
    PoisonedError,
    UnsupportedVersionError,
)
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage import layout, log_contents, log_scan, wal
from iqdb_core.storage.files import OS_FILES
from iqdb_core.storage.frames import DeleteFrame, UpsertFrame, decode_body, encode_upsert
from iqdb_core.storage.single_record import decode_single_upsert, encode_single_upsert
from iqdb_core.storage.wal import LogWriter, read_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iqdb_core.storage.wal import LogContents

DATABASE_ID = bytes(range(16))
IDENTITY = 0x1234_5678_9ABC_DEF0
DIM = 3
ALWAYS, NEVER = FsyncPolicy.ALWAYS, FsyncPolicy.NEVER
POLICIES = [ALWAYS, NEVER, FsyncPolicy.periodic(0.05)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes.iqdb.wal")


def create(path: str, policy: FsyncPolicy = ALWAYS, **options: Any) -> LogWriter:
    return LogWriter.create(path, DATABASE_ID, IDENTITY, DIM, policy, **options)


def read(path: str) -> LogContents:
    return read_log(path, DATABASE_ID, IDENTITY, DIM)


def reopen(path: str, policy: FsyncPolicy = ALWAYS, **options: Any) -> LogWriter:
    with read(path) as contents:
        return LogWriter.open_for_append(contents, policy, **options)


def vectors(count: int, first: float = 0.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (first + np.arange(count * DIM, dtype=np.float32)).reshape(count, DIM)


def upsert(writer: LogWriter, ids: Sequence[Any], metadata: Sequence[Any] | None = None) -> int:
    columns = None if metadata is None else MetadataColumns.from_dicts(metadata)
    return writer.append_upsert(Ids.from_list(ids), vectors(len(ids), float(len(ids))), columns)


def record(record_id: Any, count: int, row: int = 0, mapping: Any = None) -> tuple[Any, list[float], Any]:
    """Return what `upsert` wrote for one record of a batch of `count`."""
    return record_id, vectors(count, float(count))[row].tolist(), mapping


def plain(path: str) -> list[Any]:
    """Return what a log holds: a tuple for each record to insert, a bare id for each to remove."""
    result: list[Any] = []
    with read(path) as contents:
        for frame in contents.frames():
            if isinstance(frame, DeleteFrame):
                result += frame.ids.to_list()
                continue
            batch = frame.batch
            mappings = [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
            result += zip(batch.ids.to_list(), batch.vectors.tolist(), mappings, strict=True)
    return result


def ids_in(path: str) -> list[Any]:
    return [entry[0] if isinstance(entry, tuple) else entry for entry in plain(path)]


CONTENT: list[list[Any]] = [
    [record(1, 2), record(2, 2, 1)],
    [record("a", 3, 0, {"n": 1}), record(b"b", 3, 1), record(3, 3, 2, {"f": 0.5, "s": "text"})],
    [2, "a"],
    [],
    [record(4, 1, 0, {})],
]
"""What `write_some` writes, frame by frame."""


def content_of(n_frames: int) -> list[Any]:
    return [entry for frame in CONTENT[:n_frames] for entry in frame]


def write_some(path: str, policy: FsyncPolicy = ALWAYS) -> tuple[bytes, list[int]]:
    """Write a log of five frames; return its bytes and where each frame begins and the last one ends."""
    writer = create(path, policy)
    ends = [
        upsert(writer, [1, 2]),
        upsert(writer, ["a", b"b", 3], [{"n": 1}, None, {"s": "text", "f": 0.5}]),
        writer.append_delete(Ids.from_list([2, "a"])),
        writer.append_fold(77),
        upsert(writer, [4], [{}]),
    ]
    writer.close()
    return Path(path).read_bytes(), [layout.LOG_HEADER_BYTES, *ends]


# --- Round trips --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_appended_is_replayed_in_order(path: str, policy: FsyncPolicy) -> None:
    data, ends = write_some(path, policy)
    assert ends[-1] == len(data)
    assert plain(path) == content_of(5)
    with read(path) as contents:
        assert (contents.exists, contents.stale, contents.torn_creation) == (True, False, False)
        assert (contents.n_frames, contents.valid_bytes, contents.torn_bytes) == (5, len(data), 0)


def test_no_log_holds_nothing(path: str) -> None:
    with read(path) as contents:
        assert (contents.exists, contents.stale, contents.torn_creation) == (False, False, False)
        assert list(contents.frames()) == []


IDS = st.integers(0, 2**64 - 1) | st.text(min_size=1, max_size=4) | st.binary(min_size=1, max_size=4)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
)
MAPPINGS = st.none() | st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


@settings(max_examples=40)
@given(frames=st.lists(st.lists(st.tuples(IDS, MAPPINGS), min_size=1, max_size=5), max_size=4))
def test_any_records_survive(tmp_path_factory: pytest.TempPathFactory, frames: list[list[Any]]) -> None:
    path = str(tmp_path_factory.mktemp("log") / "wal")
    writer = create(path, NEVER)
    for frame in frames:
        upsert(writer, [row[0] for row in frame], [row[1] for row in frame])
    writer.close()
    assert [(record_id, mapping) for record_id, _, mapping in plain(path)] == [
        row for frame in frames for row in frame
    ]


@settings(max_examples=60)
@given(record_id=IDS, metadata=MAPPINGS)
def test_a_single_record_has_the_bytes_of_a_batch_of_one(record_id: Any, metadata: Any) -> None:
    columns = None if metadata is None else MetadataColumns.from_dicts([metadata])
    parts = encode_upsert(Ids.from_list([record_id]), vectors(1), columns)
    assert encode_single_upsert(record_id, vectors(1).tobytes(), metadata) == b"".join(parts)


@pytest.mark.parametrize("kept_frames", [0, 50_000])
def test_single_records_come_together_but_in_their_order(
    path: str, monkeypatch: pytest.MonkeyPatch, kept_frames: int
) -> None:
    monkeypatch.setattr(log_scan, "_KEPT_FRAMES", kept_frames)
    writer = create(path, NEVER)
    expected: list[Any] = []
    for i in range(5000):
        mapping = {"n": i, "s": "x" * (i % 9), "b": i % 2 == 0, "f": i / 7, "z": None} if i % 3 else None
        writer.append_single_upsert(i % 900, vectors(1, i).tobytes(), mapping)
        expected.append((i % 900, vectors(1, i)[0].tolist(), mapping))
        if i % 1000 == 500:
            writer.append_delete(Ids.from_list([i % 900, "absent"]))
            expected += [i % 900, "absent"]
    writer.close()
    assert plain(path) == expected
    with read(path) as contents:
        assert contents.n_frames == 5005
        assert sum(1 for _ in contents.frames()) == 11


@settings(max_examples=60)
@given(record_id=IDS, metadata=MAPPINGS, place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_the_quick_decoder_accepts_only_what_the_general_one_does(
    record_id: Any, metadata: Any, place: int, value: int
) -> None:
    body = bytearray(encode_single_upsert(record_id, vectors(1).tobytes(), metadata))
    body[place % len(body)] = value
    quick = decode_single_upsert(memoryview(body), 4 * DIM)
    if quick is None or not np.isfinite(np.frombuffer(quick[1], np.float32)).all():
        return
    frame = decode_body(layout.FRAME_UPSERT, 1, memoryview(body), DIM, "log")
    assert isinstance(frame, UpsertFrame)
    assert frame.batch.ids.to_list() == [quick[0]]
    assert frame.batch.vectors.tobytes() == bytes(quick[1])
    mappings = [None] if frame.batch.metadata is None else frame.batch.metadata.to_dicts()
    assert repr(mappings) == repr([None if quick[2] is None else dict(sorted(quick[2].items()))])


def test_metadata_of_more_than_one_group_survives(path: str) -> None:
    count = layout.GROUP_ROWS + 3
    writer = create(path, NEVER)
    rows = [{"n": i} if i % 2 else None for i in range(count)]
    writer.append_upsert(
        Ids.from_u64(np.arange(count, dtype=np.uint64)), vectors(count), MetadataColumns.from_dicts(rows)
    )
    writer.close()
    with read(path) as contents:
        (frame,) = contents.frames()
    assert isinstance(frame, UpsertFrame)
    assert frame.batch.metadata is not None
    assert frame.batch.metadata.to_dicts() == rows


def test_bytes_are_those_of_the_format(path: str) -> None:
    writer = create(path)
    writer.append_delete(Ids.from_list([7]))
    writer.close()
    data = Path(path).read_bytes()
    header = layout.decode_log_header(data[:64])
    assert header[:6] == (b"IQDBWAL\0", 2, 64, DATABASE_ID, IDENTITY, DIM)
    assert header.header_crc == crc32c(data[:60])
    frame = layout.decode_frame_header(data[64:104])
    assert frame[:7] == (b"IQFR", 32, 1, 64, header.header_crc, layout.FRAME_DELETE, 1)
    assert frame.frame_crc == crc32c(data[104:], crc32c(data[64:100], crc32c(DATABASE_ID)))
    body = [16, 0, 0, 7]
    assert data[104:] == b"".join(number.to_bytes(8, "little") for number in body)


# --- Torn tails and damage ----------------------------------------------------------------------


def test_a_log_torn_at_any_byte_keeps_its_whole_frames_and_goes_on(path: str) -> None:
    data, ends = write_some(path)
    for size in range(len(data)):
        Path(path).write_bytes(data[:size])
        n_whole = sum(end <= size for end in ends[1:])
        kept = content_of(n_whole)
        with read(path) as contents:
            assert contents.torn_creation is (size < 64)
            assert contents.n_frames == (0 if size < 64 else n_whole)
            behind = contents.torn_bytes + contents.room_bytes
            assert behind == (size if size < 64 else size - ends[n_whole])
        assert plain(path) == kept
        if size < 64 or (size % 11 and size not in ends):
            continue
        writer = reopen(path)
        assert Path(path).stat().st_size == ends[n_whole]
        upsert(writer, ["after the crash"])
        writer.close()
        assert plain(path) == [*kept, record("after the crash", 1)]


@pytest.mark.parametrize("zeros", [1, 8, 40, 64, 4096, 100_000])
def test_zeros_are_never_a_frame(path: str, zeros: int) -> None:
    data, _ = write_some(path)
    Path(path).write_bytes(data + bytes(zeros))
    with read(path) as contents:
        assert (contents.torn_bytes, contents.room_bytes) == (0, zeros)
    assert plain(path) == content_of(5)
    Path(path).write_bytes(bytes(zeros))
    with read(path) as contents:
        assert contents.torn_creation
        assert list(contents.frames()) == []


def test_every_flipped_bit_before_the_last_frame_is_damage(path: str) -> None:
    data, ends = write_some(path)
    for place in range(ends[-2]):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        Path(path).write_bytes(changed)
        version_changed = 8 <= place < 12
        error = UnsupportedVersionError if version_changed else LogDamagedError
        with pytest.raises(error) as caught:
            read(path)
        if not version_changed:
            frame = sum(end <= place for end in ends) - 1
            expected = (max(frame, 0), ends[frame] if place >= 64 else 0)
            assert (caught.value.frame, caught.value.offset_bytes) == expected


def test_a_flipped_bit_in_the_last_frame_looks_like_a_torn_tail(path: str) -> None:
    data, ends = write_some(path)
    for place in range(ends[-2], ends[-1]):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        Path(path).write_bytes(changed)
        assert plain(path) == content_of(4)


def test_frames_that_were_not_synced_may_be_lost_in_any_mixture(path: str) -> None:
    """A power cut under the periodic policy: of three frames after a sync the middle one is missing."""
    writer = create(path, FsyncPolicy.periodic(3600))
    upsert(writer, [1])
    writer.sync()
    settled = writer.size
    lost = upsert(writer, [2])
    kept = upsert(writer, [3])
    writer._wake.set()
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[:settled] + bytes(lost - settled) + data[lost:kept])
    assert ids_in(path) == [1]
    # Damage before the sync is damage all the same.
    Path(path).write_bytes(data[:80] + b"?" + data[81:])
    with pytest.raises(LogDamagedError, match="frame 0 at byte 64"):
        read(path)


def test_frames_removed_doubled_or_exchanged_are_damage(path: str) -> None:
    data, ends = write_some(path)
    parts = [data[start:stop] for start, stop in zip([0, *ends], [*ends, len(data)], strict=True)][:-1]
    header, frames = parts[0], parts[1:]
    for number, order in ((0, [1, 2, 3, 4]), (1, [0, 0, 1, 2]), (1, [0, 2, 1, 3]), (2, [0, 1, 3, 4])):
        Path(path).write_bytes(header + b"".join(frames[place] for place in order))
        with pytest.raises(LogDamagedError) as caught:
            read(path)
        assert caught.value.frame == number


def test_frames_of_another_log_of_this_database_do_not_chain(path: str) -> None:
    data, ends = write_some(path)
    Path(path).unlink()
    writer = create(path)
    upsert(writer, [1, 99])
    writer.close()
    other = Path(path).read_bytes()
    assert len(other) == ends[1]
    Path(path).write_bytes(other + data[ends[1] :])
    with pytest.raises(LogDamagedError, match="it follows a frame with CRC-32C"):
        read(path)


def test_a_copy_of_the_log_stored_as_data_is_not_mistaken_for_later_frames(path: str) -> None:
    data, ends = write_some(path)
    for inner in (data, bytes(3) + data, data[64:]):
        Path(path).write_bytes(data)
        writer = reopen(path)
        writer.append_delete(Ids.from_list([inner + bytes(-len(inner) % 8)]))
        torn = Path(path).read_bytes()[:-8]
        writer.close()
        Path(path).write_bytes(torn)
        with read(path) as contents:
            assert (contents.n_frames, contents.valid_bytes) == (5, ends[-1])
        assert plain(path) == content_of(5)


def test_a_search_for_frames_in_a_hostile_tail_ends(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path).close()
    monkeypatch.setattr(log_scan, "_BUDGET_BYTES", 0)
    size = 40_000
    fake = layout.FrameHeader(layout.FRAME_MARKER, size - 4096, 2**63, 72, 0, layout.FRAME_DELETE, 1, 5)
    tail = bytes(8) + layout.encode_frame_header(fake) * (4000 // 40)
    with Path(path).open("ab") as stream:
        stream.write(tail + bytes(size - len(tail)))
    with pytest.raises(LogDamagedError, match="cannot be told from frames"):
        read(path)


@pytest.mark.parametrize(
    "data", [b"", b"IQDBWAL\0", b"IQDBWAL\0\2\0\0\0", b"garbage", bytes(63), b"IQDBWAL\0" + bytes(55)]
)
def test_a_log_shorter_than_its_header_is_a_torn_creation(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
    with read(path) as contents:
        assert contents.torn_creation
        assert contents.exists


@pytest.mark.parametrize(
    "data", [b"IQDBWAL\0\1\0\0\0", b"IQDBWAL\0\1\0\0\0" + bytes(500), b"IQDBWAL\0\3\0\0\0"]
)
def test_logs_of_other_versions_are_refused(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
    with pytest.raises(UnsupportedVersionError, match="log has format version"):
        read(path)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 20), (0, 63), (1, 64), (40, 50), (60, 64), (0, 0)])
def test_a_header_that_is_there_in_part_is_a_torn_creation(path: str, start: int, stop: int) -> None:
    create(path).close()
    header = Path(path).read_bytes()
    part = bytes(start) + header[start:stop] + bytes(64 - stop)
    Path(path).write_bytes(part)
    with read(path) as contents:
        assert contents.torn_creation
    # With anything behind it, or anything else in it, it is damage.
    for damaged in (part + b"\1", part[:45] + b"\1" + part[46:]):
        Path(path).write_bytes(damaged)
        if any(part) or damaged[45]:
            with pytest.raises(LogDamagedError, match="frame 0 at byte 0"):
                read(path)


def test_a_bad_header_is_not_overwritten_in_silence(path: str) -> None:
    for data in (b"x" * 64, bytes(63) + b"\1", b"x" * 5000):
        Path(path).write_bytes(data)
        with pytest.raises(LogDamagedError, match="frame 0 at byte 0"):
            read(path)
    data, _ = write_some(str(Path(path).with_name("other")))
    Path(path).write_bytes(bytes(64) + data[64:])
    with pytest.raises(LogDamagedError, match="frame 0 at byte 0"):
        read(path)


def test_logs_that_belong_to_something_else_are_refused(path: str) -> None:
    write_some(path)
    with pytest.raises(LogMismatchError, match="belongs to database 0001"):
        read_log(path, bytes(16), IDENTITY, DIM)
    with pytest.raises(LogMismatchError, match="extends snapshot 123456789abcdef0"):
        read_log(path, DATABASE_ID, IDENTITY + 1, DIM)
    with pytest.raises(LogMismatchError, match="dimension 3, not 4"):
        read_log(path, DATABASE_ID, IDENTITY, 4)


def test_a_log_whose_last_frame_names_the_snapshot_is_stale(path: str) -> None:
    writer = create(path)
    upsert(writer, [1])
    writer.append_fold(4711)
    writer.close()
    with read_log(path, DATABASE_ID, 4711, DIM) as contents:
        assert contents.stale
        assert list(contents.frames()) == []
    assert len(plain(path)) == 1  # a compaction that failed before its rename: the log goes on
    writer = reopen(path)
    upsert(writer, [2])
    writer.close()
    assert ids_in(path) == [1, 2]
    with pytest.raises(LogMismatchError):
        read_log(path, DATABASE_ID, 4711, DIM)


def reframe(path: str, change: Callable[[bytearray], None], **fields: Any) -> None:
    """Rewrite the only frame of a log with another body or header and the right checksum."""
    data = Path(path).read_bytes()
    body = bytearray(data[104:])
    change(body)
    header = layout.decode_frame_header(data[64:104])
    fields.setdefault("body_bytes", len(body))
    header = header._replace(**fields)
    crc = crc32c(body, crc32c(layout.encode_frame_header(header)[:36], crc32c(DATABASE_ID)))
    Path(path).write_bytes(data[:64] + layout.encode_frame_header(header._replace(frame_crc=crc)) + body)


def nothing(body: bytearray) -> None:
    assert body


def put(place: int, value: int) -> Callable[[bytearray], None]:
    def change(body: bytearray) -> None:
        body[place] = value

    return change


def cut(body: bytearray) -> None:
    del body[-8:]


@pytest.mark.parametrize(
    ("ids", "change", "fields"),
    [
        ([1], nothing, {"n_records": 2}),
        ([1], nothing, {"n_records": 0}),
        ([1], nothing, {"type": layout.FRAME_DELETE}),
        ([1], nothing, {"type": layout.FRAME_FOLD}),
        ([1], nothing, {"sequence": 2}),
        ([1], nothing, {"previous_crc": 1}),
        ([1], nothing, {"settled_bytes": 72}),
        ([1], cut, {}),
        ([1], put(0, 24), {}),
        ([1], put(7, 255), {}),
        ([1], put(8, 8), {}),
        ([1], put(16, 1), {}),
        ([1], put(16, 2), {}),
        ([1], put(20, 1), {}),
        ([1], put(35, 0x7F), {}),
        ([1], put(44, 1), {}),
        (["ab"], put(24, 1), {}),
        (["ab"], put(32, 9), {}),
        (["ab"], put(40, 0), {}),
        (["ab"], put(40, 3), {}),
        (["ab"], put(41, 1), {}),
        (["ab"], put(48, 0xFF), {}),
        (["ab"], put(55, 1), {}),
        (["a" * 8], put(40, 0), {}),
    ],
)
def test_a_body_that_breaks_a_rule_is_damage_though_its_checksum_is_right(
    path: str, ids: list[Any], change: Callable[[bytearray], None], fields: dict[str, Any]
) -> None:
    writer = create(path)
    upsert(writer, ids)
    writer.close()
    if ids == [1]:  # components of the vector: make byte 35 the top of an infinity
        reframe(path, lambda body: body.__setitem__(slice(32, 36), b"\0\0\x80\x3f"))
    reframe(path, change, **fields)
    with pytest.raises(LogDamagedError) as caught:
        plain(path)
    assert caught.value.frame == 0


@pytest.mark.parametrize("place", [0, 8, 15])
def test_metadata_that_breaks_a_rule_is_damage(path: str, place: int) -> None:
    writer = create(path)
    upsert(writer, [1, 2], [{"a": 1}, None])
    writer.close()
    reframe(path, nothing)
    size = Path(path).stat().st_size - 104
    start = 16 + 8 + 16 + 24
    reframe(path, put(start + place, 1))
    assert start + 16 < size
    with pytest.raises(LogDamagedError):
        plain(path)


# --- Writing ------------------------------------------------------------------------------------


def test_creation_is_durable_before_it_returns(path: str, files: Any) -> None:
    writer = create(path, files=files)
    assert files.names() == ["create", "write", "sync", "sync_directory"]
    upsert(writer, [1])
    assert files.names()[4:] == ["write", "sync_data"]
    writer.close()
    assert len(files.names()) == 6


def test_who_never_syncs_never_syncs_but_for_a_fold(path: str, files: Any) -> None:
    writer = create(path, NEVER, files=files)
    upsert(writer, [1])
    assert files.names() == ["create", "write", "write"]
    writer.append_fold(5)
    assert files.names()[3:] == ["write", "sync_data"]
    writer.close()
    frames = list(log_scan.walk_frames(*walked(path)))
    assert [frame.header.settled_bytes for frame in frames] == [frame.offset for frame in frames]


def walked(path: str) -> tuple[log_scan.LogBytes, layout.LogHeader]:
    log = log_scan.LogBytes(OS_FILES.open_read(path), OS_FILES, Path(path).stat().st_size)
    return log, layout.decode_log_header(bytes(log.read(0, 64)))


def test_settled_bytes_is_what_the_last_sync_covered(path: str) -> None:
    writer = create(path, FsyncPolicy.periodic(3600))
    first = upsert(writer, [1])
    upsert(writer, [2])
    writer.sync()
    second = writer.size
    upsert(writer, [3])
    writer.close()
    writer = reopen(path)
    third = writer.size
    upsert(writer, [4])
    upsert(writer, [5])
    writer.close()
    settled = [frame.header.settled_bytes for frame in log_scan.walk_frames(*walked(path))]
    assert settled == [64, 64, second, third, writer.size - (first - 64)]


def test_the_timer_syncs_without_another_write(path: str, files: Any) -> None:
    synced = threading.Event()
    sync_data = files.sync_data

    def note(file: Any) -> None:
        sync_data(file)
        synced.set()

    files.sync_data = note
    writer = create(path, FsyncPolicy.periodic(0.01), files=files)
    for _ in range(2):
        upsert(writer, [1])
        assert synced.wait(30)
        synced.clear()
    writer.close()
    assert files.names().count("sync_data") in {2, 3}


def test_closing_syncs_what_the_timer_has_not(path: str, files: Any) -> None:
    writer = create(path, FsyncPolicy.periodic(3600), files=files)
    upsert(writer, [1])
    assert "sync_data" not in files.names()
    writer.close()
    writer.close()
    assert files.names()[-1] == "sync_data"
    assert files.names().count("sync_data") == 1
    for use in (lambda: upsert(writer, [2]), writer.sync):
        with pytest.raises(ClosedError):
            use()


def test_a_failure_in_the_timer_is_told_once(path: str, files: Any) -> None:
    writer = create(path, FsyncPolicy.periodic(0.001), files=files)
    files.fail = {"sync_data": 0}
    upsert(writer, [1])
    while writer._poison is None:
        threading.Event().wait(0.001)
    with pytest.raises(PoisonedError, match="may be lost in a power cut"):
        upsert(writer, [2])
    writer.close()
    Path(path).unlink()

    files.fail = {}
    writer = create(path, FsyncPolicy.periodic(0.001), files=files)
    files.fail = {"sync_data": 0}
    upsert(writer, [1])
    while writer._poison is None:
        threading.Event().wait(0.001)
    with pytest.raises(FileIOError, match="sync_data"):
        writer.close()
    writer.close()


@pytest.mark.parametrize("partial", [None, 0, 1, 39, 40, 41, 100])
@pytest.mark.parametrize("policy", [ALWAYS, NEVER])
def test_a_failed_write_leaves_nothing_and_poisons_the_handle(
    path: str, files: Any, partial: int | None, policy: FsyncPolicy
) -> None:
    writer = create(path, policy, files=files)
    size = upsert(writer, [1])
    files.fail, files.partial_bytes = {"write": 0}, partial
    with pytest.raises(FileIOError, match="No space left on device"):
        upsert(writer, ["lost"])
    assert Path(path).stat().st_size == size
    files.fail = {}  # space returns
    for use in (lambda: upsert(writer, [2]), lambda: writer.append_delete(Ids.from_list([1])), writer.sync):
        with pytest.raises(PoisonedError):
            use()
    writer.close()
    assert ids_in(path) == [1]
    writer = reopen(path)
    upsert(writer, [2])
    writer.close()
    assert ids_in(path) == [1, 2]


def test_a_record_whose_sync_failed_does_not_come_back(path: str, files: Any) -> None:
    writer = create(path, files=files)
    size = upsert(writer, [1])
    files.fail = {"sync_data": 0}
    with pytest.raises(FileIOError, match="cannot sync_data") as caught:
        upsert(writer, ["unacknowledged"])
    assert "may be there" not in str(caught.value)
    assert files.names()[-3:] == ["sync_data", "truncate", "sync"]
    assert Path(path).stat().st_size == size
    files.fail = {}
    with pytest.raises(PoisonedError):
        upsert(writer, [2])
    writer.close()
    assert ids_in(path) == [1]


@pytest.mark.parametrize("operation", ["truncate", "sync"])
def test_an_error_says_so_when_the_record_may_come_back(path: str, files: Any, operation: str) -> None:
    writer = create(path, files=files)
    upsert(writer, [1])
    files.fail = {"sync_data": 0, operation: 0}
    with pytest.raises(FileIOError, match="nor take the record back: it may be there when"):
        upsert(writer, ["unacknowledged"])
    with pytest.raises(PoisonedError, match="it may be there"):
        upsert(writer, [2])
    writer.close()


def test_an_interrupted_write_is_taken_back_and_the_handle_goes_on(path: str, files: Any) -> None:
    writer = create(path, files=files)
    upsert(writer, [1])
    sync_data = files.sync_data

    def interrupt(file: Any) -> None:
        raise KeyboardInterrupt

    files.sync_data = interrupt
    with pytest.raises(KeyboardInterrupt):
        upsert(writer, ["interrupted"])
    files.sync_data = sync_data
    assert Path(path).stat().st_size == writer.size
    upsert(writer, [2])
    writer.close()
    assert ids_in(path) == [1, 2]


@pytest.mark.parametrize("operation", ["write", "sync", "sync_directory"])
def test_a_log_that_could_not_be_made_is_removed_again(path: str, files: Any, operation: str) -> None:
    files.fail = {operation: 0}
    with pytest.raises(FileIOError):
        create(path, files=files)
    assert not Path(path).exists()


def test_a_log_is_never_made_over_another(path: str) -> None:
    data, _ = write_some(path)
    with pytest.raises(FileIOError, match="File exists"):
        create(path)
    assert Path(path).read_bytes() == data


def test_a_log_has_the_mode_of_its_snapshot(path: str, tmp_path: Path) -> None:
    snapshot = tmp_path / "notes.iqdb"
    snapshot.touch()
    snapshot.chmod(0o600)
    create(path, like=snapshot.stat()).close()
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_reopening_makes_the_log_durable_before_it_vouches_for_it(path: str, files: Any) -> None:
    data, _ = write_some(path, NEVER)
    reopen(path, files=files).close()
    # The last frame once more, in case that an earlier sync failed; the bytes stay what they are.
    assert files.names() == ["write", "sync"]
    assert Path(path).read_bytes() == data
    files.calls.clear()
    Path(path).write_bytes(data + b"torn")
    reopen(path, NEVER, files=files).close()
    assert files.names() == ["truncate", "sync"]
    files.calls.clear()
    reopen(path, NEVER, files=files).close()
    assert files.names() == []


def test_a_batch_too_large_for_a_frame_is_refused_before_a_byte_is_written(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "MAX_FRAME_BYTES", 100)
    writer = create(path)
    size = upsert(writer, [1])
    with pytest.raises(BatchTooLargeError):
        upsert(writer, range(20))
    assert Path(path).stat().st_size == size
    upsert(writer, [2])
    writer.close()
    assert ids_in(path) == [1, 2]


def test_threads_may_append_at_once(path: str) -> None:
    writer = create(path, FsyncPolicy.periodic(0.002))

    def work(first: int) -> None:
        for i in range(25):
            upsert(writer, [first + i])

    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    found = ids_in(path)
    assert sorted(found) == sorted(100 * number + i for number in range(4) for i in range(25))
    for number in range(4):
        own = [record_id for record_id in found if record_id // 100 == number]
        assert own == sorted(own)


def test_a_reader_beside_a_writer_reads_what_was_there_when_it_looked(path: str) -> None:
    writer = create(path)
    upsert(writer, [1])
    with read(path) as contents:
        upsert(writer, [2])
        assert [len(frame.batch) for frame in contents.frames() if isinstance(frame, UpsertFrame)] == [1]
    writer.close()


def test_a_reader_looks_again_before_it_reports_damage(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = write_some(path)
    Path(path).write_bytes(data[:70] + b"?" + data[71:])
    once = log_contents._read_log_once
    calls: Iterator[Any] = iter([None, lambda: Path(path).write_bytes(data)])

    def repaired(*arguments: Any) -> Any:
        repair = next(calls, None)
        if repair is not None:
            repair()
        return once(*arguments)

    monkeypatch.setattr(log_contents, "_read_log_once", repaired)
    assert plain(path) == content_of(5)


def test_memory_is_bounded_by_a_window_and_a_frame(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_scan, "_WINDOW_BYTES", 64)
    monkeypatch.setattr(log_scan, "_KEPT_BYTES", 0)
    data, ends = write_some(path)
    assert plain(path) == content_of(5)
    largest = []
    read_bytes = OS_FILES.read

    def note(file: Any, size: int, offset: int) -> bytes:
        largest.append(size)
        return read_bytes(file, size, offset)

    monkeypatch.setattr(OS_FILES, "read", note)
    assert plain(path) == content_of(5)
    assert max(largest) <= max(64, *(stop - start for start, stop in pairwise(ends)))
    Path(path).write_bytes(data + bytes(1000))
    assert plain(path) == content_of(5)


def test_what_is_read_is_the_record_type_that_was_written(path: str) -> None:
    writer = create(path)
    upsert(writer, [1])
    writer.close()
    with read(path) as contents:
        (frame,) = contents.frames()
    assert isinstance(frame, UpsertFrame)
    assert isinstance(frame.batch, RecordBatch)
    assert frame.batch.vectors.dtype == np.float32
