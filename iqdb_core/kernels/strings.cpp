#include "strings.hpp"

#include <string_view>

namespace iqdb {
namespace {

// std::string_view compares by char_traits<char>, which orders chars as unsigned bytes.
std::string_view text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void compare_strings(const PackedBytes& values, std::span<const uint8_t> needle, int8_t* out) {
  const std::string_view right = text(needle);
  for (size_t i = 0; i < values.size(); ++i) {
    const int order = text(values[i]).compare(right);
    out[i] = static_cast<int8_t>((order > 0) - (order < 0));
  }
}

void contains_strings(const PackedBytes& values, std::span<const uint8_t> needle, uint8_t* out) {
  const std::string_view right = text(needle);
  for (size_t i = 0; i < values.size(); ++i) {
    out[i] = text(values[i]).find(right) != std::string_view::npos ? 1 : 0;
  }
}

}  // namespace iqdb
