// What the bindings that build graphs and those that search them have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "bindings_codes.hpp"
#include "buffers.hpp"
#include "codes.hpp"
#include "graph.hpp"

namespace iqdb {

// Codes and lengths as the kernels take them.
inline Codes codes_of(Metric metric, const Buffer<const std::uint8_t>& codes,
                      const Buffer<const std::int32_t>& lengths) {
  if (codes.ndim() != 2 || codes.shape(1) == 0 || codes.shape(1) % kCodeAlign != 0) {
    codes.fail("must be a 2-D buffer with rows of a multiple of 32 bytes");
  }
  const std::size_t n = codes.shape(0);
  if (n > kMaxNodes) codes.fail("has more rows than a graph can number");
  lengths.expect_size(n);
  return {sum_of(metric), codes.data(), lengths.data(), nullptr, n, codes.shape(1)};
}

inline std::size_t degree_of(const Buffer<const std::uint32_t>& links, std::size_t n) {
  if (links.ndim() != 2 || links.shape(0) != n) links.fail("must be a 2-D buffer with a row for every code");
  if (links.shape(1) == 0 || links.shape(1) > kMaxDegree) links.fail("has a degree that is not supported");
  return links.shape(1);
}

// Coarse codes of all nodes, where there are any, held for as long as the kernels read them.
class CoarseCodes {
 public:
  CoarseCodes(const std::optional<BufferArg>& coarse, const std::optional<BufferArg>& lengths, Codes& codes) {
    if (!coarse) return;
    if (!lengths) throw nanobind::value_error("coarse_lengths are needed with coarse codes");
    coarse_.emplace(*coarse, "coarse").expect_size(codes.n * coarse_stride(codes.stride));
    lengths_.emplace(*lengths, "coarse_lengths").expect_size(codes.n);
    codes.coarse = coarse_->data();
    codes.coarse_lengths = lengths_->data();
  }
  std::size_t size() const { return coarse_ ? coarse_->size() : 0; }

 private:
  std::optional<Buffer<const std::uint8_t>> coarse_;
  std::optional<Buffer<const std::int32_t>> lengths_;
};

}  // namespace iqdb
