#include "bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace iqdb {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr double kLargest = 1e30;
constexpr double kSmallest = 1e-30;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Pass pass_of(Metric metric, bool batch) {
  switch (metric) {
    case Metric::kCosine:
    case Metric::kDot:
      return Pass::kDot;
    case Metric::kEuclidean:
      return batch ? Pass::kDot : Pass::kSquares;
    case Metric::kManhattan:
      return batch ? Pass::kMinimum : Pass::kAbsolute;
    case Metric::kHamming:
      return Pass::kBits;
  }
  return Pass::kDot;
}

float round_down(double x) {
  const float y = static_cast<float>(x);
  return y <= x ? y : std::nextafter(y, -kInfinity);
}

float round_up(double x) {
  const float y = static_cast<float>(x);
  return y >= x ? y : std::nextafter(y, kInfinity);
}

}  // namespace

Bounds::Bounds(Metric metric, std::size_t dim, bool batch, const std::vector<float>& centre)
    : metric_(metric),
      dim_(dim),
      pass_(pass_of(metric, batch)),
      gamma_((static_cast<double>(dim) + 64) * kUnit / (1 - (static_cast<double>(dim) + 64) * kUnit)),
      tiny_(2 * (static_cast<double>(dim) + 8) * 0x1p-149),
      centre_(centre.begin(), centre.end()) {
  double sum = 0.0;
  for (double x : centre_) sum += x * x;
  centre_norm_ = std::sqrt(sum);
}

Bounds::Query Bounds::query(const float* q) const {
  double sum = 0.0;
  double offset = 0.0;
  for (std::size_t i = 0; i < dim_; ++i) sum += static_cast<double>(q[i]) * q[i];
  for (std::size_t i = 0; i < centre_.size(); ++i) offset += q[i] * centre_[i];
  if (pass_ == Pass::kMinimum) {
    sum = 0.0;
    for (std::size_t i = 0; i < dim_; ++i) {
      sum += std::abs(static_cast<double>(q[i]));
      offset += q[i];
    }
    return {.norm = sum, .offset = offset, .wild = !(sum <= kLargest)};
  }
  const double smallest = metric_ == Metric::kCosine ? kSmallest : 0.0;
  return {.norm = std::sqrt(sum), .offset = offset, .wild = !(sum >= smallest && sum <= kLargest)};
}

void Bounds::limits(const Query& query, double distance, float* a, float* b) const {
  *b = 0.0f;
  switch (pass_) {
    case Pass::kBits:
      *a = round_up(std::floor(distance));
      return;
    case Pass::kAbsolute:
      *a = round_up(distance * (1 + gamma_) + tiny_);
      return;
    case Pass::kSquares:
      // A negative limit (a maximum distance below 0) excludes everything, its square would not.
      *a = distance < 0 ? -1.0f : round_up(distance * distance * (1 + gamma_) + tiny_);
      return;
    case Pass::kDot:
    case Pass::kMinimum:
      break;
  }
  *a = -kInfinity;
  if (query.wild || !(distance < std::numeric_limits<double>::infinity())) return;
  const double norm = query.norm;
  if (metric_ == Metric::kManhattan) {
    *a = round_down((query.offset - distance) / 2 - 2 * gamma_ * norm -
                    16 * kUnit * (norm + std::abs(distance)) - tiny_);
  } else if (metric_ == Metric::kDot) {
    *a = round_down(-distance - 8 * kUnit * std::abs(distance) - tiny_);
    *b = round_down(-gamma_ * norm);
  } else if (metric_ == Metric::kCosine) {
    if (distance >= 2.0) return;
    *a = round_down(-tiny_);
    *b = round_down((1.0 - std::max(distance, 0.0)) * norm - 3 * gamma_ * norm);
  } else {
    const double limit = std::max(distance, 0.0) + 2 * kUnit * norm;
    const double squares = norm * norm + limit * limit;
    const double offsets = 2 * norm * centre_norm_;
    *a = round_down((norm * norm + 2 * query.offset - limit * limit) / 2 - 16 * kUnit * (squares + offsets) -
                    tiny_);
    *b = round_down(-gamma_ * norm);
  }
}

void Bounds::rows(const float* norms, const float* sums, std::size_t n, float* u, float* v) const {
  const auto grow = static_cast<float>(1 + gamma_);
  if (pass_ == Pass::kMinimum) {
    const float error = round_up(2 * gamma_);
    for (std::size_t i = 0; i < n; ++i) {
      const bool tame = norms[i] <= static_cast<float>(kLargest);
      u[i] = 0.0f;
      v[i] = tame ? 0.5f * sums[i] - error * norms[i] : -kInfinity;
    }
    return;
  }
  if (metric_ == Metric::kEuclidean) {
    const float half = round_down(0.5 * (1 - 2 * gamma_));
    // 1e-18: the square root of the underflow that a sum of squares can suffer.
    const float centre_norm = round_up(centre_norm_ * (1 + gamma_) + 1e-18);
    for (std::size_t i = 0; i < n; ++i) {
      const bool tame = norms[i] <= static_cast<float>(kLargest);
      u[i] = tame ? std::sqrt(norms[i]) * grow + centre_norm : 0.0f;
      v[i] = tame ? norms[i] * half : -kInfinity;
    }
    return;
  }
  const bool cosine = metric_ == Metric::kCosine;
  const float smallest = cosine ? static_cast<float>(kSmallest) : 0.0f;
  const float factor = cosine ? 1.0f : grow;
  const float extra = cosine ? 0.0f : 1e-18f;
  for (std::size_t i = 0; i < n; ++i) {
    const bool tame = norms[i] >= smallest && norms[i] <= static_cast<float>(kLargest);
    u[i] = tame ? std::sqrt(norms[i]) * factor + extra : 0.0f;
    v[i] = tame ? 0.0f : -kInfinity;
  }
}

}  // namespace iqdb
