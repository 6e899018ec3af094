// Exact search: the k nearest rows of every query, in one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "checksum.hpp"
#include "metric.hpp"

namespace iqdb {

struct SearchTask {
  const float* vectors;  // [n][dim]
  std::size_t n;
  std::size_t dim;
  const float* queries;  // [n_queries][dim]
  std::size_t n_queries;
  Metric metric;
  std::size_t k;                            // at most n
  const std::uint8_t* mask = nullptr;       // ceil(n / 8) bytes, or all rows
  const std::int64_t* tie_keys = nullptr;   // [n], or the row numbers
  const BlockTable* block_table = nullptr;  // checksums of `vectors`, or none
  double max_distance = std::numeric_limits<double>::infinity();
  std::size_t threads = 1;

  std::size_t width;     // slots of a query in the outputs, at least k
  std::int64_t* rows;    // [n_queries][width]
  double* distances;     // [n_queries][width]
  std::int64_t* counts;  // [n_queries]
};

// Fills the outputs and returns -1, or returns the number of a damaged block that holds a candidate,
// and the outputs mean nothing. The result does not depend on threads, variant or batch.
std::int64_t search(const SearchTask& task);

}  // namespace iqdb
