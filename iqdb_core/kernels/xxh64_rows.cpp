// The stripes of XXH64 for three rows under both seeds. Compiled once per instruction set.
//
// A stripe of one row costs twelve multiplications, and a CPU has one multiplier for 64-bit integers but
// several for vectors of 32-bit ones. With AVX2 two rows go through the vectors while a third one goes
// through the scalar multiplier: two and a half times as many bytes a second as row by row.
#include "xxh64_rows.hpp"

#include <cstddef>
#include <cstdint>

#include "simd.hpp"
#include "table.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::uint64_t kFirst = 0x9E3779B185EBCA87;   // the specification's PRIME64_1
constexpr std::uint64_t kSecond = 0xC2B2AE3D27D4EB4F;  // and PRIME64_2
constexpr std::size_t kStripe = 32;

IQDB_INLINE std::uint64_t load_word(const std::uint8_t* p) {
  std::uint64_t word;
  __builtin_memcpy(&word, p, sizeof word);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  word = __builtin_bswap64(word);
#endif
  return word;
}

IQDB_INLINE std::uint64_t mixed(std::uint64_t lane, std::uint64_t product) {
  const std::uint64_t sum = lane + product;
  return (sum << 31 | sum >> 33) * kFirst;
}

// One row under both seeds: the products of the input are the same.
struct ScalarRow {
  std::uint64_t* lanes;  // [2][4]
  std::uint64_t of[8];

  IQDB_INLINE explicit ScalarRow(std::uint64_t* p) : lanes(p) {
    for (std::size_t i = 0; i < 8; ++i) of[i] = p[i];
  }
  IQDB_INLINE void take(const std::uint8_t* stripe) {
    for (std::size_t i = 0; i < 4; ++i) {
      const std::uint64_t product = load_word(stripe + 8 * i) * kSecond;
      of[i] = mixed(of[i], product);
      of[4 + i] = mixed(of[4 + i], product);
    }
  }
  IQDB_INLINE void store() const {
    for (std::size_t i = 0; i < 8; ++i) lanes[i] = of[i];
  }
};

#if defined(__AVX2__)
struct Factor {
  __m256i value;
  __m256i swapped;  // its halves exchanged

  IQDB_INLINE explicit Factor(std::uint64_t x)
      : value(_mm256_set1_epi64x(static_cast<long long>(x))),
        swapped(_mm256_set1_epi64x(static_cast<long long>(x << 32 | x >> 32))) {}
};

// Modulo 2^64. Without AVX-512 from products of 32 bits: low * low, and the two mixed ones, of which only
// the lower halves count.
IQDB_INLINE __m256i times(__m256i x, const Factor& factor) {
#if defined(__AVX512DQ__) && defined(__AVX512VL__)
  return _mm256_mullo_epi64(x, factor.value);
#else
  const __m256i crossed = _mm256_mullo_epi32(x, factor.swapped);
  const __m256i both = _mm256_add_epi32(crossed, _mm256_srli_epi64(crossed, 32));
  return _mm256_add_epi64(_mm256_mul_epu32(x, factor.value), _mm256_slli_epi64(both, 32));
#endif
}

IQDB_INLINE __m256i mixed(__m256i lanes, __m256i product, const Factor& first) {
  const __m256i sum = _mm256_add_epi64(lanes, product);
  return times(_mm256_or_si256(_mm256_slli_epi64(sum, 31), _mm256_srli_epi64(sum, 33)), first);
}

struct VectorRow {
  std::uint64_t* lanes;  // [2][4]
  __m256i of[2];

  IQDB_INLINE explicit VectorRow(std::uint64_t* p) : lanes(p) {
    for (std::size_t seed = 0; seed < 2; ++seed) {
      of[seed] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 4 * seed));
    }
  }
  IQDB_INLINE void take(const std::uint8_t* stripe, const Factor& first, const Factor& second) {
    const __m256i product = times(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(stripe)), second);
    of[0] = mixed(of[0], product, first);
    of[1] = mixed(of[1], product, first);
  }
  IQDB_INLINE void store() const {
    for (std::size_t seed = 0; seed < 2; ++seed) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes + 4 * seed), of[seed]);
    }
  }
};
#endif

}  // namespace

void mix_rows(const std::uint8_t* rows, std::size_t row_bytes, std::size_t n_stripes, std::uint64_t* lanes) {
  static_assert(kHashedRows == 3);
#if defined(__AVX2__)
  const Factor first(kFirst);
  const Factor second(kSecond);
  VectorRow a(lanes);
  VectorRow b(lanes + 8);
  ScalarRow c(lanes + 16);
  for (std::size_t i = 0; i < n_stripes; ++i) {
    const std::uint8_t* const stripe = rows + i * kStripe;
    a.take(stripe, first, second);
    b.take(stripe + row_bytes, first, second);
    c.take(stripe + 2 * row_bytes);
  }
  a.store();
  b.store();
  c.store();
#else
  for (std::size_t row = 0; row < kHashedRows; ++row) {
    ScalarRow only(lanes + 8 * row);
    for (std::size_t i = 0; i < n_stripes; ++i) only.take(rows + row * row_bytes + i * kStripe);
    only.store();
  }
#endif
}

}  // namespace iqdb::IQDB_VARIANT
