// Exact search that reads codes instead of vectors, but for the few rows that their codes cannot exclude.
//
// Codes and bounds come from a file. If they were made up, with right checksums, an answer could miss rows:
// such a file is one that a check of its structure refuses. They are never used as an index, so that memory
// is safe whatever they hold.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codes.hpp"
#include "search.hpp"

namespace iqdb {

// The codes of all rows of a search's vectors.
struct CodedRows {
  const CodeModel* model;
  const std::uint8_t* codes;  // [n][stride]
  std::size_t stride;
  const float* bounds;       // [2][n]: p, r of code_bounds.hpp
  const float* norms;        // [n]: |x| in the model's unit, for inner products; else null
  float least_u;             // at most 1 / (1 + 2^-20) of every row's norm; 0 will always do
  const BlockTable* blocks;  // checksums of `codes`, or none
};

// What was damaged, and how many vectors were compared.
struct CodeSearchResult {
  enum class Part : int { kNone = 0, kCodes = 1, kVectors = 3 };
  Part damaged = Part::kNone;
  std::size_t block = 0;
  std::size_t scored = 0;
};

// The least of all u, where the rows' norms are these.
float least_inverse(const float* norms, std::size_t n);

// Fills the outputs of the task as search() does, with the same bits; metrics cosine, dot and euclidean.
CodeSearchResult search_codes(const SearchTask& task, const CodedRows& rows);

}  // namespace iqdb
