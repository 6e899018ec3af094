// The distances that callers see. Compiled with -ffp-contract=off: no product is fused with a sum,
// so every variant performs the same IEEE operations and returns the same bits.
//
// Components go to eight float64 lanes, component i to lane i mod 8, each lane summed in order of i;
// the lanes are added in the fixed tree ((0+4)+(2+6))+((1+5)+(3+7)). Eight lanes are one vector of
// AVX-512, two of AVX2 and four of SSE2 and NEON.
#include "canonical.hpp"

#include "simd.hpp"

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::size_t kLanes = 8;
constexpr std::size_t kDoubles = kVectorBytes / 8;
constexpr std::size_t kParts = kLanes / kDoubles;

typedef double Doubles __attribute__((vector_size(kVectorBytes)));
typedef std::int64_t Words __attribute__((vector_size(kVectorBytes)));

// GCC 12 makes one conversion of this, and four instructions of __builtin_convertvector.
IQDB_INLINE Doubles load_wide(const float* p) {
  Doubles x;
  for (std::size_t i = 0; i < kDoubles; ++i) x[i] = static_cast<double>(p[i]);
  return x;
}

struct Product {
  static IQDB_INLINE Doubles of(Doubles q, Doubles x) { return q * x; }
  static IQDB_INLINE double of(double q, double x) { return q * x; }
};
struct RowSquare {
  static IQDB_INLINE Doubles of(Doubles, Doubles x) { return x * x; }
  static IQDB_INLINE double of(double, double x) { return x * x; }
};
struct DifferenceSquare {
  static IQDB_INLINE Doubles of(Doubles q, Doubles x) { return (q - x) * (q - x); }
  static IQDB_INLINE double of(double q, double x) { return (q - x) * (q - x); }
};
struct AbsoluteDifference {
  static IQDB_INLINE Doubles of(Doubles q, Doubles x) {
    return (Doubles)((Words)(q - x) & std::int64_t{0x7fffffffffffffff});
  }
  static IQDB_INLINE double of(double q, double x) { return __builtin_fabs(q - x); }
};

template <class Term>
struct Lanes {
  Doubles parts[kParts] = {};

  IQDB_INLINE void add(const Doubles* q, const Doubles* x) {
    for (std::size_t p = 0; p < kParts; ++p) parts[p] += Term::of(q[p], x[p]);
  }
  IQDB_INLINE double finish(const float* q, const float* x, std::size_t count) const {
    double lane[kLanes];
    for (std::size_t p = 0; p < kParts; ++p) {
      for (std::size_t i = 0; i < kDoubles; ++i) lane[p * kDoubles + i] = parts[p][i];
    }
    for (std::size_t i = 0; i < count; ++i) {
      lane[i] += Term::of(static_cast<double>(q[i]), static_cast<double>(x[i]));
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
  }
};

template <class... Term>
IQDB_INLINE void sum(const float* q, const float* x, std::size_t dim, double* out, Lanes<Term>... lanes) {
  std::size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    Doubles qs[kParts];
    Doubles xs[kParts];
    for (std::size_t p = 0; p < kParts; ++p) {
      qs[p] = load_wide(q + i + p * kDoubles);
      xs[p] = load_wide(x + i + p * kDoubles);
    }
    (lanes.add(qs, xs), ...);
  }
  ((*out++ = lanes.finish(q + i, x + i, dim - i)), ...);
}

double hamming(const float* q, const float* x, std::size_t dim) {
  std::size_t i = 0;
  std::size_t different = 0;
  Ints minus = {};
  for (; i + kFloats <= dim; i += kFloats) minus += bits(load(q + i)) != bits(load(x + i));
  for (std::size_t lane = 0; lane < kFloats; ++lane) different += static_cast<std::size_t>(-minus[lane]);
  for (; i < dim; ++i) {
    std::uint32_t a;
    std::uint32_t b;
    __builtin_memcpy(&a, q + i, 4);
    __builtin_memcpy(&b, x + i, 4);
    different += a != b;
  }
  return static_cast<double>(different);
}

double cosine(const float* q, double qq, const float* x, std::size_t dim) {
  double sums[2];
  sum(q, x, dim, sums, Lanes<Product>{}, Lanes<RowSquare>{});
  if (qq == 0.0 || sums[1] == 0.0) return 1.0;
  const double distance = 1.0 - sums[0] / __builtin_sqrt(qq * sums[1]);
  return distance < 0.0 ? 0.0 : distance > 2.0 ? 2.0 : distance;
}

double distance(Metric metric, const float* q, double qq, const float* x, std::size_t dim) {
  double total = 0.0;
  switch (metric) {
    case Metric::kCosine:
      return cosine(q, qq, x, dim);
    case Metric::kDot:
      sum(q, x, dim, &total, Lanes<Product>{});
      return 0.0 - total;  // never -0.0
    case Metric::kEuclidean:
      sum(q, x, dim, &total, Lanes<DifferenceSquare>{});
      return __builtin_sqrt(total);
    case Metric::kManhattan:
      sum(q, x, dim, &total, Lanes<AbsoluteDifference>{});
      return total;
    case Metric::kHamming:
      return hamming(q, x, dim);
  }
  return total;
}

}  // namespace

double canonical(Metric metric, const float* query, double query_norm2, const float* row, std::size_t dim) {
  const double result = distance(metric, query, query_norm2, row, dim);
  return result == result ? result : __builtin_inf();
}

double norm2(const float* x, std::size_t dim) {
  double total = 0.0;
  sum(x, x, dim, &total, Lanes<RowSquare>{});
  return total;
}

}  // namespace iqdb::IQDB_VARIANT
