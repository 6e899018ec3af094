#include "graph_check.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <vector>

#include "graph.hpp"
#include "threads.hpp"

namespace iqdb {
namespace {

constexpr std::size_t kNodesAtOnce = 4096;
constexpr std::size_t kSeenLog2 = 10;
constexpr std::size_t kSeenBits = std::size_t{1} << kSeenLog2;

void add(GraphFaults* faults, GraphFault fault, std::size_t node) {
  const auto kind = static_cast<std::size_t>(fault);
  if (faults->count[kind]++ == 0) faults->first_node[kind] = node;
}

void check_node(const std::uint32_t* links, std::size_t node, std::size_t n, std::size_t degree,
                GraphFaults* faults) {
  // A bit for what links hash to: only where it is set can an earlier link be the same.
  std::array<std::uint64_t, kSeenBits / 64> seen{};
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
      const std::uint32_t hash = link * 0x9e3779b1U >> (32 - kSeenLog2);
      const std::uint64_t bit = std::uint64_t{1} << (hash % 64);
      bool again = false;
      if ((seen[hash / 64] & bit) != 0) {
        for (std::size_t j = 0; j < i; ++j) again |= links[j] == link;
      }
      seen[hash / 64] |= bit;
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
  std::vector<std::uint64_t> seen(n / 64 + 1);
  // Every node is written behind the last one and stays if it is new: whether it is cannot be foreseen, so
  // that a branch would cost more.
  std::vector<std::uint32_t> queue(n + 1);
  std::size_t end = 0;
  const auto visit = [&](std::uint32_t node) {
    if (node >= n) return;
    std::uint64_t& word = seen[node / 64];
    const std::uint64_t bit = std::uint64_t{1} << (node % 64);
    queue[end] = node;
    end += (word & bit) == 0;
    word |= bit;
  };
  for (const std::uint32_t entry : entries) visit(entry);
  constexpr std::size_t kAhead = 8;
  for (std::size_t at = 0; at < end; ++at) {
    if (at + kAhead < end) __builtin_prefetch(links + queue[at + kAhead] * degree);
    const std::uint32_t* const of = links + queue[at] * degree;
    for (std::size_t i = 0; i < degree; ++i) visit(of[i]);
  }
  faults->unreachable = n - end;
  if (faults->unreachable == 0) return;
  const auto reached = [&](std::size_t node) { return (seen[node / 64] >> (node % 64) & 1) != 0; };
  while (reached(faults->first_unreachable)) ++faults->first_unreachable;
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
