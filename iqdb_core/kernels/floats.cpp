#include "floats.hpp"

#include <locale.h>  // not <clocale>: newlocale is POSIX
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <system_error>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

namespace iqdb {
namespace {

// strtod in the C locale, whatever the process is set to.
template <class Float>
Float from_c_library(const char* text) {
  static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
  if constexpr (sizeof(Float) == sizeof(float)) {
    return strtof_l(text, nullptr, c_locale);
  } else {
    return strtod_l(text, nullptr, c_locale);
  }
}

// Whether a number of which the library only says that it is out of range is too large, not too small.
[[maybe_unused]] bool is_large(const Decimal& number) {
  int64_t magnitude = number.exponent;
  for (uint64_t rest = number.mantissa; rest != 0; rest /= 10) ++magnitude;
  return magnitude > 0;
}

template <class Float>
std::optional<Float> nearest(const Decimal& number, bool portable) {
  Float value = 0;
#if defined(__cpp_lib_to_chars)
  if (!portable) {
    const char* const begin = number.text.data();
    if (std::from_chars(begin, begin + number.text.size(), value).ec == std::errc()) return value;
    if (is_large(number)) return std::nullopt;
    return number.negative ? -Float{0} : Float{0};
  }
#endif
  (void)portable;
  value = from_c_library<Float>(std::string(number.text).c_str());
  if (std::isinf(value)) return std::nullopt;
  return value;
}

// The shortest of the correctly rounded forms with 1 to 9 digits that reads back as the same float; nine
// always do.
void append_by_c_library(std::string& out, float value) {
  char text[32];
  for (int digits = 1; digits <= std::numeric_limits<float>::max_digits10; ++digits) {
    std::snprintf(text, sizeof text, "%.*g", digits, static_cast<double>(value));
    if (std::strtof(text, nullptr) == value) break;
  }
  // Both calls follow the process's locale. The text is digits, signs, an 'e', and its decimal separator,
  // which may have several bytes.
  bool separated = false;
  for (const char* p = text; *p != '\0'; ++p) {
    const bool ours = (*p >= '0' && *p <= '9') || *p == '-' || *p == '+' || *p == 'e';
    if (ours) {
      out.push_back(*p);
    } else if (!separated) {
      out.push_back('.');
      separated = true;
    }
  }
}

}  // namespace

std::optional<float> nearest_f32_of_text(const Decimal& number, bool portable) {
  return nearest<float>(number, portable);
}

std::optional<double> nearest_f64_of_text(const Decimal& number, bool portable) {
  return nearest<double>(number, portable);
}

std::optional<float> nearest_f32(const Decimal& number) {
  float value;
  if (quick_f32(number.mantissa, number.exponent, number.negative, value)) return value;
  return nearest_f32_of_text(number);
}

std::optional<double> nearest_f64(const Decimal& number) {
  // Clinger, "How to read floating point numbers accurately" (1990): with both operands exact, one
  // correctly rounded operation gives the correctly rounded result.
  constexpr uint64_t kExactIntegers = uint64_t{1} << 53;
  constexpr int64_t kExactPowers = 22;
  if (number.exact && number.mantissa <= kExactIntegers && number.exponent >= -kExactPowers &&
      number.exponent <= kExactPowers) {
    const auto whole = static_cast<double>(number.mantissa);
    const double value = number.exponent < 0 ? whole / kPowersOfTen[static_cast<size_t>(-number.exponent)]
                                             : whole * kPowersOfTen[static_cast<size_t>(number.exponent)];
    return number.negative ? -value : value;
  }
  return nearest_f64_of_text(number);
}

void append_f32_json(std::string& out, float value, bool portable) {
  if (value == 0) {
    out.append(std::signbit(value) ? "-0.0" : "0");
    return;
  }
  // Apple's libc++ has to_chars for floating point, but refuses it to programs that also run on systems
  // before macOS 13.3.
#if defined(__cpp_lib_to_chars) || \
    (defined(_LIBCPP_VERSION) && _LIBCPP_VERSION >= 14000 && !defined(__APPLE__))
  if (!portable) {
    char text[32];
    const std::to_chars_result result = std::to_chars(text, text + sizeof text, value);
    out.append(text, result.ptr);
    return;
  }
#endif
  (void)portable;
  append_by_c_library(out, value);
}

}  // namespace iqdb
