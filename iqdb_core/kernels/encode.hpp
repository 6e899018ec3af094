#pragma once

#include "encode_table.hpp"

namespace iqdb::IQDB_VARIANT {

void encode(const EncodeTask& task);
void row_squares(const float* const* rows, std::size_t dim, double* squares);

}  // namespace iqdb::IQDB_VARIANT
