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
#include "buffers.hpp"
#include "checksum.hpp"
#include "codes.hpp"
#include "dispatch.hpp"
#include "graph_build.hpp"
#include "graph_check.hpp"
#include "graph_search.hpp"
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

// Codes and lengths as the kernels take them.
Codes codes_of(Metric metric, const Buffer<const std::uint8_t>& codes,
               const Buffer<const std::int32_t>& lengths) {
  if (codes.ndim() != 2 || codes.shape(1) == 0 || codes.shape(1) % kCodeAlign != 0) {
    codes.fail("must be a 2-D buffer with rows of a multiple of 32 bytes");
  }
  const std::size_t n = codes.shape(0);
  if (n > kMaxNodes) codes.fail("has more rows than a graph can number");
  lengths.expect_size(n);
  return {sum_of(metric), codes.data(), lengths.data(), nullptr, n, codes.shape(1)};
}

std::size_t degree_of(const Buffer<const std::uint32_t>& links, std::size_t n) {
  if (links.ndim() != 2 || links.shape(0) != n) links.fail("must be a 2-D buffer with a row for every code");
  if (links.shape(1) == 0 || links.shape(1) > kMaxDegree) links.fail("has a degree that is not supported");
  return links.shape(1);
}

GraphBuild build_of(int metric, const Buffer<const std::uint8_t>& codes,
                    const Buffer<const std::int32_t>& lengths, const Buffer<std::uint32_t>& links,
                    std::int64_t m, std::int64_t ef_construction, std::uint64_t seed, std::int64_t threads) {
  GraphBuild build{};
  build.codes = codes_of(coded_metric(metric), codes, lengths);
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

std::vector<std::uint32_t> extend(int metric, BufferArg codes_arg, BufferArg lengths_arg, BufferArg links_arg,
                                  BufferArg entries_arg, BufferArg fresh_arg, std::int64_t m,
                                  std::int64_t ef_construction, std::uint64_t seed, std::int64_t threads) {
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<const std::int32_t> lengths(lengths_arg, "lengths");
  const Buffer<std::uint32_t> links(links_arg, "links");
  const Buffer<const std::uint32_t> entries(entries_arg, "entries");
  const Buffer<const std::uint32_t> fresh(fresh_arg, "fresh");
  GraphBuild build = build_of(metric, codes, lengths, links, m, ef_construction, seed, threads);
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
  {
    const nb::gil_scoped_release released;
    extend_graph(kernels(), build);
  }
  return build.entries;
}

std::vector<std::uint32_t> carry(int metric, BufferArg codes_arg, BufferArg lengths_arg, BufferArg links_arg,
                                 BufferArg old_links_arg, BufferArg old_entries_arg, BufferArg target_arg,
                                 std::int64_t m, std::int64_t ef_construction, std::int64_t threads) {
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<const std::int32_t> lengths(lengths_arg, "lengths");
  const Buffer<std::uint32_t> links(links_arg, "links");
  const Buffer<const std::uint32_t> old_links(old_links_arg, "old_links");
  const Buffer<const std::uint32_t> old_entries(old_entries_arg, "old_entries");
  const Buffer<const std::uint32_t> target(target_arg, "target");
  GraphBuild build = build_of(metric, codes, lengths, links, m, ef_construction, 0, threads);
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

// A stored graph, held open for searches from any number of threads.
class StoredGraph {
 public:
  StoredGraph(int metric, std::int64_t dim, BufferArg model, BufferArg codes, BufferArg lengths,
              BufferArg links, BufferArg entries, const std::optional<BufferArg>& norms,
              const BlocksArg& code_blocks, const BlocksArg& link_blocks)
      : metric_(coded_metric(metric)),
        dim_(at_least_one(dim, "dim")),
        codes_(codes, "codes"),
        lengths_(lengths, "lengths"),
        links_(links, "links"),
        entries_(entries, "entries"),
        model_(model_of(Buffer<const double>(model, "model"), dim_)),
        code_blocks_(code_blocks, codes_.data(), codes_.size()),
        link_blocks_(link_blocks, links_.data(), links_.size() * sizeof(std::uint32_t)) {
    graph_.codes = codes_of(metric_, codes_, lengths_);
    if (graph_.codes.stride != code_stride(dim_)) codes_.fail("has rows of another length than the model's");
    if (metric_ == Metric::kDot) {
      if (!norms) throw nb::value_error("norms are needed for the inner product");
      norms_.emplace(*norms, "norms");
      norms_->expect_size(graph_.codes.n);
      graph_.codes.norms = norms_->data();
    }
    graph_.degree = degree_of(links_, graph_.codes.n);
    graph_.links = links_.data();
    graph_.entries = {entries_.data(), entries_.size()};
  }

  std::pair<int, std::int64_t> search(BufferArg vectors_arg, BufferArg queries_arg, std::int64_t k,
                                      std::int64_t breadth, std::int64_t scored, BufferArg rows_arg,
                                      BufferArg distances_arg, BufferArg counts_arg, BufferArg visited_arg,
                                      const std::optional<BufferArg>& mask_arg, std::int64_t threads,
                                      const BlocksArg& vector_blocks_arg, double max_distance,
                                      bool filtered) const {
    const Buffer<const float> vectors(vectors_arg, "vectors");
    const Buffer<const float> queries(queries_arg, "queries");
    const Buffer<std::int64_t> rows(rows_arg, "out_rows");
    const Buffer<double> distances(distances_arg, "out_distances");
    const Buffer<std::int64_t> counts(counts_arg, "out_counts");
    const Buffer<std::int64_t> visited(visited_arg, "out_visited");
    std::optional<Buffer<const std::uint8_t>> mask;
    const Blocks vector_blocks(vector_blocks_arg, vectors.data(), vectors.size() * sizeof(float));
    const std::size_t n = graph_.codes.n;
    if (vectors.rows(dim_) != n) vectors.fail("must have a row for every code");

    GraphSearch task{};
    task.graph = graph_;
    task.blocks = {code_blocks_.get(), link_blocks_.get()};
    task.model = &model_;
    task.metric = metric_;
    task.vectors = vectors.data();
    task.dim = dim_;
    task.vector_blocks = vector_blocks.get();
    task.queries = queries.data();
    task.n_queries = queries.rows(dim_);
    task.k = std::min(at_least_one(k, "k"), n);
    task.breadth = std::max(at_least_one(breadth, "breadth"), task.k);
    task.scored = std::max(at_least_one(scored, "scored"), task.k);
    if (mask_arg) task.mask = mask.emplace(*mask_arg, "mask").expect_at_least(n / 8 + (n % 8 != 0)).data();
    if (filtered && task.mask == nullptr) throw nb::value_error("a filtered walk needs a mask");
    task.filtered = filtered;
    if (std::isnan(max_distance)) throw nb::value_error("max_distance must not be NaN");
    task.max_distance = max_distance;
    task.threads = at_least_one(threads, "threads");
    counts.expect_size(task.n_queries);
    visited.expect_size(2 * task.n_queries);
    distances.expect_size(rows.size());
    task.width = task.n_queries == 0 ? 0 : rows.size() / task.n_queries;
    if (task.width * task.n_queries != rows.size() || task.width < task.k)
      rows.fail("has too few slots for a query");
    task.out_rows = rows.data();
    task.out_distances = distances.data();
    task.out_counts = counts.data();
    task.out_visited = visited.data();
    Damage damage;
    {
      const nb::gil_scoped_release released;
      damage = search_graph(kernels(), task);
    }
    return {damage.part, static_cast<std::int64_t>(damage.block)};
  }

 private:
  Metric metric_;
  std::size_t dim_;
  Buffer<const std::uint8_t> codes_;
  Buffer<const std::int32_t> lengths_;
  Buffer<const std::uint32_t> links_;
  Buffer<const std::uint32_t> entries_;
  std::optional<Buffer<const float>> norms_;
  CodeModel model_;
  Blocks code_blocks_;
  Blocks link_blocks_;
  Graph graph_{};
};

}  // namespace

void bind_graph(nb::module_& m) {
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
  m.def("extend_graph", &extend, "metric"_a, "codes"_a, "lengths"_a, "links"_a, "entries"_a, "fresh"_a, "m"_a,
        "ef_construction"_a, "seed"_a, "threads"_a = 1,
        R"(Insert rows into a graph, and return its entries.

Args:
    metric: 0 to 3.
    codes: uint8[n, stride].
    lengths: int32[n].
    links: uint32[n, 2 m]: those of `fresh` rows are written. 0xffffffff: no neighbour.
    entries: uint32: where walks begin in the linked part.
    fresh: uint32: rows to insert; all others are linked already.
    m: Neighbours chosen for a new row.
    ef_construction: Breadth of the walk that finds them.
    seed: Order of insertion.
    threads: At most so many threads; the result does not depend on it.)");
  m.def("carry_graph", &carry, "metric"_a, "codes"_a, "lengths"_a, "links"_a, "old_links"_a, "old_entries"_a,
        "target"_a, "m"_a, "ef_construction"_a, "threads"_a = 1,
        R"(Carry a graph over to new row numbers and repair it around rows that are gone; return its entries.

Args:
    metric: 0 to 3.
    codes: uint8[n, stride] of the new rows.
    lengths: int32[n].
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
  nb::class_<StoredGraph>(m, "StoredGraph", "A graph over codes, searched in place.")
      .def(nb::init<int, std::int64_t, BufferArg, BufferArg, BufferArg, BufferArg, BufferArg,
                    const std::optional<BufferArg>&, const BlocksArg&, const BlocksArg&>(),
           "metric"_a, "dim"_a, "model"_a, "codes"_a, "lengths"_a, "links"_a, "entries"_a,
           "norms"_a = nb::none(), "code_blocks"_a = nb::none(), "link_blocks"_a = nb::none())
      .def(
          "search", &StoredGraph::search, "vectors"_a, "queries"_a, "k"_a, "breadth"_a, "scored"_a,
          "out_rows"_a, "out_distances"_a, "out_counts"_a, "out_visited"_a, nb::kw_only(),
          "mask"_a = nb::none(), "threads"_a = 1, "vector_blocks"_a = nb::none(),
          nb::arg("max_distance").sig("...") = HUGE_VAL, "filtered"_a = false,
          R"(Walk the graph for each query and score the nearest `scored` rows that pass the mask by their vectors.

A walk goes over all nodes and picks out those that pass at its end; with `filtered` its pool holds nodes that
pass alone, and nodes that do not are passed through.

Returns:
    (0, 0), or what is damaged (1 codes, 2 links, 3 vectors) and its block; then the outputs mean nothing.)");
}

}  // namespace iqdb
