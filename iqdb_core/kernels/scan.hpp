#pragma once

#include <cstddef>

#include "table.hpp"

namespace iqdb::IQDB_VARIANT {

void scan(Pass pass, const float* query, const float* const* rows, std::size_t n_rows, std::size_t dim,
          float* sums, float* norms);
void norms(const float* const* rows, std::size_t n_rows, std::size_t dim, const float* centre, float* norms);
void totals(const float* const* rows, std::size_t n_rows, std::size_t dim, float* sums, float* sizes);
std::size_t first_non_finite(const float* x, std::size_t n);

}  // namespace iqdb::IQDB_VARIANT
