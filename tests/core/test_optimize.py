from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import (
    ChecksumError,
    FlatConfig,
    HnswConfig,
    InvalidConfigError,
    InvalidParameterError,
    Iqdb,
    IqdbConfig,
    OptimizeReport,
    ReadOnlyError,
    StructureError,
    indexing,
)
from iqdb_core.index import SUPPORTED_INDEX_KINDS
from iqdb_core.index.hnsw import HnswIndex
from iqdb_core.index.hnsw_arrays import BOUNDS, CODES, ENTRIES, LENGTHS, LINKS, MODEL
from iqdb_core.types import IndexKind

N, DIM = 3000, 16
CONFIGS: dict[IndexKind, Any] = {IndexKind.FLAT: FlatConfig(), IndexKind.HNSW: HnswConfig(m=8)}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    generator = np.random.default_rng(3)
    centres = generator.standard_normal((20, DIM))
    noise = 0.6 * generator.standard_normal((N, DIM))
    return (centres[generator.integers(0, 20, N)] + noise).astype(np.float32)


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "db.iqdb"


def filled(vectors: np.ndarray, place: Path | None, index: Any, *, flush: bool = True) -> Iqdb:
    config = IqdbConfig(dim=DIM, metric="euclidean", index=index, database_id=bytes(16))
    db = Iqdb.open_in_memory_with(config) if place is None else Iqdb.open_with(place, config)
    db.upsert_many(range(len(vectors)), vectors, [{"n": row % 7} for row in range(len(vectors))])
    if flush:
        db.flush()
    return db


def arrays(db: Iqdb) -> dict[str, bytes]:
    snapshot = db._store.view().base.snapshot
    return {
        name: bytes(section.array()) for name, section in snapshot.sections.items() if section.entry.flags & 1
    }


def flip(path: Path, name: str, at: int = 5) -> None:
    with Iqdb.open_existing(path, read_only=True) as db:
        offset = db._store.view().base.snapshot.sections[name].entry.offset
    content = bytearray(path.read_bytes())
    content[offset + at] ^= 1
    path.write_bytes(content)


def test_every_supported_kind_is_tested() -> None:
    assert set(IndexKind) == set(SUPPORTED_INDEX_KINDS)


def test_the_kind_is_changed_there_and_back(vectors: np.ndarray, place: Path | None) -> None:
    with filled(vectors, place, FlatConfig()) as db:
        digest = db.info()["snapshot_digest"]
        exact = db.search_batch(vectors[:20], 10)
        report = db.optimize(HnswConfig(m=8))
        assert (report.index, report.changed, report.n_rows) == ("hnsw", True, N)
        assert report.reason == "the index was flat"
        assert (report.index_bytes_before, report.recall_before) == (0, None)
        assert report.recall_after is not None
        assert report.recall_after > 0.95
        assert report.n_sampled == 100
        assert report.seconds > 0
        assert report.bytes_after >= report.bytes_before + report.index_bytes_after
        assert db.config.index == HnswConfig(m=8)
        assert db.search_batch(vectors[:20], 10, exact=True) == exact
        assert db.search(vectors[0], 10, ef=40)
        back = db.optimize(FlatConfig())
        assert (back.index, back.index_bytes_after, back.recall_after) == ("flat", 0, None)
        assert back.recall_before == report.recall_after
        assert db.search_batch(vectors[:20], 10) == exact
        assert db.info()["snapshot_digest"] == digest


def test_an_optimized_file_is_that_of_a_fresh_import(vectors: np.ndarray, tmp_path: Path) -> None:
    filled(vectors, tmp_path / "a.iqdb", HnswConfig(m=8)).close()
    with filled(vectors, tmp_path / "b.iqdb", FlatConfig()) as db:
        db.optimize(HnswConfig(m=8), threads=2)
    assert (tmp_path / "a.iqdb").read_bytes() == (tmp_path / "b.iqdb").read_bytes()


def test_a_rebuild_gives_what_a_fresh_build_gives(vectors: np.ndarray, place: Path | None) -> None:
    with filled(vectors[:2000], place, HnswConfig(m=8)) as db:
        db.upsert_many(range(2000, N), vectors[2000:], [{"n": row % 7} for row in range(2000, N)])
        db.delete(range(0, N, 3))
        report = db.optimize()
        assert report.reason == "the index hnsw was built anew"
        assert report.n_rows == N - N // 3
        assert report.recall_before is not None
        assert report.recall_after is not None
        assert db.info()["delta_rows"] == 0
        kept = [row for row in range(N) if row % 3]
        with filled(vectors[kept], None, HnswConfig(m=8)) as fresh:
            assert arrays(db) == arrays(fresh)


def test_settings_of_the_build_are_changed(vectors: np.ndarray, place: Path | None) -> None:
    with filled(vectors, place, HnswConfig(m=8)) as db:
        report = db.optimize(HnswConfig(m=4, seed=9))
        assert report.reason == "the index hnsw was built anew with other settings"
        assert report.index_bytes_after < report.index_bytes_before
        assert db.config.index == HnswConfig(m=4, seed=9)


def test_flat_without_a_change_writes_nothing(vectors: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "db.iqdb"
    with filled(vectors, path, FlatConfig()) as db:
        before = path.read_bytes()
        for index in (None, FlatConfig()):
            report = db.optimize(index)
            assert (report.index, report.changed) == ("flat", False)
            assert report.bytes_before == report.bytes_after == len(before)
        assert path.read_bytes() == before


def test_an_empty_database_gets_its_index(place: Path | None) -> None:
    with filled(np.empty((0, DIM), np.float32), place, FlatConfig()) as db:
        report = db.optimize(HnswConfig())
        assert (report.index, report.n_rows, report.n_sampled) == ("hnsw", 0, 0)
        db.upsert(1, [1.0] * DIM)
        assert [hit.id for hit in db.search([0.0] * DIM, 3)] == [1]


def test_the_report_goes_through_plain_dicts(vectors: np.ndarray) -> None:
    with filled(vectors[:50], None, FlatConfig()) as db:
        report = db.optimize(HnswConfig(), sample=0)
    assert (report.recall_after, report.n_sampled) == (None, 0)
    assert OptimizeReport.from_dict(report.to_dict()) == report


def test_what_is_not_acceptable_changes_nothing(vectors: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "db.iqdb"
    with filled(vectors[:50], path, FlatConfig()) as db:
        before = path.read_bytes()
        with pytest.raises(InvalidConfigError):
            db.optimize("hnsw")  # type: ignore[arg-type]
        with pytest.raises(InvalidParameterError):
            db.optimize(sample=-1)
        with pytest.raises(InvalidParameterError):
            db.optimize(threads=0)
    with Iqdb.open_existing(path, read_only=True) as db, pytest.raises(ReadOnlyError):
        db.optimize(HnswConfig())
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", [MODEL, CODES, LENGTHS, LINKS, ENTRIES])
def test_a_damaged_index_keeps_nobody_from_the_records(
    vectors: np.ndarray, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "db.iqdb"
    filled(vectors, path, HnswConfig(m=8)).close()
    whole = path.read_bytes()
    with Iqdb.open_existing(path, read_only=True) as db:
        wanted = db.search_batch(vectors[:20], 10, exact=True)
    flip(path, name)
    with Iqdb.open_existing(path) as db:
        with pytest.raises(ChecksumError, match=name):
            db.search_batch(vectors, 10)
        assert db.search_batch(vectors[:20], 10, exact=True) == wanted
        assert sum(len(batch) for batch in db.batches()) == N
        assert db.get(5) is not None
        report = db.optimize()
        assert report.recall_before is None or name in {CODES, LINKS}
        assert report.recall_after is not None
        assert db.search_batch(vectors[:20], 10)
    assert path.read_bytes() == whole


def test_another_default_breadth_leaves_the_graph_byte_for_byte(
    vectors: np.ndarray, place: Path | None
) -> None:
    with filled(vectors, place, HnswConfig(m=8)) as db:
        before, digest = arrays(db), db.info()["snapshot_digest"]
        assert set(before) == {MODEL, CODES, LENGTHS, BOUNDS, LINKS, ENTRIES}
        wide = db.search_batch(vectors[:50], 10, ef=200)
        assert db.set_search_defaults(ef=200).changed
        assert db.config.index == HnswConfig(m=8, ef_search=200)
        assert arrays(db) == before
        assert db.search_batch(vectors[:50], 10) == wide
        assert db.info()["snapshot_digest"] == digest
        assert not db.set_search_defaults(ef=200).changed
        with pytest.raises(InvalidParameterError, match="n_probes"):
            db.set_search_defaults(n_probes=2)
        with pytest.raises(InvalidConfigError, match="ef_search"):
            db.set_search_defaults(ef=10**6)


def test_another_compression_leaves_the_graph_byte_for_byte(vectors: np.ndarray, place: Path | None) -> None:
    with filled(vectors, place, HnswConfig(m=8)) as db:
        before = arrays(db)
        assert db.compact(compression="lz4").changed
        assert arrays(db) == before


def test_a_new_default_goes_with_records_that_came_meanwhile(vectors: np.ndarray, place: Path | None) -> None:
    with filled(vectors[:2000], place, HnswConfig(m=8)) as db:
        db.upsert_many(range(2000, N), vectors[2000:])
        db.set_search_defaults(ef=90)
        assert db.info()["snapshot_rows"] == N
        assert db.config.index == HnswConfig(m=8, ef_search=90)
        found = db.search_batch(vectors[2000:2050], 1)
        assert [hits[0].id for hits in found] == list(range(2000, 2050))


def shortened(arrays: dict[str, Any]) -> None:
    arrays[LINKS] = arrays[LINKS][:100].copy()


def of_another_type(arrays: dict[str, Any]) -> None:
    arrays[LINKS] = arrays[LINKS].astype(np.int16)


def without_numbers(arrays: dict[str, Any]) -> None:
    arrays[MODEL] = np.full_like(arrays[MODEL], np.nan)


@pytest.mark.parametrize("change", [shortened, of_another_type, without_numbers])
def test_an_index_that_contradicts_itself_is_damage_and_is_built_anew(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    def build(*arguments: Any) -> dict[str, Any]:
        arrays = dict(whole(*arguments))
        change(arrays)
        return arrays

    whole = HnswIndex.build
    path = tmp_path / "db.iqdb"
    with monkeypatch.context() as patch:
        patch.setattr(HnswIndex, "build", staticmethod(build))
        with pytest.raises(StructureError, match="iqdb optimize"):
            filled(vectors, tmp_path / "refused.iqdb", HnswConfig(m=8))
        # What no writer puts in place may still come from elsewhere.
        patch.setattr(indexing, "_prove_index", lambda *_: None)
        filled(vectors, path, HnswConfig(m=8)).close()
    with Iqdb.open_existing(path) as db:
        with pytest.raises(StructureError, match="the index hnsw is unusable"):
            db.search(vectors[0], 10)
        assert len(db.search(vectors[0], 10, exact=True)) == 10
        db.upsert(N, vectors[0])
        with pytest.raises(StructureError, match="iqdb optimize"):
            db.compact()
        report = db.optimize()
        assert (report.recall_before, report.n_rows) == (None, N + 1)
        assert report.recall_after is not None
        assert db.search(vectors[0], 2)[1].id == N
