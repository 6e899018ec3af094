// Decimal text and binary floating point, both ways correctly rounded.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace iqdb {

// The number ±mantissa x 10^exponent. A mantissa holds 18 digits; what was written with more of them is
// not `exact`, and `text` is then the only full account of it.
struct Decimal {
  static constexpr int kMaxDigits = 18;

  uint64_t mantissa;
  int64_t exponent;
  bool negative;
  bool exact;
  std::string_view text;  // as JSON spells numbers
};

// The float nearest to a decimal number (ties to even, gradual underflow); nothing when it overflows.
std::optional<float> nearest_f32(const Decimal& number);
std::optional<double> nearest_f64(const Decimal& number);

// The same by the digits of `text` alone, with the C library where the C++ library has no from_chars for
// floating point (libc++ before LLVM 20). `portable` takes the C library's way in any case.
std::optional<float> nearest_f32_of_text(const Decimal& number, bool portable = false);
std::optional<double> nearest_f64_of_text(const Decimal& number, bool portable = false);

// The shortest decimal number that reads back as exactly this float. "-0.0" keeps its fraction, because
// "-0" is an integer to many JSON readers and would lose its sign. `value` must be finite.
void append_f32_json(std::string& out, float value, bool portable = false);

inline constexpr auto kPowersOfTen = [] {
  // Literals, so that each is the double nearest to the power.
  return std::array<double, 61>{1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11, 1e12,
                                1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22, 1e23, 1e24, 1e25,
                                1e26, 1e27, 1e28, 1e29, 1e30, 1e31, 1e32, 1e33, 1e34, 1e35, 1e36, 1e37, 1e38,
                                1e39, 1e40, 1e41, 1e42, 1e43, 1e44, 1e45, 1e46, 1e47, 1e48, 1e49, 1e50, 1e51,
                                1e52, 1e53, 1e54, 1e55, 1e56, 1e57, 1e58, 1e59, 1e60};
}();

// nearest_f32 by one multiplication or division in double, for all numbers where that provably rounds
// right; false for the few others.
//
// The double is off by at most 4 units in its last place: half a unit each from the mantissa, the power of
// ten and the operation, and less than 0.1 from digits beyond 18, counted relative to the smaller end of a
// binade. Rounding it to float goes wrong only if a point halfway between two floats lies between it and
// the true value, so it must keep 4 units away from such points: those where the 29 bits that rounding
// drops read 100...0. Outside the normal range of float the drop is longer.
inline bool quick_f32(uint64_t mantissa, int64_t exponent, bool negative, float& out) {
  constexpr auto kLargest = static_cast<int64_t>(kPowersOfTen.size()) - 1;
  if (exponent < -kLargest || exponent > kLargest) return false;
  // 18 digits fit a signed integer, which converts in one instruction
  const auto whole = static_cast<double>(static_cast<int64_t>(mantissa));
  const double value = exponent < 0 ? whole / kPowersOfTen[static_cast<size_t>(-exponent)]
                                    : whole * kPowersOfTen[static_cast<size_t>(exponent)];
  const uint64_t dropped = std::bit_cast<uint64_t>(value) & 0x1fffffff;
  const bool near_halfway = dropped - 0x0ffffffc <= 8;
  const bool normal = value >= 0x1p-126 && value <= 0x1.fffffep127;
  if (mantissa != 0 && (near_halfway || !normal)) return false;
  const auto rounded = static_cast<float>(value);
  out = negative ? -rounded : rounded;
  return true;
}

}  // namespace iqdb
