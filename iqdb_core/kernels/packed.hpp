// Values of varying length, one after the other in one array, and the offsets that part them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

namespace iqdb {

struct PackedBytes {
  std::span<const uint64_t> offsets;  // one more than there are values
  std::span<const uint8_t> data;

  size_t size() const { return offsets.size() - 1; }

  // Value i, i < size(). Offsets may come from a file, so this is where they are checked.
  std::span<const uint8_t> operator[](size_t i) const {
    const uint64_t begin = offsets[i];
    const uint64_t end = offsets[i + 1];
    if (begin > end || end > data.size()) {
      throw std::invalid_argument("offsets " + std::to_string(begin) + " and " + std::to_string(end) +
                                  " of value " + std::to_string(i) + " do not lie in order within the " +
                                  std::to_string(data.size()) + " bytes of data");
    }
    return data.subspan(begin, end - begin);
  }
};

}  // namespace iqdb
