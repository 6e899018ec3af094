// Filters over a column of strings.
#pragma once

#include <cstdint>
#include <span>

#include "packed.hpp"

namespace iqdb {

// out[i] = -1, 0 or 1: how value i stands to the needle, bytewise (for UTF-8: by code point).
void compare_strings(const PackedBytes& values, std::span<const uint8_t> needle, int8_t* out);

// out[i] = 1 when value i contains the needle, else 0.
void contains_strings(const PackedBytes& values, std::span<const uint8_t> needle, uint8_t* out);

}  // namespace iqdb
