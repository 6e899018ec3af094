from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from iqdb_core import Iqdb


def test_a_new_database_is_empty_and_has_what_was_asked_for(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.iqdb"
    outcome = iqdb(
        "create", path, "--dim", "12", "--metric", "manhattan", "--compression", "zstd:9",
        "--model", "m", "--revision", "r1", "--database-id", "00112233445566778899AABBCCDDEEFF",
    )  # fmt: skip
    assert (outcome.status, outcome.stdout) == (0, b"")
    assert outcome.stderr == f"{path}: created, 12 dimensions, manhattan\n"
    with Iqdb.open_existing(path, read_only=True) as handle:
        assert (len(handle), handle.dim, handle.metric.value) == (0, 12, "manhattan")
        assert str(handle.config.compression) == "zstd:9"
        assert dict(handle.config.provenance) == {"model": "m", "revision": "r1"}
        assert handle.config.database_id == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert [entry.name for entry in tmp_path.iterdir()] == ["new.iqdb"]


def test_the_metric_is_cosine_unless_another_is_named(iqdb: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.iqdb"
    assert iqdb("create", path, "--dim", "1").status == 0
    with Iqdb.open_existing(path, read_only=True) as handle:
        assert handle.metric.value == "cosine"


def test_the_same_database_id_gives_the_same_bytes(iqdb: Any, tmp_path: Path) -> None:
    for name in "ab":
        assert iqdb("create", tmp_path / name, "--dim", "4", "--database-id", "ab" * 16).status == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", ["file", "directory", "link to a file"])
def test_an_existing_path_is_refused_and_left_alone(iqdb: Any, tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "taken"
    if kind == "file":
        path.write_text("something")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(__file__)
    outcome = iqdb("create", path, "--dim", "4")
    assert (outcome.status, outcome.stdout) == (8, b"")
    assert outcome.stderr == f"iqdb: {path}: already exists; nothing was changed\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing option '--dim'"),
        (["--dim", "0"], "0 is out of range, expected from 1 to 65536"),
        (["--dim", "65537"], "65537 is out of range"),
        (["--dim", "4", "--metric", "hyperbolic"], "'hyperbolic' is not one of cosine, dot, euclidean"),
        (["--dim", "4", "--index", "tree"], "'tree' is not one of flat, hnsw, ivf"),
        (
            ["--dim", "4", "--compression", "zip"],
            "compression is 'zip', expected none, lz4, zstd or zstd:LEVEL",
        ),
        (["--dim", "4", "--compression", "zstd:99"], "compression"),
        (["--dim", "4", "--database-id", "12"], "--database-id is '12', expected 32 hex digits"),
        (["--dim", "4", "--database-id", "zz" * 16], "expected 32 hex digits"),
    ],
)
def test_wrong_settings_are_status_2_and_create_nothing(
    iqdb: Any, tmp_path: Path, arguments: Any, message: Any
) -> None:
    outcome = iqdb("create", tmp_path / "new.iqdb", *arguments)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert message in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_absent_is_status_8(iqdb: Any, tmp_path: Path) -> None:
    outcome = iqdb("create", tmp_path / "absent" / "new.iqdb", "--dim", "4")
    assert outcome.status == 8
    assert f"cannot create: there is no folder {tmp_path / 'absent'}" in outcome.stderr
