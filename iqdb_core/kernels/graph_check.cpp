#include "graph_check.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "graph.hpp"
#include "threads.hpp"

namespace iqdb {
namespace {

constexpr std::size_t kNodesAtOnce = 4096;

void add(GraphFaults* faults, GraphFault fault, std::size_t node) {
  const auto kind = static_cast<std::size_t>(fault);
  if (faults->count[kind]++ == 0) faults->first_node[kind] = node;
}

void check_node(const std::uint32_t* links, std::size_t node, std::size_t n, std::size_t degree,
                GraphFaults* faults) {
  bool ended = false;
  for (std::size_t i = 0; i < degree; ++i) {
    const std::uint32_t link = links[i];
    if (link == kNoNode) {
      ended = true;
      continue;
    }
    if (ended) add(faults, GraphFault::kHole, node);
    if (link >= n) {
      add(faults, GraphFault::kForeign, node);
    } else if (link == node) {
      add(faults, GraphFault::kSelf, node);
    } else {
      bool again = false;
      for (std::size_t j = 0; j < i; ++j) again |= links[j] == link;
      if (again) add(faults, GraphFault::kTwice, node);
    }
  }
}

void merge(const GraphFaults& part, GraphFaults* all) {
  for (std::size_t kind = 0; kind < kGraphFaults; ++kind) {
    if (part.count[kind] == 0) continue;
    const std::size_t node = part.first_node[kind];
    all->first_node[kind] = all->count[kind] == 0 ? node : std::min(all->first_node[kind], node);
    all->count[kind] += part.count[kind];
  }
}

// Breadth first: what a walk with a pool of any size could come to.
void reach(const std::uint32_t* links, std::size_t n, std::size_t degree,
           std::span<const std::uint32_t> entries, GraphFaults* faults) {
  std::vector<bool> seen(n);
  std::vector<std::uint32_t> queue;
  queue.reserve(n);
  const auto visit = [&](std::uint32_t node) {
    if (node < n && !seen[node]) {
      seen[node] = true;
      queue.push_back(node);
    }
  };
  for (const std::uint32_t entry : entries) visit(entry);
  constexpr std::size_t kAhead = 8;
  for (std::size_t at = 0; at < queue.size(); ++at) {
    if (at + kAhead < queue.size()) __builtin_prefetch(links + queue[at + kAhead] * degree);
    const std::uint32_t* const of = links + queue[at] * degree;
    for (std::size_t i = 0; i < degree; ++i) visit(of[i]);
  }
  faults->unreachable = n - queue.size();
  if (faults->unreachable == 0) return;
  faults->first_unreachable =
      static_cast<std::size_t>(std::find(seen.begin(), seen.end(), false) - seen.begin());
}

}  // namespace

GraphFaults check_graph(const std::uint32_t* links, std::size_t n, std::size_t degree,
                        std::span<const std::uint32_t> entries, std::size_t threads) {
  GraphFaults faults;
  std::mutex guard;
  std::atomic<std::size_t> next{0};
  run_threads(std::min(threads, n / kNodesAtOnce + 1), [&](std::size_t) {
    GraphFaults part;
    for (std::size_t start = next.fetch_add(kNodesAtOnce); start < n; start = next.fetch_add(kNodesAtOnce)) {
      const std::size_t stop = std::min(start + kNodesAtOnce, n);
      for (std::size_t node = start; node < stop; ++node) {
        check_node(links + node * degree, node, n, degree, &part);
      }
    }
    const std::lock_guard<std::mutex> held(guard);
    merge(part, &faults);
  });
  reach(links, n, degree, entries, &faults);
  return faults;
}

}  // namespace iqdb
