// Compiled with -ffp-contract=off: p and r are stored, so they must not depend on whether a CPU fuses.
#include "code_bounds.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace iqdb {
namespace {

constexpr double kSlack = 0x1p-32;
constexpr double kMargin = 0x1p-20;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

float round_down(double x) {
  const float y = static_cast<float>(x);
  return y <= x ? y : std::nextafter(y, -kInfinity);
}

float round_up(double x) {
  const float y = static_cast<float>(x);
  return y >= x ? y : std::nextafter(y, kInfinity);
}

}  // namespace

double mean_norm(const CodeModel& model) {
  double sum = 0.0;
  for (const float x : model.mean) sum += double{x} * double{x};
  return std::sqrt(sum);
}

void code_bounds_of_row(const CodeModel& model, double mean_norm, double length, double residual,
                        std::int64_t squares, float* p, float* r) {
  const double slack = kSlack * model.scale * (length + mean_norm);
  *r = round_up(std::sqrt(residual) * (1.0 + kSlack) + slack);
  const double exact = static_cast<double>(squares) - double{*r} * double{*r};
  *p = round_down(exact - kMargin * std::abs(exact));
}

CodeBounds::CodeBounds(Metric metric, const CodeModel& model, std::size_t dim, float least_u)
    : metric_(metric), model_(model), dim_(dim), mean_norm_(mean_norm(model)), least_u_(least_u) {}

CodeBounds::Query CodeBounds::encode(const float* query, int reach, std::int8_t* code) const {
  std::fill_n(code, code_stride(dim_), std::int8_t{0});
  Query out{.step = 1.0, .squares = 0.0, .sizes = 0.0, .error = 0.0, .length = 0.0, .wild = false};
  double sum = 0.0;
  for (std::size_t j = 0; j < dim_; ++j) sum += double{query[j]} * double{query[j]};
  out.length = std::sqrt(sum);
  if (model_.unit_length && !(out.length > 0.0)) out.wild = true;
  const double factor = model_.unit_length && out.length > 0.0 ? 1.0 / out.length : 1.0;

  double largest = 0.0;
  std::vector<double> y(dim_);
  for (std::size_t j = 0; j < dim_; ++j) {
    y[j] = (query[j] * factor - double{model_.mean[j]}) * model_.scale;
    largest = std::max(largest, std::abs(y[j]));
  }
  // What is too small to have a code of its own is coded as the mean.
  if (largest > 1e-12) out.step = largest / reach;
  double sum_z = 0.0;
  double sizes = 0.0;
  double squares = 0.0;
  double error = 0.0;
  for (std::size_t j = 0; j < dim_; ++j) {
    const double z = std::clamp<double>(std::nearbyint(y[j] / out.step), -reach, reach);
    if (std::isfinite(z)) code[j] = static_cast<std::int8_t>(z);
    sum_z += z;
    sizes += std::abs(z);
    squares += z * z;
    error += (y[j] - out.step * z) * (y[j] - out.step * z);
  }
  out.squares = 0.5 * out.step * squares + 64.0 * sum_z;
  out.sizes = 0.5 * out.step * squares + (64.0 + 127.0) * sizes;
  const double length = model_.unit_length ? 1.0 : out.length;
  out.error = std::sqrt(error) * (1.0 + kSlack) + kSlack * model_.scale * (length + mean_norm_);
  out.wild = out.wild || !(out.step < 1e15 && std::isfinite(out.error));
  return out;
}

double CodeBounds::estimate(const Query& query, double sum, double p, double u) const {
  const double square = 2.0 * query.step * (query.squares - sum) + p;  // |t z - C|^2
  if (metric_ != Metric::kDot) return square;
  return u > 0.0 ? (square - 2.0 * model_.scale * model_.scale) / u : 0.0;
}

CodeLimit CodeBounds::limit(const Query& query, double distance) const {
  constexpr CodeLimit kNothing = {-kInfinity, 0.0f, 0.0f, 0.0f};
  if (query.wild || !(distance < std::numeric_limits<double>::infinity())) return kNothing;
  const double scale = model_.scale;
  double reach = 0.0;   // P
  double square = 0.0;  // P^2, or what takes its place
  double d = 0.0;
  if (metric_ == Metric::kDot) {
    if (distance >= 0.0) return kNothing;
    const double slope = distance / query.length / model_.norm_unit;  // of h, in terms of u
    const double h = std::max(0.0, 1.0 + slope * least_u_) + kSlack;
    const double longest = scale * std::sqrt(2.0 * h) * (1.0 + kSlack);
    reach = longest + query.error;
    square = 2.0 * scale * scale * (1.0 + kSlack) + 2.0 * longest * query.error + query.error * query.error;
    d = -scale * scale * slope / query.step;
  } else {
    if (metric_ == Metric::kCosine && distance >= 2.0) return kNothing;
    const double known = std::max(distance, 0.0);
    const double radius = metric_ == Metric::kCosine ? std::sqrt(2.0 * (known + kSlack)) : known;
    reach = scale * radius * (1.0 + kSlack) + query.error;
    square = reach * reach;
  }
  const double lowered = 0.5 * square / query.step;
  const double a = query.squares - lowered - kMargin * (query.sizes + lowered);
  if (!(std::abs(a) < 1e30 && reach < 1e30 && d < 1e30)) return kNothing;
  return {.a = round_down(a),
          .b = static_cast<float>(0.5 / query.step),
          .c = round_down(-reach / query.step * (1.0 + kMargin)),
          .d = round_down(std::max(0.0, d * (1.0 - kMargin)))};
}

}  // namespace iqdb
