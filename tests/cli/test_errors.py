from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from iqdb_cli.exit_codes import EXIT_STATUSES, ExitStatus, status_of
from iqdb_core import errors

DEVICE_FULL = Path("/dev/full")
LIKE = ("--like", "5")

EXPECTED = {
    "InvalidConfigError": 2,
    "ConfigConflictError": 2,
    "DimensionMismatchError": 4,
    "InvalidVectorError": 4,
    "InvalidIdError": 4,
    "DuplicateIdError": 4,
    "InvalidMetadataError": 4,
    "InvalidFilterError": 2,
    "InvalidMetricError": 2,
    "InvalidParameterError": 2,
    "BatchTooLargeError": 4,
    "DatabaseNotFoundError": 3,
    "DatabaseExistsError": 8,
    "NotADatabaseError": 4,
    "UnsupportedVersionError": 7,
    "UnsupportedFeatureError": 7,
    "LegacyFormatError": 7,
    "NotRepresentableError": 7,
    "LockedError": 5,
    "ReadOnlyError": 8,
    "ClosedError": 8,
    "PoisonedError": 8,
    "FileIOError": 8,
    "ChecksumError": 6,
    "StructureError": 6,
    "TruncatedError": 6,
    "LogDamagedError": 6,
    "LogMismatchError": 6,
    "LegacyDamagedError": 6,
    "NotRepairableError": 6,
    "ContentMismatchError": 6,
    "SnapshotMissingError": 6,
}


def leaves() -> list[type[errors.Error]]:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.Error)]
    return [c for c in classes if not any(issubclass(d, c) and d is not c for d in classes)]


def test_every_error_has_its_documented_status() -> None:
    found = {c.__name__: status_of(c.__new__(c)) for c in leaves()}
    assert found == EXPECTED


def test_every_status_is_documented() -> None:
    assert [status for status, _ in EXIT_STATUSES] == list(ExitStatus)
    assert all(meaning.endswith(".") for _, meaning in EXIT_STATUSES)


def test_a_missing_database_is_not_found_and_says_what_makes_one(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "absent.iqdb"
    for arguments in (("search", path, *LIKE), ("get", path, "1"), ("delete", path, "1"), ("compact", path)):
        outcome = iqdb(*arguments)
        assert (outcome.status, outcome.stdout) == (3, b"")
        assert outcome.stderr == (
            f'iqdb: {path}: no such database; "iqdb create" or "iqdb import --metric" makes one\n'
        )
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_bad_input(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.iqdb"
    path.write_bytes(b"something else entirely")
    outcome = iqdb("search", path, *LIKE)
    assert outcome.status == 4
    assert outcome.stderr.startswith(f"iqdb: {path}: not an iqdb database")


def test_a_damaged_database_is_status_6_and_gives_no_answer(iqdb: Any, database: Path) -> None:
    raw = bytearray(database.read_bytes())
    raw[4096 + 100] ^= 1
    database.write_bytes(raw)
    outcome = iqdb("search", database, *LIKE)
    assert (outcome.status, outcome.stdout) == (6, b"")
    assert len(outcome.stderr.splitlines()) == 1


def test_an_unexpected_error_is_one_line_without_a_traceback(
    iqdb: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("iqdb_cli.commands.search.read_queries", broken)
    outcome = iqdb("search", database, "q.npy")
    assert outcome.status == 1
    assert outcome.stderr == (
        "iqdb: unexpected error (RuntimeError: first line)\n"
        'This is a defect of iqdb; run it again as "iqdb --debug ..." to see where it happened.\n'
    )


def test_debug_shows_the_traceback_too(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "absent.iqdb"
    for arguments, env in ((["--debug"], None), ([], {"IQDB_DEBUG": "1"})):
        outcome = iqdb.process(*arguments, "search", path, *LIKE, env=env)
        assert outcome.status == 3
        assert outcome.stderr.startswith("Traceback (most recent call last):")
        assert outcome.stderr.splitlines()[-1].startswith(f"iqdb: {path}: no such database")


def test_a_reader_that_stops_early_ends_the_command_quietly(iqdb: Any, database: Path) -> None:
    process = subprocess.Popen(
        iqdb.command("search", database, "--k", "200"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=iqdb.environment(),
    )
    process.stdout.close()
    process.stdin.write(b"[1,2,3,4,5,6,7,8]\n" * 200)
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0
    process.stderr.close()


@pytest.mark.skipif(not DEVICE_FULL.exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("k", ["1", "200"])
def test_a_full_disk_behind_stdout_is_status_8(iqdb: Any, database: Path, k: Any) -> None:
    with DEVICE_FULL.open("wb") as full:
        done = subprocess.run(
            iqdb.command("search", database, "--k", k),
            input=b"[1,2,3,4,5,6,7,8]\n" * 20,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env=iqdb.environment(),
        )
    assert done.returncode == 8
    assert done.stderr == b"iqdb: standard output: cannot write: No space left on device\n"


@pytest.mark.skipif(not DEVICE_FULL.exists(), reason="only Linux has /dev/full")
def test_a_full_disk_behind_an_output_file_is_status_8(iqdb: Any, database: Path) -> None:
    outcome = iqdb("search", database, *LIKE, "-o", DEVICE_FULL)
    assert outcome.status == 8
    assert outcome.stderr == "iqdb: /dev/full: cannot write: No space left on device\n"


def test_an_output_file_in_an_absent_folder_is_status_8(iqdb: Any, database: Path, tmp_path: Path) -> None:
    target = tmp_path / "absent" / "hits.jsonl"
    outcome = iqdb("search", database, *LIKE, "-o", target)
    assert outcome.status == 8
    assert outcome.stderr == f"iqdb: {target}: cannot write: there is no folder {target.parent}\n"


def test_closed_streams_are_reported(iqdb: Any, database: Path) -> None:
    shell = " ".join(iqdb.command("search", database, *LIKE))
    done = subprocess.run(["bash", "-c", f"{shell} >&-"], capture_output=True, text=True, check=False)
    assert done.returncode == 8
    assert "standard output" in done.stderr
    shell = " ".join(iqdb.command("search", database))
    done = subprocess.run(["bash", "-c", f"{shell} <&-"], capture_output=True, text=True, check=False)
    assert done.returncode == 8
    assert "standard input" in done.stderr


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, b"iqdb: interrupted\n"),
        (signal.SIGTERM, 143, b"iqdb: terminated\n"),
        (signal.SIGHUP, 129, b"iqdb: terminated\n"),
    ],
)
def test_a_signal_has_a_status_of_its_own_and_leaves_nothing_behind(
    iqdb: Any, database: Path, tmp_path: Path, number: int, status: int, said: bytes
) -> None:
    target = tmp_path / "hits.jsonl"
    process = subprocess.Popen(
        iqdb.command("search", database, "-", "-o", target),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=iqdb.environment(),
        # Under nohup, or in the background of a script, the signal would stay ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )
    process.stdin.write(b"[1,2,3,4,5,6,7,8]\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not any(".tmp-" in entry.name for entry in tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (status, said)
    assert list(tmp_path.iterdir()) == [database]


def test_a_terminal_on_stdin_is_asked_for_nothing(iqdb: Any, database: Path) -> None:
    import pty

    for command in ("search", "get", "delete"):
        leader, follower = pty.openpty()
        done = subprocess.run(
            iqdb.command(command, database),
            stdin=follower,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=iqdb.environment(),
        )
        os.close(leader)
        os.close(follower)
        assert done.returncode == 2
        assert "stdin is a terminal" in done.stderr
        assert 'Try "iqdb ' in done.stderr


def test_a_binary_format_is_not_written_to_a_terminal(iqdb: Any, database: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    done = subprocess.run(
        iqdb.command("search", database, *LIKE, "--format", "npy"),
        stdout=follower,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
        env=iqdb.environment(),
    )
    os.close(follower)
    os.close(leader)
    assert done.returncode == 2
    assert done.stderr == "iqdb: npy is binary and stdout is a terminal; add --output FILE or a pipe\n"


def test_an_error_with_control_characters_in_a_name_is_printed_without_them(
    iqdb: Any, tmp_path: Path
) -> None:
    outcome = iqdb("search", tmp_path / "a\x1b[31m\nb", *LIKE)
    assert outcome.status == 3
    assert "\x1b" not in outcome.stderr


def test_a_lock_held_by_another_process_is_status_5(iqdb: Any, database: Path) -> None:
    code = (
        "import sys; from iqdb_core import Iqdb; db = Iqdb.open_existing(sys.argv[1]); "
        "print('held', flush=True); sys.stdin.read(); db.close(compact=False)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        for arguments in (("delete", database, "1"), ("compact", database)):
            outcome = iqdb(*arguments)
            assert outcome.status == 5
            assert "another process has it open for writing" in outcome.stderr
        assert iqdb("search", database, *LIKE).status == 0
    finally:
        holder.communicate(timeout=60)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_slow_reader_gets_everything(iqdb: Any, database: Path, unbuffered: str) -> None:
    process = subprocess.Popen(
        iqdb.command("search", database, "--k", "200"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=iqdb.environment({"PYTHONUNBUFFERED": unbuffered}),
    )
    process.stdin.write(b"[1,2,3,4,5,6,7,8]\n" * 100)
    process.stdin.close()
    os.set_blocking(process.stdout.fileno(), True)
    received = b""
    while piece := os.read(process.stdout.fileno(), 1000):
        received += piece
    process.stdout.close()
    assert process.wait(60) == 0
    assert received.count(b"\n") == 20_000
    assert received.endswith(b"}\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_take_more_just_now_is_waited_for(
    iqdb: Any, database: Path, unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen(
        iqdb.command("search", database, "--k", "200"),
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=subprocess.PIPE,
        env=iqdb.environment({"PYTHONUNBUFFERED": unbuffered}),
    )
    os.close(writer)
    process.stdin.write(b"[1,2,3,4,5,6,7,8]\n" * 100)
    process.stdin.close()
    time.sleep(0.5)
    received = b""
    while piece := os.read(reader, 65536):
        received += piece
    os.close(reader)
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0
    assert received.count(b"\n") == 20_000


def test_no_message_speaks_of_a_temporary_name(iqdb: Any, database: Path, tmp_path: Path) -> None:
    target = tmp_path / "absent" / "new.iqdb"
    for arguments in (
        ("create", target, "--dim", "3"),
        ("import", target, database),
        ("repair", database, "-o", target),
        ("export", database, "--format", "iqdb2", "-o", target),
    ):
        outcome = iqdb(*arguments)
        assert outcome.status == 8
        assert outcome.stderr == f"iqdb: {target}: cannot create: there is no folder {target.parent}\n"


def test_unknown_kernels_are_wrong_usage(iqdb: Any, database: Path) -> None:
    outcome = iqdb.process("search", database, *LIKE, env={"IQDB_KERNELS": "mmx"})
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert outcome.stderr.startswith(
        "iqdb: IQDB_KERNELS: no kernels named 'mmx' run on this CPU; there are: "
    )
    assert len(outcome.stderr.splitlines()) == 1


def test_an_option_without_its_value_names_the_command(iqdb: Any, database: Path) -> None:
    outcome = iqdb("compact", database, "--wait")
    assert outcome.status == 2
    assert outcome.stderr.startswith("iqdb compact: option '--wait' requires an argument")
    assert outcome.stderr.endswith('Try "iqdb compact --help".\n')
