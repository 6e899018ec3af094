// The module's classes that search graphs. As in bindings.cpp, shapes are checked here; neighbours and
// entries are checked where they are used, in the walk.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "bindings_bits.hpp"
#include "bindings_codes.hpp"
#include "bindings_graph.hpp"
#include "bits.hpp"
#include "buffers.hpp"
#include "dispatch.hpp"
#include "graph_search.hpp"
#include "search_arguments.hpp"
#include "single_query.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

// A stored graph, held open for searches from any number of threads.
class StoredGraph {
 public:
  StoredGraph(int metric, std::int64_t dim, BufferArg model, BufferArg codes,
              const std::optional<BufferArg>& lengths, BufferArg links, BufferArg entries,
              const std::optional<BufferArg>& norms, const BlocksArg& code_blocks,
              const BlocksArg& link_blocks, const std::optional<BufferArg>& coarse,
              const std::optional<BufferArg>& coarse_lengths, const BlocksArg& coarse_blocks)
      : metric_(graph_metric(metric)),
        dim_(at_least_one(dim, "dim")),
        codes_(metric_, codes, lengths),
        links_(links, "links"),
        entries_(entries, "entries"),
        code_blocks_(code_blocks, codes_.view().data, codes_.size()),
        link_blocks_(link_blocks, links_.data(), links_.size() * sizeof(std::uint32_t)) {
    graph_.codes = codes_.view();
    const bool bits = metric_ == Metric::kHamming;
    if (bits) {
      values_.emplace(model, "model").expect_size(2 * dim_);
      if (coarse) throw nb::value_error("bits have no coarse codes");
    } else {
      model_ = model_of(Buffer<const double>(model, "model"), dim_);
    }
    coarse_.emplace(coarse, coarse_lengths, graph_.codes);
    coarse_blocks_.emplace(coarse_blocks, graph_.codes.coarse, coarse_->size());
    if (graph_.codes.stride != (bits ? 8 * bit_words(dim_) : code_stride(dim_)))
      codes_.fail("has rows of another length than the model's");
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
    const SearchArguments arguments(queries_arg, rows_arg, distances_arg, counts_arg, mask_arg, threads,
                                    max_distance);
    const Buffer<std::int64_t> visited(visited_arg, "out_visited");
    const Blocks vector_blocks(vector_blocks_arg, vectors.data(), vectors.size() * sizeof(float));
    const std::size_t n = graph_.codes.n;
    if (vectors.rows(dim_) != n) vectors.fail("must have a row for every code");

    GraphSearch task = prepared(vectors.data());
    task.vector_blocks = vector_blocks.get();
    task.k = std::min(at_least_one(k, "k"), n);
    task.breadth = std::max(at_least_one(breadth, "breadth"), task.k);
    task.scored = std::max(at_least_one(scored, "scored"), task.k);
    arguments.give(n, dim_, task);
    if (filtered && task.mask == nullptr) throw nb::value_error("a filtered walk needs a mask");
    task.filtered = filtered;
    visited.expect_size(2 * task.n_queries);
    task.visited = visited.data();
    Damage damage;
    {
      const nb::gil_scoped_release released;
      damage = search_graph(kernels(), task);
    }
    return {damage.part, static_cast<std::int64_t>(damage.block)};
  }

  std::size_t dim() const { return dim_; }
  std::size_t n() const { return graph_.codes.n; }

  // A search of this graph that lacks its queries, its limits and its outputs.
  GraphSearch prepared(const float* vectors) const {
    GraphSearch task{};
    task.graph = graph_;
    task.blocks = {code_blocks_.get(), coarse_blocks_->get(), link_blocks_.get()};
    task.model = &model_;
    task.values = values_ ? words_of(values_->data()) : nullptr;
    task.metric = metric_;
    task.vectors = vectors;
    task.dim = dim_;
    return task;
  }

 private:
  Metric metric_;
  std::size_t dim_;
  NodeCodes codes_;
  Buffer<const std::uint32_t> links_;
  Buffer<const std::uint32_t> entries_;
  std::optional<Buffer<const float>> norms_;
  CodeModel model_{};
  std::optional<Buffer<const float>> values_;
  Blocks code_blocks_;
  Blocks link_blocks_;
  std::optional<CoarseCodes> coarse_;
  std::optional<Blocks> coarse_blocks_;
  Graph graph_{};
};

// What a walk needs to be the faster way to answer a query; see SingleSearch.
struct WalkLimits {
  std::size_t breadth;  // ef where a call names none
  std::size_t scored;   // rows scored by their vectors beyond k
  std::size_t rows;     // a graph of at most rows + rows_per_ef * ef nodes is scanned instead
  std::size_t rows_per_ef;
};

// Searches with one query over all rows, by the shortest way from Python and back: what does not depend on
// the query is prepared once. Whatever is out of the ordinary is left to StoredGraph.search and its callers.
class SingleSearch {
 public:
  SingleSearch(const StoredGraph& graph, BufferArg vectors, const BlocksArg& vector_blocks,
               std::int64_t breadth, std::int64_t scored, std::int64_t rows, std::int64_t rows_per_ef)
      : vectors_(vectors, "vectors"),
        vector_blocks_(vector_blocks, vectors_.data(), vectors_.size() * sizeof(float)),
        limits_{at_least_one(breadth, "breadth"), at_least_one(scored, "scored"), at_least_one(rows, "rows"),
                at_least_one(rows_per_ef, "rows_per_ef")},
        task_(graph.prepared(vectors_.data())) {
    if (vectors_.rows(graph.dim()) != graph.n()) vectors_.fail("must have a row for every code");
    task_.vector_blocks = vector_blocks_.get();
    task_.n_queries = task_.threads = 1;
    task_.max_distance = HUGE_VAL;
  }

  nb::object nearest(nb::handle query, nb::handle k, nb::handle ef, nb::handle n_probes) const {
    if (!n_probes.is_none()) return nb::none();
    GraphSearch task = task_;
    const std::size_t n = task.graph.codes.n;
    std::size_t breadth = limits_.breadth;
    if (!count_of(k, n, &task.k) || (!ef.is_none() && !count_of(ef, n, &breadth))) return nb::none();
    task.breadth = std::max(breadth, task.k);
    if (task.breadth > n / limits_.rows_per_ef || n - task.breadth * limits_.rows_per_ef <= limits_.rows)
      return nb::none();
    task.scored = task.k + limits_.scored;
    task.width = task.k;

    const QueryView view(query, task.dim);
    if (view.data() == nullptr) return nb::none();
    task.queries = view.data();
    std::vector<std::int64_t> rows(task.k);
    std::vector<double> distances(task.k);
    std::int64_t count = 0;
    std::int64_t visited[2] = {};
    task.rows = rows.data();
    task.distances = distances.data();
    task.counts = &count;
    task.visited = visited;
    {
      const nb::gil_scoped_release released;
      if (kernels().first_non_finite(task.queries, task.dim) != task.dim) count = -1;
      if (count == 0 && search_graph(kernels(), task).part != 0) count = -1;
    }
    if (count != static_cast<std::int64_t>(task.k) || visited[1] < count) return nb::none();
    return hits_of(rows, distances);
  }

 private:
  Buffer<const float> vectors_;
  Blocks vector_blocks_;
  WalkLimits limits_;
  GraphSearch task_;
};

}  // namespace

void bind_graph_search(nb::module_& m) {
  nb::class_<StoredGraph>(m, "StoredGraph", "A graph over codes, searched in place.")
      .def(nb::init<int, std::int64_t, BufferArg, BufferArg, const std::optional<BufferArg>&, BufferArg,
                    BufferArg, const std::optional<BufferArg>&, const BlocksArg&, const BlocksArg&,
                    const std::optional<BufferArg>&, const std::optional<BufferArg>&, const BlocksArg&>(),
           "metric"_a, "dim"_a, "model"_a, "codes"_a, "lengths"_a.none(), "links"_a, "entries"_a,
           "norms"_a = nb::none(), "code_blocks"_a = nb::none(), "link_blocks"_a = nb::none(),
           "coarse"_a = nb::none(), "coarse_lengths"_a = nb::none(), "coarse_blocks"_a = nb::none(),
           R"(Hold a graph open.

Under hamming `model` is float32[2, dim], as find_values leaves it, `codes` are those of encode_bits, and there
are no lengths and no coarse codes; a query with a third value finds nothing, and no vector is compared for it.)")
      .def(
          "search", &StoredGraph::search, "vectors"_a, "queries"_a, "k"_a, "breadth"_a, "scored"_a,
          "out_rows"_a, "out_distances"_a, "out_counts"_a, "out_visited"_a, nb::kw_only(),
          "mask"_a = nb::none(), "threads"_a = 1, "vector_blocks"_a = nb::none(),
          nb::arg("max_distance").sig("...") = HUGE_VAL, "filtered"_a = false,
          R"(Walk the graph for each query and score the nearest `scored` rows that pass the mask by their vectors.

A walk goes over all nodes and picks out those that pass at its end; with `filtered` its pool holds nodes that
pass alone, and nodes that do not are passed through.

Returns:
    (0, 0), or what is damaged (1 codes, 2 links, 3 vectors, 4 coarse codes) and its block; then the outputs mean nothing.)");
  nb::class_<SingleSearch>(m, "SingleSearch", "Searches of a StoredGraph with one query, over all rows.")
      .def(nb::init<const StoredGraph&, BufferArg, const BlocksArg&, std::int64_t, std::int64_t, std::int64_t,
                    std::int64_t>(),
           "graph"_a, "vectors"_a, "vector_blocks"_a.none(), "breadth"_a, "scored"_a, "rows"_a,
           "rows_per_ef"_a, nb::keep_alive<1, 2>())
      .def("nearest", &SingleSearch::nearest, "query"_a, "k"_a, "ef"_a.none(), "n_probes"_a.none(),
           nb::sig("def nearest(self, query: object, k: object, ef: object, n_probes: object) -> "
                   "tuple[list[int], list[float]] | None"),
           R"(Return the rows of the k nearest and their distances, as two lists, or None.

None says to search by StoredGraph.search, or to scan: the arguments need a conversion or are wrong, the graph is
small for its ef, a part of the file is damaged, or the walk came short.)");
}

}  // namespace iqdb
