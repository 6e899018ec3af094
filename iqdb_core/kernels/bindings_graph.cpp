// The module's functions over codes and graphs. As in bindings.cpp, shapes are checked here; neighbours and
// entries are checked where they are used, in the walk.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "bindings_codes.hpp"
#include "bindings_graph.hpp"
#include "buffers.hpp"
#include "checksum.hpp"
#include "codes.hpp"
#include "dispatch.hpp"
#include "graph_build.hpp"
#include "graph_check.hpp"
#include "threads.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

std::vector<double> train(BufferArg rows_arg, int metric_number) {
  const Buffer<const float> rows(rows_arg, "rows");
  const Metric metric = coded_metric(metric_number);
  const std::size_t dim = dim_of(rows);
  CodeModel model;
  {
    const nb::gil_scoped_release released;
    model = train_codes(metric, rows.data(), rows.shape(0), dim);
  }
  std::vector<double> out = {model.unit_length ? 1.0 : 0.0, model.scale, model.norm_unit};
  out.insert(out.end(), model.mean.begin(), model.mean.end());
  return out;
}

void encode(BufferArg model_arg, BufferArg rows_arg, BufferArg codes_arg, BufferArg lengths_arg,
            std::optional<BufferArg> norms_arg, std::optional<BufferArg> bounds_arg, std::int64_t threads) {
  const Buffer<const float> rows(rows_arg, "rows");
  const Buffer<const double> model_items(model_arg, "model");
  const Buffer<std::uint8_t> codes(codes_arg, "out_codes");
  const Buffer<std::int32_t> lengths(lengths_arg, "out_lengths");
  if (rows.ndim() == 1 && rows.size() == 0) return;
  const std::size_t dim = dim_of(rows);
  const CodeModel model = model_of(model_items, dim);
  lengths.expect_size(rows.shape(0));
  codes.expect_size(rows.shape(0) * code_stride(dim));
  std::optional<Buffer<float>> norms;
  float* const norms_out =
      norms_arg ? norms.emplace(*norms_arg, "out_norms").expect_size(rows.shape(0)).data() : nullptr;
  std::optional<Buffer<float>> bounds;
  float* const bounds_out =
      bounds_arg ? bounds.emplace(*bounds_arg, "out_bounds").expect_size(2 * rows.shape(0)).data() : nullptr;
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  const DefaultFloatEnvironment environment;
  encode_rows(model, rows.data(), rows.shape(0), dim, codes.data(), lengths.data(), norms_out, bounds_out,
              workers);
}

void coarsen(BufferArg codes_arg, BufferArg coarse_arg, BufferArg lengths_arg, std::int64_t threads) {
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<std::uint8_t> coarse(coarse_arg, "out_coarse");
  const Buffer<std::int32_t> lengths(lengths_arg, "out_lengths");
  const std::size_t workers = at_least_one(threads, "threads");
  if (codes.ndim() == 1 && codes.size() == 0) return;
  if (codes.ndim() != 2 || codes.shape(1) % kCodeAlign != 0)
    codes.fail("must be a 2-D buffer with rows of a multiple of 32 bytes");
  coarse.expect_size(codes.shape(0) * coarse_stride(codes.shape(1)));
  lengths.expect_size(codes.shape(0));
  const nb::gil_scoped_release released;
  coarsen_codes(codes.data(), codes.shape(0), codes.shape(1), coarse.data(), lengths.data(), workers);
}

GraphBuild build_of(const NodeCodes& codes, const Buffer<std::uint32_t>& links, std::int64_t m,
                    std::int64_t ef_construction, std::uint64_t seed, std::int64_t threads) {
  GraphBuild build{};
  build.codes = codes.view();
  if (links.ndim() != 2 || links.shape(0) != build.codes.n)
    links.fail("must be a 2-D buffer with a row for every code");
  build.links = links.data();
  build.degree = links.shape(1);
  build.m = at_least_one(m, "m");
  if (build.degree != 2 * build.m || build.degree > kMaxDegree)
    links.fail("must have 2 m columns, at most 1024");
  build.ef_construction = at_least_one(ef_construction, "ef_construction");
  build.seed = seed;
  build.threads = at_least_one(threads, "threads");
  return build;
}

// Every stored number is compared with n once here, so that what builds upon them need not.
void check_links(const std::uint32_t* links, std::size_t count, std::size_t n, const char* name) {
  for (std::size_t i = 0; i < count; ++i) {
    if (links[i] >= n && links[i] != kNoNode) {
      throw nb::value_error(
          (std::string(name) + " names node " + std::to_string(links[i]) + " of " + std::to_string(n))
              .c_str());
    }
  }
}

std::vector<std::uint32_t> extend(int metric, BufferArg codes_arg,
                                  const std::optional<BufferArg>& lengths_arg, BufferArg links_arg,
                                  BufferArg entries_arg, BufferArg fresh_arg, std::int64_t m,
                                  std::int64_t ef_construction, std::uint64_t seed, std::int64_t threads,
                                  const std::optional<BufferArg>& coarse_arg,
                                  const std::optional<BufferArg>& coarse_lengths_arg,
                                  const std::optional<BufferArg>& model_arg,
                                  const std::optional<BufferArg>& norms_arg) {
  const NodeCodes codes(graph_metric(metric), codes_arg, lengths_arg);
  const Buffer<std::uint32_t> links(links_arg, "links");
  const Buffer<const std::uint32_t> entries(entries_arg, "entries");
  const Buffer<const std::uint32_t> fresh(fresh_arg, "fresh");
  GraphBuild build = build_of(codes, links, m, ef_construction, seed, threads);
  const CoarseCodes coarse(coarse_arg, coarse_lengths_arg, build.codes);
  std::vector<bool> is_fresh(build.codes.n);
  for (const std::uint32_t node : fresh) {
    if (node >= build.codes.n || is_fresh[node]) fresh.fail("must name rows of the graph, each once");
    is_fresh[node] = true;
  }
  build.fresh = {fresh.data(), fresh.size()};
  build.entries.assign(entries.begin(), entries.end());
  if (fresh.size() < build.codes.n && build.entries.empty())
    throw nb::value_error("entries of a linked graph are missing");
  check_links(build.entries.data(), build.entries.size(), build.codes.n, "entries");
  for (std::size_t node = 0; node < build.codes.n; ++node) {
    if (!is_fresh[node]) check_links(build.links + node * build.degree, build.degree, build.codes.n, "links");
  }
  std::optional<CodeModel> model;
  std::optional<Buffer<const float>> norms;
  if (norms_arg) {
    if (!model_arg || metric != static_cast<int>(Metric::kDot))
      throw nb::value_error("norms belong to a model and to inner products");
    const Buffer<const double> items(*model_arg, "model");
    items.expect_at_least(kModelHead + 1);
    build.model = &model.emplace(model_of(items, items.size() - kModelHead));
    if (code_stride(model->mean.size()) != build.codes.stride)
      throw nb::value_error("codes has rows of another length than the model's");
    build.norms = norms.emplace(*norms_arg, "norms").expect_size(build.codes.n).data();
  }
  {
    const nb::gil_scoped_release released;
    extend_graph(kernels(), build);
  }
  return build.entries;
}

std::vector<std::uint32_t> carry(int metric, BufferArg codes_arg, const std::optional<BufferArg>& lengths_arg,
                                 BufferArg links_arg, BufferArg old_links_arg, BufferArg old_entries_arg,
                                 BufferArg target_arg, std::int64_t m, std::int64_t ef_construction,
                                 std::int64_t threads) {
  const NodeCodes codes(graph_metric(metric), codes_arg, lengths_arg);
  const Buffer<std::uint32_t> links(links_arg, "links");
  const Buffer<const std::uint32_t> old_links(old_links_arg, "old_links");
  const Buffer<const std::uint32_t> old_entries(old_entries_arg, "old_entries");
  const Buffer<const std::uint32_t> target(target_arg, "target");
  GraphBuild build = build_of(codes, links, m, ef_construction, 0, threads);
  if (degree_of(old_links, target.size()) != build.degree) old_links.fail("has another degree than links");
  std::vector<bool> taken(build.codes.n);
  for (const std::uint32_t row : target) {
    if (row == kNoNode) continue;
    if (row >= build.codes.n || taken[row]) target.fail("must name each new row at most once");
    taken[row] = true;
  }
  {
    const nb::gil_scoped_release released;
    carry_graph(kernels(), build, old_links.data(), target.size(), {old_entries.data(), old_entries.size()},
                target.data());
  }
  return build.entries;
}

std::tuple<std::vector<std::size_t>, std::vector<std::size_t>, std::size_t, std::size_t> check(
    BufferArg links_arg, BufferArg entries_arg, std::int64_t threads) {
  const Buffer<const std::uint32_t> links(links_arg, "links");
  const Buffer<const std::uint32_t> entries(entries_arg, "entries");
  if (links.ndim() != 2) links.fail("must be a 2-D buffer");
  const std::size_t n = links.shape(0);
  if (n > kMaxNodes) links.fail("has more rows than a graph can number");
  const std::size_t degree = degree_of(links, n);
  const std::size_t workers = at_least_one(threads, "threads");
  GraphFaults faults;
  {
    const nb::gil_scoped_release released;
    faults = check_graph(links.data(), n, degree, {entries.data(), entries.size()}, workers);
  }
  return {{std::begin(faults.count), std::end(faults.count)},
          {std::begin(faults.first_node), std::end(faults.first_node)},
          faults.unreachable,
          faults.first_unreachable};
}

}  // namespace

void bind_graph(nb::module_& m) {
  m.def("coarsen_codes", &coarsen, "codes"_a, "out_coarse"_a, "out_lengths"_a, "threads"_a = 1,
        R"(Keep the upper four bits of codes (uint8[n, stride]).

Args:
    codes: uint8[n, stride].
    out_coarse: uint8[n, w], w = 32 bytes for every 64 of the stride, rounded up.
    out_lengths: int32[n]: sum of squares of what each coarse code stands for.
    threads: At most so many threads.)");
  m.def("train_codes", &train, "rows"_a, "metric"_a,
        R"(The code model for rows (float32[n, dim]) under a metric (0 to 3), as a list of float64:
unit_length, scale, norm_unit, and the mean of every component.)");
  m.def("encode_codes", &encode, "model"_a, "rows"_a, "out_codes"_a, "out_lengths"_a,
        "out_norms"_a = nb::none(), "out_bounds"_a = nb::none(), "threads"_a = 1,
        R"(Encode rows (float32[n, dim]).

Args:
    model: float64, as train_codes returns it.
    rows: float32[n, dim].
    out_codes: uint8[n, stride], stride = the coded components rounded up to a multiple of 32.
    out_lengths: int32[n]: sum of squares of each code.
    out_norms: float32[n]: length of each row over norm_unit; None: not wanted.
    out_bounds: float32[2, n]: what exact search needs to know of each code; None: not wanted.
    threads: At most so many threads.)");
  m.def("extend_graph", &extend, "metric"_a, "codes"_a, "lengths"_a.none(), "links"_a, "entries"_a, "fresh"_a,
        "m"_a, "ef_construction"_a, "seed"_a, "threads"_a = 1, "coarse"_a = nb::none(),
        "coarse_lengths"_a = nb::none(), "model"_a = nb::none(), "norms"_a = nb::none(),
        R"(Insert rows into a graph, and return its entries.

Args:
    metric: 0 to 4.
    codes: uint8[n, stride], or under hamming a bit a component, as encode_bits writes them.
    lengths: int32[n]; None under hamming.
    links: uint32[n, 2 m]: those of `fresh` rows are written. 0xffffffff: no neighbour.
    entries: uint32: where walks begin in the linked part.
    fresh: uint32: rows to insert; all others are linked already.
    m: Neighbours chosen for a new row.
    ef_construction: Breadth of the walk that finds them.
    seed: Order of insertion.
    threads: At most so many threads; the result does not depend on it.
    coarse: uint8[n, coarse stride], as coarsen_codes writes it: what walks are to read. None: the codes.
    coarse_lengths: int32[n], with it.
    model: float64, as train_codes returns it.
    norms: float32[n], for inner products: also link rows to those with the greatest products. None: do not.)");
  m.def("carry_graph", &carry, "metric"_a, "codes"_a, "lengths"_a.none(), "links"_a, "old_links"_a,
        "old_entries"_a, "target"_a, "m"_a, "ef_construction"_a, "threads"_a = 1,
        R"(Carry a graph over to new row numbers and repair it around rows that are gone; return its entries.

Args:
    metric: 0 to 4.
    codes: uint8[n, stride] of the new rows, as extend_graph takes them.
    lengths: int32[n]; None under hamming.
    links: uint32[n, 2 m]: written for every row that `target` names.
    old_links: uint32[old_n, 2 m].
    old_entries: uint32.
    target: uint32[old_n]: the new row of each old one, or 0xffffffff when it is gone.
    m: As at the build.
    ef_construction: As at the build.
    threads: At most so many threads; the result does not depend on it.)");
  m.def("check_graph", &check, "links"_a, "entries"_a, "threads"_a = 1,
        R"(What is wrong with the links of a stored graph (uint32[n, degree], uint32 entries).

Returns:
    (counts, first nodes, unreachable, first unreachable). Counts are those of links that name no node, that
    name their own node, that name a neighbour twice, and that stand behind an empty place; a node is
    unreachable when no path leads to it from the entries. A first node means nothing where its count is 0.)");
}

}  // namespace iqdb
