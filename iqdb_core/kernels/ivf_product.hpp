// Tables of one query's distances to the words of product codebooks, and keys summed up from them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace iqdb {

struct Lists;

// Sums are of 16-bit integers, so that they are the same in any order.
class ProductTable {
 public:
  static constexpr std::size_t kWords = 256;

  // For a query, once: the part of a key that is the same in all lists.
  void fill(const Lists& lists, const float* query);
  // For a list: what its centroid adds.
  void aim(const Lists& lists, const float* query, std::size_t list);
  // The key of a row by its place; it grows with the distance.
  std::int32_t key(const Lists& lists, std::size_t place) const;

 private:
  std::vector<double> values_;
  std::vector<std::uint16_t> table_;  // [parts][kWords]
  double per_unit_ = 1.0;             // table steps in one unit of the distance
  double base_ = 0.0;
  double start_ = 0.0;
};

}  // namespace iqdb
