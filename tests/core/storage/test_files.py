from __future__ import annotations

import ast
import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import iqdb_core
from iqdb_core.errors import DatabaseExistsError, FileIOError, LockedError, NotADatabaseError
from iqdb_core.storage import files as files_module
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notes.iqdb")


def make(path: str, data: bytes = b"data") -> OpenFile:
    file = OS_FILES.create(path)
    OS_FILES.write(file, data, 0)
    return file


def test_what_was_written_is_read(path: str) -> None:
    file = make(path, b"hello")
    OS_FILES.write(file, b"world", 8)
    assert OS_FILES.read(file, 100, 0) == b"hello\0\0\0world"
    buffer = bytearray(20)
    assert OS_FILES.read_into(file, memoryview(buffer), 8) == 5
    assert buffer[:5] == b"world"
    OS_FILES.truncate(file, 5)
    assert OS_FILES.status(file).st_size == 5
    assert OS_FILES.map_read(file, 5)[:] == b"hello"
    for operation in (OS_FILES.sync, OS_FILES.sync_data, OS_FILES.close, OS_FILES.close):
        operation(file)
    OS_FILES.sync_directory(path)


def test_short_writes_and_reads_go_on(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:3], offset))
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 2), offset))
    file = make(path, b"0123456789")
    assert OS_FILES.read(file, 10, 0) == b"0123456789"
    assert OS_FILES.read(file, 99, 4) == b"456789"
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(FileIOError, match="cannot write"):
        OS_FILES.write(file, b"x", 0)
    OS_FILES.close(file)


def test_errors_name_path_operation_and_number(path: str) -> None:
    with pytest.raises(FileIOError, match="cannot open: No such file") as caught:
        OS_FILES.open_read(path)
    assert (caught.value.path, caught.value.operation, caught.value.errno) == (path, "open", errno.ENOENT)
    make(path)
    with pytest.raises(FileIOError, match="cannot create: File exists"):
        OS_FILES.create(path)
    with pytest.raises(FileIOError, match="cannot replace"):
        OS_FILES.rename(path + ".absent", path)


@pytest.mark.parametrize("opened", [OS_FILES.open_read, OS_FILES.open_write])
def test_what_is_no_regular_file_is_refused_without_waiting(
    tmp_path: Path, opened: Callable[[str], object]
) -> None:
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    for special, kind in ((fifo, "FIFO"), (str(tmp_path), "directory"), ("/dev/null", "character device")):
        with pytest.raises(NotADatabaseError, match=f"it is a {kind}"):
            opened(special)


def test_bare_names_and_links_are_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "db.iqdb"
    target.write_bytes(b"x")
    (tmp_path / "link.iqdb").symlink_to(target)
    monkeypatch.chdir(tmp_path)
    assert OS_FILES.resolve("link.iqdb") == str(target.resolve())
    assert OS_FILES.resolve("plain.iqdb") == str(tmp_path.resolve() / "plain.iqdb")
    with pytest.raises(FileIOError, match="NUL"):
        OS_FILES.resolve("a\0b")


def test_bare_names_work_with_every_operation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    temporary = OS_FILES.create_temporary("db")
    assert temporary.path.startswith(".db.tmp-")
    OS_FILES.sync_directory("db")
    OS_FILES.install_new(temporary.path, "db")
    spool = OS_FILES.create_spool("db")
    OS_FILES.write(spool, b"s", 0)
    OS_FILES.close(spool)
    OS_FILES.close(temporary)
    assert not OS_FILES.sweep_temporaries("db")
    assert [entry.name for entry in tmp_path.iterdir()] == ["db"]


def test_a_lock_excludes_every_other_handle_until_it_is_given_back(path: str) -> None:
    first = make(path)
    second = OS_FILES.open_write(path)
    OS_FILES.lock(first)
    with pytest.raises(LockedError):
        OS_FILES.lock(second)
    code = (
        "import sys\nfrom iqdb_core.storage.files import OS_FILES\n"
        "from iqdb_core.errors import LockedError\n"
        "try: OS_FILES.lock(OS_FILES.open_write(sys.argv[1]))\n"
        "except LockedError: sys.exit(5)"
    )
    command = [sys.executable, "-c", code, path]
    assert subprocess.run(command, check=False).returncode == 5
    mapped = OS_FILES.map_read(first, 4)  # holds a duplicate of the descriptor, and so of the lock
    OS_FILES.unlock(first)
    OS_FILES.close(first)
    OS_FILES.lock(second)
    OS_FILES.close(second)
    assert subprocess.run(command, check=False).returncode == 0
    mapped.close()


def test_a_sweep_removes_only_what_dead_writers_of_this_database_left(tmp_path: Path, path: str) -> None:
    living = OS_FILES.create_temporary(path)
    left = tmp_path / ".notes.iqdb.tmp-0123abcd"
    left.write_bytes(b"")
    others = [
        ".notes.iqdb.tmp-0123abcg",
        ".notes.iqdb.tmp-0123abcd5",
        ".notes.iqdb2.tmp-0123abcd",
        "notes.iqdb.tmp-0123abcd",
        ".notesXiqdb.tmp-0123abcd",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".notes.iqdb.tmp-00000000").mkdir()
    assert OS_FILES.sweep_temporaries(path) == [str(left)]
    assert not left.exists()
    assert OS_FILES.exists(living.path)
    assert all((tmp_path / name).exists() for name in others)
    OS_FILES.close(living)
    assert OS_FILES.sweep_temporaries(path) == [living.path]


def test_a_temporary_file_that_a_sweep_took_is_made_again(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[str] = []
    lock = FileSystem.lock

    def sweep_first(self: FileSystem, file: OpenFile) -> None:
        if not swept:
            swept.append(file.path)
            Path(file.path).unlink()
        lock(self, file)

    monkeypatch.setattr(FileSystem, "lock", sweep_first)
    file = FileSystem().create_temporary(path)
    assert file.path != swept[0]
    assert OS_FILES.exists(file.path)
    OS_FILES.close(file)


def test_a_new_file_never_replaces_what_is_there(path: str) -> None:
    make(path, b"old")
    temporary = make(path + ".new", b"new")
    with pytest.raises(DatabaseExistsError):
        OS_FILES.install_new(temporary.path, path)
    assert Path(path).read_bytes() == b"old"
    assert OS_FILES.exists(temporary.path)


def test_a_file_system_without_links_gets_a_check_and_a_rename(path: str) -> None:
    class NoLinks(FileSystem):
        def link(self, source: str, target: str) -> None:
            raise FileIOError(target, "create", OSError(errno.EPERM, "no links here"))

    files = NoLinks()
    files.install_new(make(path + ".1", b"new").path, path)
    assert [entry.name for entry in Path(path).parent.iterdir()] == ["notes.iqdb"]
    with pytest.raises(DatabaseExistsError):
        files.install_new(make(path + ".2").path, path)


def test_a_replacement_keeps_the_mode(path: str) -> None:
    old = make(path)
    os.fchmod(old.fd, 0o640)
    new = OS_FILES.create_temporary(path)
    OS_FILES.copy_permissions(new, OS_FILES.status(old))
    assert stat.S_IMODE(OS_FILES.status(new).st_mode) == 0o640


def test_a_scratch_file_has_no_name(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in (getattr(os, "O_TMPFILE", None), None):
        monkeypatch.setattr("iqdb_core.storage.files._O_TMPFILE", flag)
        spool = OS_FILES.create_spool(path)
        OS_FILES.write(spool, b"scratch", 0)
        assert OS_FILES.read(spool, 7, 0) == b"scratch"
        assert not list(tmp_path.iterdir())
        OS_FILES.close(spool)


def test_removing_what_is_gone_is_no_error(path: str) -> None:
    OS_FILES.unlink(path)
    assert OS_FILES.status_at(path) is None
    make(path)
    status = OS_FILES.status_at(path)
    assert status is not None
    assert status.st_size == 4


def test_a_range_too_large_to_map_is_an_error_not_a_crash(path: str) -> None:
    file = make(path)
    with pytest.raises(FileIOError, match="cannot map"):
        OS_FILES.map_read(file, 2**62)


def refusing(number: int) -> Callable[..., object]:
    """Return a system call that refuses with an error number."""

    def refuse(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_temporary_name_that_is_taken_is_left_alone(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = path + ".taken"
    Path(taken).write_bytes(b"somebody else's")
    names = iter([taken, path + ".free"])
    monkeypatch.setattr(FileSystem, "temporary_name", lambda *_: next(names))
    file = FileSystem().create_temporary(path)
    assert file.path == path + ".free"
    assert Path(taken).read_bytes() == b"somebody else's"
    OS_FILES.close(file)


def test_a_temporary_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileIOError, match="cannot create: there is no folder"):
        OS_FILES.create_temporary(str(tmp_path / "absent" / "db"))


def test_a_temporary_file_that_cannot_be_locked_is_removed_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOLCK))
    with pytest.raises(FileIOError, match="cannot lock: No locks available"):
        OS_FILES.create_temporary(path)
    assert not list(Path(path).parent.iterdir())


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="the system has no nameless files")
def test_where_nameless_files_are_not_supported_a_scratch_file_loses_its_name(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = os.open

    def without(name: str, flags: int, *mode: int, number: int = errno.EOPNOTSUPP) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return system(name, flags, *mode)

    monkeypatch.setattr(os, "open", without)
    spool = OS_FILES.create_spool(path)
    OS_FILES.write(spool, b"scratch", 0)
    assert OS_FILES.read(spool, 7, 0) == b"scratch"
    assert not list(Path(path).parent.iterdir())
    OS_FILES.close(spool)
    monkeypatch.setattr(os, "open", lambda *args: without(*args, number=errno.ENOSPC))
    with pytest.raises(FileIOError, match="cannot create a scratch file beside it: No space left"):
        OS_FILES.create_spool(path)


def test_a_path_that_cannot_be_inspected_is_an_error(path: str) -> None:
    make(path)
    with pytest.raises(FileIOError, match="cannot inspect: Not a directory"):
        OS_FILES.status_at(path + "/below")


def test_without_preadv_a_buffer_is_filled_all_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, offset: pread(fd, min(size, 3), offset))
    file = make(path, b"0123456789")
    buffer = bytearray(12)
    assert OS_FILES.read_into(file, memoryview(buffer), 1) == 9
    assert buffer == b"123456789\0\0\0"
    OS_FILES.close(file)


def test_where_the_drive_has_a_cache_of_its_own_it_is_flushed_too(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    synced: list[int] = []
    monkeypatch.setattr(files_module, "_F_FULLFSYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: asked.append(command))
    monkeypatch.setattr(os, "fsync", synced.append)
    file = make(path)
    OS_FILES.sync(file)
    OS_FILES.sync_data(file)
    assert asked == [51, 51]
    assert not synced
    # A file system that does not know the call gets a plain fsync; any other refusal is an error.
    monkeypatch.setattr(fcntl, "fcntl", refusing(errno.ENOTSUP))
    OS_FILES.sync_data(file)
    assert synced == [file.fd]
    monkeypatch.setattr(fcntl, "fcntl", refusing(errno.EIO))
    with pytest.raises(FileIOError, match="cannot sync: Input/output error"):
        OS_FILES.sync(file)
    OS_FILES.close(file)


def test_only_a_folder_that_cannot_be_synced_at_all_is_no_error(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    OS_FILES.sync_directory(path)
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(FileIOError, match="cannot sync the directory: Input/output error") as caught:
        OS_FILES.sync_directory(path)
    assert caught.value.path == str(Path(path).parent)


def test_a_link_that_fails_for_another_reason_is_an_error_and_nothing_is_renamed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = make(path + ".new")
    monkeypatch.setattr(os, "link", refusing(errno.EIO))
    with pytest.raises(FileIOError, match="cannot create: Input/output error"):
        OS_FILES.install_new(temporary.path, path)
    assert OS_FILES.exists(temporary.path)
    assert not OS_FILES.exists(path)
    OS_FILES.close(temporary)


def test_a_replacement_gets_the_owner_where_the_system_lets_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    file = make(path)
    fields = list(OS_FILES.status(file))
    fields[4:6] = [4711, 4712]
    monkeypatch.setattr(os, "fchown", lambda fd, uid, gid: asked.append((uid, gid)))
    OS_FILES.copy_permissions(file, os.stat_result(fields))
    assert asked == [(4711, 4712)]
    monkeypatch.setattr(os, "fchown", refusing(errno.EPERM))
    OS_FILES.copy_permissions(file, os.stat_result(fields))
    OS_FILES.close(file)


def test_an_open_file_says_what_it_is(path: str) -> None:
    file = make(path)
    assert repr(file) == f"OpenFile({file.fd}, {path!r})"
    OS_FILES.close(file)


# What changes files, names or locks; and what does so behind the back of whoever replaces the seam.
CHANGES = {
    *("open", "io.open", "os.open", "os.write", "os.pwrite", "os.pwritev", "os.truncate", "os.ftruncate"),
    *("os.fsync", "os.fdatasync", "os.rename", "os.replace", "os.link", "os.unlink", "os.remove", "os.chmod"),
    *("os.fchmod", "os.mkdir", "os.makedirs", "os.rmdir", "os.copy_file_range", "os.sendfile", "fcntl.flock"),
}


def test_no_other_module_of_the_library_changes_a_file() -> None:
    root = Path(iqdb_core.__file__).parent
    modules = [path for path in root.rglob("*.py") if path != root / "storage" / "files.py"]
    assert len(modules) > 80
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in CHANGES, f"{path}:{node.lineno}"
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"shutil", "tempfile", "pathlib"}, f"{path}:{node.lineno}"


def test_errors_of_a_temporary_file_name_what_it_is_going_to_be(path: str) -> None:
    file = OS_FILES.create_temporary(path)
    assert file.path != path
    reader = OpenFile(os.open(file.path, os.O_RDONLY), file.path, file.shown)
    with pytest.raises(FileIOError) as caught:
        OS_FILES.write(reader, b"x", 0)
    assert (caught.value.path, caught.value.operation, caught.value.errno) == (path, "write", errno.EBADF)
    OS_FILES.close(reader)
    OS_FILES.unlink(file.path)
    OS_FILES.release(file)
    with pytest.raises(FileIOError, match=r"cannot create: there is no folder .*absent$") as caught:
        OS_FILES.create_temporary(str(Path(path).parent / "absent" / "a.iqdb"))
    assert caught.value.errno == errno.ENOENT
