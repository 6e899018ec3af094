"""Every damaged file gives the error that it must give, in the program and in the independent reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from damaged_cases import CASES, Damaged
from generate_damaged import DAMAGED, facts_of, files_of_damaged, stage
from independent_log import read_database
from independent_reader import FormatError

from iqdb_core import errors, repair
from iqdb_core.database import Iqdb
from iqdb_core.storage.verify import verify_file

NAMES = sorted(path.stem for path in DAMAGED.glob("*.iqdb"))


def expected(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DAMAGED / f"{name}.json").read_text(encoding="utf-8"))
    return content


def test_no_damaged_file_is_missing() -> None:
    names = (DAMAGED / "MANIFEST").read_text().split()

    assert sorted([*names, "MANIFEST"]) == sorted(path.name for path in DAMAGED.iterdir())
    assert {f"{case.name}.iqdb" for case in CASES} == {name for name in names if name.endswith(".iqdb")}


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_gives_its_error_and_nothing_worse(name: str) -> None:
    want = expected(name)
    when, error = stage(DAMAGED / f"{name}.iqdb")

    assert (when, type(error).__name__ if error else None) == (want["when"], want["error"]), error
    assert facts_of(error) == want["facts"]
    assert want["records_readable"] == (error is None)


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_checks_everything_refuses_a_damaged_file(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_database(DAMAGED / f"{name}.iqdb")

    assert caught.value.kind == expected(name)["strict"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("threads", [1, 3])
def test_verification_of_a_damaged_file_finds_the_damage(name: str, threads: int) -> None:
    want = expected(name)["verify"]
    if isinstance(want, str):
        with pytest.raises(getattr(errors, want)):
            verify_file(DAMAGED / f"{name}.iqdb", threads=threads)
        return
    report = verify_file(DAMAGED / f"{name}.iqdb", threads=threads)
    assert [[finding.part, finding.offset_bytes] for finding in report.findings] == want
    assert not report.ok
    for finding in report.findings:
        assert finding.problem
        assert finding.effect
        assert finding.length_bytes >= 0
    json.dumps(report.to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_opening_a_damaged_file_for_writing_changes_nothing(name: str, tmp_path: Path) -> None:
    want = expected(name)
    for path in DAMAGED.glob(f"{name}.iqdb*"):
        shutil.copy(path, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if want["when"] == "open":
        # A file that says it is one of 1.x is not looked at any further by a writer.
        with pytest.raises((getattr(errors, want["error"]), errors.LegacyFormatError)):
            Iqdb.open_existing(tmp_path / f"{name}.iqdb")
    else:
        Iqdb.open_existing(tmp_path / f"{name}.iqdb").close(compact=False)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_writing_a_damaged_file_again_gives_the_same_bytes(case: Damaged) -> None:
    snapshot, log = files_of_damaged(case)
    path = DAMAGED / f"{case.name}.iqdb"

    if case.base in ("lz4", "zstd") and len(snapshot) != path.stat().st_size:
        return  # another version of the compressor
    assert snapshot == path.read_bytes()
    assert log is None or log == path.with_name(f"{path.name}.wal").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_repaired_or_refused_and_never_changed(name: str, tmp_path: Path) -> None:
    for path in DAMAGED.glob(f"{name}.iqdb*"):
        shutil.copy(path, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    new = tmp_path / "new.iqdb"
    try:
        report = repair(tmp_path / f"{name}.iqdb", new)
    except errors.PersistError:
        pass
    else:
        assert verify_file(new).ok
        gone = report.rows_lost + report.rows_without_ids + report.rows_doubled
        assert report.rows_kept + report.rows_replaced + report.rows_deleted + gone == report.snapshot_rows
        assert report.complete == (not report.losses)
        json.dumps(report.to_dict())
        new.unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
