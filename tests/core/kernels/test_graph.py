"""Codes and graphs: exact keys, the same graph everywhere, and no trust in what arrays say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

COSINE, DOT, EUCLIDEAN, MANHATTAN = range(4)
NO_ROW = 0xFFFFFFFF


class Built(NamedTuple):
    model: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray
    norms: np.ndarray
    links: np.ndarray
    entries: np.ndarray


@pytest.fixture(autouse=True)
def _restore_variant() -> Iterator[None]:
    before = _kernels.variant()
    yield
    _kernels.set_variant(before)


def encode(vectors: np.ndarray, metric: int, model: np.ndarray | None = None) -> Built:
    n, dim = vectors.shape
    if model is None:
        model = np.array(_kernels.train_codes(vectors, metric))
    codes = np.empty((n, -(-dim // 32) * 32), np.uint8)
    lengths, norms = np.empty(n, np.int32), np.empty(n, np.float32)
    _kernels.encode_codes(model, vectors, codes, lengths, norms)
    return Built(model, codes, lengths, norms, np.empty((n, 16), np.uint32), np.empty(0, np.uint32))


def build(vectors: np.ndarray, metric: int, *, threads: int = 1, m: int = 8, seed: int = 7) -> Built:
    made = encode(vectors, metric)
    links = np.empty((len(vectors), 2 * m), np.uint32)
    rows = np.arange(len(vectors), dtype=np.uint32)
    entries = _kernels.extend_graph(
        metric, made.codes, made.lengths, links, made.entries, rows, m, 60, seed, threads
    )
    return made._replace(links=links, entries=np.array(entries, np.uint32))


def graph(built: Built, dim: int, metric: int) -> _kernels.StoredGraph:
    norms = built.norms if metric == DOT else None
    return _kernels.StoredGraph(
        metric, dim, built.model, built.codes, built.lengths, built.links, built.entries, norms
    )


def search(
    built: Built,
    vectors: np.ndarray,
    queries: np.ndarray,
    metric: int,
    *,
    k: int = 10,
    ef: int = 64,
    mask: np.ndarray | None = None,
    filtered: bool = False,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    counts = np.empty(len(queries), np.int64)
    visited = np.empty((len(queries), 2), np.int64)
    damage = graph(built, vectors.shape[1], metric).search(
        vectors,
        queries,
        k,
        ef,
        2 * k + 10,
        rows,
        distances,
        counts,
        visited,
        mask=None if mask is None else np.packbits(mask, bitorder="little"),
        filtered=filtered,
        threads=threads,
    )
    assert damage == (0, 0)
    return rows, distances, counts


def exact(
    vectors: np.ndarray, queries: np.ndarray, metric: int, k: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    _kernels.search_flat(vectors, queries, metric, k, rows, distances, np.empty(len(queries), np.int64))
    return rows, distances


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((20, dim))
    return (centres[generator.integers(0, 20, n)] + 0.6 * generator.standard_normal((n, dim))).astype(
        np.float32
    )


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
def test_a_wide_walk_finds_nearly_every_neighbour_at_its_exact_distance(metric: int) -> None:
    vectors, queries = clustered(3000, 24), clustered(50, 24, seed=1)
    found, distances, counts = search(build(vectors, metric), vectors, queries, metric, ef=400)
    wanted, true_distances = exact(vectors, queries, metric)
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    assert np.mean(hits) / 10 > 0.95
    assert (counts == 10).all()
    same = found == wanted
    np.testing.assert_array_equal(distances[same], true_distances[same])


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
def test_a_graph_is_the_same_for_any_threads_and_any_instruction_set(metric: int) -> None:
    vectors = clustered(1500, 40)
    graphs = []
    for variant in _kernels.variants():
        _kernels.set_variant(variant)
        graphs += [build(vectors, metric, threads=threads) for threads in (1, 2, 3)]
    for other in graphs[1:]:
        for ours, theirs in zip(graphs[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_codes_round_to_the_nearest_step_and_clip() -> None:
    vectors = clustered(500, 10)
    made = encode(vectors, EUCLIDEAN)
    scale, mean = made.model[1], made.model[3:]
    wanted = np.clip(np.rint((vectors - mean) * scale), -63, 63) + 64
    np.testing.assert_array_equal(made.codes[:, :10], wanted)
    assert (made.codes[:, 10:] == 64).all()
    np.testing.assert_array_equal(made.lengths, (made.codes.astype(np.int64) ** 2).sum(axis=1))


def test_every_node_can_be_reached_and_no_list_names_its_own_node_or_one_twice() -> None:
    vectors = np.concatenate([clustered(800, 8), np.repeat(clustered(4, 8, seed=3), 100, axis=0)])
    built = build(vectors, EUCLIDEAN)
    reached = set(built.entries.tolist())
    open_nodes = list(reached)
    while open_nodes:
        neighbours = built.links[open_nodes.pop()]
        for node in neighbours[neighbours != NO_ROW].tolist():
            if node not in reached:
                reached.add(node)
                open_nodes.append(node)
    assert len(reached) == len(vectors)
    for node, row in enumerate(built.links):
        names = row[row != NO_ROW].tolist()
        assert node not in names
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("filtered", [False, True])
def test_a_mask_lets_only_candidates_through(filtered: bool) -> None:
    vectors, queries = clustered(2000, 16), clustered(20, 16, seed=2)
    mask = np.arange(2000) % 3 == 0
    built = build(vectors, EUCLIDEAN)
    found, _, counts = search(built, vectors, queries, EUCLIDEAN, ef=200, mask=mask, filtered=filtered)
    assert (counts == 10).all()
    assert mask[found].all()


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
@pytest.mark.parametrize("kept", ["a tenth", "one cluster"])
def test_a_walk_over_matches_finds_nearly_all_without_a_wider_pool(metric: int, kept: str) -> None:
    generator = np.random.default_rng(6)
    vectors = clustered(6000, 24)
    noise = 0.3 * generator.standard_normal((50, 24))
    queries = (vectors[::120] + noise).astype(np.float32)
    if kept == "a tenth":
        mask = generator.random(6000) < 0.1
    else:  # far from most queries
        mask = ((vectors - vectors[0]) ** 2).sum(axis=1) < 28
    assert 250 < mask.sum() < 1000
    built = build(vectors, metric, m=16)
    found, _, counts = search(built, vectors, queries, metric, ef=64, mask=mask, filtered=True)
    rows = np.flatnonzero(mask)
    wanted = rows[exact(np.ascontiguousarray(vectors[rows]), queries, metric)[0]]
    assert (counts == 10).all()
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    assert np.mean(hits) / 10 > 0.95


def test_a_walk_over_matches_needs_a_mask() -> None:
    vectors = clustered(100, 16)
    with pytest.raises(ValueError, match="needs a mask"):
        search(build(vectors, EUCLIDEAN), vectors, vectors[:1], EUCLIDEAN, filtered=True)


def test_rows_that_are_inserted_later_are_found() -> None:
    vectors = clustered(2000, 16)
    made = encode(vectors, EUCLIDEAN)
    links = np.full((2000, 16), NO_ROW, np.uint32)
    old = np.flatnonzero(np.arange(2000) % 4 != 1).astype(np.uint32)
    new = np.flatnonzero(np.arange(2000) % 4 == 1).astype(np.uint32)
    part = Built(
        made.model, made.codes[old], made.lengths[old], made.norms[old], np.empty((0, 0)), made.entries
    )
    part_links = np.empty((len(old), 16), np.uint32)
    entries = np.array(
        _kernels.extend_graph(
            EUCLIDEAN,
            part.codes,
            part.lengths,
            part_links,
            part.entries,
            np.arange(len(old), dtype=np.uint32),
            8,
            60,
            7,
            1,
        ),
        np.uint32,
    )
    entries = np.array(
        _kernels.carry_graph(EUCLIDEAN, made.codes, made.lengths, links, part_links, entries, old, 8, 60),
        np.uint32,
    )
    entries = np.array(
        _kernels.extend_graph(EUCLIDEAN, made.codes, made.lengths, links, entries, new, 8, 60, 7, 2),
        np.uint32,
    )
    built = made._replace(links=links, entries=entries)
    found, distances, _ = search(built, vectors, vectors[new], EUCLIDEAN, k=1, ef=60)
    assert (found[:, 0] == new).mean() > 0.99
    assert (distances[found[:, 0] == new] == 0).all()


def test_a_graph_survives_the_loss_of_half_its_rows() -> None:
    vectors, queries = clustered(3000, 16), clustered(50, 16, seed=5)
    built = build(vectors, EUCLIDEAN)
    kept = np.flatnonzero(np.random.default_rng(1).random(3000) < 0.5)
    target = np.full(3000, NO_ROW, np.uint32)
    target[kept] = np.arange(len(kept))
    links = np.empty((len(kept), 16), np.uint32)
    codes, lengths = built.codes[kept], built.lengths[kept]
    entries = [
        np.array(
            _kernels.carry_graph(
                EUCLIDEAN, codes, lengths, links, built.links, built.entries, target, 8, 60, threads
            ),
            np.uint32,
        )
        for threads in (1, 2)
    ]
    np.testing.assert_array_equal(entries[0], entries[1])
    carried = Built(built.model, codes, lengths, built.norms[kept], links, entries[0])
    rest = np.ascontiguousarray(vectors[kept])
    wanted, _ = exact(rest, queries, EUCLIDEAN)

    def recall(of: Built) -> float:
        found, _, _ = search(of, rest, queries, EUCLIDEAN)
        return float(
            np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])
        )

    assert recall(carried) >= recall(build(rest, EUCLIDEAN)) - 0.01


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("value", [3000, 2**31, NO_ROW - 1])
def test_links_and_entries_out_of_range_are_passed_over(value: int, filtered: bool) -> None:
    vectors, queries = clustered(3000, 16), clustered(10, 16, seed=2)
    built = build(vectors, EUCLIDEAN)
    generator = np.random.default_rng(4)
    built.links[generator.random(built.links.shape) < 0.2] = value
    entries = np.concatenate([np.array([value], np.uint32), built.entries])
    mask = np.arange(3000) % 5 != 0 if filtered else None
    built = built._replace(entries=entries)
    found, _, _ = search(built, vectors, queries, EUCLIDEAN, mask=mask, filtered=filtered)
    assert found.max() < 3000


@pytest.mark.parametrize("filtered", [False, True])
def test_a_graph_of_random_numbers_does_no_harm(filtered: bool) -> None:
    vectors, queries = clustered(300, 16), clustered(10, 16, seed=2)
    built = build(vectors, EUCLIDEAN)
    generator = np.random.default_rng(4)
    built.links[:] = generator.integers(0, 2**32, built.links.shape, dtype=np.uint32)
    built.codes[:] = generator.integers(0, 256, built.codes.shape, dtype=np.uint8)
    built.lengths[:] = generator.integers(-(2**31), 2**31, 300, dtype=np.int32)
    mask = np.arange(300) % 5 != 0 if filtered else None
    found, _, _ = search(built, vectors, queries, EUCLIDEAN, mask=mask, filtered=filtered)
    assert found.max() < 300


@pytest.mark.parametrize("filtered", [False, True])
def test_damage_in_codes_links_and_vectors_is_reported_where_it_is_met(filtered: bool) -> None:
    vectors, queries = clustered(3000, 16), clustered(10, 16, seed=2)
    built = build(vectors, EUCLIDEAN)

    def blocks(array: np.ndarray, *, broken: bool) -> tuple[np.ndarray, np.ndarray, int]:
        raw = array.view(np.uint8).reshape(-1)
        crcs = np.empty(-(-len(raw) // 4096), np.uint32)
        _kernels.crc32c_blocks(raw, 5, 0, crcs)
        return crcs + np.uint32(broken), np.zeros(len(crcs), np.uint8), 5

    out = (
        np.empty((10, 10), np.int64),
        np.empty((10, 10)),
        np.empty(10, np.int64),
        np.empty((10, 2), np.int64),
    )
    for part in range(4):
        stored = _kernels.StoredGraph(
            EUCLIDEAN,
            16,
            built.model,
            built.codes,
            built.lengths,
            built.links,
            built.entries,
            code_blocks=blocks(built.codes, broken=part == 1),
            link_blocks=blocks(built.links, broken=part == 2),
        )
        found, _ = stored.search(
            vectors,
            queries,
            10,
            64,
            20,
            *out,
            mask=np.full(375, 0x55, np.uint8),
            filtered=filtered,
            vector_blocks=blocks(vectors, broken=part == 3),
        )
        assert found == part


def test_a_row_whose_code_was_limited_does_not_hide_a_nearer_one() -> None:
    vectors, query = np.zeros((2, 32), np.float32), np.zeros((1, 32), np.float32)
    query[0, 0] = 63
    vectors[0, :2] = 77, 30  # stored as 63, 30: squared distance 1096, by codes 900
    vectors[1, :4] = 63, 32, 5, 1  # squared distance 1050, by codes too
    made = encode(vectors, EUCLIDEAN, np.array([0.0, 1.0, 1.0, *np.zeros(32)]))
    links = np.full((2, 16), NO_ROW, np.uint32)
    links[:, 0] = 1, 0
    built = made._replace(links=links, entries=np.zeros(1, np.uint32))
    rows, distances, _ = search(built, vectors, query, EUCLIDEAN, k=1, ef=2)
    assert rows.tolist() == [[1]]
    assert distances[0, 0] == np.sqrt(1050.0)


@pytest.mark.parametrize("change", ["links", "codes", "lengths", "model"])
def test_arrays_that_do_not_fit_together_are_refused(change: str) -> None:
    built = build(clustered(100, 16), EUCLIDEAN)
    wrong = {
        "links": built._replace(links=built.links[:50]),
        "codes": built._replace(codes=built.codes[:, :31].copy()),
        "lengths": built._replace(lengths=built.lengths[:99]),
        "model": built._replace(model=built.model[:-1]),
    }[change]
    with pytest.raises(ValueError, match=r"must|has"):
        graph(wrong, 16, EUCLIDEAN)


def test_two_rows_cannot_become_one() -> None:
    built = build(clustered(100, 16), EUCLIDEAN)
    target = np.zeros(100, np.uint32)
    links = built.links.copy()
    with pytest.raises(ValueError, match="at most once"):
        _kernels.carry_graph(
            EUCLIDEAN, built.codes, built.lengths, links, built.links, built.entries, target, 8, 60
        )
