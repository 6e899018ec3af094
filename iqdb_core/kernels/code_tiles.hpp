#pragma once

#include <cstddef>
#include <cstdint>

#include "table.hpp"

namespace iqdb::IQDB_VARIANT {

// Lanes of 32 bits in one vector of a panel.
#if defined(__AVX512VNNI__)
inline constexpr std::size_t kCodeLanes = 16;
#else
inline constexpr std::size_t kCodeLanes = 8;
#endif
inline constexpr std::size_t kCodePanelLanes = 2 * kCodeLanes;

void code_scan(const std::uint8_t* const* rows, std::size_t n_rows, std::size_t stride,
               const std::int8_t* query, std::int32_t* sums);
std::size_t code_pick(const CodePick& task, std::uint32_t* kept);
void code_pack(const std::int8_t* const* queries, std::size_t n_queries, std::size_t stride,
               std::int8_t* panel);
void code_tiles(const CodeTileTask& task);

}  // namespace iqdb::IQDB_VARIANT
