"""Inverted lists as an index: what they do beyond the contract of all kinds."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core import DistanceMetric, Iqdb, IqdbConfig, IvfConfig, _kernels
from iqdb_core.errors import ChecksumError
from iqdb_core.index.ivf import InMemory, IvfIndex
from iqdb_core.index.ivf_product import default_parts, pack_halves, unpack_halves
from iqdb_core.index.topk import TopK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIM = 16
N = 4000
LISTS = {"ivf.model", "ivf.centroids", "ivf.changes", "ivf.offsets", "ivf.rows"}


def clustered(n: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((20, DIM))
    return (centres[generator.integers(0, 20, n)] + 0.6 * generator.standard_normal((n, DIM))).astype(
        np.float32
    )


def config(metric: str = "euclidean", **settings: Any) -> IqdbConfig:
    index = IvfConfig(**({"n_clusters": 64, "n_probes": 8} | settings))
    return IqdbConfig(dim=DIM, metric=DistanceMetric.parse(metric), index=index, threads=1)


class Vectors:
    """Vectors in memory as an index takes them, to build on and to search."""

    block_crcs = None
    verified = None
    crc_prefix = 0

    def __init__(self, rows: np.ndarray) -> None:
        self.buffer = rows
        self.n_rows, self.dim = rows.shape

    def slabs(self, rows_per_slab: int) -> Iterator[np.ndarray]:
        for start in range(0, self.n_rows, rows_per_slab):
            yield self.buffer[start : start + rows_per_slab]

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.buffer[rows])


def ask(
    index: IvfIndex,
    rows: np.ndarray,
    queries: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    **parameters: int,
) -> TopK:
    out = TopK(len(queries), 10)
    damaged = index.search(
        Vectors(rows),
        queries,
        out,
        mask=None if mask is None else np.packbits(mask, bitorder="little"),
        max_distance=float("inf"),
        exact=False,
        parameters=parameters,
        threads=1,
    )
    assert damaged == -1
    return out


def filled(path: Path, rows: np.ndarray, settings: IqdbConfig) -> dict[str, int]:
    """Return where the sections of a new database's index begin."""
    with Iqdb.open_with(path, settings) as db:
        db.upsert_many(range(len(rows)), rows)
        db.flush()
        sections = db._store.view().base.snapshot.sections
        return {name: section.entry.offset for name, section in sections.items() if name.startswith("ivf.")}


@pytest.mark.parametrize(
    ("metric", "pq", "beyond"),
    [
        ("cosine", False, {"ivf.codes", "ivf.lengths"}),
        ("dot", False, {"ivf.codes", "ivf.lengths", "ivf.norms"}),
        ("euclidean", False, {"ivf.codes", "ivf.lengths"}),
        ("manhattan", False, {"ivf.codes", "ivf.lengths"}),
        ("dot", True, {"ivf.pq_books", "ivf.pq_codes"}),
        ("euclidean", True, {"ivf.pq_books", "ivf.pq_codes", "ivf.pq_terms"}),
        ("manhattan", True, {"ivf.pq_books", "ivf.pq_codes"}),
    ],
)
def test_the_lists_are_kept_in_the_snapshot(tmp_path: Path, metric: str, pq: bool, beyond: set[str]) -> None:
    assert filled(tmp_path / "db.iqdb", clustered(N), config(metric, use_pq=pq)).keys() == LISTS | beyond


def test_hamming_keeps_no_lists_and_is_scanned(tmp_path: Path) -> None:
    rows = np.where(clustered(N) > 0, 1, 0).astype(np.float32)
    assert filled(tmp_path / "db.iqdb", rows, config("hamming")) == {}
    index = IvfIndex.open(config("hamming").index.to_dict(), 4, N, lambda _: None)
    assert ask(index, rows, rows[:2]).plan.name == "scan"


def test_every_row_is_in_the_list_of_its_nearest_centroid_once() -> None:
    rows = clustered(N)
    arrays = IvfIndex.build(config(), Vectors(rows), 2)
    assert sorted(arrays["ivf.rows"].tolist()) == list(range(N))
    offsets = arrays["ivf.offsets"].astype(int).tolist()
    assert (offsets[0], offsets[-1], len(offsets)) == (0, N, 65)
    right = 0
    for number, (start, stop) in enumerate(pairwise(offsets)):
        members = arrays["ivf.rows"][start:stop]
        assert (np.diff(members.astype(int)) > 0).all()
        apart = ((rows[members][:, None] - arrays["ivf.centroids"][None]) ** 2).sum(axis=2)
        right += int((apart.argmin(axis=1) == number).sum())
    assert right > 0.97 * N  # codes decide, and they round


@pytest.mark.parametrize("pq", [False, True])
@pytest.mark.parametrize("n_clusters", [1, 3, 256, 1400, 5000])
def test_lists_need_no_certain_number_of_rows(pq: bool, n_clusters: int) -> None:
    rows = clustered(1400)
    settings = config(n_clusters=n_clusters, n_probes=4, use_pq=pq)
    arrays = IvfIndex.build(settings, Vectors(rows), 1)
    assert len(arrays["ivf.centroids"]) == min(n_clusters, 1400)
    with Iqdb.open_in_memory_with(settings) as db:
        db.upsert_many(range(1400), rows)
        db.flush()
        assert len(db.search(rows[3], 10)) == 10


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_product_codes_need_no_certain_number_of_rows(rows: int) -> None:
    arrays = IvfIndex.build(config(use_pq=True), Vectors(clustered(rows)), 1)
    assert arrays["ivf.pq_books"].shape == (min(rows, 256) * 4, 4)
    if rows > 16:
        assert arrays["ivf.pq_codes"].shape == (rows, 4)
    else:  # two codes of few words share a byte, and every list is padded to 32 rows
        assert arrays["ivf.pq_codes"].shape == (len(np.unique(arrays["ivf.offsets"])) - 1, 2 * 32)


@pytest.mark.parametrize(
    ("dim", "parts", "words"),
    [(128, None, 16), (128, 32, 16), (128, 16, 256), (64, None, 256), (1028, None, 256), (1024, None, 16)],
)
def test_many_small_parts_get_few_words(dim: int, parts: int | None, words: int) -> None:
    rows = np.random.default_rng(0).standard_normal((300, dim), dtype=np.float32)
    index = IvfConfig(n_clusters=4, use_pq=True, pq_subvectors=parts)
    settings = IqdbConfig(dim=dim, metric=DistanceMetric.EUCLIDEAN, index=index)
    books = IvfIndex.build(settings, Vectors(rows), 2)["ivf.pq_books"]
    assert len(books) == words * (dim // books.shape[1])


@pytest.mark.parametrize("parts", [3, 8])
def test_half_bytes_are_unpacked_as_they_were_packed(parts: int) -> None:
    codes = np.random.default_rng(0).integers(0, 16, (200, parts)).astype(np.uint8)
    offsets = np.array([0, 0, 31, 63, 64, 164, 200, 200], np.uint64)
    packed = pack_halves(codes, offsets)
    assert packed.shape == (1 + 1 + 1 + 4 + 2, -(-parts // 2) * 32)
    np.testing.assert_array_equal(unpack_halves(packed, offsets, parts), codes)


@pytest.mark.parametrize(("dim", "parts"), [(384, 96), (16, 4), (6, 1), (7, 1), (1, 1), (100, 25), (30, 6)])
def test_the_parts_chosen_divide_the_dimension(dim: int, parts: int) -> None:
    assert default_parts(dim) == parts


def test_lists_that_a_snapshot_lacks_are_trained_by_the_first_search() -> None:
    rows, queries = clustered(N), clustered(50, seed=1)
    for settings in (config("cosine"), config("euclidean", use_pq=True)):
        tag = settings.metric.tag
        lacking = IvfIndex.open(settings.index.to_dict(), tag, N, lambda _: None)
        trained = ask(lacking, rows, queries)
        assert trained.plan.name == "lists"
        opened = lacking._opened
        assert ask(lacking, rows, queries).rows == trained.rows
        assert lacking._opened is opened
        built = IvfIndex.build(settings, Vectors(rows), 1)
        assert opened is not None
        for name, items in built.items():
            np.testing.assert_array_equal(items, opened.arrays[name].buffer)


def test_lists_are_not_trained_on_vectors_that_may_not_be_decoded() -> None:
    rows, queries = clustered(N), clustered(5, seed=1)
    mask = np.arange(N) < N // 2
    index = IvfIndex.open(config().index.to_dict(), 2, N, lambda _: None)
    # Of compressed vectors only those under the mask are decoded; the others are zero.
    found = ask(index, rows * mask[:, None], queries, mask=mask, n_probes=1)
    assert found.plan.name == "scan"
    assert index._opened is None
    assert ask(index, rows, queries).plan.name == "lists"


def test_few_rows_are_scanned_without_training() -> None:
    index = IvfIndex.open(config().index.to_dict(), 2, 900, lambda _: None)
    assert ask(index, clustered(900), clustered(2)).plan.name == "scan"
    assert index._opened is None


def test_the_plan_counts_what_was_looked_at() -> None:
    rows, queries = clustered(N), clustered(5, seed=1)
    index = IvfIndex.open(config().index.to_dict(), 2, N, lambda _: None)
    plan = ask(index, rows, queries, n_probes=3).plan
    assert (plan.name, plan.breadth, plan.scored, plan.rescanned) == ("lists", 3, 5 * 30, 0)
    assert 5 * 30 < plan.visited < 5 * N // 4


@pytest.mark.parametrize("refine", [0, 1, 8])
def test_the_refine_factor_says_how_many_candidates_are_scored(refine: int) -> None:
    rows, queries = clustered(N), clustered(5, seed=1)
    settings = config(use_pq=True, pq_refine_factor=refine).index.to_dict()
    found = ask(IvfIndex.open(settings, 2, N, lambda _: None), rows, queries)
    assert found.plan.scored == 5 * 10 * max(refine, 1)
    for query in range(5):
        distances = np.empty(10)
        hits = np.array(found.rows[10 * query : 10 * query + 10])
        _kernels.distances(rows, hits, queries[query], 2, distances)
        assert distances.tolist() == found.distances[10 * query : 10 * query + 10].tolist()
        assert (np.diff(distances) >= 0).all()


@pytest.mark.parametrize("pq", [False, True])
@pytest.mark.parametrize("share", [0.7, 0.4])
def test_a_filter_costs_no_recall(pq: bool, share: float) -> None:
    rows, queries = clustered(8000), clustered(100, seed=1)
    mask = np.random.default_rng(5).random(8000) < share
    index = IvfIndex.open(config(use_pq=pq, n_probes=12).index.to_dict(), 2, 8000, lambda _: None)
    without = ask(index, rows, queries)
    found = ask(index, rows, queries, mask=mask)
    assert found.plan.name == "lists"

    def recall(out: TopK, among: np.ndarray) -> float:
        wanted = TopK(len(queries), 10)
        _kernels.search_flat(
            rows,
            queries,
            2,
            10,
            wanted.rows,
            wanted.distances,
            wanted.counts,
            mask=np.packbits(among, bitorder="little"),
        )
        pairs = zip(np.array(wanted.rows).reshape(-1, 10), np.array(out.rows).reshape(-1, 10), strict=True)
        return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in pairs]))

    assert recall(found, mask) >= recall(without, np.ones(8000, bool)) - 0.01


@pytest.mark.parametrize("pq", [False, True])
def test_a_fold_keeps_the_centroids_until_enough_rows_changed(tmp_path: Path, pq: bool) -> None:
    rows = clustered(8000)
    settings = config(use_pq=pq)
    with Iqdb.open_with(tmp_path / "db.iqdb", settings) as db:

        def array(name: str) -> np.ndarray:
            return np.array(db._store.view().base.snapshot.sections[name].array())

        db.upsert_many(range(6000), rows[:6000])
        db.flush()
        trained = array("ivf.centroids")
        assert array("ivf.changes").tolist() == [0]
        db.delete(*[list(range(100))])
        db.upsert_many(range(6000, 6500), rows[6000:6500])
        db.flush()
        np.testing.assert_array_equal(array("ivf.centroids"), trained)
        assert array("ivf.changes").tolist() == [600]
        assert db.search(rows[6200], 1)[0].id == 6200
        assert all(int(hit.id) >= 100 for hit in db.search(rows[50], 10))
        db.upsert_many(range(6500, 8000), rows[6500:])
        db.flush()
        assert array("ivf.changes").tolist() == [2100]
        db.delete(*[list(range(100, 1000))])
        db.flush()
        assert array("ivf.changes").tolist() == [0]
        assert not np.array_equal(array("ivf.centroids"), trained)


@pytest.mark.parametrize(("pq", "wide"), [(False, 1), (True, 1), (True, 8)])
def test_what_a_fold_carries_over_equals_what_is_coded_anew(pq: bool, wide: int) -> None:
    rows = np.tile(clustered(N), wide)
    settings = config(use_pq=pq).replace(dim=DIM * wide)
    arrays = IvfIndex.build(settings, Vectors(rows), 1)

    def stored(name: str) -> Any:
        return InMemory(arrays[name]) if name in arrays else None

    index = IvfIndex.open(settings.index.to_dict(), 2, N, stored)
    same = index.update(settings, Vectors(rows), np.arange(N), 1)
    again = np.arange(N)
    again[:500] = -1
    anew = index.update(settings, Vectors(rows), again, 1)
    for name in arrays:
        np.testing.assert_array_equal(same[name], arrays[name])
        if name != "ivf.changes":
            np.testing.assert_array_equal(anew[name], arrays[name])


@pytest.mark.parametrize("row", [1, N, 0xFFFFFFFF])
def test_lists_that_lack_rows_are_refused_by_an_update_and_completed_by_a_scan(row: int) -> None:
    rows = clustered(N)
    arrays = dict(IvfIndex.build(config(), Vectors(rows), 1))
    arrays["ivf.rows"] = np.full(N, row, np.uint32)

    def stored(name: str) -> Any:
        return InMemory(arrays[name]) if name in arrays else None

    index = IvfIndex.open(config().index.to_dict(), 2, N, stored)
    with pytest.raises(ValueError, match="once"):
        index.update(config(), Vectors(rows), np.arange(N), 1)
    if row >= N:
        found = ask(index, rows, rows[:3])
        assert (found.plan.rescanned, list(found.counts)) == (3, [10, 10, 10])


@pytest.mark.parametrize("pq", [False, True])
def test_damaged_lists_are_reported_and_stand_in_the_way_of_nothing_else(tmp_path: Path, pq: bool) -> None:
    rows = clustered(N)
    path = tmp_path / "db.iqdb"
    settings = config("dot" if not pq else "euclidean", use_pq=pq)
    offsets = filled(path, rows, settings)
    whole = path.read_bytes()
    for name, offset in offsets.items():
        damaged = bytearray(whole)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        with Iqdb.open_with(path, settings) as db:
            if name != "ivf.changes":
                with pytest.raises(ChecksumError, match=name):
                    db.search_batch(rows, 10)
            assert db.search(rows[7], 3, exact=True)[0].id is not None
            assert db.get(7) is not None
            db.optimize()
            assert len(db.search_batch(rows, 10)) == N


def test_only_the_lists_that_are_scanned_are_verified(tmp_path: Path) -> None:
    rows = clustered(N)
    path = tmp_path / "db.iqdb"
    offsets = filled(path, rows, config())
    content = bytearray(path.read_bytes())
    with Iqdb.open_with(path, config()) as db:
        stored = np.array(db._store.view().base.snapshot.sections["ivf.rows"].array())
    content[offsets["ivf.codes"]] ^= 1
    path.write_bytes(content)
    with Iqdb.open_with(path, config()) as db:
        assert len(db.search(rows[stored[-1]], 10, n_probes=1)) == 10
        with pytest.raises(ChecksumError, match=r"ivf\.codes"):
            db.search(rows[stored[0]], 10, n_probes=64)
