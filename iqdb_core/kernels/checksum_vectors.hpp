// Stored vectors in one look at their bytes: block checksums, hashes for the content digest, finite numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "xxh64.hpp"

namespace iqdb {

// Whole blocks of a section of vectors, and the rows that lie in them.
struct VectorBlocks {
  std::span<const uint8_t> data;   // blocks first_block and those behind it; the last may be short
  std::span<const uint32_t> crcs;  // what the checksum of each of them should be
  uint32_t prefix;
  uint64_t first_block;
  size_t start;      // where in `data` the first row begins
  size_t row_bytes;  // a multiple of 4, not 0
  size_t n_rows;     // all within `data`
};

// wrong[i] = whether block i has another checksum; hashes[i] = the hash of row i, wrong blocks or not.
// Returns the first component of these rows that is no finite number, or n_rows * row_bytes / 4.
size_t check_vectors(const VectorBlocks& blocks, uint8_t* wrong, HashPair* hashes);

}  // namespace iqdb
