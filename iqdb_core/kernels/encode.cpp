// Compiled with -ffp-contract=off: codes, their residuals and lengths are stored, so every variant must round
// alike.
#include "encode.hpp"

#include <cstddef>
#include <cstdint>

#include "simd.hpp"

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::int32_t kCentre = 64;  // codes.hpp's kCodeCentre and kCodeReach
constexpr double kReach = 63.0;

// A lane a row.
typedef double Doubles __attribute__((vector_size(32)));
typedef float Singles __attribute__((vector_size(16)));
typedef float UnalignedSingles __attribute__((vector_size(16), aligned(4), may_alias));
typedef std::int32_t Whole __attribute__((vector_size(16)));
static_assert(kEncodedRows == sizeof(Doubles) / sizeof(double));
constexpr std::size_t kAtOnce = sizeof(Singles) / sizeof(float);

IQDB_INLINE Doubles all(double x) {
  return x - Doubles{};
}

IQDB_INLINE Doubles load_doubles(const double* p) {
  return Doubles{p[0], p[1], p[2], p[3]};
}

IQDB_INLINE void store_doubles(double* p, Doubles x) {
  for (std::size_t i = 0; i < kEncodedRows; ++i) p[i] = x[i];
}

// Component j of all rows.
IQDB_INLINE Doubles column(const float* const* rows, std::size_t j) {
  return Doubles{rows[0][j], rows[1][j], rows[2][j], rows[3][j]};
}

// GCC 12 makes one conversion of this, and several instructions of __builtin_convertvector.
IQDB_INLINE Doubles wide(Singles x) {
  Doubles y;
  for (std::size_t i = 0; i < kEncodedRows; ++i) y[i] = static_cast<double>(x[i]);
  return y;
}

// `value` within -kReach..kReach. Files may hold vectors and models that make it NaN: that is then the least,
// where a conversion to an integer would be undefined.
IQDB_INLINE Doubles limited(Doubles value) {
#if defined(__AVX__)
  // Both return their second argument where one is NaN.
  return (Doubles)_mm256_min_pd((__m256d)all(kReach), _mm256_max_pd((__m256d)value, (__m256d)all(-kReach)));
#else
  const Doubles low = all(-kReach);
  const Doubles high = all(kReach);
  const Doubles above = low < value ? value : low;
  return high < above ? high : above;
#endif
}

IQDB_INLINE void store_word(std::uint8_t* p, std::int32_t word) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = static_cast<std::int32_t>(__builtin_bswap32(static_cast<std::uint32_t>(word)));
#endif
  __builtin_memcpy(p, &word, sizeof word);
}

// Components j to j + 3 of all rows, one after another.
IQDB_INLINE void columns(const float* const* rows, std::size_t j, Doubles* out) {
  Singles row[kEncodedRows];
  for (std::size_t i = 0; i < kEncodedRows; ++i)
    row[i] = *reinterpret_cast<const UnalignedSingles*>(rows[i] + j);
  const Singles a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
  const Singles b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
  const Singles c = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
  const Singles d = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
  out[0] = wide(__builtin_shufflevector(a, b, 0, 1, 4, 5));
  out[1] = wide(__builtin_shufflevector(a, b, 2, 3, 6, 7));
  out[2] = wide(__builtin_shufflevector(c, d, 0, 1, 4, 5));
  out[3] = wide(__builtin_shufflevector(c, d, 2, 3, 6, 7));
}

struct Rows {
  Doubles factor;
  Doubles scale;
  Doubles squares = {};
  Doubles residuals = {};

  // Returns the codes of one component, as integers.
  IQDB_INLINE Whole take(Doubles component, double mean) {
    const Doubles x = component * factor;
    const Doubles value = (x - mean) * scale;
    // Round to nearest, ties to even, for |x| < 2^51: the sum's last place is 1.
    constexpr double kMagic = 6'755'399'441'055'744.0;  // 1.5 * 2^52
    const Doubles nearest = (limited(value) + kMagic) - kMagic;
    const Doubles off = value - nearest;
    squares += x * x;
    residuals += off * off;
    return __builtin_convertvector(nearest, Whole) + kCentre;
  }
};

// The sums of squares of a code, and of the code less its centre.
IQDB_INLINE void sum_up(const std::uint8_t* code, std::size_t stride, std::int32_t* length,
                        std::int32_t* centred) {
  std::int32_t squares = 0;
  std::int32_t sum = 0;
  for (std::size_t j = 0; j < stride; ++j) {
    squares += std::int32_t{code[j]} * code[j];
    sum += code[j];
  }
  *length = squares;
  // Each of the three can be as large as 2^31; what comes out is not, and unsigned numbers wrap around.
  *centred = static_cast<std::int32_t>(static_cast<std::uint32_t>(squares) -
                                       2 * kCentre * static_cast<std::uint32_t>(sum) +
                                       kCentre * kCentre * static_cast<std::uint32_t>(stride));
}

}  // namespace

void encode(const EncodeTask& task) {
  Rows rows{.factor = load_doubles(task.factors), .scale = all(task.scale)};
  // Copies, since bytes that are stored could be anything to the compiler, the task included.
  const float* in[kEncodedRows];
  std::uint8_t* codes[kEncodedRows];
  for (std::size_t r = 0; r < kEncodedRows; ++r) {
    in[r] = task.rows[r];
    codes[r] = task.codes[r];
  }
  const double* const mean = task.mean;
  const std::size_t dim = task.dim;
  std::size_t j = 0;
  for (; j + kAtOnce <= dim; j += kAtOnce) {
    Doubles component[kAtOnce];
    columns(in, j, component);
    Whole code[kAtOnce];
    for (std::size_t i = 0; i < kAtOnce; ++i) code[i] = rows.take(component[i], mean[j + i]);
    // Byte i of word r is component j + i of row r.
    const Whole words = code[0] | code[1] << 8 | code[2] << 16 | code[3] << 24;
    for (std::size_t r = 0; r < kEncodedRows; ++r) store_word(codes[r] + j, words[r]);
  }
  for (; j < dim; ++j) {
    const Whole code = rows.take(column(in, j), mean[j]);
    for (std::size_t r = 0; r < kEncodedRows; ++r) codes[r][j] = static_cast<std::uint8_t>(code[r]);
  }
  store_doubles(task.squares, rows.squares);
  store_doubles(task.residuals, rows.residuals);
  for (std::size_t r = 0; r < kEncodedRows; ++r) {
    for (std::size_t i = task.dim; i < task.stride; ++i) task.codes[r][i] = kCentre;
    sum_up(task.codes[r], task.stride, task.lengths + r, task.centred + r);
  }
}

void row_squares(const float* const* rows, std::size_t dim, double* squares) {
  Doubles sum = {};
  std::size_t j = 0;
  for (; j + kAtOnce <= dim; j += kAtOnce) {
    Doubles component[kAtOnce];
    columns(rows, j, component);
    for (std::size_t i = 0; i < kAtOnce; ++i) sum += component[i] * component[i];
  }
  for (; j < dim; ++j) {
    const Doubles component = column(rows, j);
    sum += component * component;
  }
  store_doubles(squares, sum);
}

}  // namespace iqdb::IQDB_VARIANT
