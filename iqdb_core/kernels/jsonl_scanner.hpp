// The lexical half of the JSON Lines parser: whitespace, strings, numbers and values to be skipped, strictly
// as in RFC 8259.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "byteorder.hpp"
#include "floats.hpp"

namespace iqdb {

// A line that is not what it must be. `at` points into the line.
struct JsonProblem {
  const char* at;
  std::string reason;
};

// Reads one line. The line ends with '\n', and kPadding more bytes behind that can be read: so no loop needs
// to look for the end. '\n' stops all of them, because no token contains it.
class JsonScanner {
 public:
  static constexpr size_t kPadding = 8;
  static constexpr int kMaxDepth = 64;

  explicit JsonScanner(const char* line) : p_(line) {}

  // The next character that is not a space, which becomes the current one.
  char peek() {
    while (*p_ == ' ' || *p_ == '\t' || *p_ == '\r') ++p_;
    return *p_;
  }
  const char* at() const { return p_; }
  void advance() { ++p_; }

  // Takes `c` if it comes next.
  bool take(char c) {
    if (peek() != c) return false;
    ++p_;
    return true;
  }

  void expect(char c, const char* expected) {
    if (!take(c)) fail_expected(expected);
  }

  // After a member or element: true for ',', false for `close`.
  bool more(char close) {
    const char c = peek();
    if (c != ',' && c != close) fail_expected(close == '}' ? "',' or '}'" : "',' or ']'");
    ++p_;
    return c == ',';
  }

  // A string; the current character is '"'. The result is valid UTF-8 and stays as long as the line and
  // `scratch`, which holds it when it was written with escapes.
  std::string_view string(std::string& scratch);

  // A number, whose first character is the current one.
  Decimal number();

  // The next element of a vector, or nothing when it overflows float.
  bool element(float& out) {
    const Decimal parsed = number();
    if (quick_f32(parsed.mantissa, parsed.exponent, parsed.negative, out)) [[likely]] {
      return true;
    }
    return element_of_text(parsed, out);
  }

  // true, false or null if they come next; the first letter is the current character.
  void literal(std::string_view word);

  // Any value, of `depth` more levels at most; fails on a deeper one.
  void skip_value(int depth = kMaxDepth);

  // Everything after the value of the line must be space.
  void end_of_line();

  [[noreturn]] void fail(std::string reason) const { fail_at(p_, std::move(reason)); }
  [[noreturn]] static void fail_at(const char* at, std::string reason) {
    throw JsonProblem{at, std::move(reason)};
  }
  [[noreturn]] void fail_expected(const char* expected) const;

  // What stands at the current place, for messages: 'x', byte 0xff, or the end of the line.
  std::string found() const;
  // The same for a whole value: "an array", "null", "a string"...
  std::string found_value();

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  const char* digits(const char* p, uint64_t& value) const;
  void exponent(const char*& p, int64_t& exponent) const;
  void recount(const char* first, const char* last, Decimal& number) const;
  bool element_of_text(const Decimal& number, float& out) const;
  void escape(std::string& scratch);
  uint32_t four_hex_digits();

  const char* p_;
};

// A key or text as it is shown in messages: quoted, short, valid UTF-8.
std::string quoted(std::string_view text);

// ---- numbers, which are most of a file and therefore inline ---------------------------------------------

namespace detail {

// The value of eight digits, each a byte 0..9, the first in the lowest byte (Lemire, "Quickly parsing eight
// digits", 2022).
inline uint64_t eight_digits(uint64_t bytes) {
  constexpr uint64_t kMask = 0x000000ff000000ff;
  bytes = bytes * 10 + (bytes >> 8);
  return ((bytes & kMask) * 0x000f424000000064 + (bytes >> 16 & kMask) * 0x0000271000000001) >> 32;
}

inline constexpr uint64_t kSmallPowers[8] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};

}  // namespace detail

// Appends the digits from p on to `value` (modulo 2^64) and returns their end. Eight at a time, and the rest
// without a branch for each: how many there are is what a CPU cannot predict.
inline const char* JsonScanner::digits(const char* p, uint64_t& value) const {
  for (;; p += 8) {
    const uint64_t bytes = load_le<uint64_t>(p) ^ 0x3030303030303030;  // digits become 0..9
    // Bit 7 of every byte above 9. A carry out of a byte of 0x8a and more spoils only bytes behind it.
    const uint64_t others = ((bytes + 0x7676767676767676) | bytes) & 0x8080808080808080;
    if (others == 0) {
      value = value * 100000000 + detail::eight_digits(bytes);
      continue;
    }
    const auto count = static_cast<size_t>(std::countr_zero(others)) / 8;
    // Zeros in front of the digits; two shifts, because one of 64 bits is undefined
    const uint64_t aligned = bytes << (56 - 8 * count) << 8;
    value = value * detail::kSmallPowers[count] + detail::eight_digits(aligned);
    return p + count;
  }
}

inline Decimal JsonScanner::number() {
  const char* const begin = p_;
  Decimal number{0, 0, *p_ == '-', true, {}};
  const char* p = p_ + number.negative;
  const char* const first = p;
  number.mantissa = static_cast<uint64_t>(*p - '0');
  if (number.mantissa > 9) {
    p_ = p;
    fail_expected(number.negative ? "a digit after '-'" : "a number");
  }
  ++p;
  if (is_digit(*p)) {
    if (number.mantissa == 0) fail("a number starts with a superfluous 0");
    p = digits(p, number.mantissa);
  }
  ptrdiff_t written = p - first;
  if (*p == '.') {
    const char* const fraction = ++p;
    p = digits(p, number.mantissa);
    if (p == fraction) {
      p_ = p;
      fail_expected("a digit after '.'");
    }
    number.exponent = fraction - p;
    written += p - fraction;
  }
  const char* const last = p;
  if ((*p | 0x20) == 'e') [[unlikely]] {
    exponent(p, number.exponent);
  }
  if (written > Decimal::kMaxDigits) [[unlikely]] {
    recount(first, last, number);
  }
  number.text = {begin, static_cast<size_t>(p - begin)};
  p_ = p;
  return number;
}

}  // namespace iqdb
