// Compiled with -ffp-contract=off: codes are stored, so they must not depend on whether a CPU fuses.
#include "codes.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "code_bounds.hpp"
#include "dispatch.hpp"
#include "ranges.hpp"

namespace iqdb {
namespace {

constexpr std::size_t kMeanSample = 65'536;
constexpr std::size_t kReachSample = 4'096;
constexpr double kReachShare = 0.9995;
template <class Item>
double length2(const Item* x, std::size_t dim) {
  double sum = 0.0;
  for (std::size_t i = 0; i < dim; ++i) sum += double{x[i]} * double{x[i]};
  return sum;
}

// Round to nearest, ties to even, for |x| < 2^51: the sum's last place is 1. Unlike a call of nearbyint it
// vectorises on every CPU.
double rounded(double x) {
  constexpr double kMagic = 6'755'399'441'055'744.0;  // 1.5 * 2^52
  return (x + kMagic) - kMagic;
}

// `value` within low..high. Files may hold vectors and models that make it NaN: that is then `low`, where a
// conversion to an integer would be undefined.
double within(double low, double value, double high) {
  return std::min(std::max(low, value), high);
}

// The upper four bits of a code's components; returns the sum of squares of what they stand for.
std::int32_t coarse_digits(const std::uint8_t* __restrict code, std::size_t stride,
                           std::uint8_t* __restrict digits) {
  std::int32_t length = 0;
  for (std::size_t j = 0; j < stride; ++j) {
    digits[j] = code[j] >> 3;
    const std::int32_t value = 8 * (code[j] >> 3) + 4;
    length += value * value;
  }
  return length;
}

void pack_digits(const std::uint8_t* __restrict digits, std::size_t width, std::uint8_t* __restrict out) {
  for (std::size_t i = 0; i < width; i += kCoarseGroup / 2) {
    for (std::size_t b = 0; b < kCoarseGroup / 2; ++b)
      out[i + b] = static_cast<std::uint8_t>(digits[2 * i + b] | (digits[2 * i + b + kCoarseGroup / 2] << 4));
  }
}

// The components that are dim, as float64.
class Components {
 public:
  Components(const CodeModel& model, std::size_t dim) : model_(model), dim_(dim), values_(dim) {}

  const std::vector<double>& of(const float* x) {
    double factor = 1.0;
    if (model_.unit_length) {
      const double sum = length2(x, dim_);
      factor = sum > 0.0 ? 1.0 / std::sqrt(sum) : 0.0;
    }
    for (std::size_t j = 0; j < dim_; ++j) values_[j] = x[j] * factor;
    return values_;
  }

 private:
  const CodeModel& model_;
  std::size_t dim_;
  std::vector<double> values_;
};

}  // namespace

CodeModel train_codes(Metric metric, const float* rows, std::size_t n, std::size_t dim) {
  CodeModel model{metric == Metric::kCosine || metric == Metric::kDot, 1.0, 1.0, {}};
  const auto row_of = [&](std::size_t i, std::size_t count) {
    return rows + i * n / count * dim;  // i < 65536 and n < 2^32: no overflow
  };
  const std::size_t sampled = std::min(n, kMeanSample);
  model.mean.resize(dim);
  if (n == 0) return model;

  Components components(model, dim);
  std::vector<double> sums(dim);
  double longest = 0.0;
  for (std::size_t i = 0; i < sampled; ++i) {
    longest = std::max(longest, std::sqrt(length2(row_of(i, sampled), dim)));
    const std::vector<double>& x = components.of(row_of(i, sampled));
    for (std::size_t j = 0; j < dim; ++j) sums[j] += x[j];
  }
  for (std::size_t j = 0; j < dim; ++j)
    model.mean[j] = static_cast<float>(sums[j] / static_cast<double>(sampled));

  if (longest > 0.0) model.norm_unit = std::exp2(std::ilogb(longest));

  const std::size_t looked_at = std::min(n, kReachSample);
  std::vector<double> reach;
  reach.reserve(looked_at * dim);
  for (std::size_t i = 0; i < looked_at; ++i) {
    const std::vector<double>& x = components.of(row_of(i, looked_at));
    for (std::size_t j = 0; j < dim; ++j) reach.push_back(std::abs(x[j] - double{model.mean[j]}));
  }
  const auto place = static_cast<std::ptrdiff_t>(static_cast<double>(reach.size() - 1) * kReachShare);
  std::nth_element(reach.begin(), reach.begin() + place, reach.end());
  double limit = reach[static_cast<std::size_t>(place)];
  if (limit <= 0.0) limit = *std::max_element(reach.begin(), reach.end());
  if (limit > 0.0) model.scale = kCodeReach / limit;
  return model;
}

void encode_rows(const CodeModel& model, const float* rows, std::size_t n, std::size_t dim,
                 std::uint8_t* codes, std::int32_t* lengths, float* norms, float* bounds,
                 std::size_t threads) {
  const std::size_t stride = code_stride(dim);
  const double mean_length = mean_norm(model);
  const std::vector<double> mean(model.mean.begin(), model.mean.end());
  const Kernels& kernel = kernels();
  for_ranges(n, threads, 1024, [&](std::size_t begin, std::size_t end) {
    std::array<const float*, kEncodedRows> row{};
    std::array<std::uint8_t*, kEncodedRows> code{};
    std::array<double, kEncodedRows> squares{}, factors{}, coded_squares{}, residuals{};
    std::array<std::int32_t, kEncodedRows> code_lengths{}, centred{};
    for (std::size_t start = begin; start < end; start += kEncodedRows) {
      const std::size_t count = std::min(kEncodedRows, end - start);
      for (std::size_t i = 0; i < kEncodedRows; ++i) {
        // Behind the last row stands the last row again.
        row[i] = rows + (start + std::min(i, count - 1)) * dim;
        code[i] = codes + (start + std::min(i, count - 1)) * stride;
      }
      if (model.unit_length || norms != nullptr) kernel.row_squares(row.data(), dim, squares.data());
      for (std::size_t i = 0; i < kEncodedRows; ++i) {
        factors[i] = 1.0;
        if (model.unit_length) factors[i] = squares[i] > 0.0 ? 1.0 / std::sqrt(squares[i]) : 0.0;
      }
      kernel.encode({.rows = row.data(),
                     .dim = dim,
                     .stride = stride,
                     .factors = factors.data(),
                     .mean = mean.data(),
                     .scale = model.scale,
                     .codes = code.data(),
                     .squares = coded_squares.data(),
                     .residuals = residuals.data(),
                     .lengths = code_lengths.data(),
                     .centred = centred.data()});
      for (std::size_t i = 0; i < count; ++i) {
        const std::size_t at = start + i;
        lengths[at] = code_lengths[i];
        if (bounds != nullptr)
          code_bounds_of_row(model, mean_length, std::sqrt(coded_squares[i]), residuals[i], centred[i],
                             bounds + at, bounds + n + at);
        if (norms != nullptr) norms[at] = static_cast<float>(std::sqrt(squares[i]) / model.norm_unit);
      }
    }
  });
}

void coarsen_codes(const std::uint8_t* codes, std::size_t n, std::size_t stride, std::uint8_t* coarse,
                   std::int32_t* lengths, std::size_t threads) {
  const std::size_t width = coarse_stride(stride);
  for_ranges(n, threads, 4096, [&](std::size_t begin, std::size_t end) {
    std::vector<std::uint8_t> code(2 * width);  // components that a code lacks are 0
    for (std::size_t row = begin; row < end; ++row) {
      lengths[row] = coarse_digits(codes + row * stride, stride, code.data());
      pack_digits(code.data(), width, coarse + row * width);
    }
  });
}

void encode_query(const CodeModel& model, bool is_signed, const float* query, std::size_t dim,
                  std::uint8_t* code) {
  // A query may lie outside what the rows' codes reach, as far as its byte goes.
  const double low = is_signed ? -128 - kCodeCentre : -kCodeCentre;
  const double high = is_signed ? 127 - kCodeCentre : 255 - kCodeCentre;
  Components components(model, dim);
  const std::vector<double>& x = components.of(query);
  for (std::size_t j = 0; j < dim; ++j) {
    const double value = (x[j] - double{model.mean[j]}) * model.scale;
    code[j] = static_cast<std::uint8_t>(static_cast<int>(rounded(within(low, value, high))) + kCodeCentre);
  }
  std::fill(code + dim, code + code_stride(dim), static_cast<std::uint8_t>(kCodeCentre));
}

std::int64_t encode_direction(const CodeModel& model, const float* query, std::size_t dim,
                              std::uint8_t* code) {
  double reach = 0.0;
  for (std::size_t j = 0; j < dim; ++j) reach = std::max(reach, std::abs(double{query[j]}));
  const double scale = reach > 0.0 ? 127.0 / reach : 0.0;
  double offset = 0.0;
  for (std::size_t j = 0; j < dim; ++j) {
    const double value = rounded(query[j] * scale);
    code[j] = static_cast<std::uint8_t>(static_cast<int>(value));
    offset += value * (double{model.mean[j]} * model.scale - kCodeCentre);
  }
  std::fill(code + dim, code + code_stride(dim), std::uint8_t{0});
  constexpr double kFar = 0x1p50;  // sums of codes are far smaller
  return static_cast<std::int64_t>(within(-kFar, rounded(offset), kFar));
}

}  // namespace iqdb
