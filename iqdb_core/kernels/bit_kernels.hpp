#pragma once

#include <cstddef>
#include <cstdint>

#include "bit_table.hpp"

namespace iqdb::IQDB_VARIANT {

std::size_t bit_scan(const BitScanTask& task);
void bit_split(const std::uint8_t* codes, std::size_t n_rows, std::size_t words, std::uint8_t* halves);
void bit_tiles(const BitTileTask& task);

#if defined(__AVX2__)
inline constexpr auto kBitSplit = &bit_split;
inline constexpr auto kBitTiles = &bit_tiles;
#else
inline constexpr decltype(&bit_split) kBitSplit = nullptr;
inline constexpr decltype(&bit_tiles) kBitTiles = nullptr;
#endif

}  // namespace iqdb::IQDB_VARIANT
