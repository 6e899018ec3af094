"""Files that commands write: absent or complete after a crash, a fault, a signal; and who may read them."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crash_states import Crashes
from recorder import FailingMemory, Image, MemoryFiles

from iqdb_cli.exit_codes import UsageError
from iqdb_cli.output import open_output, open_outputs
from iqdb_cli.termination import TerminatedError, taken_back_when_terminated
from iqdb_core import Iqdb, IqdbConfig
from iqdb_core.errors import FileIOError
from iqdb_core.legacy.writer import write_legacy
from iqdb_core.records import Ids, RecordBatch
from iqdb_core.storage.files import FileSystem, OpenFile

PATH = "/disk/out.jsonl"
OLD, NEW = b"the old file\n", b"the new file\n" * 10_000


def write(files: FileSystem, data: bytes, path: str = PATH) -> None:
    with open_output(path, files=files) as out:
        for start in range(0, len(data), 1000):
            out.write(data[start : start + 1000])


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("old", [None, OLD])
def test_a_power_cut_leaves_the_old_file_or_the_whole_new_one(old: bytes | None) -> None:
    files = MemoryFiles()
    if old is not None:
        write(files, old)
    files.trace.begin(1)
    write(files, NEW)
    files.trace.ack(1)
    found = set()
    states = Crashes(files.trace, rng=random.Random(1), every_byte=False).states()
    for state in states:
        content = state.image.content(PATH)
        assert content in (None, old, NEW), len(content or b"")
        # The command had ended: what it wrote is there.
        assert state.floor < 1 or content == NEW
        found.add(content)
        # Whatever is left, the next run removes it.
        again = MemoryFiles(state.image)
        write(again, NEW)
        assert set(again.image().names) == {PATH}
    assert found == {None, old, NEW}
    assert len(states) > 10


SET = ["/disk/v.npy", "/disk/ids.npy", "/disk/m.jsonl"]


def write_set(files: FileSystem, generation: bytes, paths: list[str] = SET) -> None:
    with open_outputs(paths, files=files) as outs:
        for path, out in zip(paths, outs, strict=True):
            out.write(generation + path.encode())


def generations(image: Image) -> list[bytes | None]:
    """Which generation of each file of the set there is; a file that is not whole belongs to none."""
    found = []
    for path in SET:
        content = image.content(path)
        assert content is None or content in (b"old" + path.encode(), b"new" + path.encode()), content
        found.append(None if content is None else content[:3])
    return found


def check_set(found: list[bytes | None]) -> None:
    """Whoever finds the first file finds those that belong to it."""
    assert found[0] is None or set(found) == {found[0]}, found


@pytest.mark.parametrize("there", [(), (0, 1, 2), (0,), (1, 2), (0, 2)])
def test_a_power_cut_never_leaves_a_first_file_with_others_that_do_not_belong_to_it(
    there: tuple[int, ...],
) -> None:
    files = MemoryFiles()
    for index in there:
        write_set(files, b"old", [SET[index]])
    start = files.image()
    before = generations(start)
    files = MemoryFiles(start)
    files.trace.begin(1)
    write_set(files, b"new")
    files.trace.ack(1)
    found = set()
    for state in Crashes(files.trace, start, rng=random.Random(1), every_byte=False).states():
        now = generations(state.image)
        if now != before:
            check_set(now)
        assert state.floor < 1 or now == [b"new"] * 3
        found.add(now[0])
        again = MemoryFiles(state.image)
        write_set(again, b"new")
        assert set(again.image().names) == set(SET)
    assert found == ({None, b"old", b"new"} if 0 in there else {None, b"new"})


class StoppingMemory(MemoryFiles):
    """Files in memory; the n-th change of a name, and all after it if `dead`, does not take place."""

    def __init__(self, image: Image, at: int, failure: BaseException, *, dead: bool) -> None:
        super().__init__(image)
        self.left, self.failure, self.dead = at, failure, dead

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0 if self.dead else self.left == -1:
            raise self.failure

    def rename(self, source: str, target: str) -> None:
        self._step()
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._step()
        super().unlink(path)

    def sync_directory(self, path: str) -> None:
        self._step()
        super().sync_directory(path)


NO_SPACE = FileIOError("x", "replace", OSError(28, "No space left on device"))
NO_SPACE.__cause__ = OSError(28, "No space left on device")  # as of an error of the real file layer


@pytest.mark.parametrize("failure", [NO_SPACE, KeyboardInterrupt()], ids=["failure", "interrupt"])
@pytest.mark.parametrize("old", [True, False])
def test_what_fails_between_the_names_of_a_set_puts_all_of_the_old_set_back(
    failure: BaseException, *, old: bool
) -> None:
    files = MemoryFiles()
    if old:
        write_set(files, b"old")
    start = files.image()
    before = generations(start)
    for at in range(30):
        files = StoppingMemory(start, at, failure, dead=False)
        try:
            write_set(files, b"new")
        except FileIOError as error:
            assert str(error).endswith(": cannot write: No space left on device")  # noqa: PT017
            assert any(str(error).startswith(path) for path in SET)  # noqa: PT017
        except KeyboardInterrupt:
            pass
        else:
            break
        assert files.n_open == 0
        if generations(files.image()) != [b"new"] * 3:  # only what was left over could not be removed
            assert generations(files.image()) == before
            assert set(files.image().names) == set(start.names)
    else:
        pytest.fail("it never ends")
    assert at >= 6


def test_when_the_old_set_cannot_be_put_back_either_the_error_says_where_it_is() -> None:
    files = MemoryFiles()
    write_set(files, b"old")
    start = files.image()
    told = 0
    for at in range(30):
        files = StoppingMemory(start, at, NO_SPACE, dead=True)
        failed = None
        try:
            write_set(files, b"new")
        except FileIOError as error:
            failed = error
        if failed is None:
            break
        check_set(generations(files.image()))
        place = str(failed).partition("put the old file back from ")[2].partition(":")[0]
        if place:
            told += 1
            assert files.image().content(place) == b"old" + str(failed.path).encode()
    assert told > 3


def test_two_names_of_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link.npy").symlink_to(tmp_path / "v.npy")
    with (
        pytest.raises(UsageError, match="name one file"),
        open_outputs([str(tmp_path / "v.npy"), str(tmp_path / "link.npy")]),
    ):
        pass
    assert names(tmp_path) == ["link.npy"]


_KILLED = """
import os, sys
from iqdb_core.storage.files import OS_FILES, FileSystem
left = int(sys.argv[1])
def dying(name):
    real = getattr(FileSystem, name)
    def call(self, *arguments):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return real(self, *arguments)
    setattr(FileSystem, name, call)
for name in ("rename", "unlink", "sync_directory"):
    dying(name)
from iqdb_cli.app import run
run(sys.argv[2:])
os._exit(0)
"""


EXPORT = [sys.executable, "-c", _KILLED]


def test_an_export_killed_between_its_renames_is_never_read_as_a_mix(tmp_path: Path) -> None:
    old, new = tmp_path / "old.iqdb", tmp_path / "new.iqdb"
    for path, value in ((old, 1), (new, 2)):
        with Iqdb.open(path, dim=2, metric="euclidean") as db:
            db.upsert_many([value * 100 + i for i in range(5)], [[value, i] for i in range(5)])
    folder = tmp_path / "out"
    folder.mkdir()
    vectors, ids = folder / "v.npy", folder / "ids.npy"
    words = ["--force", "-o", str(vectors), "--ids-out", str(ids)]
    seen = set()
    for at in range(20):
        # The state before each kill is a whole old set.
        assert subprocess.run([*EXPORT, "99", "export", str(old), *words], check=False).returncode == 0
        status = subprocess.run([*EXPORT, str(at), "export", str(new), *words], check=False).returncode
        if vectors.exists():
            array, numbers = np.load(vectors), np.load(ids)
            assert (array[:, 0] * 100 + array[:, 1]).tolist() == numbers.tolist()
            seen.add(int(array[0, 0]))
        else:
            seen.add(0)
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert seen == {0, 1, 2}
    assert names(folder) == ["ids.npy", "v.npy"]


def test_a_power_cut_leaves_a_whole_snapshot_for_1x_or_none() -> None:
    ids, vectors = Ids.from_list([1, 2]), np.ones((2, 3), np.float32)
    path = "/disk/old.iqdb"

    def export(files: MemoryFiles) -> None:
        write_legacy(path, IqdbConfig(dim=3), lambda: iter([RecordBatch(ids, vectors, None)]), files=files)

    files = MemoryFiles()
    files.trace.begin(1)
    export(files)
    files.trace.ack(1)
    whole = files.image().content(path)
    found = set()
    for state in Crashes(files.trace, rng=random.Random(1), every_byte=False).states():
        content = state.image.content(path)
        assert content in (None, whole), "half of a snapshot"
        # The command had ended: what it wrote is there.
        assert state.floor < 1 or content == whole
        found.add(content)
        if content is None:
            again = MemoryFiles(state.image)
            export(again)
            assert set(again.image().names) == {path}
    assert found == {None, whole}


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_a_failed_call_leaves_nothing_and_names_the_file_that_was_asked_for(kind: str) -> None:
    files = FailingMemory(kind, 0)
    with pytest.raises(FileIOError, match=r"^/disk/out\.jsonl: cannot write: "):
        write(files, NEW)
    assert not files.image().names
    assert files.n_open == 0


def test_what_a_killed_run_left_is_removed_and_what_another_process_writes_is_not(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    (tmp_path / ".out.jsonl.tmp-0123abcd").write_bytes(b"left")
    (tmp_path / ".other.jsonl.tmp-0123abcd").write_bytes(b"of another file")
    files = FileSystem()
    alive = files.create_temporary(str(target))
    write(files, NEW, str(target))
    assert target.read_bytes() == NEW
    assert names(tmp_path) == sorted([".other.jsonl.tmp-0123abcd", Path(alive.path).name, "out.jsonl"])
    files.release(alive)


def test_a_file_that_is_replaced_keeps_its_mode_and_is_never_more_open_than_it_was(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_bytes(OLD)
    target.chmod(0o640)
    modes = set()

    class Watching(FileSystem):
        def write(self, file: OpenFile, data: Any, offset: int) -> None:
            modes.add(stat.S_IMODE(os.fstat(file.fd).st_mode))
            super().write(file, data, offset)

    write(Watching(), NEW, str(target))
    assert modes == {0o600}
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_folder_that_cannot_be_listed_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    write(FileSystem(), NEW, str(tmp_path / "out.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == NEW


def test_a_second_signal_ends_the_process_at_once_and_an_ignored_one_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with taken_back_when_terminated():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(TerminatedError) as caught:
                os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert caught.value.exit_status == 143
    finally:
        signal.signal(signal.SIGHUP, before)


_STUCK = """
import ctypes, threading
from iqdb_cli import termination
termination._PATIENCE_SECONDS = 0.05
with termination.taken_back_when_terminated():
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    libc.pthread_mutex_lock(mutex)
    threading.Timer(0.2, lambda: print("begun", flush=True)).start()
    libc.pthread_mutex_lock(mutex)  # one call that never ends, as a long kernel, and frees the lock of Python
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_does_not_get_to_its_handler_ends_all_the_same(number: int) -> None:
    with subprocess.Popen([sys.executable, "-c", _STUCK], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        assert process.wait(30) == 128 + number
