// Compiled with -ffp-contract=off: see ivf_search.cpp.
#include "ivf_product.hpp"

#include <cmath>

#include "ivf_search.hpp"

namespace iqdb {
namespace {

constexpr double kTableTop = 65'535.0;
constexpr double kKeyLimit = 2'147'483'000.0;

}  // namespace

// Euclidean: |q - x|^2 = |q|^2 + |x|^2 - 2 q.c - 2 q.r for x = c + r; |q|^2 is left out, |x|^2 is stored for each row.
// Inner product: -q.x = -q.c - q.r. Manhattan: the sum of |q - x| over the parts.
void ProductTable::fill(const Lists& lists, const float* query) {
  const ProductCodes& product = lists.product;
  const std::size_t part_dim = lists.dim / product.parts;
  const double factor = lists.metric == Metric::kEuclidean ? -2.0 : -1.0;
  values_.resize(product.parts * product.words);
  double widest = 0.0;
  base_ = 0.0;
  for (std::size_t part = 0; part < product.parts; ++part) {
    const float* const q = query + part * part_dim;
    double* const values = values_.data() + part * product.words;
    for (std::size_t word = 0; word < product.words; ++word) {
      const float* const x = product.books + (part * product.words + word) * part_dim;
      double sum = 0.0;
      if (lists.metric == Metric::kManhattan) {
        for (std::size_t i = 0; i < part_dim; ++i) sum += std::abs(double{q[i]} - double{x[i]});
      } else {
        for (std::size_t i = 0; i < part_dim; ++i) sum += double{q[i]} * double{x[i]};
        sum *= factor;
      }
      values[word] = std::isfinite(sum) ? sum : 0.0;
    }
    const auto [low, high] = std::minmax_element(values, values + product.words);
    widest = std::max(widest, *high - *low);
    base_ += *low;
  }
  per_unit_ = widest > 0.0 && std::isfinite(kTableTop / widest) ? kTableTop / widest : 1.0;
  table_.assign(product.parts * kWords, static_cast<std::uint16_t>(kTableTop));
  for (std::size_t part = 0; part < product.parts; ++part) {
    const double* const values = values_.data() + part * product.words;
    const double low = *std::min_element(values, values + product.words);
    for (std::size_t word = 0; word < product.words; ++word) {
      table_[part * kWords + word] = static_cast<std::uint16_t>(std::min((values[word] - low) * per_unit_, kTableTop));
    }
  }
}

void ProductTable::aim(const Lists& lists, const float* query, std::size_t list) {
  start_ = 0.0;
  if (lists.metric == Metric::kManhattan) return;  // the vectors themselves are coded
  const double factor = lists.metric == Metric::kEuclidean ? -2.0 : -1.0;
  const float* const centroid = lists.centroids + list * lists.dim;
  double sum = 0.0;
  for (std::size_t i = 0; i < lists.dim; ++i) sum += double{query[i]} * double{centroid[i]};
  start_ = factor * sum * per_unit_;
}

std::int32_t ProductTable::key(const Lists& lists, std::size_t place) const {
  const ProductCodes& product = lists.product;
  const std::uint8_t* const code = product.codes + place * product.parts;
  const std::uint16_t* table = table_.data();
  std::uint32_t sums[4] = {};
  std::size_t part = 0;
  for (; part + 4 <= product.parts; part += 4, table += 4 * kWords) {
    for (std::size_t i = 0; i < 4; ++i) sums[i] += table[i * kWords + code[part + i]];
  }
  for (; part < product.parts; ++part, table += kWords) sums[0] += table[code[part]];
  double key = start_ + static_cast<double>(sums[0] + sums[1] + sums[2] + sums[3]);
  if (product.terms != nullptr) key += double{product.terms[place]} * per_unit_;
  return static_cast<std::int32_t>(key >= -kKeyLimit ? std::min(key, kKeyLimit) : -kKeyLimit);
}

}  // namespace iqdb
