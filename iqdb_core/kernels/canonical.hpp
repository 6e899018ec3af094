#pragma once

#include <cstddef>

#include "metric.hpp"

namespace iqdb::IQDB_VARIANT {

double canonical(Metric metric, const float* query, double query_norm2, const float* row, std::size_t dim);
double norm2(const float* x, std::size_t dim);

}  // namespace iqdb::IQDB_VARIANT
