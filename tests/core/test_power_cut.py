"""What a kill or a power cut after any file operation leaves, and what the next handle finds there.

Every operation of a handle on files is recorded. From each prefix of the record the disks are built that
a crash at this point may leave: after a kill, all that was written; after a power cut, all that was
synced, and of the rest any pages, any sizes and any names. Opening such a disk must give the
acknowledged records, with or without the call that was under way, and nothing else.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from iqdb_core import FsyncPolicy, Iqdb, IqdbConfig
from iqdb_core.errors import DatabaseNotFoundError
from iqdb_core.opening import HandleSettings, create, open_for_writing
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage.files import FileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqdb_core.storage.files import OpenFile
    from iqdb_core.storage.section_stream import Bytes

PAGE = 4096
DIM = 4
NAME = "notes.iqdb"
State = dict[Any, tuple[tuple[float, ...], Any]]


class Event(NamedTuple):
    """One operation: what it did to which file, or to which name."""

    kind: str
    file: int = -1
    name: str = ""
    other: str = ""
    offset: int = 0
    data: bytes = b""


class RecordedFiles(FileSystem):
    """The real file layer with a record of all it did. Files are numbered in the order of creation."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._numbers: dict[int, int] = {}
        self._created = 0

    def _number(self, file: OpenFile) -> int:
        return self._numbers[os.fstat(file.fd).st_ino]

    def create(self, path: str, mode: int = 0o666) -> OpenFile:
        file = super().create(path, mode)
        self._created += 1
        self._numbers[os.fstat(file.fd).st_ino] = self._created
        self.events.append(Event("name", self._created, Path(path).name))
        return file

    def write(self, file: OpenFile, data: Bytes, offset: int) -> None:
        super().write(file, data, offset)
        self.events.append(Event("write", self._number(file), offset=offset, data=bytes(data)))

    def truncate(self, file: OpenFile, size: int) -> None:
        super().truncate(file, size)
        self.events.append(Event("truncate", self._number(file), offset=size))

    def sync(self, file: OpenFile) -> None:
        super().sync(file)
        self.events.append(Event("sync", self._number(file)))

    def sync_data(self, file: OpenFile) -> None:
        super().sync_data(file)
        self.events.append(Event("sync", self._number(file)))

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self.events.append(Event("sync names"))

    def link(self, source: str, target: str) -> None:
        number = self._numbers[Path(source).stat().st_ino]
        super().link(source, target)
        self.events.append(Event("name", number, Path(target).name))

    def rename(self, source: str, target: str) -> None:
        number = self._numbers[Path(source).stat().st_ino]
        super().rename(source, target)
        self.events.append(Event("name", number, Path(target).name, Path(source).name))

    def unlink(self, path: str) -> None:
        there = self.exists(path)
        super().unlink(path)
        if there:
            self.events.append(Event("unname", name=Path(path).name))


class Disk:
    """What is on the disk for certain, and what may be."""

    def __init__(self) -> None:
        self.contents: dict[int, bytearray] = {}
        self.names: dict[str, int] = {}
        self.pending: dict[int, list[Event]] = {}
        self.pending_names: list[Event] = []

    def apply(self, event: Event) -> None:
        """Take an operation that took place."""
        if event.kind in {"name", "unname"}:
            self.contents.setdefault(event.file, bytearray())
            self.pending_names.append(event)
        elif event.kind == "sync names":
            for pending in self.pending_names:
                _rename(self.names, pending)
            self.pending_names = []
        elif event.kind == "sync":
            for pending in self.pending.pop(event.file, []):
                _change(self.contents[event.file], pending)
        else:
            self.pending.setdefault(event.file, []).append(event)

    def after_kill(self) -> dict[str, bytes]:
        """Return names and contents when only the process ends."""
        contents = {number: bytearray(content) for number, content in self.contents.items()}
        for number, events in self.pending.items():
            for event in events:
                _change(contents[number], event)
        names = dict(self.names)
        for event in self.pending_names:
            _rename(names, event)
        return {name: bytes(contents[number]) for name, number in names.items()}

    def after_power_cut(self, choice: random.Random) -> dict[str, bytes]:
        """Return names and contents after one of the many ways in which the power may go."""
        likely = choice.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        contents = {number: bytearray(content) for number, content in self.contents.items()}
        for number, events in self.pending.items():
            content = contents[number]
            for event in events:
                if event.kind == "truncate":
                    if choice.random() < likely:
                        _change(content, event)
                    continue
                for page in _pages(event):
                    if choice.random() < likely:
                        _change(content, page)
                if choice.random() < likely / 2:
                    # The size got there, the data did not: the rest reads as zeros.
                    end = event.offset + len(event.data)
                    content.extend(bytes(max(0, end - len(content))))
        names = dict(self.names)
        in_order = choice.random() < 0.5
        for event in self.pending_names:
            if choice.random() < likely:
                _rename(names, event)
            elif in_order:
                break
        return {name: bytes(contents[number]) for name, number in names.items()}


def _change(content: bytearray, event: Event) -> None:
    if event.kind == "truncate":
        content.extend(bytes(max(0, event.offset - len(content))))
        del content[event.offset :]
    else:
        content.extend(bytes(max(0, event.offset - len(content))))
        content[event.offset : event.offset + len(event.data)] = event.data


def _pages(event: Event) -> Iterator[Event]:
    start = event.offset
    end = start + len(event.data)
    while start < end:
        stop = min(end, (start // PAGE + 1) * PAGE)
        data = event.data[start - event.offset : stop - event.offset]
        yield event._replace(offset=start, data=data)
        start = stop


def _rename(names: dict[str, int], event: Event) -> None:
    if event.kind == "name":
        names[event.name] = event.file
        names.pop(event.other, None)
    else:
        names.pop(event.name, None)


class Workload:
    """Calls on a handle, the states between them, and the operations on files that they caused."""

    def __init__(self, directory: Path, policy: FsyncPolicy) -> None:
        self.path = directory / NAME
        self.files = RecordedFiles()
        self.settings = HandleSettings(policy, 1, None)
        self.states: list[State | None] = [None]
        # For each event: how many calls had returned before it, and how many of them were durable.
        self.returned: list[int] = []
        self.durable: list[int] = []
        self._calls = 0
        self._durable_calls = 0
        self._always = policy == FsyncPolicy.ALWAYS

    def call(self, action: Callable[[], Any], state: State | None) -> Any:
        """Make one call, after which the database holds `state`."""
        self.states.append(state)
        result = action()
        self._note()
        self._calls += 1
        if self._always:
            self._durable_calls = self._calls
        return result

    def settle(self, action: Callable[[], Any]) -> Any:
        """Make a call that changes no record, after which all earlier ones are durable."""
        result = action()
        self._note()
        self._durable_calls = self._calls
        return result

    def _note(self) -> None:
        new = len(self.files.events) - len(self.returned)
        self.returned += [self._calls] * new
        self.durable += [self._durable_calls] * new

    def run(self) -> None:
        """Do everything that writes, with a handle that never compacts by itself."""
        config = IqdbConfig(
            dim=DIM, metric="euclidean", fsync=self.settings.fsync, auto_compact=None, threads=1
        )
        state: State = {}
        db = self.call(lambda: Iqdb(create(self.path, config, self.files)), dict(state))
        self.settle(lambda: None)
        for number in range(3):
            self._upsert(db, state, number, {"n": number})
        self._upsert_many(db, state, ["a", b"b", 1], "first")
        self._delete(db, state, [0, "absent"])
        self._upsert(db, state, 2, None)
        self.settle(db.compact)
        self._upsert(db, state, "a", {"text": "after"})
        self._delete(db, state, ["a", 2])
        self.settle(lambda: db.close(compact=False))

        db = self.settle(lambda: Iqdb(open_for_writing(self.path, self.settings, self.files)))
        self._upsert(db, state, "later", {"large": "x" * 9000})
        self._upsert_many(db, state, range(10, 40), "many")
        self._bulk_load(db, state, [1, "later", *range(100, 160)])
        self._upsert(db, state, 100, {"n": 1})
        self.settle(lambda: db.close(compact=True))

    def _record(self, seed: int, count: int) -> np.ndarray[Any, Any]:
        return np.random.default_rng(seed).integers(-9, 9, (count, DIM)).astype(np.float32)

    def _upsert(self, db: Iqdb, state: State, record_id: Any, metadata: Any) -> None:
        vector = self._record(len(self.states), 1)[0]
        state[record_id] = (tuple(vector.tolist()), metadata)
        self.call(lambda: db.upsert(record_id, vector, metadata), dict(state))

    def _upsert_many(self, db: Iqdb, state: State, ids: Any, text: str) -> None:
        every = list(ids)
        vectors = self._record(len(self.states), len(every))
        rows: list[Any] = [{"text": text} if row % 2 else None for row in range(len(every))]
        for row, record_id in enumerate(every):
            state[record_id] = (tuple(vectors[row].tolist()), rows[row])
        self.call(lambda: db.upsert_many(every, vectors, rows), dict(state))

    def _delete(self, db: Iqdb, state: State, ids: list[Any]) -> None:
        for record_id in ids:
            state.pop(record_id, None)
        self.call(lambda: db.delete(ids), dict(state))

    def _bulk_load(self, db: Iqdb, state: State, ids: list[Any]) -> None:
        vectors = self._record(len(self.states), len(ids))
        rows: list[Any] = [{"bulk": row} for row in range(len(ids))]
        for row, record_id in enumerate(ids):
            state[record_id] = (tuple(vectors[row].tolist()), rows[row])
        batch = RecordBatch(Ids.from_list(ids), vectors, MetadataColumns.from_dicts(rows))
        self.call(lambda: db.bulk_load([batch]), dict(state))
        self.settle(lambda: None)


def content(db: Iqdb) -> list[tuple[Any, tuple[float, ...], Any]]:
    records = []
    for record_id in db.ids():
        found = db.get(record_id)
        assert found is not None
        records.append((record_id, tuple(found[0].tolist()), found[1]))
    return records


def as_content(state: State) -> list[tuple[Any, tuple[float, ...], Any]]:
    return [(record_id, vector, metadata) for record_id, (vector, metadata) in state.items()]


def check(directory: Path, files: dict[str, bytes], allowed: list[State | None]) -> None:
    """Open a disk, compare, go on writing, and see that nothing but the database is left at the end."""
    for old in directory.iterdir():
        old.unlink()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    path = directory / NAME
    try:
        reader = Iqdb.open_existing(path, read_only=True)
    except DatabaseNotFoundError:
        assert None in allowed
        return
    found = content(reader)
    reader.close()
    assert found in [as_content(state) for state in allowed if state is not None]
    db = Iqdb.open_existing(path, auto_compact=None)
    assert content(db) == found
    vector = np.ones(DIM, np.float32)
    db.upsert("probe", vector)
    db.close(compact=False)
    db = Iqdb.open_existing(path)
    assert content(db) == [*found, ("probe", tuple(vector.tolist()), None)]
    db.close(compact=True)
    assert [entry.name for entry in directory.iterdir()] == [NAME]


POLICIES = ["always", "periodic:3600", "never"]


@pytest.fixture
def workload(request: pytest.FixtureRequest, tmp_path: Path) -> Workload:
    directory = tmp_path / "recorded"
    directory.mkdir()
    recorded = Workload(directory, FsyncPolicy.parse(request.param))
    recorded.run()
    return recorded


@pytest.mark.parametrize("workload", POLICIES, indirect=True)
def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(workload: Workload, tmp_path: Path) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    disk = Disk()
    for number, event in enumerate(workload.files.events):
        disk.apply(event)
        calls = workload.returned[number]
        check(directory, disk.after_kill(), workload.states[calls : calls + 2])


@pytest.mark.parametrize("workload", POLICIES[:2], indirect=True)  # `never` promises nothing here
def test_a_power_cut_at_any_moment_loses_nothing_that_was_durable(workload: Workload, tmp_path: Path) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    choice = random.Random(20)
    disk = Disk()
    for number, event in enumerate(workload.files.events):
        disk.apply(event)
        allowed = workload.states[workload.durable[number] : workload.returned[number] + 2]
        seen: list[dict[str, bytes]] = []
        for _ in range(4):
            files = disk.after_power_cut(choice)
            if files not in seen:
                seen.append(files)
                check(directory, files, allowed)


@pytest.mark.parametrize("workload", POLICIES, indirect=True)
def test_the_record_of_operations_is_complete(workload: Workload) -> None:
    disk = Disk()
    for event in workload.files.events:
        disk.apply(event)
    directory = workload.path.parent
    assert disk.after_kill() == {entry.name: entry.read_bytes() for entry in directory.iterdir()}
    assert list(disk.after_kill()) == [NAME]
    assert len(workload.files.events) > 60
