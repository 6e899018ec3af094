"""A system call that fails costs at most the write that made it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import crashes
import faults
import pytest
from workloads import contents

from iqdb_core import IndexKind, Iqdb, IqdbConfig, IvfConfig

SEED = 7


@pytest.mark.parametrize(("name", "share"), [("records", 50), ("indexed", 280), ("imported", 110)])
def test_whatever_system_call_fails_nothing_acknowledged_is_lost_and_nothing_else_appears(
    name: str, share: int
) -> None:
    tally = faults.run(seed=SEED, share=share, names=(name,))
    assert tally.of > 1000
    assert tally.points > 15
    assert tally.poisoned
    assert tally.poisoned + tally.went_on >= 3


def test_whatever_system_call_fails_a_plain_array_is_a_whole_database_or_none() -> None:
    tally = faults.run(seed=SEED, share=6, names=("plain",))
    assert tally.of > 300
    assert tally.points > 50
    assert tally.poisoned


@pytest.mark.parametrize("kind", ["rename", "fdatasync", "link", "unlink", faults.ANY_CHANGE])
def test_every_one_of_the_calls_that_matter_most_may_fail(kind: str) -> None:
    tally = faults.FaultTally()
    counts = faults.count_calls()
    chosen = [fault for fault in faults.all_faults({kind: counts[kind]}) if isinstance(fault.error, int)]
    for fault in chosen[:: max(1, len(chosen) // 12)]:
        faults.try_fault(fault, tally)
    assert tally.points >= 6


def test_a_check_that_finds_nothing_wrong_with_a_lost_record_would_be_worthless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A writer that does not cut off what it could not sync: the record comes back.
    from iqdb_core.storage.wal import LogWriter

    monkeypatch.setattr(LogWriter, "_take_back", lambda self, cause: setattr(self, "_poison", str(cause)))
    counts = faults.count_calls()
    tally = faults.FaultTally()
    found = 0
    for skip in range(counts["fdatasync"]):
        try:
            faults.try_fault(faults.Fault("fdatasync", skip, 5), tally)
        except AssertionError:
            found += 1
    assert found >= 5


@pytest.mark.parametrize("policy", ["always", "periodic"])
@pytest.mark.parametrize("kind", ["sync", "write"])
def test_a_power_cut_after_a_failed_call_and_a_reopening_loses_nothing_either(kind: str, policy: str) -> None:
    # A system whose sync has failed takes for written what is not (see crash_states).
    skip = 0
    while (tally := crashes.run_failed(kind, skip, policy, SEED, limit=8)) is not None:
        assert tally.states
        skip += 4
    assert skip > 8


# --- Real ones ----------------------------------------------------------------------------------

WRITER = """
import json, resource, signal, sys
from iqdb_core import Error, Iqdb, PoisonedError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, limit, fsync = sys.argv[1], int(sys.argv[2]), sys.argv[3]
db = Iqdb.open_existing(path, threads=1, auto_compact=None, fsync=fsync)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
acked, error = [], None
for i in range(1000):
    try:
        db.upsert(i, [i, i, i], {"text": "x" * (i % 50)})
    except Error as raised:
        error = type(raised).__name__
        break
    acked.append(i)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
poisoned = False
try:
    db.upsert("later", [1, 2, 3])
except PoisonedError:
    poisoned = True
db.close(compact=False)
print(json.dumps([acked, error, poisoned]))
"""


@pytest.mark.parametrize("limit", [13_000, 13_500, 20_001])
@pytest.mark.parametrize("fsync", ["always", "never"])
def test_a_file_size_limit_stops_the_writer_and_costs_nothing_that_was_acknowledged(
    tmp_path: Path, limit: int, fsync: str
) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, 3, "euclidean").close()
    result = subprocess.run(
        [sys.executable, "-c", WRITER, str(path), str(limit), fsync],
        capture_output=True,
        text=True,
        check=True,
    )
    acked, error, poisoned = json.loads(result.stdout)
    assert error == "FileIOError"
    assert poisoned
    assert len(acked) > 50
    for read_only in (True, False):
        with Iqdb.open_existing(path, read_only=read_only) as db:
            assert [i for i, _, _ in contents(db)] == acked


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("compact", []),
        ("optimize", ["--index", "hnsw"]),
        ("optimize", ["--index", "ivf", "--n-clusters", "4"]),
        ("recall", ["--target", "0.5", "--save", "--sample", "10"]),
    ],
)
def test_a_rewrite_that_meets_a_file_size_limit_leaves_everything_as_it_was(
    tmp_path: Path, command: str, options: list[str]
) -> None:
    path = tmp_path / "a.iqdb"
    index = IvfConfig(n_clusters=8, n_probes=4) if command == "recall" else None
    config = IqdbConfig(dim=3, metric="euclidean", **({"index": index} if index else {}))
    with Iqdb.create(path, config) as db:
        db.upsert_many(range(2000), [[i, i, i] for i in range(2000)])
        db.close(compact=False)
    image = path.read_bytes()

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    result = subprocess.run(
        [sys.executable, "-m", "iqdb_cli", command, str(path), *options],
        preexec_fn=limited,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 8, result.stderr
    assert "File too large" in result.stderr
    assert path.read_bytes() == image
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.iqdb", "a.iqdb.wal"}
    with Iqdb.open_existing(path) as db:
        assert len(db) == 2000


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A file system of 200 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False) if mount else None
    if result is None or result.returncode:
        pytest.skip(
            f"mounting a tmpfs is not allowed here: {result.stderr.strip() if result else 'no mount'}"
        )
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_costs_nothing_and_space_that_comes_back_does_no_harm(tiny_disk: Path) -> None:
    path = tiny_disk / "a.iqdb"
    ballast = tiny_disk / "ballast"
    Iqdb.open(path, 3, "euclidean").close()
    ballast.write_bytes(bytes(100_000))
    for fsync in ("always", "never"):
        result = subprocess.run(
            [sys.executable, "-c", WRITER, str(path), str(1 << 30), fsync],
            capture_output=True,
            text=True,
            check=True,
        )
        acked, error, poisoned = json.loads(result.stdout)
        assert (error, poisoned) == ("FileIOError", True)
        with Iqdb.open_existing(path, read_only=True) as db:
            assert [i for i, _, _ in contents(db)][: len(acked)] == acked
            count = len(db)
    image = path.read_bytes()
    compact = [sys.executable, "-m", "iqdb_cli", "compact", str(path)]
    optimize = [sys.executable, "-m", "iqdb_cli", "optimize", str(path), "--index", "hnsw"]
    for command in (compact, optimize):
        assert subprocess.run(command, capture_output=True, check=False).returncode == 8
        assert path.read_bytes() == image
    ballast.unlink()
    for command in (compact, optimize):
        subprocess.run(command, capture_output=True, check=True)
    with Iqdb.open_existing(path, read_only=True) as db:
        assert len(db) == count
        assert db.config.index.kind is IndexKind.HNSW
    assert {entry.name for entry in tiny_disk.iterdir()} == {"a.iqdb"}


STRACE = shutil.which("strace")


def strace_works() -> str | None:
    """Say why strace cannot be used here, or None."""
    if STRACE is None:
        return "strace is not installed"
    result = subprocess.run(
        [STRACE, "-f", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False
    )
    return None if result.returncode == 0 else f"strace is not allowed here: {result.stderr.strip()}"


CASES = [
    ("upsert", "pwrite64", "ENOSPC", 1),
    ("upsert", "fdatasync", "EIO", 1),
    ("upsert", "ftruncate", "EIO", 1),
    ("delete", "fdatasync", "EIO", 1),
    ("compact", "fsync", "EIO", 1),
    ("compact", "rename", "EIO", 1),
    ("compact", "pwrite64", "ENOSPC", 2),
    ("import", "fsync", "EIO", 1),
    ("import", "pwrite64", "ENOSPC", 1),
    ("optimize", "pwrite64", "ENOSPC", 3),
    ("optimize", "fsync", "EIO", 1),
    ("optimize", "rename", "EIO", 1),
    ("recall", "rename", "EIO", 1),
    ("recall", "pwrite64", "ENOSPC", 2),
]


@pytest.mark.parametrize(("command", "call", "error", "when"), CASES)
def test_a_command_whose_system_call_fails_says_so_and_loses_nothing(
    tmp_path: Path, command: str, call: str, error: str, when: int
) -> None:
    reason = strace_works()
    if reason:
        pytest.skip(reason)
    path = tmp_path / "a.iqdb"
    config = IqdbConfig(dim=2, metric="euclidean", index=IvfConfig(n_clusters=2, n_probes=1))
    with Iqdb.create(path, config) as db:
        db.upsert_many([1, 2], [[1, 1], [2, 2]])
        db.compact()
        db.upsert(3, [3, 3])
        before = contents(db)
        db.close(compact=False)
    source = tmp_path / "new.jsonl"
    source.write_text('{"id": 9, "vector": [9, 9]}\n')
    arguments = {
        "upsert": [str(path), str(source)],
        "import": [str(path), str(source)],
        "delete": [str(path), "3"],
        "compact": [str(path)],
        "optimize": [str(path), "--index", "hnsw", "--sample", "0"],
        "recall": [str(path), "--target", "0.5", "--save"],
    }[command]
    inject = ["-e", f"inject={call}:error={error}:when={when}{'+' if call == 'fdatasync' else ''}"]
    # A cut is made only when something before it failed.
    if call == "ftruncate":
        inject += ["-e", "inject=fdatasync:error=EIO:when=1"]
    result = subprocess.run(
        [
            str(STRACE),
            "-f",
            "-qq",
            "-o",
            os.devnull,
            *inject,
            sys.executable,
            "-m",
            "iqdb_cli",
            command,
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 8, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    with Iqdb.open_existing(path) as db:
        found = contents(db)
        if faults.MAY_BE_THERE in result.stderr.replace("\n", " "):
            assert [record for record in found if record[0] != 9] == before
        else:
            assert found == before
        db.upsert("later", [0, 0])
    with Iqdb.open_existing(path, read_only=True) as db:
        assert len(db) == len(found) + 1
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.iqdb", "new.jsonl"}


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("upsert", "pwrite64"),
        ("upsert", "fdatasync"),
        ("upsert", "flock"),
        ("compact", "fsync"),
        ("compact", "pread64"),
    ],
)
def test_a_system_call_that_a_signal_interrupts_is_made_again(
    tmp_path: Path, command: str, call: str
) -> None:
    reason = strace_works()
    if reason:
        pytest.skip(reason)
    path, seen = tmp_path / "a.iqdb", tmp_path / "calls"
    with Iqdb.open(path, 2, "euclidean") as db:
        db.upsert(1, [1, 1])
        db.close(compact=False)
    source = tmp_path / "new.jsonl"
    source.write_text('{"id": 9, "vector": [9, 9]}\n')
    arguments = [command, str(path), *([str(source)] if command == "upsert" else [])]
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:error=EINTR:when=1"]
    # Only calls on files of the test: the interpreter has others.
    only = ["-P", str(path), "-P", f"{path}.wal", "-P", str(tmp_path)]
    strace = [str(STRACE), "-f", "-qq", *only, "-o", str(seen), *inject]
    result = subprocess.run(
        [*strace, sys.executable, "-m", "iqdb_cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "EINTR" in seen.read_text(), "it was never called"
    assert result.returncode == 0, result.stderr
    with Iqdb.open_existing(path, read_only=True) as db:
        assert list(db.ids()) == ([1, 9] if command == "upsert" else [1])
