"""What is written for 1.x: the same bytes as 1.x writes, and a refusal of what it cannot hold."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iqdb_core import FileIOError, HnswConfig, Iqdb, IqdbConfig, IvfConfig, NotRepresentableError
from iqdb_core.legacy.writer import write_legacy


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


WRITTEN_BY_1X = [
    *(f"{metric}-{kind}-snap" for metric in ("cosine", "euclidean") for kind in ("flat", "hnsw", "ivf")),
    *("euclidean-ivfpq-snap", "extreme-cosine-flat", "extreme-euclidean-flat"),
    *("empty-flat", "empty-hnsw", "empty-ivf"),
]


def exported(db: Iqdb, path: Path, **more: Any) -> Any:
    return write_legacy(path, db.config, db.batches, **more)


@pytest.mark.parametrize("name", WRITTEN_BY_1X)
def test_an_export_has_the_very_bytes_that_1x_wrote(golden: Any, tmp_path: Path, name: str) -> None:
    """Fails if any field, order or setting differs from what the crate itself writes."""
    path = golden(name)
    with Iqdb.open_existing(path, read_only=True) as db:
        exported(db, tmp_path / "out.iqdb")
    assert (tmp_path / "out.iqdb").read_bytes() == path.read_bytes()


def test_an_export_of_a_database_with_a_log_is_read_back_as_it_was(golden: Any, tmp_path: Path) -> None:
    for name in ("cosine-hnsw-wal", "made-dot-log", "made-euclidean-log"):
        with Iqdb.open_existing(golden(name), read_only=True) as db:
            exported(db, tmp_path / f"{name}-out.iqdb")
            with Iqdb.open_existing(tmp_path / f"{name}-out.iqdb", read_only=True) as back:
                assert list(back.ids()) == list(db.ids())
                assert back.info()["snapshot_digest"] == db.info()["snapshot_digest"]
                assert back.config.index == db.config.index


def test_text_ids_become_bytes_and_that_is_said(tmp_path: Path) -> None:
    with Iqdb.open_in_memory(1) as db:
        db.upsert_many(["é", b"b", 7], [[1], [2], [3]], [{"a": True, "b": None}, None, {}])
        report = exported(db, tmp_path / "out.iqdb")
    assert report.notes == ("1 text ids are written as bytes, which is what 1.x has for them",)
    with Iqdb.open_existing(tmp_path / "out.iqdb", read_only=True) as back:
        assert list(back.ids()) == ["é".encode(), b"b", 7]
        assert [back.metadata(i) for i in back.ids()] == [{"a": True, "b": None}, None, {}]


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (HnswConfig(m=64, ef_construction=32), "index setting ef_construction"),
        (IvfConfig(n_clusters=4, n_probes=8), "index setting n_probes"),
        (IvfConfig(use_pq=True), "index setting pq_subvectors"),
    ],
)
def test_an_index_that_1x_refuses_to_open_is_refused_before_a_byte_is_written(
    tmp_path: Path, config: Any, part: str
) -> None:
    with (
        Iqdb.open_in_memory_with(IqdbConfig(dim=8, metric="euclidean", index=config)) as db,
        pytest.raises(NotRepresentableError) as caught,
    ):
        exported(db, tmp_path / "out.iqdb")
    assert caught.value.part == part
    assert names_in(tmp_path) == []


def test_a_text_id_that_is_the_bytes_of_another_is_refused_before_a_byte_is_written(tmp_path: Path) -> None:
    with Iqdb.open_in_memory(1) as db:
        db.upsert_many([b"other", "same", b"same"], [[1], [2], [3]])
        with pytest.raises(NotRepresentableError, match="the text 'same' and the bytes b'same'"):
            exported(db, tmp_path / "out.iqdb")
    assert names_in(tmp_path) == []


def test_what_1x_has_no_place_for_is_named(tmp_path: Path) -> None:
    config = IqdbConfig(dim=4, index=IvfConfig(n_clusters=9), provenance={"model": "m"})
    with Iqdb.open_in_memory_with(config) as db:
        db.upsert(1, [1, 2, 3, 4])
        notes = exported(db, tmp_path / "out.iqdb").notes
    assert [note.split(":")[0] for note in notes] == [
        "1.x refuses to search",
        "1.x has no place for model; left out",
    ]


def test_whatever_fails_while_exporting_nothing_is_left(tmp_path: Path, failing: Any) -> None:
    with Iqdb.open_in_memory(2) as db:
        db.upsert_many(range(100), [[1, 2]] * 100)
        for name in ("create", "write", "write half", "sync"):
            failing.armed = name
            with pytest.raises(FileIOError) as caught:
                exported(db, tmp_path / "out.iqdb", files=failing)
            assert caught.value.errno == errno.ENOSPC
            assert names_in(tmp_path) == []
        exported(db, tmp_path / "out.iqdb", files=failing)
    calls = failing.calls
    assert len(calls) - calls[::-1].index("sync") < len(calls) - calls[::-1].index("sync_directory")


# --- The commands -------------------------------------------------------------------------------


def iqdb(*arguments: object, status: int = 0) -> tuple[str, str]:
    command = [sys.executable, "-m", "iqdb_cli", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout, result.stderr


def test_every_reading_command_works_on_a_database_of_1x(golden: Any) -> None:
    path = golden("cosine-hnsw-wal")
    out, err = iqdb("search", path, "--like", "7", "--k", "2")
    assert '"rank": 1, "id": 7' in out
    assert "format 2 of iqdb 1.x, read into memory" in err
    assert '"id": 7' in iqdb("get", path, "7")[0]
    assert "snapshot 2 of iqdb 1.x, which is only read" in iqdb("inspect", path)[0]
    assert "whole (27.8 KiB checked" in iqdb("verify", path)[0]
    assert len(iqdb("export", path)[0].splitlines()) == 41
    assert "can only be read" in iqdb("compact", path, status=7)[1]
    assert "drops this and the 8 whole frames" in iqdb("verify", golden("damaged-wal-midcrc"), status=6)[0]
    iqdb("inspect", golden("damaged-wal-midcrc"), status=6)
    saved = path.with_name("saved.iqdb")
    kept = iqdb("repair", golden("damaged-wal-midcrc"), "-o", saved, status=9)[0]
    assert "40 records; not everything could be kept" in kept
    assert "191 bytes of the log from byte 306 on are no frame and were lost" in kept
    iqdb("search", golden("damaged-snap-hdrdim"), "--like", "7", status=6)


def test_compact_and_import_convert_and_export_goes_back(golden: Any, tmp_path: Path) -> None:
    old = golden("cosine-hnsw-wal")
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    new, other, back = tmp_path / "new.iqdb", tmp_path / "other.iqdb", tmp_path / "back.iqdb"
    digest = iqdb("compact", old, "-o", new)[0].split()[-1]
    iqdb("import", other, old)
    for made in (new, other):
        assert digest in iqdb("inspect", made)[0]
        assert "hnsw, m 24" in iqdb("inspect", made)[0]
    iqdb("compact", old, "-o", new, status=8)
    iqdb("compact", new, "-o", tmp_path / "x.iqdb", status=2)
    iqdb("export", new, "--format", "iqdb2", "-o", back)
    iqdb("export", new, "--format", "iqdb2", "-o", back, status=8)
    iqdb("export", new, "--format", "iqdb2", "-o", back, "--force", status=2)
    iqdb("export", new, "--format", "iqdb2", status=2)
    assert digest in iqdb("inspect", back)[0]
    iqdb("import", other, back, "--id-field", "x", status=2)
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content
