// How vectors become codes of one byte a component.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "code_table.hpp"
#include "metric.hpp"

namespace iqdb {

// A code c stands for the component (c - 64) / scale + mean. Seven bits: a pair of products of a code and a
// signed byte then fits the 16 bits of vpmaddubsw, so that every CPU computes the same exact sums.
inline constexpr int kCodeCentre = 64;
inline constexpr int kCodeReach = 63;
inline constexpr std::size_t kCodeAlign = 32;  // bytes; a code is padded with kCodeCentre

// The mapping from components to codes.
struct CodeModel {
  bool unit_length;  // vectors are scaled to length 1 first (cosine, inner product)
  double scale;
  double norm_unit;  // lengths of rows are stored as multiples of it, so that they are moderate numbers
  std::vector<float> mean;  // [dim]
};

constexpr std::size_t code_stride(std::size_t dim) {
  return (dim + kCodeAlign - 1) / kCodeAlign * kCodeAlign;
}

// Means and scale from a fixed sample of rows: the same rows give the same model. The codes reach over
// 99.95% of the sample's components; what lies beyond is clipped.
CodeModel train_codes(Metric metric, const float* rows, std::size_t n, std::size_t dim);

// codes[n][stride], and per row the sum of squares of its code and, where asked for, |x| / norm_unit and the
// terms p and r of code_bounds.hpp, bounds[2][n].
void encode_rows(const CodeModel& model, const float* rows, std::size_t n, std::size_t dim,
                 std::uint8_t* codes, std::int32_t* lengths, float* norms, float* bounds,
                 std::size_t threads);

// A coarse code keeps the upper four bits h of each code; h stands for the code 8 h + 4. Walks read these, in
// half the bytes: of what a walk meets, all but a few nodes only have to be known to be too far away.
inline constexpr std::size_t kCoarseGroup = 64;  // components in a group of 32 bytes, see CoarseTask

constexpr std::size_t coarse_stride(std::size_t stride) {
  return (stride + kCoarseGroup - 1) / kCoarseGroup * (kCoarseGroup / 2);
}

// coarse[n][coarse_stride(stride)], and per row the sum of squares of what it stands for.
void coarsen_codes(const std::uint8_t* codes, std::size_t n, std::size_t stride, std::uint8_t* coarse,
                   std::int32_t* lengths, std::size_t threads);

// A query as a code: int8 where `is_signed`, for sums of products, else uint8.
void encode_query(const CodeModel& model, bool is_signed, const float* query, std::size_t dim,
                  std::uint8_t* code);

// A query whose inner products with the rows are asked for, as int8 with a scale of its own. Returns what to
// add to the sum with a row's code, before it is multiplied by the row's norm.
std::int64_t encode_direction(const CodeModel& model, const float* query, std::size_t dim,
                              std::uint8_t* code);

}  // namespace iqdb
