#pragma once

#include <cstddef>

#include "table.hpp"

namespace iqdb::IQDB_VARIANT {

inline constexpr std::size_t kMaxPanelVectors = 2;

void pack(const float* const* queries, std::size_t n_queries, std::size_t dim, std::size_t vectors,
          float* panel);
void tiles(Pass pass, const TileTask& task);

}  // namespace iqdb::IQDB_VARIANT
