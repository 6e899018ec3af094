// Little-endian loads and stores from unaligned addresses. All formats of this project are little-endian.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace iqdb {

template <std::unsigned_integral T>
constexpr T little_endian(T value) {
  if constexpr (std::endian::native == std::endian::little || sizeof(T) == 1) return value;
  T swapped = 0;
  for (size_t i = 0; i < sizeof(T); ++i) swapped = static_cast<T>(swapped << 8 | (value >> (8 * i) & 0xff));
  return swapped;
}

template <std::unsigned_integral T>
inline T load_le(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return little_endian(value);
}

template <std::unsigned_integral T>
inline void store_le(void* p, T value) {
  value = little_endian(value);
  std::memcpy(p, &value, sizeof(T));
}

}  // namespace iqdb
