// The module's classes that search inverted lists. As in bindings.cpp, shapes are checked here; row numbers
// are checked where they are used, in the search.
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
#include "ivf_search.hpp"
#include "ivf_train.hpp"
#include "search_arguments.hpp"
#include "single_query.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

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
    const SearchArguments arguments(queries_arg, rows_arg, distances_arg, counts_arg, mask_arg, threads,
                                    max_distance);
    const Buffer<std::int64_t> visited(visited_arg, "out_visited");
    const Blocks vector_blocks(vector_blocks_arg, vectors.data(), vectors.size() * sizeof(float));
    const std::size_t n = lists_.n;
    if (vectors.rows(lists_.dim) != n) vectors.fail("must have a row for every place in the lists");

    ListSearch task = prepared(vectors.data(), vector_blocks.get());
    task.k = std::min(at_least_one(k, "k"), std::max<std::size_t>(n, 1));
    task.n_probes = at_least_one(n_probes, "n_probes");
    task.enough = at_least_one(enough, "enough");
    task.scored = std::max(std::min(at_least_one(scored, "scored"), n), task.k);
    arguments.give(n, lists_.dim, task);
    visited.expect_size(3 * task.n_queries);
    task.visited = visited.data();
    ListDamage damage;
    {
      const nb::gil_scoped_release released;
      damage = search_lists(kernels(), task);
    }
    return {static_cast<int>(damage.part), static_cast<std::int64_t>(damage.block)};
  }

  std::size_t dim() const { return lists_.dim; }
  std::size_t n() const { return lists_.n; }

  // A search of these lists that lacks its queries, its limits and its outputs.
  ListSearch prepared(const float* vectors, const BlockTable* vector_blocks) const {
    ListSearch task{};
    task.lists = &lists_;
    task.blocks = {nullptr,         codes_.blocks(),         rows_.blocks(),          lengths_.blocks(),
                   norms_.blocks(), product_codes_.blocks(), product_terms_.blocks(), vector_blocks};
    task.vectors = vectors;
    return task;
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

// What scanning lists needs to be the faster way to answer a query; see SingleListSearch.
struct ProbeLimits {
  std::size_t n_probes;        // where a call names none
  std::size_t scored_per_hit;  // rows scored by their vectors: so many for each of k,
  std::size_t scored;          // and so many more
  std::size_t rows;            // so few rows are scanned instead,
  std::size_t codes_per_row;   // and those that would take as many codes
};

// Searches with one query over all rows, as SingleSearch does in a graph.
class SingleListSearch {
 public:
  SingleListSearch(const StoredLists& lists, BufferArg vectors, const BlocksArg& vector_blocks,
                   std::int64_t n_probes, std::int64_t scored_per_hit, std::int64_t scored, std::int64_t rows,
                   std::int64_t codes_per_row)
      : vectors_(vectors, "vectors"),
        vector_blocks_(vector_blocks, vectors_.data(), vectors_.size() * sizeof(float)),
        limits_{at_least_one(n_probes, "n_probes"), at_least_one(scored_per_hit, "scored_per_hit"),
                static_cast<std::size_t>(std::max<std::int64_t>(scored, 0)), at_least_one(rows, "rows"),
                at_least_one(codes_per_row, "codes_per_row")},
        task_(lists.prepared(vectors_.data(), vector_blocks_.get())) {
    if (vectors_.rows(lists.dim()) != lists.n())
      vectors_.fail("must have a row for every place in the lists");
    task_.n_queries = task_.threads = 1;
    task_.max_distance = HUGE_VAL;
  }

  nb::object nearest(nb::handle query, nb::handle k, nb::handle ef, nb::handle n_probes) const {
    if (!ef.is_none()) return nb::none();
    ListSearch task = task_;
    const std::size_t n = task.lists->n;
    const std::size_t lists = task.lists->count();
    std::size_t probes = std::min(limits_.n_probes, lists);
    if (!count_of(k, n, &task.k) || (!n_probes.is_none() && !count_of(n_probes, lists, &probes)))
      return nb::none();
    const std::size_t compared = lists + probes * std::max<std::size_t>(1, n / lists);
    if (n <= std::max(limits_.rows, compared / limits_.codes_per_row)) return nb::none();
    if (task.k > n / limits_.scored_per_hit) return nb::none();
    task.n_probes = probes;
    task.enough = task.width = task.k;
    task.scored = std::max(std::min(limits_.scored_per_hit * task.k + limits_.scored, n), task.k);

    const QueryView view(query, task.lists->dim);
    if (view.data() == nullptr) return nb::none();
    task.queries = view.data();
    std::vector<std::int64_t> rows(task.k);
    std::vector<double> distances(task.k);
    std::int64_t count = 0;
    std::int64_t visited[3] = {};
    task.rows = rows.data();
    task.distances = distances.data();
    task.counts = &count;
    task.visited = visited;
    {
      const nb::gil_scoped_release released;
      if (kernels().first_non_finite(task.queries, task.lists->dim) != task.lists->dim) count = -1;
      if (count == 0 && search_lists(kernels(), task).part != ListPart::kNone) count = -1;
    }
    if (count != static_cast<std::int64_t>(task.k) || visited[1] < count) return nb::none();
    return hits_of(rows, distances);
  }

 private:
  Buffer<const float> vectors_;
  Blocks vector_blocks_;
  ProbeLimits limits_;
  ListSearch task_;
};

}  // namespace

void bind_ivf_search(nb::module_& m) {
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
  nb::class_<SingleListSearch>(m, "SingleListSearch",
                               "Searches of StoredLists with one query, over all rows.")
      .def(nb::init<const StoredLists&, BufferArg, const BlocksArg&, std::int64_t, std::int64_t, std::int64_t,
                    std::int64_t, std::int64_t>(),
           "lists"_a, "vectors"_a, "vector_blocks"_a.none(), "n_probes"_a, "scored_per_hit"_a, "scored"_a,
           "rows"_a, "codes_per_row"_a, nb::keep_alive<1, 2>())
      .def("nearest", &SingleListSearch::nearest, "query"_a, "k"_a, "ef"_a.none(), "n_probes"_a.none(),
           nb::sig("def nearest(self, query: object, k: object, ef: object, n_probes: object) -> "
                   "tuple[list[int], list[float]] | None"),
           R"(Return the rows of the k nearest and their distances, as two lists, or None.

None says to search by StoredLists.search, or to scan: the arguments need a conversion or are wrong, the lists
are small for the probes, a part of the file is damaged, or the lists came short.)");
}

}  // namespace iqdb
