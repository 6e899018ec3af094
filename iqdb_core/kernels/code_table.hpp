// Sums over codes: what a graph is built and walked with. See codes.hpp for what a code is.
#pragma once

#include <cstddef>
#include <cstdint>

namespace iqdb {

enum class CodeSum : int { kDot, kAbsoluteDifference, kBytesThatDiffer, kBitsThatDiffer };

// sums[i] = the sum of the query's code and the code of nodes[i]. Nodes are in range: the caller
// has checked them.
struct CodeTask {
  const std::uint8_t* codes;  // [n][stride]
  std::size_t stride;         // bytes a code, a multiple of 32 (of 8 for bits)
  const std::uint32_t* nodes;
  std::size_t n_nodes;
  const void* query;  // [stride]: int8 for kDot, uint8 for the others
  std::int32_t* sums;
};

}  // namespace iqdb
