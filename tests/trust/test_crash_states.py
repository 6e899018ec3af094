"""No crash loses what was acknowledged, or leaves half of a batch, or a file that was not there before."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import crashes
import pytest
import workloads
from crash_states import Crashes, file_variants, name_variants
from faults import FaultyCalls
from recorder import MemoryFiles, Op, RecordedFiles, Trace
from workloads import Work

from iqdb_core import indexing
from iqdb_core.index.ivf import IvfIndex
from iqdb_core.log_link import LogLink

SEED = 20
HISTORIES = [
    ("life", "always", 100),
    ("life", "periodic", 80),
    ("life", "never", 60),
    ("imported", "always", 60),
    ("plain", "always", 40),
    ("many_frames", "always", 60),
    ("many_frames", "periodic", 50),
    ("many_frames", "never", 30),
    ("nothing_kept", "always", 60),
    ("nothing_kept", "never", 150),
    ("timer", "periodic", 50),
    ("left_stale", "always", 200),
    ("loaded_twice", "always", 200),
    ("killed", "periodic", 100),
    ("alike", "periodic", 60),
]
INDEXED = [
    ("hnsw", "always"),
    ("hnsw", "never"),
    ("ivf", "always"),
    ("ivf_pq", "periodic"),
    ("hnsw_imported", "always"),
    ("ivf_pq_imported", "always"),
]


@pytest.mark.parametrize(("name", "policy", "limit"), HISTORIES)
def test_no_crash_loses_an_acknowledged_record_or_leaves_half_a_batch(
    name: str, policy: str, limit: int
) -> None:
    tally = crashes.run(getattr(workloads, name), policy, SEED, limit=limit)
    assert tally.states >= limit
    assert tally.distinct > limit
    # A reader may refuse after a power cut only what was written by somebody who never syncs.
    assert tally.refused == 0 or policy == "never"


@pytest.mark.parametrize(("name", "policy"), INDEXED)
def test_no_crash_leaves_an_index_that_finds_less_or_half_of_its_settings(name: str, policy: str) -> None:
    tally = crashes.run(getattr(workloads, name), policy, SEED, limit=40, double_limit=1, every=8)
    assert tally.states >= 40
    assert tally.double > 10
    assert tally.refused == 0 or policy == "never"


@pytest.mark.parametrize(("name", "policy"), [("life", "always"), ("many_frames", "periodic")])
def test_a_crash_in_the_middle_of_recovery_loses_nothing_either(name: str, policy: str) -> None:
    tally = crashes.run(getattr(workloads, name), policy, SEED + 1, limit=4, double_limit=4)
    assert tally.double > 50


@pytest.mark.parametrize(
    "name", ["life", "imported", "plain", "nothing_kept", "left_stale", "hnsw", "ivf_pq"]
)
def test_memory_sees_the_same_operations_as_a_real_directory(name: str, tmp_path: Path) -> None:
    workload = getattr(workloads, name)
    real_path = str(tmp_path / "a.iqdb")
    real = crashes.recorded(workload, "always", RecordedFiles(), real_path)
    memory = crashes.recorded(workload, "always")
    assert real.versions == memory.versions

    def plain(work: Work, folder: str) -> list[Any]:
        # Files are numbered in the order in which they appear, the real ones too.
        numbers: dict[int, int] = {0: 0}
        return [
            op._replace(
                inode=numbers.setdefault(op.inode, len(numbers)),
                name=op.name.replace(folder, ""),
                target=op.target.replace(folder, ""),
            )
            for op in work.trace
        ]

    mine, theirs = plain(memory, "/disk"), plain(real, str(tmp_path))
    assert [op.kind for op in mine] == [op.kind for op in theirs]
    assert mine == theirs
    image = memory.files.image()
    assert (tmp_path / "a.iqdb").read_bytes() == image.content(crashes.PATH)
    assert {path.name for path in tmp_path.iterdir()} == {Path(name).name for name in image.names}


@pytest.mark.skipif(sys.platform == "darwin", reason="a sync is another call there")
@pytest.mark.parametrize("policy", ["always", "periodic"])
def test_every_sync_reaches_the_system(policy: str, tmp_path: Path) -> None:
    with FaultyCalls().installed() as calls:
        work = crashes.recorded(workloads.life, policy, RecordedFiles(), str(tmp_path / "a.iqdb"))
    kinds = [op.kind for op in work.trace]
    called = calls.counts["fsync"] + calls.counts["fdatasync"]
    assert called == kinds.count("sync") + kinds.count("sync_directory")


def test_no_crash_leaves_a_copy_of_a_private_database_that_others_may_read() -> None:
    work = Work(MemoryFiles(), crashes.PATH)
    work.create()
    work.files._names[crashes.PATH].mode = 0o600  # type: ignore[attr-defined]
    start, begin = work.files.image(), len(work.trace)  # type: ignore[attr-defined]
    work.upsert(1)
    work.compact()
    work.bulk(workloads.batch_of([2], [2], [None]))
    work.upsert(3)
    work.close()
    trace = [op._replace(upto=op.upto - begin) for op in work.trace[begin:]]
    states = Crashes(trace, start, log_name=crashes.LOG, rng=random.Random(SEED), every_byte=False).states()
    assert len(states) > 100
    assert {mode for state in states for _, mode in state.image.files.values()} == {0o600}


# --- The net is fine enough ---------------------------------------------------------------------


def find_violation(work: Work, *, torn: bool) -> None:
    states = crashes.crash_states(work, "always", random.Random(SEED), every_byte=False).states()
    checker = crashes.Checker(work.versions, "always")
    with pytest.raises(crashes.ViolationError):
        checker.check_all(state for state in states if state.torn == torn)


class Careless(MemoryFiles):
    """A file layer whose callers believe that something was made durable."""

    def __init__(self, careless: str) -> None:
        super().__init__()
        self._careless = careless

    def sync(self, file: Any) -> None:
        if self._careless == "log" and file.path.endswith(".wal"):
            return
        if self._careless == "snapshot" and ".tmp-" in file.path:
            return
        super().sync(file)

    def sync_directory(self, path: str) -> None:
        if self._careless != "directory":
            super().sync_directory(path)


@pytest.mark.parametrize("careless", ["log", "snapshot", "directory"])
def test_a_sync_that_is_left_out_is_found(careless: str) -> None:
    work = crashes.recorded(workloads.life, "always", Careless(careless))
    find_violation(work, torn=False)


def test_a_log_that_is_removed_before_the_rename_is_durable_is_found() -> None:
    class Hasty(MemoryFiles):
        def rename(self, source: str, target: str) -> None:
            self.unlink(target + ".wal")
            super().rename(source, target)

    find_violation(crashes.recorded(workloads.life, "always", Hasty()), torn=False)


def test_a_compaction_without_a_fold_frame_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LogLink, "append_fold", lambda self, identity: None)
        work = crashes.recorded(workloads.life, "always")
    find_violation(work, torn=False)


def test_a_writer_that_appends_behind_a_torn_tail_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    work = crashes.recorded(workloads.life, "always")
    write = MemoryFiles.write

    def append(self: MemoryFiles, file: Any, data: Any, offset: int) -> None:
        size = self.status(file).st_size
        write(self, file, data, size if file.path.endswith(".wal") else offset)

    monkeypatch.setattr(MemoryFiles, "truncate", lambda self, file, size: None)
    monkeypatch.setattr(MemoryFiles, "write", append)
    find_violation(work, torn=True)


def test_an_index_that_misses_a_record_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    update = IvfIndex.update

    def loses_one(self: IvfIndex, *arguments: Any) -> Any:
        arrays = dict(update(self, *arguments))
        rows = arrays["ivf.rows"] = arrays["ivf.rows"].copy()
        rows[0] = rows[1]
        return arrays

    def workload(work: Work) -> None:
        work.create(index=workloads.IVF)
        work.upsert_many(list(range(12)))
        work.close(compact=True)

    with monkeypatch.context() as patch:
        patch.setattr(IvfIndex, "update", loses_one)
        # What the writer itself would notice.
        patch.setattr(indexing, "_prove_index", lambda *_: None)
        work = crashes.recorded(workload, "always")
    find_violation(work, torn=False)


# --- The model itself ---------------------------------------------------------------------------


def test_the_model_tears_drops_reorders_and_extends() -> None:
    old = b"o" * 600
    first = Op("write", 1, 512, b"a" * 1024)
    second = Op("write", 1, 1000, b"b" * 100)
    found = {content for (content, _), _ in file_variants((old, 0), [first, second], every_byte=False)}
    both = old[:512] + b"a" * 488 + b"b" * 100 + b"a" * 436
    assert both in found
    assert old in found
    assert old[:512] + b"a" * 1024 in found  # only the first, or the two in reverse
    assert old + bytes(400) + b"b" * 100 in found  # only the second: a hole before it
    assert old + bytes(936) in found  # the length is there, the data is not
    assert old[:512] + b"a" * 512 in found  # the first sector of the first write
    assert old + bytes(424) + b"a" * 512 in found  # its second sector without its first
    by_byte = {
        content for (content, _), _ in file_variants((b"", 0), [Op("write", 1, 0, b"xyz")], every_byte=True)
    }
    assert by_byte == {b"xyz", b"", b"x", b"xy", b"\0yz", b"\0\0z", b"x\0\0", b"xy\0", b"\0\0\0"}


def test_the_model_knows_that_names_are_not_durable_before_their_directory() -> None:
    ops = [Op("create", 2, name="t"), Op("rename", 2, name="t", target="a"), Op("unlink", 1, name="w")]
    found = [dict(names) for names in name_variants({"a": 1, "w": 3}, ops)]
    assert found[0] == {"a": 2}
    for names in ({"a": 1, "w": 3}, {"a": 1, "w": 3, "t": 2}, {"a": 2, "w": 3}, {"a": 1}, {"a": 2, "t": 2}):
        assert names in found


def test_the_model_lets_a_sync_cover_only_what_came_before_it_began() -> None:
    trace = Trace()
    trace.append(Op("create", 1, name="w"))
    trace.append(Op("sync_directory", upto=1))
    trace.append(Op("write", 1, 0, b"1"))
    trace.append(Op("write", 1, 1, b"2"))
    trace.append(Op("sync", 1, upto=3))
    states = Crashes(trace, rng=random.Random(0)).states()
    last = Crashes(trace, rng=random.Random(0)).final_extremes()
    assert {image.content("w") for image in last} == {b"12", b"1"}
    assert {state.image.content("w") for state in states} == {
        None,
        b"",
        b"1",
        b"12",
        b"\0",
        b"\0\0",
        b"\x002",
        b"1\0",
    }
