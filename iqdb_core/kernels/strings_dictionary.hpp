// Distinct strings and chosen strings of a column.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "packed.hpp"

namespace iqdb {

// Numbers the distinct values by their first appearance: codes[i] is the number of value i, rows[e] the
// first place of number e. Returns how many there are, or -1, and then leaves the outputs half written,
// when there are more than rows.size(). There are at most 2^32-1 values.
int64_t dictionary_strings(const PackedBytes& values, std::span<uint32_t> rows, uint32_t* codes);

// Copies the values at the places in `rows`, one after the other. They must fill `out` exactly.
void gather_strings(const PackedBytes& values, std::span<const int64_t> rows, std::span<uint8_t> out);

}  // namespace iqdb
