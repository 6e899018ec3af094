#pragma once

#include <cstddef>
#include <cstdint>

namespace iqdb::IQDB_VARIANT {

void mix_rows(const std::uint8_t* rows, std::size_t row_bytes, std::size_t n_stripes, std::uint64_t* lanes);

}  // namespace iqdb::IQDB_VARIANT
