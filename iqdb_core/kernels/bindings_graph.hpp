// What the bindings that build graphs and those that search them have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "bindings_codes.hpp"
#include "buffers.hpp"
#include "codes.hpp"
#include "graph.hpp"

namespace iqdb {

inline Metric graph_metric(int number) {
  return number == static_cast<int>(Metric::kHamming) ? Metric::kHamming : coded_metric(number);
}

// Codes, and the lengths that all but those of a bit a component have, held for as long as the kernels read
// them.
class NodeCodes {
 public:
  NodeCodes(Metric metric, BufferArg codes, const std::optional<BufferArg>& lengths)
      : codes_(codes, "codes") {
    const bool bits = metric == Metric::kHamming;
    if (codes_.ndim() != 2 || codes_.shape(1) == 0 || codes_.shape(1) % (bits ? 8 : kCodeAlign) != 0) {
      codes_.fail(bits ? "must be a 2-D buffer with rows of a multiple of 8 bytes"
                       : "must be a 2-D buffer with rows of a multiple of 32 bytes");
    }
    const std::size_t n = codes_.shape(0);
    if (n > kMaxNodes) codes_.fail("has more rows than a graph can number");
    if (bits != !lengths) {
      throw nanobind::value_error(bits ? "bits have no lengths" : "lengths are needed with codes");
    }
    if (lengths) lengths_.emplace(*lengths, "lengths").expect_size(n);
    view_ = {bits ? CodeSum::kBitsThatDiffer : sum_of(metric),
             codes_.data(),
             lengths_ ? lengths_->data() : nullptr,
             nullptr,
             n,
             codes_.shape(1)};
  }
  const Codes& view() const { return view_; }
  std::size_t size() const { return codes_.size(); }
  [[noreturn]] void fail(const std::string& problem) const { codes_.fail(problem); }

 private:
  Buffer<const std::uint8_t> codes_;
  std::optional<Buffer<const std::int32_t>> lengths_;
  Codes view_{};
};

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
