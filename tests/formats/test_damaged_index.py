"""A damaged index stands in the way of nothing but itself, and is found wherever it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from damaged_index import CASES, DamagedIndex
from generate_damaged_index import DAMAGED_INDEX, changed, changes, expectation, image_of, queries_of
from generate_golden import GOLDEN
from independent_index import check_index
from independent_reader import FormatError, read_snapshot

from iqdb_core import HnswConfig, IvfConfig, errors
from iqdb_core.database import Iqdb
from iqdb_core.verification import verify

NAMES = sorted(path.stem for path in DAMAGED_INDEX.glob("*.json"))


def expected(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DAMAGED_INDEX / f"{name}.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the damaged file that a JSON file stands for."""
    want = expected(request.param)
    path = tmp_path / "damaged.iqdb"
    path.write_bytes(changed((GOLDEN / f"{want['base']}.iqdb").read_bytes(), want["changes"]))
    return path


def test_no_damaged_index_is_missing() -> None:
    names = (DAMAGED_INDEX / "MANIFEST").read_text().split()

    assert sorted([*names, "MANIFEST"]) == sorted(path.name for path in DAMAGED_INDEX.iterdir())
    assert {f"{case.name}.json" for case in CASES} == set(names)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_writing_a_damaged_index_again_gives_the_same_bytes(case: DamagedIndex) -> None:
    want = expected(case.name)
    before = (GOLDEN / f"{want['base']}.iqdb").read_bytes()

    assert changed(before, want["changes"]) == image_of(case)
    assert changes(before, image_of(case)) == want["changes"]


@pytest.mark.parametrize(
    ("case", "path"), [pytest.param(case, case.name, id=case.name) for case in CASES], indirect=["path"]
)
def test_a_damaged_index_gives_its_error_and_leaves_the_records_whole(case: DamagedIndex, path: Path) -> None:
    want = expected(case.name)
    del want["changes"]

    # Also searches in every way, reads every record, and verifies.
    assert json.loads(json.dumps(expectation(case, path))) == want


@pytest.mark.parametrize(
    ("name", "path"), [pytest.param(name, name, id=name) for name in NAMES], indirect=["path"]
)
def test_a_reader_that_checks_everything_refuses_a_damaged_index(name: str, path: Path) -> None:
    data = path.read_bytes()
    snapshot = read_snapshot(data)

    with pytest.raises(FormatError) as caught:
        check_index(data, snapshot)
    assert caught.value.kind == expected(name)["strict"]


@pytest.mark.parametrize("path", NAMES, indirect=True)
def test_a_damaged_index_is_carried_over_by_no_compaction_and_built_anew_by_optimize(path: Path) -> None:
    before = path.read_bytes()
    new = queries_of(path)[:1]
    with Iqdb.open_existing(path) as db:
        n_records = len(db)
        db.upsert_many(["new"], new)
        refused = ""
        try:
            db.flush()
        except errors.Error as error:
            refused = str(error)
        if refused:
            # Nothing is lost: the file is as it was, and the log has the new record.
            assert path.read_bytes() == before
            assert "optimize" in refused or "verify" in refused, refused
        else:
            report = verify(path, level="structure")
            assert report.ok, report.findings
        db.optimize()
        assert len(db) == n_records + 1
    report = verify(path, level="records")
    assert report.ok, report.findings
    assert report.records["n_records"] == n_records + 1


def test_an_index_of_another_kind_replaces_a_damaged_one(tmp_path: Path) -> None:
    for name, config in (("hnsw-links-rows", IvfConfig(n_clusters=4)), ("ivf-rows-short", HnswConfig(m=4))):
        want = expected(name)
        path = tmp_path / f"{name}.iqdb"
        path.write_bytes(changed((GOLDEN / f"{want['base']}.iqdb").read_bytes(), want["changes"]))
        with Iqdb.open_existing(path) as db:
            db.optimize(index=config)
        assert verify(path, level="records").ok
