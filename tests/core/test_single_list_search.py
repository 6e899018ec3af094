"""One query of inverted lists in one call gives what the long way gives, or leaves it to the long way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from iqdb_core import (
    ChecksumError,
    DimensionMismatchError,
    InvalidParameterError,
    InvalidVectorError,
    Iqdb,
    IqdbConfig,
    IvfConfig,
)
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from pathlib import Path

N, DIM, LISTS = 4000, 48, 40
KINDS = [
    ("cosine", False),
    ("dot", False),
    ("euclidean", False),
    ("manhattan", False),
    ("dot", True),
    ("euclidean", True),
    ("manhattan", True),
]


def rows_of(n: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(1).standard_normal((30, DIM))
    generator = np.random.default_rng(seed)
    noise = 0.5 * generator.standard_normal((n, DIM))
    return (centres[generator.integers(0, 30, n)] + noise).astype(np.float32)


def settings(*, use_pq: bool, n_clusters: int = LISTS) -> IvfConfig:
    return IvfConfig(
        n_clusters=n_clusters,
        n_probes=4,
        use_pq=use_pq,
        pq_subvectors=12,
        pq_refine_factor=6 if use_pq else 0,
    )


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind[0] + ("-pq" if kind[1] else ""))
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    metric, use_pq = request.param
    path = tmp_path_factory.mktemp("lists") / "a.iqdb"
    config = IqdbConfig(
        dim=DIM, metric=DistanceMetric.parse(metric), index=settings(use_pq=use_pq), auto_compact=None
    )
    with Iqdb.create(path, config) as db:
        db.upsert_many(np.arange(N) * 3, rows_of(N, 2), [{"n": i % 7} for i in range(N)])
        db.compact()
    return path


def took_the_short_way(
    db: Iqdb, query: object, k: object = 10, ef: object = None, n_probes: object = None
) -> bool:
    return db._store.view().base.nearest(query, k, ef, n_probes) is not None


@pytest.mark.parametrize(("k", "n_probes"), [(10, None), (1, 1), (25, 9), (300, 1), (10, LISTS)])
def test_hits_are_those_of_a_batch(path: Path, k: int, n_probes: int | None) -> None:
    queries = rows_of(40, 3)
    with Iqdb.open_existing(path, read_only=True) as db:
        assert took_the_short_way(db, queries[0], k, None, n_probes)
        batch = db.search_batch(queries, k, n_probes=n_probes)
        assert [db.search(query, k, n_probes=n_probes) for query in queries] == batch
        assert all(len(hits) == k for hits in batch)
        assert batch[0][0].metadata is not None
        assert db.search(queries[0].tolist(), k, n_probes=n_probes) == batch[0]


def test_more_probes_and_hits_than_there_are_come_the_long_way(path: Path) -> None:
    query = rows_of(1, 3)[0]
    with Iqdb.open_existing(path, read_only=True) as db:
        assert not took_the_short_way(db, query, 10, None, LISTS + 1)
        assert db.search(query, 10, n_probes=LISTS + 1) == db.search(query, 10, n_probes=LISTS)
        assert len(db.search(query, N + 5)) == N


def test_what_is_wrong_is_still_said(path: Path) -> None:
    query = rows_of(1, 3)[0]
    bad = query.copy()
    bad[7] = np.inf
    with Iqdb.open_existing(path, read_only=True) as db:
        assert took_the_short_way(db, query)
        with pytest.raises(InvalidVectorError, match="holds inf"):
            db.search(bad, 10)
        with pytest.raises(DimensionMismatchError):
            db.search(query[:-1], 10)
        for wrong in (0, -1, 1.5, "10", True):
            with pytest.raises(InvalidParameterError):
                db.search(query, wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidParameterError):
                db.search(query, 10, n_probes=wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidParameterError, match="ef"):
            db.search(query, 10, ef=20)


def test_writes_since_the_snapshot_are_seen(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "b.iqdb"
    copy.write_bytes(path.read_bytes())
    query = rows_of(1, 3)[0]
    with Iqdb.open_existing(copy, auto_compact=None) as db:
        first = db.search(query, 3)
        db.delete(first[0].id)
        assert first[0].id not in [hit.id for hit in db.search(query, 3)]
        db.upsert(999_999, query * 2 if db.metric is DistanceMetric.DOT else query)
        assert 999_999 in [hit.id for hit in db.search(query, 3)]
        assert db.search(query, 3) == db.search_batch(query[None], 3)[0]


def test_a_short_scan_is_left_to_the_vectors() -> None:
    query = rows_of(1, 3)[0]
    config = IqdbConfig(dim=DIM, metric=DistanceMetric.EUCLIDEAN, index=settings(use_pq=False))
    with Iqdb.open_in_memory_with(config) as db:
        db.upsert_many(np.arange(1000), rows_of(1000, 2))
        db.compact()
        assert not took_the_short_way(db, query)
        assert db.search(query, 10) == db.search(query, 10, exact=True)


def test_damage_is_reported_and_exact_search_goes_on(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "c.iqdb"
    data = bytearray(path.read_bytes())
    query = rows_of(1, 3)[0]
    with Iqdb.open_existing(path, read_only=True) as db:
        sections = db._store.view().base.snapshot.sections
        name = "ivf.pq_codes" if "ivf.pq_codes" in sections else "ivf.codes"
        entry = sections[name].entry
        true = db.search(query, 5, exact=True)
    for offset in range(entry.offset, entry.offset + entry.stored_bytes, 4096):
        data[offset] ^= 0x11
    copy.write_bytes(data)
    with Iqdb.open_existing(copy, read_only=True) as db:
        with pytest.raises(ChecksumError, match=name.replace(".", r"\.")):
            db.search(query, 5)
        assert db.search(query, 5, exact=True) == true
