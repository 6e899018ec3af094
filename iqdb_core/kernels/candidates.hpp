// The rows that a search looks at, handed out to its threads range by range.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace iqdb {

// How many of the rows 0..n have their bit (r & 7 of byte r >> 3) set.
std::size_t count_rows(const std::uint8_t* mask, std::size_t n);

// All rows 0..n, or those whose bit is set in a bitmap (bit r & 7 of byte r >> 3). Each thread gets
// its ranges in ascending order.
class Candidates {
 public:
  // `block_rows` is how many candidates a range should hold, about. With `fill_gaps` the rows between
  // the candidates of a dense mask are handed out too: memory is faster in one piece. The caller then
  // asks has() before it uses a row's values.
  Candidates(std::size_t n, const std::uint8_t* mask, std::size_t block_rows, bool fill_gaps);

  std::size_t count() const { return count_; }
  // Whether all rows of a range are handed out, candidates or not.
  bool every_row() const { return every_row_; }
  bool has(std::size_t row) const { return mask_ == nullptr || (mask_[row / 8] >> (row % 8) & 1) != 0; }

  struct Range {
    std::size_t first;
    std::size_t last;
  };
  // False when no range is left.
  bool next(Range* range);
  void restart() { next_.store(0, std::memory_order_relaxed); }

  // Writes up to `most` candidates from range->first on, which moves behind them. Returns how many.
  std::size_t take(Range* range, std::size_t most, std::size_t* rows) const;

 private:
  std::size_t n_;
  const std::uint8_t* mask_;
  std::size_t count_;
  bool every_row_;
  std::size_t range_rows_;
  std::atomic<std::size_t> next_{0};
};

}  // namespace iqdb
