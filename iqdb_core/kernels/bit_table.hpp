// Codes of a bit a component, for vectors each of whose components takes two values: what Hamming distances
// are counted by. See bits.hpp for what a code is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sink.hpp"

namespace iqdb {

// One query against the codes of rows that stand one behind the other.
struct BitScanTask {
  const std::uint8_t* codes;  // [n_rows][8 * words]
  std::size_t n_rows;
  std::size_t words;
  const std::uint64_t* query;  // [words]
  const std::uint64_t* mask;   // [words] bits that count; null: all do
  std::uint32_t limit;
  std::uint32_t* kept;       // [n_rows] rows at which at most `limit` bits differ
  std::uint32_t* distances;  // [n_rows] and how many these are
};

// Tiles: rows' half-bytes, half-byte by half-byte, so that one instruction looks up the bits that differ for
// a whole vector of rows (Andre et al., PVLDB 9(4), 2015, whose tables hold rounded distances; these are
// exact).
inline constexpr std::size_t kBitTileRows = 64;
inline constexpr std::size_t kBitTileQueries = 4;
inline constexpr std::size_t kBitWords = 16;  // that a half-byte can be

// A few queries against tiles. Pairs at which at most limits[lane] bits differ are candidates; limits are
// read anew for each tile, so that a candidate may lower them.
struct BitTileTask {
  const std::uint8_t* halves;  // [n_tiles][n_halves][kBitTileRows]
  std::size_t n_tiles;
  std::size_t n_halves;
  const std::uint8_t* tables;   // [kBitTileQueries][n_halves][kBitWords]
  const std::uint16_t* limits;  // [kBitTileQueries]
  Sink sink;
};

}  // namespace iqdb
