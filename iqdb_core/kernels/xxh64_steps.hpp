// The steps of XXH64 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) of one seed.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace iqdb {

inline constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
inline constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
inline constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
inline constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
inline constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

inline constexpr size_t kStripeBytes = 32;

// The specification's round() with the product of the input taken out of it: both seeds share it.
inline uint64_t round_of_product(uint64_t accumulator, uint64_t product) {
  return std::rotl(accumulator + product, 31) * kPrime1;
}

inline uint64_t round_zero(uint64_t input) {
  return round_of_product(0, input * kPrime2);
}

// Step 1: accumulators of one seed.
inline void start_lanes(uint64_t seed, uint64_t lanes[4]) {
  lanes[0] = seed + kPrime1 + kPrime2;
  lanes[1] = seed + kPrime2;
  lanes[2] = seed;
  lanes[3] = seed - kPrime1;
}

// Step 3: the lanes of one seed become one accumulator.
inline uint64_t converge(const uint64_t lanes[4]) {
  uint64_t accumulator =
      std::rotl(lanes[0], 1) + std::rotl(lanes[1], 7) + std::rotl(lanes[2], 12) + std::rotl(lanes[3], 18);
  for (size_t lane = 0; lane < 4; ++lane) {
    accumulator = (accumulator ^ round_zero(lanes[lane])) * kPrime1 + kPrime4;
  }
  return accumulator;
}

// Step 5: eight bytes, then four, then single ones. `mixed` is what of the input both seeds share.
inline uint64_t mix_eight(uint64_t accumulator, uint64_t mixed) {
  return std::rotl(accumulator ^ mixed, 27) * kPrime1 + kPrime4;
}
inline uint64_t mix_four(uint64_t accumulator, uint64_t mixed) {
  return std::rotl(accumulator ^ mixed, 23) * kPrime2 + kPrime3;
}
inline uint64_t mix_one(uint64_t accumulator, uint64_t mixed) {
  return std::rotl(accumulator ^ mixed, 11) * kPrime1;
}

// Step 6.
inline uint64_t avalanche(uint64_t accumulator) {
  accumulator = (accumulator ^ accumulator >> 33) * kPrime2;
  accumulator = (accumulator ^ accumulator >> 29) * kPrime3;
  return accumulator ^ accumulator >> 32;
}

// What an input of less than one stripe starts from instead of converged lanes.
inline uint64_t short_input(uint64_t seed, size_t n) {
  return seed + kPrime5 + n;
}

// The hash of less than four integers, each as its eight bytes.
template <size_t n>
inline uint64_t hash_words(uint64_t seed, const std::array<uint64_t, n>& words) {
  static_assert(8 * n < kStripeBytes);
  uint64_t accumulator = short_input(seed, 8 * n);
  for (const uint64_t word : words) accumulator = mix_eight(accumulator, round_zero(word));
  return avalanche(accumulator);
}

}  // namespace iqdb
