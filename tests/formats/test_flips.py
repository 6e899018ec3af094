"""Whatever bit of a database changes, the program gives an error or the right records, never wrong ones."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from generate_golden import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from independent_log import replay
from independent_reader import Record, read_snapshot

from iqdb_core.database import Iqdb
from iqdb_core.errors import LogDamagedError, PersistError

Content: TypeAlias = list[tuple[Any, bytes, Any]]

SNAPSHOTS = ("metadata", "ids-mixed", "metric-dot", "zstd-19-noisy")


def content(path: Path) -> Content:
    with Iqdb.open_existing(path, read_only=True) as db:
        found = []
        for id_ in db.ids():
            record = db.get(id_)
            assert record is not None
            found.append((id_, record[0].tobytes(), comparable(record[1])))
        hits = db.search([1.0] * db.dim, len(found) or 1)
        assert {hit.id for hit in hits} == {id_ for id_, _, _ in found}
        return found


def comparable(metadata: Any) -> Any:
    """Return metadata in which a NaN equals itself and 0.0 is not -0.0."""
    if metadata is None:
        return None
    return {
        key: struct.pack("<d", value) if isinstance(value, float) else (type(value).__name__, value)
        for key, value in metadata.items()
    }


@cache
def right(name: str) -> Content:
    return content(GOLDEN / f"{name}.iqdb")


@pytest.mark.parametrize("name", SNAPSHOTS)
@given(data=st.data())
@settings(max_examples=60)
def test_a_flipped_bit_of_a_snapshot_gives_an_error_or_nothing(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = bytearray((GOLDEN / f"{name}.iqdb").read_bytes())
    image[data.draw(st.integers(0, len(image) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.iqdb"
    path.write_bytes(image)
    try:
        found = content(path)
    except PersistError:
        return
    assert found == right(name)


@pytest.mark.parametrize("name", SNAPSHOTS)
@given(data=st.data())
@settings(max_examples=40)
def test_a_snapshot_cut_anywhere_is_refused(
    name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = (GOLDEN / f"{name}.iqdb").read_bytes()
    path = tmp_path_factory.getbasetemp() / "cut.iqdb"
    path.write_bytes(image[: data.draw(st.integers(0, len(image) - 1))])
    with pytest.raises(PersistError):
        Iqdb.open_existing(path, read_only=True)


@cache
def states() -> tuple[bytes, bytes, list[int], list[list[Any]]]:
    """Return a database, its log, where its frames end, and the ids after each number of frames."""
    snapshot = (GOLDEN / "log-frames.iqdb").read_bytes()
    log = (GOLDEN / "log-frames.iqdb.wal").read_bytes()
    ends = [64]
    while ends[-1] < len(log):
        ends.append(ends[-1] + 40 + struct.unpack_from("<I", log, ends[-1] + 4)[0])
    parsed = read_snapshot(snapshot)
    return snapshot, log, ends, [keys(replay(log[:end], parsed)[0]) for end in ends]


def keys(records: list[Record]) -> list[Any]:
    return [(record.id, record.vector, record.metadata) for record in records]


def opened(path: Path, log: bytes) -> list[Any]:
    """Return what the program finds in the database with this log, in the form of `keys`."""
    from generate_golden import typed

    path.with_name(f"{path.name}.wal").write_bytes(log)
    with Iqdb.open_existing(path, read_only=True) as db:
        found = []
        for id_ in db.ids():
            record = db.get(id_)
            assert record is not None
            kind = 0 if isinstance(id_, int) else 1 if isinstance(id_, bytes) else 2
            payload = id_.to_bytes(8, "little") if isinstance(id_, int) else id_
            payload = payload.encode() if isinstance(payload, str) else payload
            metadata = None if record[1] is None else {key: typed(v) for key, v in record[1].items()}
            found.append(((kind, payload), record[0].tobytes(), metadata))
        return found


def test_a_log_cut_anywhere_holds_the_frames_before_the_cut(tmp_path: Path) -> None:
    snapshot, log, ends, after = states()
    path = tmp_path / "db.iqdb"
    path.write_bytes(snapshot)

    for size in range(len(log) + 1):
        frames = max((number for number, end in enumerate(ends) if end <= size), default=0)
        assert opened(path, log[:size]) == after[frames], size


def test_a_flipped_bit_of_a_log_is_reported_unless_it_is_in_the_last_frame(tmp_path: Path) -> None:
    """The last frame is the exception that the specification names: there damage looks like a torn tail."""
    snapshot, log, ends, after = states()
    path = tmp_path / "db.iqdb"
    path.write_bytes(snapshot)

    for offset in range(len(log)):
        damaged = bytearray(log)
        damaged[offset] ^= 1 << offset % 8
        if offset >= ends[-2]:
            assert opened(path, bytes(damaged)) == after[-2], offset
            continue
        with pytest.raises(PersistError) as caught:
            opened(path, bytes(damaged))
        if isinstance(caught.value, LogDamagedError) and offset >= 64:
            assert caught.value.frame == max(n for n, end in enumerate(ends) if end <= offset)


def test_zeros_in_place_of_any_part_of_a_settled_log_are_reported(tmp_path: Path) -> None:
    snapshot, log, ends, _ = states()
    path = tmp_path / "db.iqdb"
    path.write_bytes(snapshot)

    for start in range(0, ends[-2] - 8, 8):
        damaged = log[:start] + bytes(8) + log[start + 8 :]
        if damaged == log:
            continue
        with pytest.raises(PersistError):
            opened(path, damaged)
