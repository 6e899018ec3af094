"""Graphs over a bit a component: under hamming, where each component takes at most two values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core import DistanceMetric, FlatConfig, HnswConfig, Iqdb, IqdbConfig, _kernels, indexing, verify
from iqdb_core.errors import ChecksumError, StructureError
from iqdb_core.index import hnsw, hnsw_bits
from iqdb_core.index.hnsw import HnswIndex
from iqdb_core.index.hnsw_arrays import BITS, ENTRIES, LINKS, VALUES
from iqdb_core.index.topk import TopK
from iqdb_core.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from pathlib import Path

N, DIM = 7_000, 100
EF = 16  # so narrow that a walk is cheaper than a scan of N rows
SECTIONS = {VALUES, BITS, LINKS, ENTRIES}
HNSW = HnswConfig(m=8, ef_construction=40)


def two_valued(n: int, seed: int = 1) -> np.ndarray:
    """Rows near one another in groups, of -1 and 1, but for component 3, which is 0, and two zeros in 4."""
    centres = np.random.default_rng(0).random((60, DIM)) < 0.5
    generator = np.random.default_rng(seed)
    chosen = centres[generator.integers(0, 60, n)] ^ (generator.random((n, DIM)) < 0.12)
    rows = np.where(chosen, np.float32(1), np.float32(-1))
    rows[:, 3] = 0
    rows[:, 4] *= 0
    return rows


def opened(place: Path | None, index: Any = HNSW, threads: int | None = None) -> Iqdb:
    config = IqdbConfig(
        dim=DIM, metric=DistanceMetric.HAMMING, index=index, threads=threads, database_id=bytes(16)
    )
    return Iqdb.open_in_memory_with(config) if place is None else Iqdb.open_with(place, config)


def filled(place: Path | None, rows: np.ndarray, index: Any = HNSW, threads: int | None = None) -> Iqdb:
    db = opened(place, index, threads)
    db.upsert_many(range(len(rows)), rows, [{"part": row % 40} for row in range(len(rows))])
    db.flush()
    return db


def sections(db: Iqdb) -> set[str]:
    found = db._store.view().base.snapshot.sections
    return {name for name, section in found.items() if section.entry.flags & 1}


def hits(db: Iqdb, queries: np.ndarray, k: int = 10, **options: Any) -> list[list[tuple[Any, float]]]:
    return [[(hit.id, hit.distance) for hit in found] for found in db.search_batch(queries, k, **options)]


def recall(db: Iqdb, queries: np.ndarray, **options: Any) -> float:
    """The share of hits as near as the ten nearest: many rows are at the same distance."""
    shares = []
    exact = hits(db, queries, exact=True, **options)
    for found, wanted in zip(hits(db, queries, ef=EF, **options), exact, strict=True):
        assert len(found) == len(wanted)
        assert [distance for _, distance in found] == sorted(distance for _, distance in found)
        shares.append(np.mean([distance <= wanted[-1][1] for _, distance in found]))
    return float(np.mean(shares))


@pytest.mark.parametrize("in_file", [True, False])
def test_a_walk_over_bits_finds_what_is_nearest(in_file: bool, tmp_path: Path) -> None:
    queries = two_valued(150, seed=2)
    with filled(tmp_path / "db.iqdb" if in_file else None, two_valued(N)) as db:
        assert sections(db) == SECTIONS
        assert recall(db, queries) > 0.9
        assert recall(db, queries, filter="part < 20") > 0.9
        one_by_one = [[(hit.id, hit.distance) for hit in db.search(query, 10, ef=EF)] for query in queries]
        assert one_by_one == hits(db, queries, ef=EF)
        same = two_valued(N)[:50]
        assert [found[0][1] for found in hits(db, same, ef=EF)] == [0.0] * 50


def test_exact_answers_are_those_of_a_flat_index(tmp_path: Path) -> None:
    rows = two_valued(N)
    queries = two_valued(30, seed=2)
    queries[3:6, 3] = 8  # what no row has, where rows have one value
    queries[5:9, 60:80:2] = 0.5  # and where they have two
    queries[9] = np.random.default_rng(1).standard_normal(DIM)
    with (
        filled(tmp_path / "flat.iqdb", rows, FlatConfig()) as flat,
        filled(tmp_path / "graph.iqdb", rows) as graph,
    ):
        for options in ({}, {"filter": "part = 1"}, {"filter": "part > 1"}, {"max_distance": 20}):
            assert hits(graph, queries, exact=True, **options) == hits(flat, queries, **options)
        assert hits(graph, queries[:1], N, exact=True) == hits(flat, queries[:1], N)
        # Neighbours of a query with a third value are not to be told from its bits: it is compared with all.
        strange = slice(5, 10)
        assert hits(graph, queries[strange], ef=EF) == hits(flat, queries[strange])
        for query in queries[strange]:
            assert hits(graph, query[None], ef=EF) == hits(flat, query[None])
            found = [(hit.id, hit.distance) for hit in graph.search(query, 10, ef=EF)]
            assert [found] == hits(flat, query[None])


def test_a_walk_says_what_it_did(tmp_path: Path) -> None:
    with filled(tmp_path / "db.iqdb", two_valued(N)) as db:
        query = two_valued(1, seed=3)[0]
        walked = db.explain(query, 10, ef=EF)
        # Its keys are distances, so that no more than the hits are compared by their vectors.
        assert (walked.plan, walked.breadth, walked.scored, walked.rescanned) == ("graph", EF, 10, 0)
        assert EF < walked.visited < N
        query[50] = 3
        strange = db.explain(query, 10, ef=EF)
        assert (strange.plan, strange.rescanned) == ("graph", 1)
        scanned = db.explain(query, 10, exact=True)
        assert (scanned.plan, scanned.exact) == ("scan", True)
        assert (scanned.visited, scanned.scored) == (N, 10)


def test_walks_under_a_filter_find_what_is_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a file of so many rows that they cost less than a scan."""
    monkeypatch.setattr(hnsw, "_BIT_VISITS_PER_EF", 10)
    monkeypatch.setattr(hnsw, "_BIT_MATCHING_VISITS_PER_EF", 10)
    queries = two_valued(100, seed=2)
    with filled(None, two_valued(N)) as db:
        for text, plan in (("part < 20", "graph"), ("part < 5", "matches")):
            assert db.explain(queries[0], 10, ef=EF, filter=text).plan == plan
            assert recall(db, queries, filter=text) > 0.9
            found = hits(db, queries, ef=EF, filter=text)
            assert all(row % 40 < int(text.split()[-1]) for hit in found for row, _ in hit)


@pytest.mark.parametrize("compression", ["none", "zstd:3"])
def test_rows_come_and_go_and_take_values_along(tmp_path: Path, compression: str) -> None:
    rows = two_valued(N + 600)
    queries = two_valued(100, seed=2)
    path = tmp_path / "db.iqdb"
    with filled(path, rows[:N]) as db:
        if compression != "none":
            db.compact(compression=compression)
        values = np.array(db._store.view().base.snapshot.array(VALUES))
        assert values[0, 3] == values[1, 3] == 0
        db.upsert_many(range(N, N + 300), rows[N : N + 300])
        db.delete_many(range(0, 1200, 2))
        before = hits(db, queries, exact=True)
        db.flush()
        assert sections(db) == SECTIONS
        assert hits(db, queries, exact=True) == before
        assert recall(db, queries) > 0.9

        rows[N + 300, 3] = 5  # a second value, where there was one
        db.upsert_many(range(N + 300, N + 600), rows[N + 300 :])
        before = hits(db, queries, exact=True)
        db.flush()
        assert sections(db) == SECTIONS
        assert np.array(db._store.view().base.snapshot.array(VALUES))[:, 3].tolist() == [0, 5]
        assert hits(db, queries, exact=True) == before
        assert hits(db, rows[N + 300 :][:1], 1, ef=EF) == [[(N + 300, 0.0)]]
        assert recall(db, queries) > 0.9

        strange = rows[7].copy()
        strange[3] = 6  # a third one
        db.upsert("strange", strange)
        before = hits(db, queries, exact=True)
        assert hits(db, strange[None], 1, ef=EF) == [[("strange", 0.0)]]
        db.flush()
        assert sections(db) == set()
        assert hits(db, queries, exact=True) == hits(db, queries, ef=EF) == before
        assert hits(db, strange[None], 1) == [[("strange", 0.0)]]

        db.delete("strange")
        before = hits(db, queries, exact=True)
        db.flush()
        assert sections(db) == SECTIONS
        assert hits(db, queries, exact=True) == before
        assert recall(db, queries) > 0.9
        db.optimize()
        assert hits(db, queries, exact=True) == before
    assert verify(path, level="records").ok


def test_the_file_depends_on_neither_threads_nor_kernels(tmp_path: Path) -> None:
    rows = two_valued(2500)
    before = _kernels.variant()
    images: list[list[bytes]] = []
    try:
        for variant in _kernels.variants():
            _kernels.set_variant(variant)
            for threads in (1, 2, 3):
                path = tmp_path / f"{variant}-{threads}.iqdb"
                images.append([])
                with filled(path, rows[:2000], threads=threads) as db:
                    images[-1].append(path.read_bytes())
                    db.upsert_many(range(1900, 2500), rows[1900:])
                    db.delete_many(range(0, 300, 3))
                    db.flush()
                    images[-1].append(path.read_bytes())
                    db.optimize()
                images[-1].append(path.read_bytes())
    finally:
        _kernels.set_variant(before)
    assert all(image == images[0] for image in images)
    assert len(set(images[0])) == 3


def test_components_of_many_values_have_no_graph_as_before(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((3000, DIM)).astype(np.float32)
    with filled(tmp_path / "db.iqdb", rows) as db:
        assert sections(db) == set()
        assert hits(db, rows[:5], 1, ef=10) == [[(row, 0.0)] for row in range(5)]
    report = verify(tmp_path / "db.iqdb", level="records")
    assert report.ok
    assert report.notes == []


def test_the_bits_of_rows_that_stay_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = two_valued(3000)
    encoded: list[int] = []
    whole = hnsw_bits.encode

    def encode(values: Any, vectors: Any, chosen: Any, codes: Any, threads: int) -> None:
        encoded.append(len(chosen))
        whole(values, vectors, chosen, codes, threads)

    monkeypatch.setattr(hnsw_bits, "encode", encode)
    with filled(tmp_path / "db.iqdb", rows[:2950]) as db:
        db.upsert_many(range(2950, 3000), rows[2950:])
        db.flush()
    assert encoded == [2950, 50]


class Array:
    """A stored array, whole or damaged."""

    def __init__(self, array: np.ndarray, *, damaged: bool) -> None:
        self.buffer = memoryview(array)
        blocks = -(-array.nbytes // 4096)
        self.blocks = (np.zeros(blocks, np.uint32), np.full(blocks, not damaged, np.uint8), 0)

    def verified(self) -> memoryview:
        if not self.blocks[1].all():
            raise ChecksumError("x.iqdb", "index", 0)
        return self.buffer

    def damaged(self, block: int) -> Exception:
        return ChecksumError("x.iqdb", "index", block)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bits") / "db.iqdb"
    filled(path, two_valued(N)).close()
    return path


@pytest.mark.parametrize("bad", [VALUES, BITS, LINKS, ENTRIES])
@pytest.mark.parametrize("how", ["damaged", "missing", "misshapen", "of another type"])
def test_sections_that_cannot_be_used_never_stand_in_the_way_of_exact_search(
    whole_file: Path, bad: str, how: str
) -> None:
    snapshot = Snapshot.open(whole_file)
    queries = two_valued(3, seed=4)

    def reader(name: str) -> Any:
        if name not in SECTIONS or (name == bad and how == "missing"):
            return None
        array = np.array(snapshot.array(name))
        if name == bad and how == "misshapen":
            array = array[:-1].copy()
        if name == bad and how == "of another type":
            array = array.astype(np.float64)
        return Array(array, damaged=name == bad and how == "damaged")

    settings = {"ef_search": EF, "filter_widen": 4}
    tag = DistanceMetric.HAMMING.tag
    plain = HnswIndex.open(settings, tag, N, lambda _: None)

    def search(index: HnswIndex, *, exact: bool) -> TopK:
        out = TopK(3, 5)
        block = index.search(
            snapshot.vectors(),
            queries,
            out,
            mask=None,
            max_distance=np.inf,
            exact=exact,
            parameters={},
            threads=1,
        )
        assert block == -1
        return out

    wanted = search(plain, exact=True)
    found = search(HnswIndex.open(settings, tag, N, reader), exact=True)
    assert (found.rows, found.distances) == (wanted.rows, wanted.distances)
    by_bits = bad not in (VALUES, BITS)
    assert (found.plan.scored > 0) == by_bits

    index = HnswIndex.open(settings, tag, N, reader)
    if how == "missing":
        assert search(index, exact=False).rows == wanted.rows
    elif bad == ENTRIES and how == "misshapen":
        search(index, exact=False)  # one entry less is as good
    else:
        with pytest.raises((ChecksumError, TypeError, ValueError)):
            search(index, exact=False)
    snapshot.close()


def shortened(arrays: dict[str, Any]) -> None:
    arrays[BITS] = arrays[BITS][:100].copy()


def narrowed(arrays: dict[str, Any]) -> None:
    arrays[BITS] = np.ascontiguousarray(arrays[BITS][:, :8])


def of_fewer_components(arrays: dict[str, Any]) -> None:
    arrays[VALUES] = arrays[VALUES][:, :-40].copy()


@pytest.mark.parametrize("change", [shortened, narrowed, of_fewer_components])
def test_bits_that_contradict_themselves_are_damage_and_are_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    def build(*arguments: Any) -> dict[str, Any]:
        arrays = dict(whole(*arguments))
        change(arrays)
        return arrays

    whole = HnswIndex.build
    rows = two_valued(N)
    path = tmp_path / "db.iqdb"
    with monkeypatch.context() as patch:
        patch.setattr(HnswIndex, "build", staticmethod(build))
        with pytest.raises(StructureError, match="iqdb optimize"):
            filled(tmp_path / "refused.iqdb", rows)
        # What no writer puts in place may still come from elsewhere.
        patch.setattr(indexing, "_prove_index", lambda *_: None)
        filled(path, rows).close()
    report = verify(path)
    assert [finding.part for finding in report.findings] == [
        f"section {VALUES if change is of_fewer_components else BITS}"
    ]
    assert "expected" in report.findings[0].problem
    with Iqdb.open_existing(path) as db:
        with pytest.raises(StructureError, match="the index hnsw is unusable"):
            db.search(rows[0], 10, ef=EF)
        assert hits(db, rows[:2], 1, exact=True) == [[(0, 0.0)], [(1, 0.0)]]
        db.upsert(N, rows[0])
        with pytest.raises(StructureError, match="iqdb optimize"):
            db.compact()
        db.optimize()
        assert sections(db) == SECTIONS
        assert hits(db, rows[:1], 2, exact=True) == [[(0, 0.0), (N, 0.0)]]
    assert verify(path).ok
