"""Inverted lists: the same centroids and codes everywhere, exact scans, and no trust in what arrays say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from iqdb_core import _kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

COSINE, DOT, EUCLIDEAN, MANHATTAN = range(4)
MODEL_HEAD = 3


class Coded(NamedTuple):
    model: np.ndarray
    codes: np.ndarray
    lengths: np.ndarray
    norms: np.ndarray


class Found(NamedTuple):
    rows: np.ndarray
    distances: np.ndarray
    counts: np.ndarray
    visited: np.ndarray


@pytest.fixture(autouse=True)
def _restore_variant() -> Iterator[None]:
    before = _kernels.variant()
    yield
    _kernels.set_variant(before)


def everywhere() -> Iterator[tuple[str, int]]:
    """Use every variant in turn, with 1 to 3 threads."""
    for variant in _kernels.variants():
        _kernels.set_variant(variant)
        for threads in (1, 2, 3):
            yield variant, threads


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((20, dim))
    return (centres[generator.integers(0, 20, n)] + 0.6 * generator.standard_normal((n, dim))).astype(
        np.float32
    )


def encode(vectors: np.ndarray, metric: int) -> Coded:
    n, dim = vectors.shape
    model = np.array(_kernels.train_codes(vectors, metric))
    codes = np.empty((n, -(-dim // 32) * 32), np.uint8)
    lengths, norms = np.empty(n, np.int32), np.empty(n, np.float32)
    _kernels.encode_codes(model, vectors, codes, lengths, norms)
    return Coded(model, codes, lengths, norms)


def centroid_codes(model: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    scaled = (centroids.astype(np.float64) - model[MODEL_HEAD:]) * model[1]
    return np.rint(np.clip(scaled, -63, 63)).astype(np.int64) + 64


def keys_of(model: np.ndarray, centroids: np.ndarray, codes: np.ndarray, metric: int) -> np.ndarray:
    """Return what every row is compared with every centroid by."""
    rows = codes[:, : centroids.shape[1]].astype(np.int64)[:, None, :]
    differences = rows - centroid_codes(model, centroids)[None]
    return (np.abs(differences) if metric == MANHATTAN else differences**2).sum(axis=2)


def train(
    coded: Coded, dim: int, metric: int, clusters: int, *, iterations: int = 10, threads: int = 1
) -> Any:
    centroids = np.empty((clusters, dim), np.float32)
    _kernels.train_clusters(coded.model, coded.codes, metric, iterations, 7, centroids, threads)
    return centroids


def assign(coded: Coded, centroids: np.ndarray, metric: int, threads: int = 1) -> np.ndarray:
    out = np.empty(len(coded.codes), np.uint32)
    _kernels.assign_clusters(coded.model, centroids, coded.codes, metric, out, threads)
    return out


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
@pytest.mark.parametrize(
    ("n", "dim", "clusters"), [(1, 1, 1), (65, 5, 15), (130, 32, 16), (200, 33, 17), (70, 100, 50)]
)
def test_every_row_goes_to_the_first_of_the_nearest_centroids(
    metric: int, n: int, dim: int, clusters: int
) -> None:
    vectors = clustered(n, dim)
    coded = encode(vectors, metric)
    centroids = clustered(clusters, dim, seed=1)
    centroids[clusters // 2] = centroids[0]
    wanted = keys_of(coded.model, centroids, coded.codes, metric).argmin(axis=1)
    for where in everywhere():
        np.testing.assert_array_equal(assign(coded, centroids, metric, where[1]), wanted, str(where))


@pytest.mark.parametrize("metric", [EUCLIDEAN, MANHATTAN])
@pytest.mark.parametrize("code", [0, 1, 127])
def test_extreme_codes_overflow_no_sum(metric: int, code: int) -> None:
    dim = 512
    model = np.concatenate([[0.0, 1.0, 1.0], np.zeros(dim)])
    coded = Coded(model, np.full((5, dim), code, np.uint8), np.empty(0), np.empty(0))
    centroids = np.repeat(np.array([[-63.0], [63.0], [0.0]], np.float32), dim, axis=1)
    wanted = keys_of(model, centroids, coded.codes, metric).argmin(axis=1)
    for where in everywhere():
        np.testing.assert_array_equal(assign(coded, centroids, metric, where[1]), wanted, str(where))


@pytest.mark.parametrize("metric", [COSINE, EUCLIDEAN, MANHATTAN])
def test_centroids_are_the_same_for_any_thread_count_and_cpu(metric: int) -> None:
    coded = encode(clustered(3000, 20), metric)
    wanted = train(coded, 20, metric, 40)
    for where in everywhere():
        np.testing.assert_array_equal(train(coded, 20, metric, 40, threads=where[1]), wanted, str(where))


def test_training_ends_where_each_centroid_is_the_mean_of_its_rows() -> None:
    vectors = clustered(2000, 12)
    coded = encode(vectors, EUCLIDEAN)
    centroids = train(coded, 12, EUCLIDEAN, 30, iterations=200)
    assigned = assign(coded, centroids, EUCLIDEAN)
    for cluster in range(30):
        mean = coded.codes[assigned == cluster, :12].mean(axis=0, dtype=np.float64)
        expected = coded.model[MODEL_HEAD:] + (mean - 64) / coded.model[1]
        np.testing.assert_allclose(centroids[cluster], expected, rtol=1e-6, atol=1e-6)


def test_training_divides_the_rows_as_well_as_plain_k_means() -> None:
    vectors = clustered(4000, 24)
    centroids = train(encode(vectors, EUCLIDEAN), 24, EUCLIDEAN, 50)

    def spread(points: np.ndarray) -> float:
        return float(((vectors[:, None] - points[None]) ** 2).sum(axis=2).min(axis=1).sum())

    generator = np.random.default_rng(3)
    plain = vectors[generator.permutation(4000)[:50]].copy()
    for _ in range(10):
        nearest = ((vectors[:, None] - plain[None]) ** 2).sum(axis=2).argmin(axis=1)
        plain = np.array(
            [vectors[nearest == c].mean(axis=0) if (nearest == c).any() else plain[c] for c in range(50)]
        )
    assert spread(centroids) < 1.02 * spread(plain)


def test_no_cluster_stays_empty_while_rows_differ() -> None:
    generator = np.random.default_rng(0)
    vectors = np.concatenate([np.zeros((1900, 8)), generator.standard_normal((100, 8))]).astype(np.float32)
    coded = encode(vectors, EUCLIDEAN)
    assigned = assign(coded, train(coded, 8, EUCLIDEAN, 64), EUCLIDEAN)
    assert len(np.unique(assigned)) > 50


@pytest.mark.parametrize("clusters", [1, 3, 50])
def test_equal_rows_can_be_trained_on(clusters: int) -> None:
    vectors = np.full((50, 6), 2.5, np.float32)
    centroids = train(encode(vectors, EUCLIDEAN), 6, EUCLIDEAN, clusters)
    np.testing.assert_allclose(centroids, 2.5)


class Lists(NamedTuple):
    stored: Any
    centroids: np.ndarray
    assigned: np.ndarray
    order: np.ndarray
    coded: Coded


def lists_of(vectors: np.ndarray, metric: int, clusters: int = 40) -> Lists:
    coded = encode(vectors, metric)
    centroids = train(coded, vectors.shape[1], metric, clusters)
    assigned = assign(coded, centroids, metric)
    order = np.argsort(assigned, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(assigned, minlength=clusters))]).astype(np.uint64)
    stored = _kernels.StoredLists(
        metric,
        coded.model,
        centroids,
        offsets,
        order.astype(np.uint32),
        codes=coded.codes[order],
        lengths=coded.lengths[order],
        norms=coded.norms[order] if metric == DOT else None,
    )
    return Lists(stored, centroids, assigned, order, coded)


def search(
    stored: Any,
    vectors: np.ndarray,
    queries: np.ndarray,
    probes: int,
    *,
    k: int = 10,
    enough: int = 1,
    scored: int = 30,
    mask: np.ndarray | None = None,
    threads: int = 1,
) -> Found:
    found = Found(
        np.empty((len(queries), k), np.int64),
        np.empty((len(queries), k)),
        np.empty(len(queries), np.int64),
        np.empty((len(queries), 3), np.int64),
    )
    damage = stored.search(
        vectors,
        queries,
        k,
        probes,
        enough,
        scored,
        *found,
        mask=None if mask is None else np.packbits(mask, bitorder="little"),
        threads=threads,
    )
    assert damage == (0, 0)
    return found


def exact(vectors: np.ndarray, queries: np.ndarray, metric: int, mask: np.ndarray | None = None) -> Any:
    rows, distances = np.empty((len(queries), 10), np.int64), np.empty((len(queries), 10))
    bits = None if mask is None else np.packbits(mask, bitorder="little")
    _kernels.search_flat(
        vectors, queries, metric, 10, rows, distances, np.empty(len(queries), np.int64), mask=bits
    )
    return rows, distances


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
@pytest.mark.parametrize("share", [None, 0.5, 0.02])
def test_all_lists_and_all_candidates_make_an_exact_search(metric: int, share: float | None) -> None:
    vectors, queries = clustered(2000, 24), clustered(9, 24, seed=1)
    mask = None if share is None else np.random.default_rng(2).random(2000) < share
    stored = lists_of(vectors, metric).stored
    wanted = exact(vectors, queries, metric, mask)
    for where in everywhere():
        found = search(stored, vectors, queries, 40, scored=2000, mask=mask, threads=where[1])
        np.testing.assert_array_equal(found.rows, wanted[0], str(where))
        np.testing.assert_array_equal(found.distances, wanted[1], str(where))


@pytest.mark.parametrize("metric", [COSINE, EUCLIDEAN, MANHATTAN])
def test_the_lists_that_are_scanned_are_those_with_the_nearest_centroids(metric: int) -> None:
    vectors, queries = clustered(2000, 24), clustered(9, 24, seed=1)
    lists = lists_of(vectors, metric)
    coded = np.empty((9, 32), np.uint8)
    _kernels.encode_codes(lists.coded.model, queries, coded, np.empty(9, np.int32), np.empty(9, np.float32))
    # Queries are coded with more reach than rows; these do not go beyond that of rows.
    ranking = np.argsort(keys_of(lists.coded.model, lists.centroids, coded, metric), axis=1, kind="stable")
    for probes in (1, 3, 40):
        found = search(lists.stored, vectors, queries, probes, scored=2000)
        for query in range(9):
            among = np.isin(lists.assigned, ranking[query, :probes])
            wanted = exact(vectors, queries[query : query + 1], metric, among)
            kept = wanted[0][0][: found.counts[query]]
            np.testing.assert_array_equal(found.rows[query, : len(kept)], kept)
            assert found.visited[query].tolist() == [among.sum(), among.sum(), probes]


@pytest.mark.parametrize("metric", [COSINE, DOT, EUCLIDEAN, MANHATTAN])
def test_few_candidates_lose_next_to_nothing_against_exact_scans_of_the_lists(metric: int) -> None:
    vectors, queries = clustered(5000, 96), clustered(200, 96, seed=1)
    stored = lists_of(vectors, metric).stored
    few = search(stored, vectors, queries, 8)
    every = search(stored, vectors, queries, 8, scored=5000)
    lost = [len(set(a) - set(b)) for a, b in zip(every.rows.tolist(), few.rows.tolist(), strict=True)]
    assert np.sum(lost) <= 2


def test_more_lists_are_scanned_until_enough_rows_pass_the_mask() -> None:
    vectors, queries = clustered(2000, 24), clustered(9, 24, seed=1)
    mask = np.zeros(2000, bool)
    mask[np.random.default_rng(1).permutation(2000)[:25]] = True
    stored = lists_of(vectors, EUCLIDEAN).stored
    found = search(stored, vectors, queries, 1, enough=10, mask=mask)
    assert (found.counts == 10).all()
    assert (found.visited[:, 2] > 1).all()
    assert mask[found.rows].all()
    assert (search(stored, vectors, queries, 1, enough=2000, mask=mask).visited[:, 0] == 25).all()


def halves_of(codes: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Return codes in list order as blocks of 32 rows, two parts in a byte."""
    pairs = -(-codes.shape[1] // 2)
    blocks = []
    start = 0
    for size in sizes:
        for first in range(start, start + size, 32):
            block = np.zeros((pairs, 32), np.uint8)
            for row in range(first, min(first + 32, start + size)):
                for part, code in enumerate(codes[row].tolist()):
                    block[part // 2, row - first] |= code << 4 * (part % 2)
            blocks.append(block.ravel())
        start += size
    return np.array(blocks)


def products_of(
    vectors: np.ndarray, metric: int, lists: Lists, parts: int, words: int
) -> tuple[Any, np.ndarray]:
    """Return lists with product codes, and the vectors that those stand for."""
    dim = vectors.shape[1]
    points = (vectors - lists.centroids[lists.assigned]).astype(np.float32)
    books = np.empty((parts * words, dim // parts), np.float32)
    _kernels.train_product(points, parts, metric == MANHATTAN, 8, 3, books, 2)
    codes = np.empty((len(vectors), parts), np.uint8)
    _kernels.encode_product(books, points, parts, metric == MANHATTAN, codes, 2)
    cut = books.reshape(parts, words, -1)
    coded = cut[np.arange(parts), codes].reshape(len(vectors), dim) + lists.centroids[lists.assigned]
    terms = (coded.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    counts = np.bincount(lists.assigned, minlength=len(lists.centroids))
    stored_codes = codes[lists.order]
    if words <= 16:
        stored_codes = halves_of(stored_codes, counts.tolist())
    stored = _kernels.StoredLists(
        metric,
        lists.coded.model,
        lists.centroids,
        np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64),
        lists.order.astype(np.uint32),
        books=books,
        product_codes=stored_codes,
        product_terms=terms[lists.order] if metric == EUCLIDEAN else None,
    )
    return stored, coded


@pytest.mark.parametrize("absolute", [False, True])
def test_books_and_their_codes_are_the_same_for_any_thread_count_and_cpu(absolute: bool) -> None:
    points = clustered(1500, 30)
    books, codes = [], []
    for _, threads in everywhere():
        books.append(np.empty((6 * 100, 5), np.float32))
        _kernels.train_product(points, 6, absolute, 5, 3, books[-1], threads)
        codes.append(np.empty((1500, 6), np.uint8))
        _kernels.encode_product(books[0], points, 6, absolute, codes[-1], threads)
    for other in books:
        np.testing.assert_array_equal(other, books[0])
    for other in codes:
        np.testing.assert_array_equal(other, codes[0])
    differences = points.reshape(1500, 6, 1, 5) - books[0].reshape(1, 6, 100, 5)
    keys = (np.abs(differences) if absolute else differences.astype(np.float64) ** 2).sum(axis=3)
    chosen = np.take_along_axis(keys, codes[0][:, :, None].astype(np.int64), axis=2)[:, :, 0]
    np.testing.assert_allclose(chosen, keys.min(axis=2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", [DOT, EUCLIDEAN, MANHATTAN])
@pytest.mark.parametrize(
    ("words", "parts", "least"), [(256, 6, 9.8), (60, 6, 9.8), (16, 8, 9.3), (7, 3, 9.3)]
)
def test_product_codes_order_candidates_as_the_vectors_they_stand_for(
    metric: int, words: int, parts: int, least: float
) -> None:
    vectors, queries = clustered(2000, 24), clustered(20, 24, seed=1)
    lists = lists_of(vectors, EUCLIDEAN if metric == DOT else metric)
    stored, coded = products_of(vectors, metric, lists, parts, words)
    wanted, _ = exact(coded, queries, metric)
    first: Found | None = None
    for where in everywhere():
        found = search(stored, vectors, queries, 40, scored=10, threads=where[1])
        shared = [len(set(a) & set(b)) for a, b in zip(wanted.tolist(), found.rows.tolist(), strict=True)]
        assert np.mean(shared) > least
        first = first or found
        np.testing.assert_array_equal(found.rows, first.rows, str(where))
        np.testing.assert_array_equal(found.distances, first.distances, str(where))


@pytest.mark.parametrize("metric", [DOT, EUCLIDEAN, MANHATTAN])
def test_half_bytes_find_what_whole_bytes_find(metric: int) -> None:
    vectors, queries = clustered(1500, 128), clustered(10, 128, seed=1)
    lists = lists_of(vectors, EUCLIDEAN if metric == DOT else metric, clusters=7)
    stored, coded = products_of(vectors, metric, lists, 64, 16)
    mask = np.random.default_rng(0).random(1500) < 0.5
    for among in (None, mask):
        wanted, _ = exact(coded, queries, metric, among)
        found = search(stored, vectors, queries, 7, scored=10, mask=among)
        whole = search(lists.stored, vectors, queries, 7, scored=1500, mask=among)
        first = [len(set(a[:3]) - set(b)) for a, b in zip(wanted.tolist(), found.rows.tolist(), strict=True)]
        assert np.mean(first) < 0.15
        if metric == EUCLIDEAN:
            assert (found.visited[:, 0] == whole.visited[:, 0]).all()


def test_row_numbers_out_of_range_are_passed_over() -> None:
    vectors, queries = clustered(500, 8), clustered(3, 8, seed=1)
    coded = encode(vectors, EUCLIDEAN)
    rows = np.full(500, 0xFFFFFFFF, np.uint32)
    rows[:4] = [500, 2, 499, 501]
    stored = _kernels.StoredLists(
        EUCLIDEAN,
        coded.model,
        vectors[:1],
        np.array([0, 500], np.uint64),
        rows,
        codes=coded.codes,
        lengths=coded.lengths,
    )
    for mask in (None, np.ones(500, bool)):
        found = search(stored, vectors, queries, 1, scored=500, mask=mask)
        assert found.counts.tolist() == [2, 2, 2]
        assert {*found.rows[:, :2].ravel().tolist()} == {2, 499}


@pytest.mark.parametrize(
    "offsets",
    [[0, 400, 300, 500], [1, 200, 300, 500], [0, 200, 300, 499], [0, 200, 300, 2**64 - 1], [0, 500]],
)
def test_offsets_that_do_not_ascend_over_all_rows_are_refused(offsets: list[int]) -> None:
    vectors = clustered(500, 8)
    coded = encode(vectors, EUCLIDEAN)
    with pytest.raises(ValueError, match="offsets"):
        _kernels.StoredLists(
            EUCLIDEAN,
            coded.model,
            vectors[:3],
            np.array(offsets, np.uint64),
            np.arange(500, dtype=np.uint32),
            codes=coded.codes,
            lengths=coded.lengths,
        )


def test_arrays_of_the_wrong_shape_are_refused() -> None:
    vectors = clustered(500, 8)
    coded = encode(vectors, EUCLIDEAN)
    good: dict[str, Any] = {"codes": coded.codes, "lengths": coded.lengths}
    products: dict[str, Any] = {
        "books": np.zeros((4 * 20, 2), np.float32),
        "product_codes": np.zeros((500, 4), np.uint8),
        "product_terms": np.zeros(500, np.float32),
    }

    def opened(metric: int = EUCLIDEAN, **arrays: Any) -> Any:
        offsets, rows = np.array([0, 200, 500], np.uint64), np.arange(500, dtype=np.uint32)
        return _kernels.StoredLists(metric, coded.model, vectors[:2], offsets, rows, **arrays)

    opened(**good)
    opened(**products)
    for wrong in (
        {},
        good | {"codes": coded.codes[:499]},
        good | {"lengths": coded.lengths[:499]},
        products | {"books": np.zeros((4 * 257, 2), np.float32)},
        products | {"books": np.zeros((4 * 16, 2), np.float32)},
        products | {"books": np.zeros((4 * 20, 3), np.float32)},
        products | {"books": np.zeros((4 * 20 + 1, 2), np.float32)},
        products | {"books": np.zeros((0, 2), np.float32)},
        products | {"product_codes": np.zeros((500, 3), np.uint8)},
        products | {"product_codes": np.zeros((499, 4), np.uint8)},
        products | {"product_terms": None},
        products | {"books": None},
    ):
        with pytest.raises((ValueError, TypeError)):
            opened(**wrong)
    with pytest.raises(ValueError, match="norms"):
        opened(DOT, **good)
    with pytest.raises(ValueError, match="cosine"):
        opened(COSINE, **products)
    with pytest.raises(ValueError, match="fewer rows"):
        train(Coded(coded.model, coded.codes[:2], coded.lengths, coded.norms), 8, EUCLIDEAN, 3)


@pytest.mark.parametrize(("dim", "parts", "words"), [(8, 2, 16), (12, 3, 5), (96, 24, 16), (64, 8, 200)])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e18])
def test_residuals_and_terms_are_what_float64_arrays_give(
    dim: int, parts: int, words: int, scale: float
) -> None:
    generator = np.random.default_rng(dim)
    rows, centroids, books = (
        (generator.standard_normal((n, width)) * scale).astype(np.float32)
        for n, width in ((203, dim), (7, dim), (parts * words, dim // parts))
    )
    assigned = generator.integers(0, 7, 203).astype(np.uint32)
    codes = generator.integers(0, words, (203, parts)).astype(np.uint8)
    coded = books.reshape(parts, words, -1)[np.arange(parts), codes].reshape(203, dim).astype(np.float64)
    coded += centroids[assigned]
    lengths = np.zeros(203)
    for column in (coded * coded).T:
        lengths += column
    for _, threads in everywhere():
        out, terms = np.empty((203, dim), np.float32), np.empty(203, np.float32)
        _kernels.product_residuals(rows, centroids, assigned, 0.25 / scale, out, threads)
        _kernels.product_terms(books, centroids, assigned, codes, parts, terms, threads)
        assert np.array_equal(
            out, ((rows - centroids[assigned].astype(np.float64)) * (0.25 / scale)).astype("f4")
        )
        assert np.array_equal(terms, np.minimum(lengths, np.finfo(np.float32).max).astype(np.float32))


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize(("words", "part_dim"), [(16, 4), (5, 1), (16, 7), (17, 4), (200, 3)])
def test_each_part_is_coded_by_the_first_of_the_nearest_words(
    absolute: bool, words: int, part_dim: int
) -> None:
    generator = np.random.default_rng(words)
    books = generator.integers(-3, 4, (2 * words, part_dim)).astype(np.float32)  # many ties, exact sums
    points = generator.integers(-3, 4, (45, 2 * part_dim)).astype(np.float32)
    by_part = points.reshape(45, 2, 1, part_dim) - books.reshape(1, 2, words, part_dim)
    distances = (np.abs(by_part) if absolute else by_part**2).sum(axis=3)
    for _, threads in everywhere():
        codes = np.empty((45, 2), np.uint8)
        _kernels.encode_product(books, points, 2, absolute, codes, threads)
        assert np.array_equal(codes, distances.argmin(axis=2))


def test_residuals_and_terms_of_what_is_not_there_are_refused() -> None:
    rows, centroids, books = np.zeros((2, 4), "f4"), np.zeros((3, 4), "f4"), np.zeros((10, 2), "f4")
    codes, out = np.zeros((2, 2), np.uint8), np.zeros(2, "f4")
    beyond = np.array([0, 3], np.uint32)
    with pytest.raises(ValueError, match="assigned must name centroids"):
        _kernels.product_residuals(rows, centroids, beyond, 1.0, np.zeros((2, 4), "f4"))
    with pytest.raises(ValueError, match="assigned must name centroids"):
        _kernels.product_terms(books, centroids, beyond, codes, 2, out)
    with pytest.raises(ValueError, match="codes must name words"):
        _kernels.product_terms(books, centroids, beyond % 3, codes + np.uint8(5), 2, out)
    with pytest.raises(ValueError, match="out must have 2 items"):
        _kernels.product_terms(books, centroids, beyond % 3, codes, 2, np.zeros(3, "f4"))
