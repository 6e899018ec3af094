// Exact search under hamming by codes of a bit a component: what they count is the distance.
//
// Codes may come from a file. If they were made up, with right checksums, an answer could name wrong rows:
// such a file is one that a check of its structure refuses. They are never used as an index, so that memory
// is safe whatever they hold.
#pragma once

#include <cstddef>
#include <cstdint>

#include "checksum.hpp"
#include "search.hpp"

namespace iqdb {

// The codes of all rows of a search; see bits.hpp.
struct BitRows {
  const std::uint32_t* values;  // [2][dim]
  const std::uint8_t* codes;    // [n][8 * bit_words(dim)]
  const BlockTable* blocks;     // checksums of `codes`, or none
};

// What was damaged, if anything, and its block.
struct BitSearchResult {
  enum class Part : int { kNone = 0, kCodes = 1, kVectors = 3 };
  Part damaged = Part::kNone;
  std::size_t block = 0;
};

// Fills the outputs of the task as search() does, with the same bits. `task.vectors` may be null: the hits'
// distances are then those of the codes; else they are computed from the vectors once more.
BitSearchResult search_bits(const SearchTask& task, const BitRows& rows);

}  // namespace iqdb
