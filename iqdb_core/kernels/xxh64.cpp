#include "xxh64.hpp"

#include <algorithm>

#include "dispatch.hpp"
#include "xxh64_steps.hpp"

namespace iqdb {
namespace {

// Step 2: one stripe of 32 bytes into both seeds.
inline void mix_stripe(const uint8_t* p, uint64_t lanes0[4], uint64_t lanes1[4]) {
  for (size_t lane = 0; lane < 4; ++lane) {
    const uint64_t product = load_le<uint64_t>(p + 8 * lane) * kPrime2;
    lanes0[lane] = round_of_product(lanes0[lane], product);
    lanes1[lane] = round_of_product(lanes1[lane], product);
  }
}

// Steps 4 to 6: the length, the n < 32 bytes that are left, and the final mix.
inline HashPair finish(HashPair accumulator, uint64_t total, const uint8_t* p, size_t n) {
  uint64_t a = accumulator.h0 + total;
  uint64_t b = accumulator.h1 + total;
  for (; n >= 8; p += 8, n -= 8) {
    const uint64_t mixed = round_zero(load_le<uint64_t>(p));
    a = mix_eight(a, mixed);
    b = mix_eight(b, mixed);
  }
  if (n >= 4) {
    const uint64_t mixed = load_le<uint32_t>(p) * kPrime1;
    a = mix_four(a, mixed);
    b = mix_four(b, mixed);
    p += 4;
    n -= 4;
  }
  for (; n > 0; ++p, --n) {
    const uint64_t mixed = *p * kPrime5;
    a = mix_one(a, mixed);
    b = mix_one(b, mixed);
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

void hash_rows(const uint8_t* rows, size_t n, size_t row_bytes, HashPair* out) {
  const size_t n_stripes = row_bytes / kStripeBytes;
  const size_t rest = row_bytes % kStripeBytes;
  size_t row = 0;
  if (n_stripes != 0) {
    const auto mix_rows = kernels().mix_rows;
    uint64_t fresh[kHashedRows][2][4];
    for (auto& lanes : fresh) {
      start_lanes(0, lanes[0]);
      start_lanes(1, lanes[1]);
    }
    for (; row + kHashedRows <= n; row += kHashedRows) {
      uint64_t lanes[kHashedRows][2][4];
      std::copy_n(&fresh[0][0][0], sizeof lanes / sizeof(uint64_t), &lanes[0][0][0]);
      mix_rows(rows + row * row_bytes, row_bytes, n_stripes, &lanes[0][0][0]);
      for (size_t i = 0; i < kHashedRows; ++i) {
        const uint8_t* const tail = rows + (row + i + 1) * row_bytes - rest;
        out[row + i] = finish({converge(lanes[i][0]), converge(lanes[i][1])}, row_bytes, tail, rest);
      }
    }
  }
  for (; row < n; ++row) out[row] = hash_pair(rows + row * row_bytes, row_bytes);
}

}  // namespace iqdb
