#include "xxh64.hpp"

#include <bit>

namespace iqdb {
namespace {

constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87;
constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4F;
constexpr uint64_t kPrime3 = 0x165667B19E3779F9;
constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63;
constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5;

constexpr size_t kStripeBytes = 32;

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

// Step 2: one stripe of 32 bytes into both seeds.
inline void mix_stripe(const uint8_t* p, uint64_t lanes0[4], uint64_t lanes1[4]) {
  for (size_t lane = 0; lane < 4; ++lane) {
    const uint64_t product = load_le<uint64_t>(p + 8 * lane) * kPrime2;
    lanes0[lane] = round_of_product(lanes0[lane], product);
    lanes1[lane] = round_of_product(lanes1[lane], product);
  }
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

inline uint64_t avalanche(uint64_t accumulator) {
  accumulator = (accumulator ^ accumulator >> 33) * kPrime2;
  accumulator = (accumulator ^ accumulator >> 29) * kPrime3;
  return accumulator ^ accumulator >> 32;
}

// Steps 4 to 6: the length, the n < 32 bytes that are left, and the final mix.
inline HashPair finish(HashPair accumulator, uint64_t total, const uint8_t* p, size_t n) {
  uint64_t a = accumulator.h0 + total;
  uint64_t b = accumulator.h1 + total;
  for (; n >= 8; p += 8, n -= 8) {
    const uint64_t mixed = round_zero(load_le<uint64_t>(p));
    a = std::rotl(a ^ mixed, 27) * kPrime1 + kPrime4;
    b = std::rotl(b ^ mixed, 27) * kPrime1 + kPrime4;
  }
  if (n >= 4) {
    const uint64_t mixed = load_le<uint32_t>(p) * kPrime1;
    a = std::rotl(a ^ mixed, 23) * kPrime2 + kPrime3;
    b = std::rotl(b ^ mixed, 23) * kPrime2 + kPrime3;
    p += 4;
    n -= 4;
  }
  for (; n > 0; ++p, --n) {
    const uint64_t mixed = *p * kPrime5;
    a = std::rotl(a ^ mixed, 11) * kPrime1;
    b = std::rotl(b ^ mixed, 11) * kPrime1;
  }
  return {avalanche(a), avalanche(b)};
}

// What an input of less than one stripe starts from instead of converged lanes.
constexpr HashPair kShortInput{kPrime5, 1 + kPrime5};

}  // namespace

Hasher::Hasher() {
  start_lanes(0, lanes_[0]);
  start_lanes(1, lanes_[1]);
}

void Hasher::update(const uint8_t* p, size_t n) {
  const size_t held = total_ % kStripe;
  total_ += n;
  if (held + n < kStripe) {
    if (n != 0) std::memcpy(pending_ + held, p, n);
    return;
  }
  if (held != 0) {
    const size_t missing = kStripe - held;
    std::memcpy(pending_ + held, p, missing);
    mix_stripe(pending_, lanes_[0], lanes_[1]);
    p += missing;
    n -= missing;
  }
  for (; n >= kStripe; p += kStripe, n -= kStripe) mix_stripe(p, lanes_[0], lanes_[1]);
  if (n != 0) std::memcpy(pending_, p, n);
}

HashPair Hasher::digest() const {
  const HashPair accumulator =
      total_ < kStripe ? kShortInput : HashPair{converge(lanes_[0]), converge(lanes_[1])};
  return finish(accumulator, total_, pending_, total_ % kStripe);
}

HashPair hash_pair(const uint8_t* p, size_t n) {
  if (n < kStripeBytes) return finish(kShortInput, n, p, n);
  uint64_t lanes0[4];
  uint64_t lanes1[4];
  start_lanes(0, lanes0);
  start_lanes(1, lanes1);
  size_t left = n;
  for (; left >= kStripeBytes; p += kStripeBytes, left -= kStripeBytes) mix_stripe(p, lanes0, lanes1);
  return finish({converge(lanes0), converge(lanes1)}, n, p, left);
}

}  // namespace iqdb
