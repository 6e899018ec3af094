// What the bindings of bits and those of graphs over them have in common.
#pragma once

#include <cstdint>

namespace iqdb {

// The bits of f32s. Kernels of hamming compare these, and nothing else reads the buffer while they do.
inline const std::uint32_t* words_of(const float* items) {
  return reinterpret_cast<const std::uint32_t*>(items);
}
inline std::uint32_t* words_of(float* items) {
  return reinterpret_cast<std::uint32_t*>(items);
}

}  // namespace iqdb
