// Sums of many codes with many, or of one with a run of codes: what lists are trained and scanned with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "code_table.hpp"

namespace iqdb {

// Rows that a tile takes at once, and centroids whose number a panel is a multiple of.
inline constexpr std::size_t kCodeTileRows = 64;
inline constexpr std::size_t kCodePanelLanes = 16;

// Up to kCodeTileRows codes against a panel of centroids, kDot or kAbsoluteDifference.
//
// For kDot a panel holds centroids less kCodeCentre, int8 in -63..63, and the key of a pair is
// terms[centroid] less twice the sum of products; else it holds codes, and the key is the sum added to the
// term. See ClusterPanel.
struct ListTileTask {
  const std::uint8_t* const* rows;  // [n_rows], padded with valid pointers to a multiple of 4
  std::size_t n_rows;
  std::size_t stride;  // bytes a code, a multiple of 32
  const std::uint8_t* panel;
  std::size_t lanes;          // centroids, a multiple of kCodePanelLanes
  const std::int32_t* terms;  // [lanes]
  std::int32_t* best_keys;    // [n_rows]
  std::uint32_t* best;        // [n_rows] the lane with the smallest key, the first of equals
};

// sums[i] = the sum of the query's code and code i, kDot or kAbsoluteDifference.
struct ListScanTask {
  const std::uint8_t* codes;  // [n][stride]
  std::size_t stride;         // a multiple of 32
  std::size_t n;
  const void* query;  // [stride]: int8 for kDot, uint8 for kAbsoluteDifference
  std::int32_t* sums;
};

// The nearest of up to kMaxWords words for each point, the first of equals: by squared differences, or by
// absolute ones. Each word's key is summed up by itself in order of the components, so that all variants give
// the same floats.
inline constexpr std::size_t kMaxWords = 256;
inline constexpr std::size_t kWordLanes = 64;
inline constexpr std::size_t kHalfWords = 16;

struct WordTask {
  const float* points;  // [n][dim]
  std::size_t n;
  std::size_t dim;
  const float* words;  // [dim][kMaxWords]
  std::size_t lanes;   // a multiple of kWordLanes, or kHalfWords: words beyond are not looked at
  const float* terms;  // [lanes] |word|^2 (0 for absolute differences); infinity where there is no word
  std::uint8_t* best;  // [n]
  float* keys;         // [n] distance to the best, squared differences less |point|^2; or null
};

// What a point has to do with every word of every part: products, or sums of absolute differences.
struct WordTableTask {
  const float* point;  // [parts][part_dim]
  std::size_t parts;
  std::size_t part_dim;
  const float* words;  // [parts][part_dim][kMaxWords]
  std::size_t lanes;   // a multiple of kWordLanes
  float* values;       // [parts][kMaxWords]
  float* lows;         // [parts] the least value
  float* highs;        // [parts] the greatest
};

// table[i] = (values[i] - the part's low) * per_unit, cut to an integer below 65536.
struct WordStepsTask {
  const float* values;  // [parts][kMaxWords]
  const float* lows;    // [parts]
  std::size_t parts;
  std::size_t lanes;
  float per_unit;
  std::uint16_t* table;  // [parts][kMaxWords]
};

// Sums over half-byte codes (Andre et al., PVLDB 9(4), 2015): blocks of 32 rows, in each for two parts after
// another 32 bytes, the first part's codes in the lower halves and the second's in the upper ones.
inline constexpr std::size_t kHalfRows = 32;

struct HalfTask {
  const std::uint8_t* codes;  // [n_blocks][pairs][kHalfRows]
  std::size_t n_blocks;
  std::size_t pairs;          // at most 128, or sums overflow
  const std::uint8_t* table;  // [2 * pairs][kHalfWords]
  std::uint16_t* sums;        // [n_blocks][kHalfRows]
};

}  // namespace iqdb
