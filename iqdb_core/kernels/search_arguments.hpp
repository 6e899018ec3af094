// What every search takes from Python beside its index: queries, limits, and the arrays that receive the
// hits. All searches refuse the same mistakes in the same words.
#pragma once

#include <nanobind/nanobind.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "bindings.hpp"
#include "buffers.hpp"

namespace iqdb {

// Create and destroy it while holding the GIL. Whatever a task was given is valid as long as this is.
class SearchArguments {
 public:
  SearchArguments(BufferArg queries, BufferArg rows, BufferArg distances, BufferArg counts,
                  const std::optional<BufferArg>& mask, std::int64_t threads, double max_distance)
      : queries_(queries, "queries"),
        rows_(rows, "out_rows"),
        distances_(distances, "out_distances"),
        counts_(counts, "out_counts"),
        threads_(at_least_one(threads, "threads")),
        max_distance_(max_distance) {
    if (mask) mask_.emplace(*mask, "mask");
    if (std::isnan(max_distance)) throw nanobind::value_error("max_distance must not be NaN");
  }

  const Buffer<const float>& queries() const { return queries_; }

  // Fills in all that these arguments say of a search for the task's k nearest of n rows.
  template <class Task>
  void give(std::size_t n, std::size_t dim, Task& task) const {
    task.queries = queries_.data();
    task.n_queries = queries_.rows(dim);
    if (mask_) task.mask = mask_->expect_at_least(n / 8 + (n % 8 != 0)).data();
    task.max_distance = max_distance_;
    task.threads = threads_;
    counts_.expect_size(task.n_queries);
    distances_.expect_size(rows_.size());
    task.width = task.n_queries == 0 ? 0 : rows_.size() / task.n_queries;
    if (task.width * task.n_queries != rows_.size() || (task.width < task.k && task.n_queries != 0)) {
      rows_.fail("must have at least " + std::to_string(task.k) + " slots for each of " +
                 std::to_string(task.n_queries) + " queries, found " + std::to_string(rows_.size()));
    }
    task.rows = rows_.data();
    task.distances = distances_.data();
    task.counts = counts_.data();
  }

 private:
  Buffer<const float> queries_;
  Buffer<std::int64_t> rows_;
  Buffer<double> distances_;
  Buffer<std::int64_t> counts_;
  std::optional<Buffer<const std::uint8_t>> mask_;
  std::size_t threads_;
  double max_distance_;
};

}  // namespace iqdb
