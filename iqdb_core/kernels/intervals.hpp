#pragma once

#include <cstddef>
#include <cstdint>

namespace iqdb::IQDB_VARIANT {

void within_int64(const std::int64_t* values, std::size_t n, std::int64_t low, std::int64_t high,
                  std::uint64_t* words);
void within_float64(const double* values, std::size_t n, double low, double high, std::uint64_t* words);

}  // namespace iqdb::IQDB_VARIANT
