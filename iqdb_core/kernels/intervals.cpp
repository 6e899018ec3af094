// Which values of a column lie in an interval, as bits. Compiled once per instruction set.
#include "intervals.hpp"

#include <cstddef>
#include <cstdint>

#include "simd.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::size_t kWordBits = 64;

// The bits of up to 64 values. NaN is in no interval.
template <class T>
IQDB_INLINE std::uint64_t bits_one_by_one(const T* values, std::size_t n, T low, T high) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const bool inside = (low <= values[i]) & (values[i] <= high);
    word |= static_cast<std::uint64_t>(inside) << i;
  }
  return word;
}

#if defined(__AVX512F__)
struct WholeNumbers {
  __m512i low;
  __m512i high;
  IQDB_INLINE WholeNumbers(std::int64_t from, std::int64_t to)
      : low(_mm512_set1_epi64(from)), high(_mm512_set1_epi64(to)) {}
  IQDB_INLINE std::uint64_t operator()(const std::int64_t* values) const {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < kWordBits; i += 8) {
      const __m512i x = _mm512_loadu_si512(values + i);
      const std::uint64_t inside = _mm512_mask_cmple_epi64_mask(_mm512_cmple_epi64_mask(low, x), x, high);
      word |= inside << i;
    }
    return word;
  }
};
struct Floating {
  __m512d low;
  __m512d high;
  IQDB_INLINE Floating(double from, double to) : low(_mm512_set1_pd(from)), high(_mm512_set1_pd(to)) {}
  IQDB_INLINE std::uint64_t operator()(const double* values) const {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < kWordBits; i += 8) {
      const __m512d x = _mm512_loadu_pd(values + i);
      const __mmask8 above = _mm512_cmp_pd_mask(low, x, _CMP_LE_OQ);
      const std::uint64_t inside = _mm512_mask_cmp_pd_mask(above, x, high, _CMP_LE_OQ);
      word |= inside << i;
    }
    return word;
  }
};
#elif defined(__AVX2__)
struct WholeNumbers {
  __m256i low;
  __m256i high;
  IQDB_INLINE WholeNumbers(std::int64_t from, std::int64_t to)
      : low(_mm256_set1_epi64x(from)), high(_mm256_set1_epi64x(to)) {}
  IQDB_INLINE std::uint64_t operator()(const std::int64_t* values) const {
    std::uint64_t outside = 0;
    for (std::size_t i = 0; i < kWordBits; i += 4) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i));
      const __m256i out = _mm256_or_si256(_mm256_cmpgt_epi64(low, x), _mm256_cmpgt_epi64(x, high));
      const int four = _mm256_movemask_pd(_mm256_castsi256_pd(out));
      outside |= static_cast<std::uint64_t>(static_cast<unsigned>(four)) << i;
    }
    return ~outside;
  }
};
struct Floating {
  __m256d low;
  __m256d high;
  IQDB_INLINE Floating(double from, double to) : low(_mm256_set1_pd(from)), high(_mm256_set1_pd(to)) {}
  IQDB_INLINE std::uint64_t operator()(const double* values) const {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < kWordBits; i += 4) {
      const __m256d x = _mm256_loadu_pd(values + i);
      const __m256d in = _mm256_and_pd(_mm256_cmp_pd(low, x, _CMP_LE_OQ), _mm256_cmp_pd(x, high, _CMP_LE_OQ));
      word |= static_cast<std::uint64_t>(static_cast<unsigned>(_mm256_movemask_pd(in))) << i;
    }
    return word;
  }
};
#else
template <class T>
struct OneByOne {
  T low;
  T high;
  IQDB_INLINE std::uint64_t operator()(const T* values) const {
    return bits_one_by_one(values, kWordBits, low, high);
  }
};
using WholeNumbers = OneByOne<std::int64_t>;
using Floating = OneByOne<double>;
#endif

template <class Test, class T>
IQDB_INLINE void within(const T* values, std::size_t n, T low, T high, std::uint64_t* words) {
  const Test test{low, high};
  std::size_t i = 0;
  for (; i + kWordBits <= n; i += kWordBits) *words++ = test(values + i);
  if (i < n) *words = bits_one_by_one(values + i, n - i, low, high);
}

}  // namespace

void within_int64(const std::int64_t* values, std::size_t n, std::int64_t low, std::int64_t high,
                  std::uint64_t* words) {
  within<WholeNumbers>(values, n, low, high, words);
}

void within_float64(const double* values, std::size_t n, double low, double high, std::uint64_t* words) {
  within<Floating>(values, n, low, high, words);
}

}  // namespace iqdb::IQDB_VARIANT
