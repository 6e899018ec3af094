#include "candidates.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace iqdb {
namespace {

// Bits 64 * index and on of a bitmap of n rows, zero behind the last row.
std::uint64_t word_of(const std::uint8_t* mask, std::size_t n, std::size_t index) {
  const std::size_t bytes = (n + 7) / 8;
  const std::size_t first = index * 8;
  const std::size_t size = std::min<std::size_t>(8, bytes - first);
  std::uint64_t word = 0;
  if (size == 8 && std::endian::native == std::endian::little) {
    std::memcpy(&word, mask + first, 8);
  } else {
    for (std::size_t i = 0; i < size; ++i) word |= std::uint64_t{mask[first + i]} << (8 * i);
  }
  // Bits behind the last row do not count.
  const std::size_t rows = n - index * 64;
  return rows >= 64 ? word : word & ((std::uint64_t{1} << rows) - 1);
}

}  // namespace

std::size_t count_rows(const std::uint8_t* mask, std::size_t n) {
  std::size_t count = 0;
  const std::size_t whole = n / 64;
  for (std::size_t i = 0; i < whole; ++i) {
    std::uint64_t word;
    std::memcpy(&word, mask + 8 * i, 8);
    count += static_cast<std::size_t>(std::popcount(word));
  }
  return n % 64 == 0 ? count : count + static_cast<std::size_t>(std::popcount(word_of(mask, n, whole)));
}

Candidates::Candidates(std::size_t n, const std::uint8_t* mask, std::size_t block_rows, bool fill_gaps)
    : n_(n), mask_(mask), count_(n) {
  if (mask_ != nullptr) count_ = count_rows(mask_, n_);
  // Measured: at two of five rows, scattered reads take as long as reading all.
  every_row_ =
      mask_ == nullptr || (fill_gaps && static_cast<double>(count_) >= 0.4 * static_cast<double>(n_));
  // A sparse mask has its candidates in longer ranges; a multiple of 64 keeps ranges on whole words.
  const double spread = static_cast<double>(n_) / static_cast<double>(std::max<std::size_t>(count_, 1));
  const double rows = std::min(static_cast<double>(block_rows) * spread, static_cast<double>(n_));
  range_rows_ = every_row_ ? std::max<std::size_t>(block_rows, 1)
                           : (static_cast<std::size_t>(rows) + 63) / 64 * 64 + 64;
}

bool Candidates::next(Range* range) {
  // Threads stop asking after the first refusal, so the counter passes n by a few ranges at most.
  const std::size_t first = next_.fetch_add(range_rows_, std::memory_order_relaxed);
  if (first >= n_) return false;
  *range = {first, first + std::min(range_rows_, n_ - first)};
  return true;
}

std::size_t Candidates::take(Range* range, std::size_t most, std::size_t* rows) const {
  std::size_t count = 0;
  if (every_row_) {
    while (count < most && range->first < range->last) rows[count++] = range->first++;
    return count;
  }
  while (range->first < range->last) {
    const std::size_t base = range->first / 64 * 64;
    std::uint64_t left = word_of(mask_, n_, base / 64) & (~std::uint64_t{0} << (range->first - base));
    for (; left != 0; left &= left - 1) {
      const std::size_t row = base + static_cast<std::size_t>(std::countr_zero(left));
      if (count == most) {
        range->first = row;
        return count;
      }
      rows[count++] = row;
    }
    range->first = base + 64;
  }
  return count;
}

}  // namespace iqdb
