// SIMD vectors of the width that the current variant's instruction set has.
//
// Only for sources that are compiled once per variant. Those must not use inline functions or
// templates of other headers (the standard library's included): the linker keeps one copy of such a
// function for the whole module, and it could keep the one compiled for the newest CPU. Everything
// here is in the variant's own namespace.
#pragma once

#include <cstddef>
#include <cstdint>

#ifndef IQDB_VARIANT
#error "compile this source once per variant, with -DIQDB_VARIANT=name"
#endif

#define IQDB_INLINE inline __attribute__((always_inline))

namespace iqdb::IQDB_VARIANT {

#if defined(__AVX512F__)
inline constexpr std::size_t kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr std::size_t kVectorBytes = 32;
#else
inline constexpr std::size_t kVectorBytes = 16;
#endif
inline constexpr std::size_t kFloats = kVectorBytes / 4;

typedef float Floats __attribute__((vector_size(kVectorBytes)));
typedef std::int32_t Ints __attribute__((vector_size(kVectorBytes)));
typedef float UnalignedFloats __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));

IQDB_INLINE Floats load(const float* p) {
  return *reinterpret_cast<const UnalignedFloats*>(p);
}
IQDB_INLINE void store(float* p, Floats x) {
  *reinterpret_cast<UnalignedFloats*>(p) = x;
}
// x - 0 is x, for -0 too, so that this is nothing but a broadcast.
IQDB_INLINE Floats broadcast(float x) {
  return x - Floats{};
}
IQDB_INLINE Ints bits(Floats x) {
  return (Ints)x;
}
IQDB_INLINE Floats from_bits(Ints x) {
  return (Floats)x;
}
IQDB_INLINE Floats absolute(Floats x) {
  return from_bits(bits(x) & 0x7fffffff);
}

// The last `count` < kFloats of `n` items in the vector's last lanes, zeros before them.
IQDB_INLINE Floats load_tail(const float* p, std::size_t n, std::size_t count) {
  if (n >= kFloats) {
    Ints lane;
    for (std::size_t i = 0; i < kFloats; ++i) lane[i] = static_cast<std::int32_t>(i);
    const Ints kept = lane >= static_cast<std::int32_t>(kFloats - count);
    return from_bits(bits(load(p + n - kFloats)) & kept);
  }
  float items[kFloats] = {};
  for (std::size_t i = 0; i < count; ++i) items[kFloats - count + i] = p[n - count + i];
  return load(items);
}

IQDB_INLINE float horizontal_sum(Floats x) {
#if defined(__AVX512F__)
  auto y = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
  auto z = __builtin_shufflevector(y, y, 0, 1, 2, 3) + __builtin_shufflevector(y, y, 4, 5, 6, 7);
#elif defined(__AVX__)
  auto z = __builtin_shufflevector(x, x, 0, 1, 2, 3) + __builtin_shufflevector(x, x, 4, 5, 6, 7);
#else
  auto z = x;
#endif
  auto w = z + __builtin_shufflevector(z, z, 2, 3, 0, 1);
  return w[0] + w[1];
}

IQDB_INLINE bool any(Ints mask) {
  typedef std::int64_t Words __attribute__((vector_size(kVectorBytes)));
  const Words x = (Words)mask;
#if defined(__AVX512F__)
  auto y = __builtin_shufflevector(x, x, 0, 1, 2, 3) | __builtin_shufflevector(x, x, 4, 5, 6, 7);
  auto z = __builtin_shufflevector(y, y, 0, 1) | __builtin_shufflevector(y, y, 2, 3);
#elif defined(__AVX__)
  auto z = __builtin_shufflevector(x, x, 0, 1) | __builtin_shufflevector(x, x, 2, 3);
#else
  auto z = x;
#endif
  return (z[0] | z[1]) != 0;
}

}  // namespace iqdb::IQDB_VARIANT
