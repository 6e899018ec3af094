#include "graph_search.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>

#include "graph_filtered.hpp"
#include "threads.hpp"
#include "topk.hpp"

namespace iqdb {
namespace {

bool allowed(const std::uint8_t* mask, std::size_t row) {
  return mask == nullptr || ((mask[row >> 3] >> (row & 7)) & 1) != 0;
}

void prefetch_row(const float* row, std::size_t dim) {
  const auto* const bytes = reinterpret_cast<const char*>(row);
  for (std::size_t offset = 0; offset < dim * sizeof(float); offset += 64) __builtin_prefetch(bytes + offset);
}

// What one thread needs for a query after another.
struct Scratch {
  Walker walker;
  FilteredWalker filtered;
  std::vector<std::uint8_t> code;
  std::vector<std::uint32_t> rows;  // to be scored, nearest first by their codes
  bool stuck;
};

class Search {
 public:
  Search(const Kernels& kernels, const GraphSearch& task) : kernels_(kernels), task_(task) {}

  Damage run() {
    const std::size_t workers =
        std::clamp<std::size_t>(task_.n_queries / 4, 1, std::max<std::size_t>(task_.threads, 1));
    run_threads(workers, [this](std::size_t) { work(); });
    return damage_;
  }

 private:
  void work() {
    // Kept between calls: the set of visited nodes is as large as the graph and clean after each walk.
    thread_local Scratch scratch;
    for (;;) {
      const std::size_t i = next_.fetch_add(1);
      if (i >= task_.n_queries || stopped_.load(std::memory_order_relaxed)) return;
      if (!one(i, scratch)) return;
    }
  }

  bool one(std::size_t i, Scratch& scratch) {
    const float* const query = task_.queries + i * task_.dim;
    scratch.code.resize(task_.graph.codes.stride);
    std::uint8_t* const code = scratch.code.data();
    QueryCode coded{code};
    if (task_.metric == Metric::kDot) {
      coded.offset = encode_direction(*task_.model, query, task_.dim, code);
    } else {
      encode_query(*task_.model, task_.graph.codes.sum == CodeSum::kDot, query, task_.dim, code);
    }
    if (!(task_.filtered ? walk_matches(i, coded, scratch) : walk_all(i, coded, scratch))) return false;
    const std::vector<std::uint32_t>& rows = scratch.rows;
    constexpr std::size_t kAhead = 4;
    for (std::size_t j = 0; j < std::min(rows.size(), kAhead); ++j) prefetch_row(vector(rows[j]), task_.dim);
    const double norm2 = kernels_.norm2(query, task_.dim);
    TopK nearest(task_.k);
    for (std::size_t j = 0; j < rows.size(); ++j) {
      if (j + kAhead < rows.size()) prefetch_row(vector(rows[j + kAhead]), task_.dim);
      const std::size_t row = rows[j];
      std::size_t block = 0;
      if (!verified(row, &block)) return report(3, block);
      const double distance = kernels_.canonical(task_.metric, query, norm2, vector(row), task_.dim);
      if (distance > task_.max_distance) continue;
      const auto number = static_cast<std::int64_t>(row);
      nearest.offer({distance, number, number});
    }
    std::vector<Hit> hits = nearest.hits();
    task_.out_counts[i] = static_cast<std::int64_t>(write_smallest(
        hits, task_.k, task_.width, task_.out_rows + i * task_.width, task_.out_distances + i * task_.width));
    task_.out_visited[2 * i + 1] = scratch.stuck ? 0 : static_cast<std::int64_t>(rows.size());
    return true;
  }

  // A walk over all nodes; those that pass the mask are picked out of its pool.
  bool walk_all(std::size_t i, const QueryCode& coded, Scratch& scratch) {
    Walker& walker = scratch.walker;
    if (!walker.walk(kernels_, task_.graph, task_.blocks, coded, task_.breadth)) {
      return report(walker.damaged_table == task_.blocks.codes ? 1 : 2, walker.damaged_block);
    }
    scratch.rows.clear();
    for (std::size_t j = 0; j < walker.size() && scratch.rows.size() < task_.scored; ++j) {
      const std::uint32_t row = walker.at(j).node;
      if (allowed(task_.mask, row)) scratch.rows.push_back(row);
    }
    task_.out_visited[2 * i] = static_cast<std::int64_t>(walker.scored());
    // A pool full of equal keys may be a group of equal vectors that the walk could not leave: the caller is
    // told that nothing was found.
    scratch.stuck = walker.size() > 1 && walker.size() == std::min(task_.breadth, task_.graph.codes.n) &&
                    walker.at(0).key == walker.at(walker.size() - 1).key;
    return true;
  }

  // A walk over the nodes that pass the mask.
  bool walk_matches(std::size_t i, const QueryCode& coded, Scratch& scratch) {
    FilteredWalker& walker = scratch.filtered;
    if (!walker.walk(kernels_, task_.graph, task_.blocks, coded, task_.breadth, task_.mask)) {
      return report(walker.damaged_table == task_.blocks.codes ? 1 : 2, walker.damaged_block);
    }
    scratch.rows.clear();
    for (std::size_t j = 0; j < std::min(walker.size(), task_.scored); ++j) {
      scratch.rows.push_back(walker.node(j));
    }
    task_.out_visited[2 * i] = static_cast<std::int64_t>(walker.scored());
    scratch.stuck =
        walker.size() > 1 && walker.size() == task_.breadth && walker.key(0) == walker.key(walker.size() - 1);
    return true;
  }

  const float* vector(std::size_t row) const { return task_.vectors + row * task_.dim; }

  bool verified(std::size_t row, std::size_t* bad) const {
    if (task_.vector_blocks == nullptr) return true;
    const std::size_t begin = row * task_.dim * sizeof(float);
    const std::size_t last = begin + task_.dim * sizeof(float) - 1;
    for (*bad = begin / kBlockBytes; *bad <= last / kBlockBytes; ++*bad) {
      if (!task_.vector_blocks->verify(*bad)) return false;
    }
    return true;
  }

  bool report(int part, std::size_t block) {
    const std::lock_guard lock(mutex_);
    if (damage_.part == 0) damage_ = {part, block};
    stopped_.store(true, std::memory_order_relaxed);
    return false;
  }

  const Kernels& kernels_;
  const GraphSearch& task_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  Damage damage_;
};

}  // namespace

Damage search_graph(const Kernels& kernels, const GraphSearch& search) {
  return Search(kernels, search).run();
}

}  // namespace iqdb
