// The hits that the threads of an exact search have so far, and the limits that follow from them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "search.hpp"
#include "threads.hpp"
#include "topk.hpp"

namespace iqdb {

// For each query the smallest full heap's worst distance: no thread needs a row beyond it.
class SharedLimits {
 public:
  SharedLimits(std::size_t n_queries, double max_distance)
      : limits_(std::make_unique<std::atomic<double>[]>(n_queries)) {
    for (std::size_t i = 0; i < n_queries; ++i) limits_[i].store(max_distance, std::memory_order_relaxed);
  }

  double of(std::size_t query) const { return limits_[query].load(std::memory_order_relaxed); }

  void lower(std::size_t query, double distance) {
    double known = limits_[query].load(std::memory_order_relaxed);
    while (distance < known &&
           !limits_[query].compare_exchange_weak(known, distance, std::memory_order_relaxed)) {
    }
  }

 private:
  std::unique_ptr<std::atomic<double>[]> limits_;
};

// Offers a row at its canonical distance to a thread's heap for a query. True when the heap took it and is
// full, so that the query's limit may have fallen.
inline bool offer_row(const SearchTask& task, TopK& heap, SharedLimits& limits, std::size_t query,
                      std::size_t row, double distance) {
  if (distance > task.max_distance) return false;
  const auto number = static_cast<std::int64_t>(row);
  const Hit hit = {distance, task.tie_keys != nullptr ? task.tie_keys[row] : number, number};
  if (heap.full() && !(hit < heap.worst())) return false;
  heap.offer(hit);
  if (!heap.full()) return false;
  limits.lower(query, heap.worst().distance);
  return true;
}

// Writes the nearest of what all workers' heaps hold of queries first..first+count. A worker has heap(query).
template <class Worker>
void write_nearest(const SearchTask& task, const std::vector<std::unique_ptr<Worker>>& workers,
                   std::size_t first, std::size_t count, std::size_t threads) {
  std::atomic<std::size_t> next{0};
  const bool heavy = count * task.k > 100'000;
  run_threads(heavy ? threads : 1, [&](std::size_t) {
    std::vector<Hit> hits;
    for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      hits.clear();
      for (const auto& worker : workers) {
        if (worker == nullptr) continue;
        const std::vector<Hit>& found = worker->heap(i).hits();
        hits.insert(hits.end(), found.begin(), found.end());
      }
      const std::size_t slot = (first + i) * task.width;
      const std::size_t written =
          write_smallest(hits, task.k, task.width, task.rows + slot, task.distances + slot);
      task.counts[first + i] = static_cast<std::int64_t>(written);
    }
  });
}

}  // namespace iqdb
