// Tables of one query's distances to the words of product codebooks, and keys summed up from them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "table.hpp"

namespace iqdb {

struct Lists;

// Codebooks as the kernels take them: one word beside the other, and of moderate size.
struct ProductWords {
  // `books` is [parts][words][part_dim], at most kMaxWords words. A code beyond them stands for the first
  // word.
  ProductWords(const float* books, std::size_t parts, std::size_t words, std::size_t part_dim);

  std::size_t lanes;         // of items that matter, a multiple of kWordLanes
  bool halves;               // few enough words for half-byte codes
  std::vector<float> items;  // [parts][part_dim][kMaxWords], words over `unit`
  double unit;               // a power of two
  double reach;              // the greatest sum of absolute values of a word over `unit`
};

// A query's table. Sums of its 16-bit integers are the same in any order.
class ProductTable {
 public:
  // For a query, once: the part of a key that is the same in all lists.
  void fill(const Kernels& kernels, const Lists& lists, const float* query);
  // For a list: what depends on its centroid.
  void aim(const Kernels& kernels, const Lists& lists, const float* query, std::size_t list);
  // The key of a row by its place; it grows with the distance.
  std::int32_t key(const Lists& lists, std::size_t place) const;
  // The same where the sum over the parts is known.
  std::int32_t key(const float* terms, std::size_t place, std::uint32_t sum) const {
    constexpr double kLimit = 2'147'483'000.0;
    double key = start_ + static_cast<double>(sum);
    if (terms != nullptr) key += double{terms[place]} * per_unit_;
    return static_cast<std::int32_t>(key >= -kLimit ? std::min(key, kLimit) : -kLimit);
  }
  // The table for half-byte codes, [parts, rounded up to even][kHalfWords].
  const std::uint8_t* halves() const { return halves_.data(); }

 private:
  void tabulate(const Kernels& kernels, const Lists& lists, bool absolute, double widest);

  std::vector<float> point_;
  std::vector<float> values_;
  std::vector<float> lows_;
  std::vector<float> highs_;
  std::vector<std::uint16_t> table_;  // [parts][kMaxWords]
  std::vector<std::uint8_t> halves_;
  double steps_ = 1.0;     // steps of the table in one of its values
  double per_unit_ = 1.0;  // and in one unit of the distance
  double base_ = 0.0;      // the sum of what the table leaves out
  double start_ = 0.0;
};

}  // namespace iqdb
