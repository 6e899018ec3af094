// What the bindings of graphs and of lists have in common: code models, and blocks to be verified.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <tuple>

#include "buffers.hpp"
#include "checksum.hpp"
#include "code_table.hpp"
#include "codes.hpp"
#include "metric.hpp"

namespace iqdb {

inline Metric coded_metric(int number) {
  if (number < 0 || number > static_cast<int>(Metric::kManhattan)) {
    throw nanobind::value_error(("metric has no codes: " + std::to_string(number)).c_str());
  }
  return static_cast<Metric>(number);
}

inline CodeSum sum_of(Metric metric) {
  return metric == Metric::kManhattan ? CodeSum::kAbsoluteDifference : CodeSum::kDot;
}

// A model is one f64 array, as it is stored: unit_length (0 or 1), scale, norm_unit, then the means.
inline constexpr std::size_t kModelHead = 3;

inline CodeModel model_of(const Buffer<const double>& model, std::size_t dim) {
  model.expect_at_least(kModelHead);
  const double* const p = model.data();
  for (std::size_t i = 0; i < model.size(); ++i) {
    // Means are used as f32, and what is finite as f64 may not be so as f32.
    if (!(std::abs(p[i]) <= (i < kModelHead ? std::numeric_limits<double>::max()
                                            : double{std::numeric_limits<float>::max()}))) {
      model.fail("must be finite");
    }
  }
  CodeModel out{p[0] != 0.0, p[1], p[2], {}};
  if (out.scale <= 0.0 || out.norm_unit <= 0.0) model.fail("must have a positive scale and unit");
  model.expect_size(kModelHead + dim);
  for (std::size_t i = kModelHead; i < model.size(); ++i) out.mean.push_back(static_cast<float>(p[i]));
  return out;
}

inline std::size_t dim_of(const Buffer<const float>& vectors) {
  if (vectors.ndim() != 2 || vectors.shape(1) == 0)
    vectors.fail("must be a 2-D buffer with at least 1 column");
  return vectors.shape(1);
}

// Blocks of a buffer that must be verified before use: (crcs, verified, prefix), or nothing.
using BlocksArg = std::optional<std::tuple<BufferArg, BufferArg, std::uint32_t>>;

class Blocks {
 public:
  Blocks(const BlocksArg& argument, const void* data, std::size_t bytes) {
    if (!argument) return;
    const auto& [crcs_arg, verified_arg, prefix] = *argument;
    crcs_.emplace(crcs_arg, "crcs");
    verified_.emplace(verified_arg, "verified");
    table_ = BlockTable{.data = {static_cast<const std::uint8_t*>(data), bytes},
                        .crcs = {crcs_->data(), crcs_->size()},
                        .verified = verified_->data(),
                        .prefix = prefix};
    crcs_->expect_size(table_->blocks());
    verified_->expect_size(table_->blocks());
  }
  const BlockTable* get() const { return table_ ? &*table_ : nullptr; }

 private:
  std::optional<Buffer<const std::uint32_t>> crcs_;
  std::optional<Buffer<std::uint8_t>> verified_;
  std::optional<BlockTable> table_;
};

}  // namespace iqdb
