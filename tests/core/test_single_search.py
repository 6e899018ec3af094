"""One query in one call: the short way gives what the long way gives, or leaves it to the long way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from iqdb_core import (
    ChecksumError,
    DimensionMismatchError,
    FlatConfig,
    HnswConfig,
    InvalidParameterError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    IvfConfig,
    StructureError,
    search_arrays,
)
from iqdb_core.index import hnsw_build
from iqdb_core.types import DistanceMetric
from iqdb_core.verification import verify

if TYPE_CHECKING:
    from pathlib import Path

N, DIM, SPOILT = 4000, 200, 500


def rows_of(n: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(1).standard_normal((30, DIM))
    generator = np.random.default_rng(seed)
    noise = 0.5 * generator.standard_normal((n, DIM))
    return (centres[generator.integers(0, 30, n)] + noise).astype(np.float32)


@pytest.fixture(scope="module", params=["cosine", "dot", "euclidean", "manhattan"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("single") / "a.iqdb"
    config = IqdbConfig(
        dim=DIM,
        metric=DistanceMetric.parse(request.param),
        index=HnswConfig(m=8, ef_construction=50),
        auto_compact=None,
    )
    with Iqdb.create(path, config) as db:
        db.upsert_many(np.arange(N) * 3, rows_of(N, 2), [{"n": i % 7} for i in range(N)])
        db.compact()
    return path


def took_the_short_way(
    db: Iqdb, query: object, k: object = 10, ef: object = None, n_probes: object = None
) -> bool:
    return db._store.view().base.nearest(query, k, ef, n_probes) is not None


@pytest.mark.parametrize(("k", "ef"), [(10, None), (1, 20), (25, 10), (10, 150)])
def test_hits_are_those_of_a_batch(path: Path, k: int, ef: int | None) -> None:
    queries = rows_of(40, 3)
    with Iqdb.open_existing(path, read_only=True) as db:
        assert took_the_short_way(db, queries[0], k, ef)
        batch = db.search_batch(queries, k, ef=ef)
        assert [db.search(query, k, ef=ef) for query in queries] == batch
        assert batch[0][0].metadata is not None
        assert db.search(queries[0].tolist(), k, ef=ef) == batch[0]


def test_a_wide_walk_is_left_to_a_scan(path: Path) -> None:
    query = rows_of(1, 3)[0]
    with Iqdb.open_existing(path, read_only=True) as db:
        assert not took_the_short_way(db, query, 10, 4000)
        assert db.search(query, 10, ef=4000) == db.search(query, 10, exact=True)
        assert len(db.search(query, N + 5)) == N


def test_what_is_wrong_is_still_said(path: Path) -> None:
    query = rows_of(1, 3)[0]
    bad = query.copy()
    bad[7] = np.nan
    with Iqdb.open_existing(path, read_only=True) as db:
        assert took_the_short_way(db, query)
        with pytest.raises(InvalidVectorError, match="holds nan"):
            db.search(bad, 10)
        with pytest.raises(DimensionMismatchError):
            db.search(query[:-1], 10)
        for k in (0, -1, 1.5, "10", True):
            with pytest.raises(InvalidParameterError):
                db.search(query, k)  # type: ignore[arg-type]
        with pytest.raises(InvalidParameterError):
            db.search(query, 10, ef=0)
        with pytest.raises(InvalidParameterError, match="n_probes"):
            db.search(query, 10, n_probes=3)


def test_writes_since_the_snapshot_are_seen(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "b.iqdb"
    copy.write_bytes(path.read_bytes())
    query = rows_of(1, 3)[0]
    with Iqdb.open_existing(copy, auto_compact=None) as db:
        first = db.search(query, 3)
        db.delete(first[0].id)
        assert [hit.id for hit in db.search(query, 2)] == [hit.id for hit in first[1:]]
        db.upsert(999_999, query * 2 if db.metric is DistanceMetric.DOT else query)
        assert 999_999 in [hit.id for hit in db.search(query, 3)]
        assert db.search(query, 3) == db.search_batch(query[None], 3)[0]


def test_damage_is_reported_and_exact_search_goes_on(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "c.iqdb"
    data = bytearray(path.read_bytes())
    query = rows_of(1, 3)[0]
    with Iqdb.open_existing(path, read_only=True) as db:
        entry = db._store.view().base.snapshot.sections["hnsw.coarse"].entry
        true = db.search(query, 5, exact=True)
    for offset in range(entry.offset, entry.offset + entry.stored_bytes, 4096):
        data[offset] ^= 0x11
    copy.write_bytes(data)
    with Iqdb.open_existing(copy, read_only=True) as db:
        with pytest.raises(ChecksumError, match=r"hnsw\.coarse"):
            db.search(query, 5)
        assert db.search(query, 5, exact=True) == true


@pytest.mark.parametrize("ids", ["integers", "texts"])
@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_arrays_of_one_query_are_those_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ids: str
) -> None:
    index = {
        "flat": FlatConfig(),
        "hnsw": HnswConfig(m=8, ef_construction=30),
        "ivf": IvfConfig(n_clusters=20),
    }
    config = IqdbConfig(dim=DIM, index=index[kind], auto_compact=None)
    with Iqdb.create(tmp_path / "a.iqdb", config) as db:
        names = [f"row {i}" if ids == "texts" else i * 3 for i in range(3000)]
        db.upsert_many(names, rows_of(3000, 2))
        db.compact()
        queries = rows_of(8, 3)
        batch_ids, batch_distances = db.search_arrays(queries, 10)
        asked: list[object] = []
        if kind != "flat":
            # What the short way answers, nobody else is asked.
            monkeypatch.setattr(search_arrays, "search_arrays", lambda *args: asked.append(args))
        for number in range(len(queries)):
            found, distances = db.search_arrays(queries[number : number + 1], 10)
            assert (found.dtype, distances.dtype) == (batch_ids.dtype, batch_distances.dtype)
            assert found.tolist() == [batch_ids[number].tolist()]
            assert distances.tolist() == [batch_distances[number].tolist()]
        assert not asked


def test_arrays_of_one_query_leave_what_is_unusual_to_the_long_way(path: Path) -> None:
    query = rows_of(1, 3)
    with Iqdb.open_existing(path, read_only=True) as db:
        right = db.search_arrays(query, 10)
        for same in (query.tolist(), query.astype(np.float64), np.asfortranarray(query)):
            found = db.search_arrays(same, 10)
            assert [part.tolist() for part in found] == [part.tolist() for part in right]
        ids, distances = db.search_arrays(query, N + 5)
        assert ids.shape == distances.shape == (1, N)
        with pytest.raises(DimensionMismatchError):
            db.search_arrays(query[:, :-1], 10)
        with pytest.raises(InvalidVectorError):
            db.search_arrays(query * np.float32(np.nan), 10)
        with pytest.raises(InvalidParameterError):
            db.search_arrays(query, 0)
        with pytest.raises(InvalidParameterError):
            db.search_arrays(query, 10, n_probes=3)


@pytest.mark.parametrize("wrong", ["hnsw.coarse", "hnsw.coarse-lengths"])
def test_coarse_codes_that_are_not_those_of_the_codes_are_not_stored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    assert not verify(path).findings
    right = hnsw_build.coarsened

    def spoilt(codes: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
        coarse, lengths = right(codes, threads)
        if len(codes) == SPOILT:  # of the build; a check compares part by part
            monkeypatch.setattr(hnsw_build, "coarsened", right)
            if wrong == "hnsw.coarse":
                coarse[17, 3] ^= 0x10
            else:
                lengths[29] += 1
        return coarse, lengths

    config = IqdbConfig(dim=DIM, index=HnswConfig(m=8, ef_construction=50), auto_compact=None)
    with Iqdb.create(tmp_path / "d.iqdb", config) as db:
        monkeypatch.setattr(hnsw_build, "coarsened", spoilt)
        db.upsert_many(np.arange(SPOILT), rows_of(SPOILT, 2))
        with pytest.raises(StructureError, match=f"{wrong} is an array that is not what the vectors give"):
            db.compact()
        monkeypatch.setattr(hnsw_build, "coarsened", right)
        db.compact()
