#include "graph_search.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>

#include "bits.hpp"
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

using Candidate = Walker::Candidate;

// What one thread needs for a query after another.
struct Scratch {
  Walker walker;
  FilteredWalker filtered;
  std::vector<std::uint8_t> code;
  std::vector<Candidate> chosen;  // rows to be scored, nearest first by their codes
  std::vector<std::uint32_t> nodes;
  std::vector<std::int32_t> keys;
  std::vector<Hit> hits;
  bool stuck;
};

// See Search::choose. Four and a half standard deviations of the rounding of two rows' codes, and as much
// again for components that were limited: 0.05% of them are, so that one row in thirty has one in 100
// dimensions.
constexpr double kRounding = 7.0;

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
    QueryCode coded{};
    if (!encode(query, scratch, &coded)) return give_up(i, scratch);
    if (!(task_.filtered ? walk_matches(i, coded, scratch) : walk_all(i, coded, scratch))) return false;

    const std::vector<Candidate>& chosen = scratch.chosen;
    const std::size_t row_bytes = task_.dim * sizeof(float);
    for (const Candidate& row : chosen) {
      if (task_.vector_blocks != nullptr) task_.vector_blocks->ask_for(row.node * row_bytes, row_bytes);
      __builtin_prefetch(vector(row.node));
    }
    constexpr std::size_t kAhead = 3;
    for (std::size_t j = 0; j < std::min(chosen.size(), kAhead); ++j)
      prefetch_row(vector(chosen[j].node), task_.dim);
    const double norm2 = kernels_.norm2(query, task_.dim);
    std::vector<Hit>& hits = scratch.hits;
    hits.clear();
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      if (j + kAhead < chosen.size()) prefetch_row(vector(chosen[j + kAhead].node), task_.dim);
      const std::size_t row = chosen[j].node;
      std::size_t block = 0;
      if (!verified(row, &block)) return report(3, block);
      const double distance = kernels_.canonical(task_.metric, query, norm2, vector(row), task_.dim);
      if (distance > task_.max_distance) continue;
      const auto number = static_cast<std::int64_t>(row);
      hits.push_back({distance, number, number});
    }
    task_.counts[i] = static_cast<std::int64_t>(write_smallest(
        hits, task_.k, task_.width, task_.rows + i * task_.width, task_.distances + i * task_.width));
    task_.visited[2 * i + 1] = scratch.stuck ? 0 : static_cast<std::int64_t>(chosen.size());
    return true;
  }

  // False when the codes of rows say too little about their distances to the query.
  bool encode(const float* query, Scratch& scratch, QueryCode* coded) const {
    const Codes& codes = task_.graph.codes;
    scratch.code.resize(codes.stride);
    coded->bytes = scratch.code.data();
    if (task_.metric == Metric::kHamming) {
      const BitQuery bits = encode_bit_query(task_.values, query, task_.dim);
      std::memcpy(scratch.code.data(), bits.code.data(), codes.stride);
      return bits.foreign == 0;
    }
    if (task_.metric == Metric::kDot) {
      coded->offset = encode_direction(*task_.model, query, task_.dim, scratch.code.data());
    } else {
      encode_query(*task_.model, codes.sum == CodeSum::kDot, query, task_.dim, scratch.code.data());
    }
    return true;
  }

  // Nothing was found for the query: the caller has to scan.
  bool give_up(std::size_t i, Scratch& scratch) {
    scratch.hits.clear();
    task_.counts[i] = static_cast<std::int64_t>(write_smallest(
        scratch.hits, task_.k, task_.width, task_.rows + i * task_.width, task_.distances + i * task_.width));
    task_.visited[2 * i] = task_.visited[2 * i + 1] = 0;
    return true;
  }

  // A walk over all nodes; those that pass the mask are picked out of its pool.
  bool walk_all(std::size_t i, const QueryCode& coded, Scratch& scratch) {
    Walker& walker = scratch.walker;
    const std::size_t n = task_.graph.codes.n;
    if (!walker.walk(kernels_, task_.graph, task_.blocks, coded, task_.breadth)) return report(walker);
    task_.visited[2 * i] = static_cast<std::int64_t>(walker.scored());
    // A pool full of equal keys may be a group of equal vectors that the walk could not leave: the caller is
    // told that nothing was found.
    scratch.stuck = walker.size() > 1 && walker.size() == std::min(task_.breadth, n) &&
                    walker.at(0).key == walker.at(walker.size() - 1).key;
    return choose(coded, scratch) || report(walker);
  }

  // A walk over the nodes that pass the mask, by their codes.
  bool walk_matches(std::size_t i, const QueryCode& coded, Scratch& scratch) {
    FilteredWalker& walker = scratch.filtered;
    if (!walker.walk(kernels_, task_.graph, task_.blocks, coded, task_.breadth, task_.mask))
      return report(walker);
    scratch.chosen.clear();
    for (std::size_t j = 0; j < std::min(walker.size(), task_.scored); ++j) {
      scratch.chosen.push_back({walker.key(j), walker.node(j)});
    }
    task_.visited[2 * i] = static_cast<std::int64_t>(walker.scored());
    scratch.stuck =
        walker.size() > 1 && walker.size() == task_.breadth && walker.key(0) == walker.key(walker.size() - 1);
    return true;
  }

  // Of what the walk found, the rows to score by their vectors: the nearest that pass the mask. False when a
  // block of codes is damaged.
  bool choose(const QueryCode& coded, Scratch& scratch) {
    Walker& walker = scratch.walker;
    const Codes& codes = task_.graph.codes;
    const bool is_coarse = codes.coarse != nullptr;
    // Coarse codes order near rows less well: codes choose among some more.
    const std::size_t wanted = is_coarse ? task_.scored + task_.k : task_.scored;
    std::vector<Candidate>& chosen = scratch.chosen;
    chosen.clear();
    for (std::size_t j = 0; j < walker.size() && chosen.size() < wanted; ++j) {
      const Candidate found = walker.at(j);
      if (!allowed(task_.mask, found.node)) continue;
      // One line of each row that is nearly certain to be scored: pages of vectors are far apart, and finding
      // them takes longest.
      if (chosen.size() < task_.k) __builtin_prefetch(vector(found.node));
      chosen.push_back(found);
    }
    if (is_coarse) {
      scratch.nodes.clear();
      if (task_.blocks.codes != nullptr) {
        for (const Candidate& found : chosen)
          task_.blocks.codes->ask_for(found.node * codes.stride, codes.stride);
      }
      for (const Candidate& found : chosen) {
        if (!walker.verify(task_.blocks.codes, found.node * codes.stride, codes.stride)) return false;
        scratch.nodes.push_back(found.node);
      }
      scratch.keys.resize(scratch.nodes.size());
      Walker::keys(kernels_, codes, coded, scratch.nodes, scratch.keys.data());
      for (std::size_t j = 0; j < chosen.size(); ++j) chosen[j].key = scratch.keys[j];
      std::sort(chosen.begin(), chosen.end(), [](const Candidate& x, const Candidate& y) {
        return x.key != y.key ? x.key < y.key : x.node < y.node;
      });
      chosen.resize(std::min(chosen.size(), task_.scored));
    }
    if (codes.sum != CodeSum::kDot || codes.norms != nullptr || chosen.size() <= task_.k) return true;
    // Rounding moves a squared distance d2 of codes by about 0.8 sqrt(d2): rows beyond the k-th by many times
    // that are not looked at.
    std::int64_t d2 = chosen[task_.k - 1].key;
    const std::int64_t last = d2;
    const auto* const bytes = reinterpret_cast<const std::int8_t*>(coded.bytes);
    for (std::size_t j = 0; j < codes.stride; ++j) d2 += std::int64_t{bytes[j]} * bytes[j];
    const double margin = kRounding * std::sqrt(static_cast<double>(std::max<std::int64_t>(d2, 1)));
    std::size_t kept = task_.k;
    while (kept < chosen.size() && static_cast<double>(chosen[kept].key - last) <= margin) ++kept;
    chosen.resize(kept);
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

  template <class AnyWalker>
  bool report(const AnyWalker& walker) {
    const int part = walker.damaged_table == task_.blocks.codes    ? 1
                     : walker.damaged_table == task_.blocks.coarse ? 4
                                                                   : 2;
    return report(part, walker.damaged_block);
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
