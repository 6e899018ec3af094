// Compiled with -ffp-contract=off: see ivf_search.cpp.
#include "ivf_product.hpp"

#include <algorithm>
#include <cmath>

#include "ivf_search.hpp"

namespace iqdb {
namespace {

// These leave room for rounding.
constexpr double kTableTop = 65'000.0;
constexpr double kHalfTop = 254.9;
constexpr double kPointLimit = 1e30;

// The power of two above |x| for all x, or 1.
double unit_of(const float* x, std::size_t n) {
  double largest = 0.0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(double{x[i]}));
  return largest > 0.0 && std::isfinite(largest) ? std::exp2(std::ilogb(largest) + 1) : 1.0;
}

}  // namespace

ProductWords::ProductWords(const float* books, std::size_t parts, std::size_t words, std::size_t part_dim)
    : lanes((words + kWordLanes - 1) / kWordLanes * kWordLanes),
      halves(words <= kHalfWords),
      items(parts * part_dim * kMaxWords),
      unit(unit_of(books, parts * words * part_dim)),
      reach(0.0) {
  for (std::size_t part = 0; part < parts; ++part) {
    for (std::size_t word = 0; word < kMaxWords; ++word) {
      const float* const x = books + (part * words + (word < words ? word : 0)) * part_dim;
      double size = 0.0;
      for (std::size_t i = 0; i < part_dim; ++i) {
        items[(part * part_dim + i) * kMaxWords + word] = static_cast<float>(double{x[i]} / unit);
        size += std::abs(double{x[i]} / unit);
      }
      if (size > reach) reach = size;
    }
  }
}

// Euclidean: |q - x|^2 = |q|^2 + |x|^2 - 2 q.c - 2 q.w for x = c + w; |q|^2 is left out, |x|^2 is stored for
// each row. Inner product: -q.x = -q.c - q.w. Both have one table for all lists. Manhattan: the sum of |q - c
// - w|, a table a list.
void ProductTable::fill(const Kernels& kernels, const Lists& lists, const float* query) {
  if (lists.metric == Metric::kManhattan) return;
  const double factor = lists.metric == Metric::kEuclidean ? -2.0 : -1.0;
  const double unit = unit_of(query, lists.dim);
  point_.resize(lists.dim);
  for (std::size_t i = 0; i < lists.dim; ++i) point_[i] = static_cast<float>(query[i] / unit * factor);
  tabulate(kernels, lists, false, 0.0);
  per_unit_ = steps_ / unit / lists.product.words->unit;
}

void ProductTable::aim(const Kernels& kernels, const Lists& lists, const float* query, std::size_t list) {
  const float* const centroid = lists.centroids + list * lists.dim;
  const ProductWords& words = *lists.product.words;
  if (lists.metric == Metric::kManhattan) {
    point_.resize(lists.dim);
    for (std::size_t i = 0; i < lists.dim; ++i) {
      const double x = (double{query[i]} - double{centroid[i]}) / words.unit;
      point_[i] = static_cast<float>(x >= -kPointLimit ? std::min(x, kPointLimit) : -kPointLimit);
    }
    // |x - w| varies with w by at most 2 |w|, so that all lists can have the same steps.
    tabulate(kernels, lists, true, 2.0 * words.reach);
    start_ = base_ * steps_;
    return;
  }
  const double factor = lists.metric == Metric::kEuclidean ? -2.0 : -1.0;
  // The canonical distance is less the inner product.
  const double product = -kernels.canonical(Metric::kDot, query, 0.0, centroid, lists.dim);
  start_ = base_ * steps_ + factor * product * per_unit_;
}

// The table of point_, in steps that cover `widest`, or where that is 0 the greatest difference within a
// part.
void ProductTable::tabulate(const Kernels& kernels, const Lists& lists, bool absolute, double widest) {
  const std::size_t parts = lists.product.parts;
  values_.resize(parts * kMaxWords);
  lows_.resize(parts);
  highs_.resize(parts);
  table_.resize(parts * kMaxWords);
  kernels.word_values(absolute, {point_.data(), parts, lists.dim / parts, lists.product.words->items.data(),
                                 lists.product.words->lanes, values_.data(), lows_.data(), highs_.data()});
  base_ = 0.0;
  const bool measured = widest == 0.0;
  for (std::size_t part = 0; part < parts; ++part) {
    base_ += double{lows_[part]};
    if (measured) widest = std::max(widest, double{highs_[part]} - double{lows_[part]});
  }
  const bool in_halves = lists.product.words->halves;
  const std::size_t padded = parts + parts % 2;
  const double top = in_halves ? std::min(kHalfTop, kTableTop / static_cast<double>(padded)) : kTableTop;
  steps_ = widest > 1e-30 && widest < 1e30 ? top / widest : 1.0;
  kernels.word_steps({values_.data(), lows_.data(), parts, lists.product.words->lanes,
                      static_cast<float>(steps_), table_.data()});
  if (!in_halves) return;
  halves_.assign(padded * kHalfWords, 0);
  for (std::size_t part = 0; part < parts; ++part) {
    for (std::size_t word = 0; word < kHalfWords; ++word) {
      const std::uint16_t steps = table_[part * kMaxWords + word];
      halves_[part * kHalfWords + word] = static_cast<std::uint8_t>(std::min<std::uint16_t>(steps, 255));
    }
  }
}

std::int32_t ProductTable::key(const Lists& lists, std::size_t place) const {
  const ProductCodes& product = lists.product;
  const std::uint8_t* const code = product.codes + place * product.parts;
  const std::uint16_t* table = table_.data();
  std::uint32_t sums[4] = {};
  std::size_t part = 0;
  for (; part + 4 <= product.parts; part += 4, table += 4 * kMaxWords) {
    for (std::size_t i = 0; i < 4; ++i) sums[i] += table[i * kMaxWords + code[part + i]];
  }
  for (; part < product.parts; ++part, table += kMaxWords) sums[0] += table[code[part]];
  return key(lists.product.terms, place, sums[0] + sums[1] + sums[2] + sums[3]);
}

}  // namespace iqdb
