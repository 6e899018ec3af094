// Exact search over stored codes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>

#include "bindings.hpp"
#include "bindings_codes.hpp"
#include "buffers.hpp"
#include "code_search.hpp"
#include "search_arguments.hpp"

namespace iqdb {
namespace {

namespace nb = nanobind;
using namespace nb::literals;

// The codes of all rows, held open for searches from any number of threads.
class StoredCodes {
 public:
  StoredCodes(int metric, std::int64_t dim, BufferArg model, BufferArg codes, BufferArg bounds,
              const std::optional<BufferArg>& norms, const BlocksArg& code_blocks)
      : metric_(coded_metric(metric)),
        dim_(at_least_one(dim, "dim")),
        codes_(codes, "codes"),
        bounds_(bounds, "bounds"),
        model_(model_of(Buffer<const double>(model, "model"), dim_)),
        code_blocks_(code_blocks, codes_.data(), codes_.size()) {
    if (metric_ == Metric::kManhattan) throw nb::value_error("codes cannot bound manhattan distances");
    if (model_.unit_length != (metric_ != Metric::kEuclidean)) {
      throw nb::value_error("the model was trained for another metric");
    }
    n_ = codes_.rows(code_stride(dim_));
    bounds_.expect_size(2 * n_);
    rows_ = {.model = &model_,
             .codes = codes_.data(),
             .stride = code_stride(dim_),
             .bounds = bounds_.data(),
             .norms = nullptr,
             .least_u = 0.0f,
             .blocks = code_blocks_.get()};
    if (metric_ == Metric::kDot) {
      if (!norms) throw nb::value_error("inner products need norms");
      norms_.emplace(*norms, "norms").expect_size(n_);
      rows_.norms = norms_->data();
      rows_.least_u = least_inverse(rows_.norms, n_);
    }
  }
  StoredCodes(const StoredCodes&) = delete;
  StoredCodes& operator=(const StoredCodes&) = delete;

  std::tuple<int, std::int64_t, std::int64_t> search(BufferArg vectors_arg, BufferArg queries_arg,
                                                     std::int64_t k, BufferArg rows_arg,
                                                     BufferArg distances_arg, BufferArg counts_arg,
                                                     const std::optional<BufferArg>& mask_arg,
                                                     const std::optional<BufferArg>& tie_keys_arg,
                                                     std::int64_t threads, const BlocksArg& vector_blocks_arg,
                                                     double max_distance) const {
    const Buffer<const float> vectors(vectors_arg, "vectors");
    const SearchArguments arguments(queries_arg, rows_arg, distances_arg, counts_arg, mask_arg, threads,
                                    max_distance);
    std::optional<Buffer<const std::int64_t>> tie_keys;
    const Blocks vector_blocks(vector_blocks_arg, vectors.data(), vectors.size() * sizeof(float));
    if (vectors.rows(dim_) != n_) vectors.fail("must have a row for every code");

    SearchTask task{};
    task.vectors = vectors.data();
    task.n = n_;
    task.dim = dim_;
    task.metric = metric_;
    task.k = std::min(at_least_one(k, "k"), n_);
    if (tie_keys_arg) task.tie_keys = tie_keys.emplace(*tie_keys_arg, "tie_keys").expect_size(n_).data();
    task.block_table = vector_blocks.get();
    arguments.give(n_, dim_, task);
    CodeSearchResult result;
    {
      const nb::gil_scoped_release released;
      result = search_codes(task, rows_);
    }
    return {static_cast<int>(result.damaged), static_cast<std::int64_t>(result.block),
            static_cast<std::int64_t>(result.scored)};
  }

 private:
  Metric metric_;
  std::size_t dim_;
  std::size_t n_ = 0;
  Buffer<const std::uint8_t> codes_;
  Buffer<const float> bounds_;
  std::optional<Buffer<const float>> norms_;
  CodeModel model_;
  Blocks code_blocks_;
  CodedRows rows_{};
};

}  // namespace

void bind_codes(nb::module_& m) {
  nb::class_<StoredCodes>(m, "StoredCodes",
                          "Codes of all rows, for exact search under cosine, dot or euclidean.")
      .def(nb::init<int, std::int64_t, BufferArg, BufferArg, BufferArg, const std::optional<BufferArg>&,
                    const BlocksArg&>(),
           "metric"_a, "dim"_a, "model"_a, "codes"_a, "bounds"_a, "norms"_a = nb::none(),
           "code_blocks"_a = nb::none(),
           R"(Hold codes open.

Args:
    metric: 0 to 2.
    dim: Components of a vector.
    model: float64, as train_codes returns it.
    codes: uint8[n, stride], as encode_codes writes them, like bounds and norms.
    bounds: float32[2, n].
    norms: float32[n]; only for inner products.
    code_blocks: (crcs, verified, prefix) of `codes`; None: they are verified.)")
      .def("search", &StoredCodes::search, "vectors"_a, "queries"_a, "k"_a, "out_rows"_a, "out_distances"_a,
           "out_counts"_a, nb::kw_only(), "mask"_a = nb::none(), "tie_keys"_a = nb::none(), "threads"_a = 1,
           "vector_blocks"_a = nb::none(), nb::arg("max_distance").sig("...") = HUGE_VAL,
           R"(Find what search_flat finds, bit for bit; most rows are excluded by their codes.

Returns:
    (0, 0, vectors compared), or what is damaged (1 codes, 3 vectors), its block, and a number without
    meaning; then the outputs mean nothing.)");
}

}  // namespace iqdb
