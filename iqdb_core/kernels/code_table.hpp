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

// The same over coarse codes: the upper four bits of each component, two components a byte. Byte b of group g
// of 32 bytes has component 64 g + b in its lower half and component 64 g + 32 + b in its upper half. kDot
// sums half-byte * query, kAbsoluteDifference |8 * half-byte + 4 - query|; there are no other sums.
struct CoarseTask {
  const std::uint8_t* codes;  // [n][stride]
  std::size_t stride;         // bytes a coarse code, a multiple of 32
  const std::uint32_t* nodes;
  std::size_t n_nodes;
  const void* query;  // [2 * stride]: int8 for kDot, uint8 for kAbsoluteDifference
  std::int32_t* sums;
};

}  // namespace iqdb
