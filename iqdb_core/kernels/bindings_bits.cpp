// Codes of a bit a component, and exact search by them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "bindings.hpp"
#include "bindings_bits.hpp"
#include "bindings_codes.hpp"
#include "bit_search.hpp"
#include "bits.hpp"
#include "buffers.hpp"
#include "search_arguments.hpp"

namespace iqdb {
namespace {

namespace nb = nanobind;
using namespace nb::literals;

bool find(BufferArg rows_arg, BufferArg values_arg, std::int64_t threads) {
  const Buffer<const float> rows(rows_arg, "rows");
  const Buffer<float> values(values_arg, "values");
  const std::size_t workers = at_least_one(threads, "threads");
  if (rows.ndim() == 1 && rows.size() == 0) return true;
  const std::size_t dim = dim_of(rows);
  values.expect_size(2 * dim);
  const nb::gil_scoped_release released;
  return find_values(words_of(rows.data()), rows.shape(0), dim, words_of(values.data()), workers);
}

void encode(BufferArg values_arg, BufferArg rows_arg, BufferArg codes_arg, std::int64_t threads) {
  const Buffer<const float> values(values_arg, "values");
  const Buffer<const float> rows(rows_arg, "rows");
  const Buffer<std::uint8_t> codes(codes_arg, "out_codes");
  const std::size_t workers = at_least_one(threads, "threads");
  if (rows.ndim() == 1 && rows.size() == 0) return;
  const std::size_t dim = dim_of(rows);
  values.expect_size(2 * dim);
  codes.expect_size(rows.shape(0) * 8 * bit_words(dim));
  const nb::gil_scoped_release released;
  encode_bits(words_of(values.data()), words_of(rows.data()), rows.shape(0), dim, codes.data(), workers);
}

// The codes of all rows, held open for searches from any number of threads.
class StoredBits {
 public:
  StoredBits(std::int64_t dim, BufferArg values, BufferArg codes, const BlocksArg& code_blocks)
      : dim_(at_least_one(dim, "dim")),
        values_(values, "values"),
        codes_(codes, "codes"),
        code_blocks_(code_blocks, codes_.data(), codes_.size()) {
    values_.expect_size(2 * dim_);
    n_ = codes_.rows(8 * bit_words(dim_));
  }
  StoredBits(const StoredBits&) = delete;
  StoredBits& operator=(const StoredBits&) = delete;

  std::pair<int, std::int64_t> search(BufferArg queries_arg, std::int64_t k, BufferArg rows_arg,
                                      BufferArg distances_arg, BufferArg counts_arg,
                                      const std::optional<BufferArg>& vectors_arg,
                                      const std::optional<BufferArg>& mask_arg,
                                      const std::optional<BufferArg>& tie_keys_arg, std::int64_t threads,
                                      const BlocksArg& vector_blocks_arg, double max_distance) const {
    const SearchArguments arguments(queries_arg, rows_arg, distances_arg, counts_arg, mask_arg, threads,
                                    max_distance);
    std::optional<Buffer<const float>> vectors;
    std::optional<Blocks> vector_blocks;
    std::optional<Buffer<const std::int64_t>> tie_keys;

    SearchTask task{};
    if (vectors_arg) {
      vectors.emplace(*vectors_arg, "vectors");
      if (vectors->rows(dim_) != n_) vectors->fail("must have a row for every code");
      task.vectors = vectors->data();
      task.block_table =
          vector_blocks.emplace(vector_blocks_arg, vectors->data(), vectors->size() * sizeof(float)).get();
    }
    task.n = n_;
    task.dim = dim_;
    task.metric = Metric::kHamming;
    task.k = std::min(at_least_one(k, "k"), n_);
    if (tie_keys_arg) task.tie_keys = tie_keys.emplace(*tie_keys_arg, "tie_keys").expect_size(n_).data();
    arguments.give(n_, dim_, task);
    BitSearchResult result;
    {
      const nb::gil_scoped_release released;
      const BitRows coded = {words_of(values_.data()), codes_.data(), code_blocks_.get()};
      result = search_bits(task, coded);
    }
    return {static_cast<int>(result.damaged), static_cast<std::int64_t>(result.block)};
  }

 private:
  std::size_t dim_;
  std::size_t n_ = 0;
  Buffer<const float> values_;
  Buffer<const std::uint8_t> codes_;
  Blocks code_blocks_;
};

}  // namespace

void bind_bits(nb::module_& m) {
  m.def("find_values", &find, "rows"_a, "values"_a, "threads"_a = 1,
        R"(Tell whether each component of rows takes at most two values, those in `values` included.

Args:
    rows: float32[n, dim]. Values are told apart by their bits.
    values: float32[2, dim]: what components took so far, twice the first row where that is all there was. A
        second value that is found is written into its second row. Without meaning when False is returned.
    threads: At most so many threads; the result does not depend on it.)");
  m.def("encode_bits", &encode, "values"_a, "rows"_a, "out_codes"_a, "threads"_a = 1,
        R"(Encode rows a bit a component: 0 where it has its first value, else 1.

Args:
    values: float32[2, dim], as find_values leaves it.
    rows: float32[n, dim].
    out_codes: uint8[n, w], w = 8 bytes for every 64 of dim, rounded up. Component j is bit j & 7 of byte j >> 3.
    threads: At most so many threads.)");
  nb::class_<StoredBits>(m, "StoredBits",
                         "Codes of all rows a bit a component, for exact search under hamming.")
      .def(nb::init<std::int64_t, BufferArg, BufferArg, const BlocksArg&>(), "dim"_a, "values"_a, "codes"_a,
           "code_blocks"_a = nb::none(),
           R"(Hold codes open.

Args:
    dim: Components of a vector.
    values: float32[2, dim], as find_values leaves it.
    codes: uint8[n, w], as encode_bits writes them.
    code_blocks: (crcs, verified, prefix) of `codes`; None: they are verified.)")
      .def(
          "search", &StoredBits::search, "queries"_a, "k"_a, "out_rows"_a, "out_distances"_a, "out_counts"_a,
          nb::kw_only(), "vectors"_a = nb::none(), "mask"_a = nb::none(), "tie_keys"_a = nb::none(),
          "threads"_a = 1, "vector_blocks"_a = nb::none(), nb::arg("max_distance").sig("...") = HUGE_VAL,
          R"(Find what search_flat finds, bit for bit. With `vectors`, distances of hits are computed from these.

Returns:
    (0, 0), or what is damaged (1 codes, 3 vectors) and its block; then the outputs mean nothing.)");
}

}  // namespace iqdb
