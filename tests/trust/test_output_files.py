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
from recorder import FailingMemory, MemoryFiles

from iqdb_cli.output import open_output
from iqdb_cli.termination import TerminatedError, taken_back_when_terminated
from iqdb_core import IqdbConfig
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
