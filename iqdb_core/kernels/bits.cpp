#include "bits.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <mutex>

#include "ranges.hpp"

namespace iqdb {
namespace {

// Bytes of rows that are worth a thread.
constexpr std::size_t kRangeBytes = 1 << 20;

std::size_t rows_per_range(std::size_t dim) {
  return std::max<std::size_t>(kRangeBytes / (4 * dim), 1);
}

// Whether a row has nothing but the values. Without branches, so that it is compared a vector at a time.
bool has_only(const std::uint32_t* row, const std::uint32_t* values, std::size_t dim) {
  const std::uint32_t* const others = values + dim;
  std::uint32_t foreign = 0;
  for (std::size_t j = 0; j < dim; ++j)
    foreign |=
        static_cast<std::uint32_t>(row[j] != values[j]) & static_cast<std::uint32_t>(row[j] != others[j]);
  return foreign == 0;
}

// Takes what a row has beside the first values for the second; false when there are second ones already.
bool take_in(const std::uint32_t* row, std::uint32_t* values, std::size_t dim) {
  std::uint32_t* const others = values + dim;
  for (std::size_t j = 0; j < dim; ++j) {
    if (row[j] == values[j] || row[j] == others[j]) continue;
    if (others[j] != values[j]) return false;
    others[j] = row[j];
  }
  return true;
}

std::uint64_t little(std::uint64_t word) {
  return std::endian::native == std::endian::little ? word : __builtin_bswap64(word);
}

}  // namespace

bool find_values(const std::uint32_t* rows, std::size_t n, std::size_t dim, std::uint32_t* values,
                 std::size_t threads) {
  // Most vectors have a third value within their first rows: no thread is started for these.
  const std::size_t head = std::min<std::size_t>(n, 64);
  for (std::size_t i = 0; i < head; ++i) {
    if (!take_in(rows + i * dim, values, dim)) return false;
  }
  std::atomic<bool> found{true};
  std::mutex mutex;
  for_ranges(n - head, threads, rows_per_range(dim), [&](std::size_t begin, std::size_t end) {
    if (!found.load(std::memory_order_relaxed)) return;
    std::vector<std::uint32_t> mine;
    {
      const std::lock_guard lock(mutex);
      mine.assign(values, values + 2 * dim);
    }
    bool changed = false;
    for (std::size_t i = head + begin; i < head + end; ++i) {
      const std::uint32_t* const row = rows + i * dim;
      if (has_only(row, mine.data(), dim)) continue;
      changed = true;
      if (take_in(row, mine.data(), dim)) continue;
      found.store(false, std::memory_order_relaxed);
      return;
    }
    if (!changed) return;
    // The first values are everybody's; of second ones there can be but one.
    const std::lock_guard lock(mutex);
    if (!take_in(mine.data() + dim, values, dim)) found.store(false, std::memory_order_relaxed);
  });
  return found.load();
}

void encode_bits(const std::uint32_t* values, const std::uint32_t* rows, std::size_t n, std::size_t dim,
                 std::uint8_t* codes, std::size_t threads) {
  const std::size_t stride = 8 * bit_words(dim);
  for_ranges(n, threads, rows_per_range(dim), [&](std::size_t begin, std::size_t end) {
    std::vector<std::uint8_t> flags(8 * stride);
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t* const row = rows + i * dim;
      for (std::size_t j = 0; j < dim; ++j) flags[j] = row[j] != values[j];
      std::uint8_t* const code = codes + i * stride;
      for (std::size_t byte = 0; byte < stride; ++byte) {
        std::uint64_t eight;
        std::memcpy(&eight, flags.data() + 8 * byte, 8);
        // The product brings the lowest bit of byte b to bit 56 + b.
        code[byte] = static_cast<std::uint8_t>(little(eight) * 0x0102040810204080 >> 56);
      }
    }
  });
}

BitQuery encode_bit_query(const std::uint32_t* values, const float* query, std::size_t dim) {
  BitQuery coded;
  coded.code.resize(bit_words(dim));
  coded.mask.assign(bit_words(dim), ~std::uint64_t{0});
  // Without branches: components are not to be predicted.
  for (std::size_t j = 0; j < dim; ++j) {
    const auto component = std::bit_cast<std::uint32_t>(query[j]);
    const bool is_second = component != values[j];
    const bool is_foreign = is_second & (component != values[dim + j]) & (values[j] != values[dim + j]);
    coded.code[j >> 6] |= std::uint64_t{is_second} << (j & 63);
    coded.mask[j >> 6] ^= std::uint64_t{is_foreign} << (j & 63);
    coded.foreign += is_foreign;
  }
  for (std::uint64_t& word : coded.code) word = little(word);
  for (std::uint64_t& word : coded.mask) word = little(word);
  return coded;
}

}  // namespace iqdb
