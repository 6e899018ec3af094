#include "strings_dictionary.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "xxh64.hpp"

namespace iqdb {
namespace {

bool equal(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

}  // namespace

int64_t dictionary_strings(const PackedBytes& values, std::span<uint32_t> rows, uint32_t* codes) {
  // Open addressing, at most half full: the table holds no more than rows.size() entries.
  struct Slot {
    uint64_t hash = 0;
    uint32_t entry = 0;  // one more than the number; 0: the slot is free
  };
  const size_t most = std::min(rows.size(), values.size());
  std::vector<Slot> slots(std::bit_ceil(2 * most + 2));
  const size_t mask = slots.size() - 1;
  size_t entries = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::span<const uint8_t> value = values[i];
    const uint64_t hash = hash_pair(value.data(), value.size()).h0;
    size_t at = hash & mask;
    while (slots[at].entry != 0 &&
           !(slots[at].hash == hash && equal(values[rows[slots[at].entry - 1]], value))) {
      at = (at + 1) & mask;
    }
    if (slots[at].entry == 0) {
      if (entries == rows.size()) return -1;
      rows[entries++] = static_cast<uint32_t>(i);
      slots[at] = {hash, static_cast<uint32_t>(entries)};
    }
    codes[i] = slots[at].entry - 1;
  }
  return static_cast<int64_t>(entries);
}

void gather_strings(const PackedBytes& values, std::span<const int64_t> rows, std::span<uint8_t> out) {
  size_t filled = 0;
  for (const int64_t row : rows) {
    if (row < 0 || static_cast<uint64_t>(row) >= values.size()) {
      throw std::invalid_argument("row " + std::to_string(row) + " is outside the " +
                                  std::to_string(values.size()) + " values");
    }
    const std::span<const uint8_t> value = values[static_cast<size_t>(row)];
    if (value.size() > out.size() - filled)
      throw std::invalid_argument("out_data is too short for the values");
    if (!value.empty()) std::memcpy(out.data() + filled, value.data(), value.size());
    filled += value.size();
  }
  if (filled != out.size()) throw std::invalid_argument("out_data is too long for the values");
}

}  // namespace iqdb
