// The Python module iqdb_core._kernels: checks of the arguments, and nothing else. Every buffer's
// type, shape and size is checked here, so that the kernels can trust what they are given. The GIL is
// released around the work.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "bindings.hpp"
#include "buffers.hpp"
#include "candidates.hpp"
#include "checksum.hpp"
#include "dispatch.hpp"
#include "metric.hpp"
#include "search.hpp"
#include "search_arguments.hpp"
#include "threads.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

// ---- distances ------------------------------------------------------------------------------

Metric metric_of(int number) {
  if (number < 0 || number >= kMetricCount) {
    throw nb::value_error(("metric must be 0 to 4, found " + std::to_string(number)).c_str());
  }
  return static_cast<Metric>(number);
}

// The dimension of a 2-D buffer of vectors, 0 when it has no rows.
std::size_t dimension(const Buffer<const float>& vectors) {
  if (vectors.ndim() == 1 && vectors.size() == 0) return 0;
  if (vectors.ndim() != 2) {
    vectors.fail("must be a 2-D buffer, found " + std::to_string(vectors.ndim()) + " dimension(s)");
  }
  if (vectors.shape(1) == 0) vectors.fail("must have at least 1 column");
  return vectors.shape(1);
}

std::int64_t search_flat(BufferArg vectors_arg, BufferArg queries_arg, int metric, std::int64_t k,
                         BufferArg rows_arg, BufferArg distances_arg, BufferArg counts_arg,
                         std::optional<BufferArg> mask_arg, std::optional<BufferArg> tie_keys_arg,
                         std::int64_t threads, std::optional<BufferArg> crcs_arg,
                         std::optional<BufferArg> verified_arg, std::uint32_t crc_prefix,
                         double max_distance) {
  const Buffer<const float> vectors(vectors_arg, "vectors");
  const SearchArguments arguments(queries_arg, rows_arg, distances_arg, counts_arg, mask_arg, threads,
                                  max_distance);
  std::optional<Buffer<const std::int64_t>> tie_keys;
  std::optional<Buffer<const std::uint32_t>> crcs;
  std::optional<Buffer<std::uint8_t>> verified;
  std::optional<BlockTable> blocks;

  SearchTask task{};
  task.metric = metric_of(metric);
  task.vectors = vectors.data();
  task.dim = std::max(dimension(vectors), dimension(arguments.queries()));
  task.n = vectors.rows(task.dim);
  if (k < 0) throw nb::value_error(("k must not be negative, found " + std::to_string(k)).c_str());
  task.k = std::min(static_cast<std::size_t>(k), task.n);
  arguments.give(task.n, task.dim, task);
  if (tie_keys_arg) task.tie_keys = tie_keys.emplace(*tie_keys_arg, "tie_keys").expect_size(task.n).data();
  if (crcs_arg.has_value() != verified_arg.has_value()) {
    throw nb::value_error("block_crcs and verified must be given together");
  }
  if (crcs_arg) {
    crcs.emplace(*crcs_arg, "block_crcs");
    verified.emplace(*verified_arg, "verified");
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(vectors.data());
    blocks = BlockTable{.data = {bytes, vectors.size() * sizeof(float)},
                        .crcs = {crcs->data(), crcs->size()},
                        .verified = verified->data(),
                        .prefix = crc_prefix};
    crcs->expect_size(blocks->blocks());
    verified->expect_size(blocks->blocks());
    task.block_table = &*blocks;
  }

  const nb::gil_scoped_release release;
  return search(task);
}

void distances(BufferArg vectors_arg, BufferArg rows_arg, BufferArg query_arg, int metric,
               BufferArg out_arg) {
  const Buffer<const float> vectors(vectors_arg, "vectors");
  const Buffer<const std::int64_t> rows(rows_arg, "rows");
  const Buffer<const float> query(query_arg, "query");
  const Buffer<double> out(out_arg, "out");
  const Metric kind = metric_of(metric);
  const std::size_t dim = query.size();
  const std::size_t n = vectors.rows(dim);
  out.expect_size(rows.size());
  for (const std::int64_t row : rows) {
    if (row < 0 || static_cast<std::size_t>(row) >= n) {
      rows.fail("must be rows of the " + std::to_string(n) + " vectors, found " + std::to_string(row));
    }
  }

  const nb::gil_scoped_release release;
  const DefaultFloatEnvironment environment;
  const Kernels& table = kernels();
  const double norm2 = table.norm2(query.data(), dim);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const float* row = vectors.data() + static_cast<std::size_t>(rows.data()[i]) * dim;
    out.data()[i] = table.canonical(kind, query.data(), norm2, row, dim);
  }
}

std::int64_t check_finite(BufferArg x_arg) {
  const Buffer<const float> x(x_arg, "x");
  const nb::gil_scoped_release release;
  const std::size_t found = kernels().first_non_finite(x.data(), x.size());
  return found == x.size() ? -1 : static_cast<std::int64_t>(found);
}

std::size_t count_bits(BufferArg bits_arg, std::int64_t n) {
  const Buffer<const std::uint8_t> bits(bits_arg, "bits");
  if (n < 0) throw nb::value_error(("n must not be negative, found " + std::to_string(n)).c_str());
  const auto rows = static_cast<std::size_t>(n);
  bits.expect_at_least(rows / 8 + (rows % 8 != 0));
  return count_rows(bits.data(), rows);
}

std::string variant() {
  return kernels().name;
}

std::string variants_text() {
  std::string text;
  for (const std::string& name : variant_names()) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void set_variant(const std::string& name) {
  if (!select_variant(name)) {
    throw nb::value_error(
        ("no kernels named '" + name + "' run on this CPU; there are: " + variants_text()).c_str());
  }
}

void bind_distances(nb::module_& m) {
  // A later edit of set_variant changes what other threads use in their next call, never during one.
  m.def("variant", &variant, "The name of the kernels in use.");
  m.def("variants", &variant_names, "The names of the kernels that run on this CPU, oldest first.");
  m.def("set_variant", &set_variant, "name"_a, "Use the kernels of that name from now on.");
  m.def("search_flat", &search_flat, "vectors"_a, "queries"_a, "metric"_a, "k"_a, "out_rows"_a,
        "out_distances"_a, "out_counts"_a, nb::kw_only(), "mask"_a = nb::none(), "tie_keys"_a = nb::none(),
        "threads"_a = 1, "block_crcs"_a = nb::none(), "verified"_a = nb::none(), "crc_prefix"_a = 0,
        nb::arg("max_distance").sig("...") = HUGE_VAL,
        R"(Find the k nearest rows of each query, exactly.

Args:
    vectors: float32[n, dim].
    queries: float32[q, dim].
    metric: 0 cosine, 1 dot, 2 euclidean, 3 manhattan, 4 hamming.
    k: Hits wanted of each query; more than n are as n.
    out_rows: int64[q, w] with w >= min(k, n): row numbers, nearest first; unused slots -1.
    out_distances: float64[q, w]; unused slots infinity.
    out_counts: int64[q]: hits of each query.
    mask: Bitmap of the candidate rows (bit r & 7 of byte r >> 3); None: all.
    tie_keys: int64[n]: equal distances are ordered by it, then by row; None: by row.
    threads: At most so many threads.
    block_crcs: uint32, the checksums of the 4096-byte blocks of `vectors`; None: not checked.
    verified: uint8, one for each block, 1 where it was verified before; updated.
    crc_prefix: What the checksums start from.
    max_distance: Only hits at this distance or nearer.

Returns:
    -1, or the number of a damaged block that holds a candidate; then the outputs mean nothing.)");
  m.def("distances", &distances, "vectors"_a, "rows"_a, "query"_a, "metric"_a, "out"_a,
        "out[i] = the distance of vectors[rows[i]] (float32[n, dim]) from the query, as float64.");
  m.def("count_bits", &count_bits, "bits"_a, "n"_a,
        "How many of the bits 0..n are set (bit r & 7 of byte r >> 3).");
  m.def("check_finite", &check_finite, "x"_a,
        "The index of the first infinity or NaN among the float32 items of `x`, or -1.");
}

}  // namespace
}  // namespace iqdb

NB_MODULE(_kernels, m) {
  m.doc() = "Pure functions over buffers: exact search, distances, checksums, hashes, ids, JSON, graphs.";
  iqdb::select_best_variant();
  if (const char* name = std::getenv("IQDB_KERNELS"); name != nullptr && *name != '\0') {
    if (!iqdb::select_variant(name)) {
      throw nb::import_error(("IQDB_KERNELS: no kernels named '" + std::string(name) +
                              "' run on this CPU; there are: " + iqdb::variants_text())
                                 .c_str());
    }
  }
  iqdb::bind_distances(m);
  iqdb::bind_bytes(m);
  iqdb::bind_bits(m);
  iqdb::bind_codes(m);
  iqdb::bind_filters(m);
  iqdb::bind_graph(m);
  iqdb::bind_graph_search(m);
  iqdb::bind_ivf(m);
  iqdb::bind_ivf_search(m);
  iqdb::bind_jsonl(m);
  iqdb::bind_plain(m);
  iqdb::bind_records(m);
}
