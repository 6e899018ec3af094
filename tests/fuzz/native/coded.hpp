// What searches over codes have in common: a model, vectors, queries and outputs of any content.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "codes.hpp"
#include "dispatch.hpp"
#include "metric.hpp"

inline void choose_variant(FuzzedDataProvider& feed) {
  static const std::vector<std::string> variants = iqdb::variant_names();
  iqdb::select_variant(variants[feed.ConsumeIntegral<std::uint8_t>() % variants.size()]);
}

// As a file may have it, within what opening checks: scale and unit are positive and finite.
inline iqdb::CodeModel model_of(FuzzedDataProvider& feed, std::size_t dim) {
  iqdb::CodeModel model{
      feed.ConsumeBool(), feed.ConsumeFloatingPoint<double>(), feed.ConsumeFloatingPoint<double>(), {}};
  if (!(model.scale > 0) || !std::isfinite(model.scale)) model.scale = 10;
  if (!(model.norm_unit > 0) || !std::isfinite(model.norm_unit)) model.norm_unit = 1;
  for (std::size_t i = 0; i < dim; ++i) model.mean.push_back(feed.ConsumeFloatingPoint<float>());
  return model;
}

// Queries are checked before a search: they are finite.
inline void make_finite(const Array<float>& items) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!std::isfinite(items[i])) items[i] = 1;
  }
}

// The rows of each query are rows, and none comes twice.
inline void check_rows(const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& counts,
                       std::size_t width, std::size_t n) {
  for (std::size_t query = 0; query < counts.size(); ++query) {
    MUST(counts[query] >= 0 && counts[query] <= static_cast<std::int64_t>(width));
    std::vector<bool> seen(n);
    for (std::int64_t i = 0; i < counts[query]; ++i) {
      const std::int64_t row = rows[query * width + static_cast<std::size_t>(i)];
      MUST(row >= 0 && row < static_cast<std::int64_t>(n));
      MUST(!seen[static_cast<std::size_t>(row)]);
      seen[static_cast<std::size_t>(row)] = true;
    }
  }
}

// What a search fills.
struct Found {
  Found(std::size_t n_queries, std::size_t width)
      : rows(n_queries * width, -1), distances(n_queries * width), counts(n_queries) {}

  std::vector<std::int64_t> rows;
  std::vector<double> distances;
  std::vector<std::int64_t> counts;

  template <class Task>
  void take(Task* task) {
    task->rows = rows.data();
    task->distances = distances.data();
    task->counts = counts.data();
  }

  // The same rows and distances, bit for bit.
  void must_be(const Found& other, std::size_t width) const {
    for (std::size_t query = 0; query < counts.size(); ++query) {
      MUST(counts[query] == other.counts[query]);
      for (std::size_t i = query * width; i < query * width + counts[query]; ++i) {
        MUST(rows[i] == other.rows[i]);
        MUST(std::memcmp(&distances[i], &other.distances[i], sizeof(double)) == 0);
      }
    }
  }
};
