// The module's functions over inverted lists. As in bindings.cpp, shapes are checked here; row numbers are
// checked where they are used, in the search.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "bindings_codes.hpp"
#include "buffers.hpp"
#include "codes.hpp"
#include "dispatch.hpp"
#include "ivf_product.hpp"
#include "ivf_product_train.hpp"
#include "ivf_search.hpp"
#include "ivf_train.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

// Sums of codes in a cluster are held in 32 bits.
constexpr std::size_t kMaxTrainingRows = std::size_t{1} << 24;

ClusterCodes cluster_codes(Metric metric, const Buffer<const std::uint8_t>& codes, std::size_t dim) {
  return {sum_of(metric), codes.data(), codes.rows(code_stride(dim)), code_stride(dim)};
}

void train(BufferArg model_arg, BufferArg codes_arg, int metric_number, std::int64_t iterations,
           std::uint64_t seed, BufferArg centroids_arg, std::int64_t threads) {
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<float> centroids(centroids_arg, "out_centroids");
  if (centroids.ndim() != 2 || centroids.shape(0) == 0 || centroids.shape(1) == 0) {
    centroids.fail("must be a 2-D buffer that is not empty");
  }
  const std::size_t n_clusters = centroids.shape(0);
  const std::size_t dim = centroids.shape(1);
  const Buffer<const double> model_items(model_arg, "model");
  const CodeModel model = model_of(model_items, dim);
  ClusterTraining task{};
  task.rows = cluster_codes(coded_metric(metric_number), codes, dim);
  if (task.rows.n > kMaxTrainingRows) codes.fail("has more rows than can be trained on");
  if (task.rows.n < n_clusters) codes.fail("has fewer rows than there are centroids");
  task.n_clusters = n_clusters;
  task.iterations = at_least_one(iterations, "iterations");
  task.seed = seed;
  task.threads = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  const std::vector<double> means = train_clusters(kernels(), task);
  decode_centroids(model, means.data(), n_clusters, dim, centroids.data());
}

void assign(BufferArg model_arg, BufferArg centroids_arg, BufferArg codes_arg, int metric_number,
            BufferArg out_arg, std::int64_t threads) {
  const Buffer<const float> centroids(centroids_arg, "centroids");
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<std::uint32_t> out(out_arg, "out");
  const std::size_t dim = dim_of(centroids);
  const Buffer<const double> model_items(model_arg, "model");
  const CodeModel model = model_of(model_items, dim);
  const Metric metric = coded_metric(metric_number);
  const ClusterCodes rows = cluster_codes(metric, codes, dim);
  if (centroids.shape(0) == 0) centroids.fail("must not be empty");
  out.expect_size(rows.n);
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  std::vector<std::uint8_t> centroid_codes(centroids.shape(0) * rows.stride);
  encode_centroids(model, centroids.data(), centroids.shape(0), dim, centroid_codes.data());
  assign_clusters(kernels(), rows, {rows.sum, centroid_codes.data(), centroids.shape(0), rows.stride},
                  out.data(), workers);
}

// Points and the books for them, [parts * words][dim / parts].
template <class T>
ProductPoints product_points(const Buffer<const float>& points, const Buffer<T>& books, std::int64_t parts,
                             bool absolute) {
  const std::size_t dim = dim_of(points);
  const std::size_t count = at_least_one(parts, "parts");
  if (dim % count != 0) throw nb::value_error("parts must divide the components");
  const std::size_t words = books.rows(dim / count) / count;
  if (words == 0 || words > kMaxWords || words * count != books.shape(0))
    books.fail("must have 1 to 256 words for every part");
  return {absolute, points.data(), points.shape(0), dim, count, words};
}

void train_product(BufferArg points_arg, std::int64_t parts, bool absolute, std::int64_t iterations,
                   std::uint64_t seed, BufferArg books_arg, std::int64_t threads) {
  const Buffer<const float> points(points_arg, "points");
  const Buffer<float> books(books_arg, "out_books");
  const ProductPoints task = product_points(points, books, parts, absolute);
  if (task.n < task.words) points.fail("has fewer rows than there are words");
  const std::size_t rounds = at_least_one(iterations, "iterations");
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  train_books(kernels(), task, rounds, seed, books.data(), workers);
}

void encode_product(BufferArg books_arg, BufferArg points_arg, std::int64_t parts, bool absolute,
                    BufferArg codes_arg, std::int64_t threads) {
  const Buffer<const float> points(points_arg, "points");
  const Buffer<const float> books(books_arg, "books");
  const Buffer<std::uint8_t> codes(codes_arg, "out_codes");
  const ProductPoints task = product_points(points, books, parts, absolute);
  codes.expect_size(task.n * task.parts);
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  encode_products(kernels(), task, books.data(), codes.data(), workers);
}

// An array of the lists and its blocks.
template <class T>
class ListArray {
 public:
  ListArray(const std::optional<BufferArg>& array, const BlocksArg& blocks, const char* name) {
    if (!array) return;
    items_.emplace(*array, name);
    blocks_.emplace(blocks, items_->data(), items_->size() * sizeof(T));
  }
  const T* expect(std::size_t count) const { return items_ ? items_->expect_size(count).data() : nullptr; }
  bool is_there() const { return items_.has_value(); }
  const Buffer<const T>& items() const { return *items_; }
  const BlockTable* blocks() const { return blocks_ ? blocks_->get() : nullptr; }

 private:
  std::optional<Buffer<const T>> items_;
  std::optional<Blocks> blocks_;
};

// Stored lists, held open for searches from any number of threads.
class StoredLists {
 public:
  using Array = std::optional<BufferArg>;

  StoredLists(int metric, BufferArg model, BufferArg centroids, BufferArg offsets, BufferArg rows,
              const Array& codes, const Array& lengths, const Array& norms, const Array& books,
              const Array& product_codes, const Array& product_terms, const BlocksArg& row_blocks,
              const BlocksArg& code_blocks, const BlocksArg& length_blocks, const BlocksArg& norm_blocks,
              const BlocksArg& product_code_blocks, const BlocksArg& product_term_blocks)
      : centroids_(centroids, "centroids"),
        offsets_(offsets, "offsets"),
        model_(model_of(Buffer<const double>(model, "model"), dim_of(centroids_))),
        rows_(rows, row_blocks, "rows"),
        codes_(codes, code_blocks, "codes"),
        lengths_(lengths, length_blocks, "lengths"),
        norms_(norms, norm_blocks, "norms"),
        books_(books, std::nullopt, "books"),
        product_codes_(product_codes, product_code_blocks, "product_codes"),
        product_terms_(product_terms, product_term_blocks, "product_terms") {
    lists_.metric = coded_metric(metric);
    lists_.model = &model_;
    lists_.dim = dim_of(centroids_);
    lists_.n = rows_.items().size();
    if (lists_.n > std::numeric_limits<std::uint32_t>::max()) rows_.items().fail("has too many items");
    lists_.rows = rows_.items().data();
    open_centroids();
    open_offsets();
    if (product_codes_.is_there()) {
      open_product();
    } else {
      open_codes();
    }
  }

  std::pair<int, std::int64_t> search(BufferArg vectors_arg, BufferArg queries_arg, std::int64_t k,
                                      std::int64_t n_probes, std::int64_t enough, std::int64_t scored,
                                      BufferArg rows_arg, BufferArg distances_arg, BufferArg counts_arg,
                                      BufferArg visited_arg, const std::optional<BufferArg>& mask_arg,
                                      std::int64_t threads, const BlocksArg& vector_blocks_arg,
                                      double max_distance) const {
    const Buffer<const float> vectors(vectors_arg, "vectors");
    const Buffer<const float> queries(queries_arg, "queries");
    const Buffer<std::int64_t> rows(rows_arg, "out_rows");
    const Buffer<double> distances(distances_arg, "out_distances");
    const Buffer<std::int64_t> counts(counts_arg, "out_counts");
    const Buffer<std::int64_t> visited(visited_arg, "out_visited");
    std::optional<Buffer<const std::uint8_t>> mask;
    const Blocks vector_blocks(vector_blocks_arg, vectors.data(), vectors.size() * sizeof(float));
    const std::size_t n = lists_.n;
    if (vectors.rows(lists_.dim) != n) vectors.fail("must have a row for every place in the lists");

    ListSearch task{};
    task.lists = &lists_;
    task.blocks = {nullptr,         codes_.blocks(),         rows_.blocks(),          lengths_.blocks(),
                   norms_.blocks(), product_codes_.blocks(), product_terms_.blocks(), vector_blocks.get()};
    task.vectors = vectors.data();
    task.queries = queries.data();
    task.n_queries = queries.rows(lists_.dim);
    task.k = std::min(at_least_one(k, "k"), std::max<std::size_t>(n, 1));
    task.n_probes = at_least_one(n_probes, "n_probes");
    task.enough = at_least_one(enough, "enough");
    task.scored = std::max(std::min(at_least_one(scored, "scored"), n), task.k);
    if (mask_arg) task.mask = mask.emplace(*mask_arg, "mask").expect_at_least(n / 8 + (n % 8 != 0)).data();
    if (std::isnan(max_distance)) throw nb::value_error("max_distance must not be NaN");
    task.max_distance = max_distance;
    task.threads = at_least_one(threads, "threads");
    counts.expect_size(task.n_queries);
    visited.expect_size(3 * task.n_queries);
    distances.expect_size(rows.size());
    task.width = task.n_queries == 0 ? 0 : rows.size() / task.n_queries;
    if (task.width * task.n_queries != rows.size() || task.width < task.k)
      rows.fail("has too few slots for a query");
    task.out_rows = rows.data();
    task.out_distances = distances.data();
    task.out_counts = counts.data();
    task.out_visited = visited.data();
    ListDamage damage;
    {
      const nb::gil_scoped_release released;
      damage = search_lists(kernels(), task);
    }
    return {static_cast<int>(damage.part), static_cast<std::int64_t>(damage.block)};
  }

 private:
  void open_centroids() {
    const std::size_t count = centroids_.shape(0);
    if (count == 0) centroids_.fail("must not be empty");
    const std::size_t stride = lists_.stride();
    centroid_codes_.resize(count * stride);
    centroid_lengths_.resize(count);
    encode_centroids(model_, centroids_.data(), count, lists_.dim, centroid_codes_.data());
    for (std::size_t i = 0; i < count * stride; ++i) {
      centroid_lengths_[i / stride] += std::int32_t{centroid_codes_[i]} * centroid_codes_[i];
    }
    lists_.centroids = centroids_.data();
    lists_.centroid_codes = centroid_codes_.data();
    lists_.centroid_lengths = centroid_lengths_.data();
  }

  void open_offsets() {
    offsets_.expect_size(centroids_.shape(0) + 1);
    const bool ascend = std::is_sorted(offsets_.begin(), offsets_.end());
    if (!ascend || *offsets_.begin() != 0 || *(offsets_.end() - 1) != lists_.n) {
      offsets_.fail("must ascend from 0 to the number of rows");
    }
    lists_.offsets = {offsets_.data(), offsets_.size()};
  }

  void open_codes() {
    if (!codes_.is_there() || !lengths_.is_there()) throw nb::value_error("codes and lengths are needed");
    lists_.codes = codes_.expect(lists_.n * lists_.stride());
    lists_.lengths = lengths_.expect(lists_.n);
    if (lists_.metric != Metric::kDot) return;
    if (!norms_.is_there()) throw nb::value_error("norms are needed for the inner product");
    lists_.norms = norms_.expect(lists_.n);
  }

  void open_product() {
    if (lists_.metric == Metric::kCosine) throw nb::value_error("cosine has no product codes");
    if (!books_.is_there()) throw nb::value_error("books are needed for product codes");
    const Buffer<const std::uint8_t>& codes = product_codes_.items();
    const Buffer<const float>& books = books_.items();
    if (books.ndim() != 2 || books.shape(0) == 0 || books.shape(1) == 0 || lists_.dim % books.shape(1) != 0) {
      books.fail("must be a 2-D buffer with a number of columns that divides the components");
    }
    const std::size_t parts = lists_.dim / books.shape(1);
    const std::size_t words = books.shape(0) / parts;
    if (words == 0 || words > kMaxWords || words * parts != books.shape(0)) {
      books.fail("must have 1 to 256 words for every part");
    }
    words_.emplace(books.data(), parts, words, books.shape(1));
    lists_.product = {codes.data(), nullptr, parts, &*words_, {}};
    std::size_t columns = parts;
    std::size_t rows = lists_.n;
    if (words_->halves) {
      blocks_.assign(1, 0);
      for (std::size_t list = 0; list < lists_.count(); ++list) {
        const std::size_t size = lists_.offsets[list + 1] - lists_.offsets[list];
        blocks_.push_back(blocks_.back() + (size + kHalfRows - 1) / kHalfRows);
      }
      lists_.product.blocks = blocks_;
      columns = lists_.product.pairs() * kHalfRows;
      rows = blocks_.back();
    }
    if (codes.ndim() != 2 || codes.shape(0) != rows || codes.shape(1) != columns) {
      codes.fail("must have a row for every place, or for every block of half-byte codes");
    }
    if (lists_.metric != Metric::kEuclidean) return;
    if (!product_terms_.is_there())
      throw nb::value_error("product_terms are needed for the euclidean distance");
    lists_.product.terms = product_terms_.expect(lists_.n);
  }

  Buffer<const float> centroids_;
  Buffer<const std::uint64_t> offsets_;
  CodeModel model_;
  ListArray<std::uint32_t> rows_;
  ListArray<std::uint8_t> codes_;
  ListArray<std::int32_t> lengths_;
  ListArray<float> norms_;
  ListArray<float> books_;
  ListArray<std::uint8_t> product_codes_;
  ListArray<float> product_terms_;
  std::optional<ProductWords> words_;
  std::vector<std::size_t> blocks_;
  std::vector<std::uint8_t> centroid_codes_;
  std::vector<std::int32_t> centroid_lengths_;
  Lists lists_{};
};

}  // namespace

void bind_ivf(nb::module_& m) {
  m.def("train_clusters", &train, "model"_a, "codes"_a, "metric"_a, "iterations"_a, "seed"_a,
        "out_centroids"_a, "threads"_a = 1,
        R"(Train centroids by k-means over codes.

The same arguments give the same centroids on every CPU, for any number of threads.

Args:
    model: float64, as train_codes returns it; the codes were made with it.
    codes: uint8[n, stride], n at least the number of centroids.
    metric: 0 to 3.
    iterations: At most so many.
    seed: Chooses the first centroids.
    out_centroids: float32[c, dim].
    threads: At most so many threads.)");
  m.def("assign_clusters", &assign, "model"_a, "centroids"_a, "codes"_a, "metric"_a, "out"_a, "threads"_a = 1,
        "out[i] (uint32) = the centroid (float32[c, dim]) nearest to code i, the first of equals.");
  m.def("train_product", &train_product, "points"_a, "parts"_a, "absolute"_a, "iterations"_a, "seed"_a,
        "out_books"_a, "threads"_a = 1,
        R"(Train a codebook for each part of points (float32[n, dim]) by k-means.

The same arguments give the same books on every CPU, for any number of threads.

Args:
    points: float32[n, dim], n at least the number of words.
    parts: Divides dim.
    absolute: The nearest word is the one with the least sum of absolute, not of squared differences.
    iterations: As many.
    seed: Chooses the first words.
    out_books: float32[parts * words, dim / parts], at most 256 words.
    threads: At most so many threads.)");
  m.def("encode_product", &encode_product, "books"_a, "points"_a, "parts"_a, "absolute"_a, "out_codes"_a,
        "threads"_a = 1,
        "out_codes[i, part] (uint8) = the word of books that is nearest to that part of point i.");
  const auto none = nb::none();
  nb::class_<StoredLists>(m, "StoredLists",
                          "Inverted lists, held open for searches from any number of threads.")
      .def(nb::init<int, BufferArg, BufferArg, BufferArg, BufferArg, const StoredLists::Array&,
                    const StoredLists::Array&, const StoredLists::Array&, const StoredLists::Array&,
                    const StoredLists::Array&, const StoredLists::Array&, const BlocksArg&, const BlocksArg&,
                    const BlocksArg&, const BlocksArg&, const BlocksArg&, const BlocksArg&>(),
           "metric"_a, "model"_a, "centroids"_a, "offsets"_a, "rows"_a, nb::kw_only(), "codes"_a = none,
           "lengths"_a = none, "norms"_a = none, "books"_a = none, "product_codes"_a = none,
           "product_terms"_a = none, "row_blocks"_a = none, "code_blocks"_a = none, "length_blocks"_a = none,
           "norm_blocks"_a = none, "product_code_blocks"_a = none, "product_term_blocks"_a = none,
           R"(Open lists, with codes or with product codes.

Args:
    metric: 0 to 3; not 0 with product codes.
    model: float64, as train_codes returns it.
    centroids: float32[c, dim].
    offsets: uint64[c + 1]: where each list starts, from 0 to n.
    rows: uint32[n], in list order; checked where they are used.
    codes: uint8[n, stride], in list order.
    lengths: int32[n], in list order.
    norms: float32[n], in list order, for the inner product.
    books: float32[parts * words, dim / parts]: words of each part, at most 256.
    product_codes: uint8[n, parts], in list order; with at most 16 words uint8[blocks, ceil(parts / 2) * 32]:
        each list padded to blocks of 32 rows, in which 32 bytes hold two parts of every row.
    product_terms: float32[n], in list order, for the euclidean distance.
    row_blocks: (crcs, verified, prefix) of the rows; None: not checked. Likewise the others.)")
      .def("search", &StoredLists::search, "vectors"_a, "queries"_a, "k"_a, "n_probes"_a, "enough"_a,
           "scored"_a, "out_rows"_a, "out_distances"_a, "out_counts"_a, "out_visited"_a, "mask"_a = none,
           "threads"_a = 1, "vector_blocks"_a = none, nb::arg("max_distance").sig("...") = HUGE_VAL,
           R"(Find the k nearest rows of each query in the lists whose centroids are nearest.

Args:
    vectors: float32[n, dim].
    queries: float32[q, dim].
    k: Hits wanted of each query.
    n_probes: Lists that are scanned.
    enough: Lists beyond them are scanned until so many rows that pass the mask were seen.
    scored: The nearest candidates by codes that are scored by their vectors, at least k.
    out_rows: int64[q, w] with w >= min(k, n): row numbers, nearest first; unused slots -1.
    out_distances: float64[q, w]; unused slots infinity.
    out_counts: int64[q]: hits of each query.
    out_visited: int64[q, 3]: codes compared, vectors compared, lists scanned.
    mask: Bitmap of the candidate rows (bit r & 7 of byte r >> 3); None: all.
    threads: At most so many threads.
    vector_blocks: (crcs, verified, prefix) of the vectors; None: not checked.
    max_distance: Only hits at this distance or nearer.

Returns:
    (0, 0), or what is damaged and its block, and the outputs mean nothing: 1 codes, 2 rows, 3 lengths,
    4 norms, 5 product codes, 6 product terms, 7 vectors.)");
}

}  // namespace iqdb
