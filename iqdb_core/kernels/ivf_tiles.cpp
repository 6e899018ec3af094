// Codes against codes at the speed of a matrix product, in integers, so that every variant gives the same
// keys.
//
// A panel interleaves centroids in groups of bytes that one instruction sums up: four for products, eight for
// absolute differences. A row's group is broadcast and meets a vector of centroids, so that sums need not be
// gathered from lanes. Compiled once per instruction set.
#include "ivf_tiles.hpp"

#include <cstddef>
#include <cstdint>

#include "simd.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::size_t kPanelStep = 64;  // bytes of a panel for one group of a row
constexpr std::int32_t kFar = 0x7fffffff;

#if defined(__AVX2__)

IQDB_INLINE __m256i load_bytes(const std::uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
IQDB_INLINE __m256i load_ints(const std::int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
IQDB_INLINE void store_ints(std::int32_t* p, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}

IQDB_INLINE __m256i broadcast4(const std::uint8_t* p) {
  std::int32_t x;
  __builtin_memcpy(&x, p, 4);
  return _mm256_set1_epi32(x);
}
IQDB_INLINE __m256i broadcast8(const std::uint8_t* p) {
  long long x;
  __builtin_memcpy(&x, p, 8);
  return _mm256_set1_epi64x(x);
}

struct Products {
  static constexpr std::size_t kLanes = 16;
  static constexpr std::size_t kKeyVectors = 2;  // of 8 keys

  // Keys of kRows rows with 16 centroids.
  template <std::size_t kRows>
  static IQDB_INLINE void keys(const std::uint8_t* const* rows, const std::uint8_t* panel, std::size_t stride,
                               const std::int32_t* terms, __m256i (&out)[kRows][2]) {
    __m256i sums[kRows][2];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    for (std::size_t i = 0; i < stride; i += 4, panel += kPanelStep) {
      const __m256i low = load_bytes(panel);
      const __m256i high = load_bytes(panel + 32);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < kRows; ++r) {
        const __m256i x = broadcast4(rows[r] + i);
        sums[r][0] = _mm256_dpbusd_epi32(sums[r][0], x, low);
        sums[r][1] = _mm256_dpbusd_epi32(sums[r][1], x, high);
      }
    }
#else
    // Two pairs of products fit 16 bits: 4 * 127 * 63 < 32768.
    const __m256i ones = _mm256_set1_epi16(1);
    for (std::size_t i = 0; i < stride; i += 8, panel += 2 * kPanelStep) {
#pragma GCC unroll 8
      for (std::size_t r = 0; r < kRows; ++r) {
        const __m256i x = broadcast4(rows[r] + i);
        const __m256i y = broadcast4(rows[r] + i + 4);
        const __m256i low = _mm256_add_epi16(_mm256_maddubs_epi16(x, load_bytes(panel)),
                                             _mm256_maddubs_epi16(y, load_bytes(panel + kPanelStep)));
        const __m256i high = _mm256_add_epi16(_mm256_maddubs_epi16(x, load_bytes(panel + 32)),
                                              _mm256_maddubs_epi16(y, load_bytes(panel + kPanelStep + 32)));
        sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(low, ones));
        sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(high, ones));
      }
    }
#endif
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) {
      out[r][0] = _mm256_sub_epi32(load_ints(terms), _mm256_slli_epi32(sums[r][0], 1));
      out[r][1] = _mm256_sub_epi32(load_ints(terms + 8), _mm256_slli_epi32(sums[r][1], 1));
    }
  }
};

struct Differences {
  static constexpr std::size_t kLanes = 8;
  static constexpr std::size_t kKeyVectors = 1;

  template <std::size_t kRows>
  static IQDB_INLINE void keys(const std::uint8_t* const* rows, const std::uint8_t* panel, std::size_t stride,
                               const std::int32_t* terms, __m256i (&out)[kRows][1]) {
    __m256i sums[kRows][2];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
    for (std::size_t i = 0; i < stride; i += 8, panel += kPanelStep) {
      const __m256i low = load_bytes(panel);
      const __m256i high = load_bytes(panel + 32);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < kRows; ++r) {
        const __m256i x = broadcast8(rows[r] + i);
        sums[r][0] = _mm256_add_epi64(sums[r][0], _mm256_sad_epu8(x, low));
        sums[r][1] = _mm256_add_epi64(sums[r][1], _mm256_sad_epu8(x, high));
      }
    }
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRows; ++r) {
      // The sums are the lower halves of 64-bit lanes.
      const __m256i packed = _mm256_castps_si256(
          _mm256_shuffle_ps(_mm256_castsi256_ps(sums[r][0]), _mm256_castsi256_ps(sums[r][1]), 0x88));
      out[r][0] = _mm256_add_epi32(load_ints(terms), _mm256_permute4x64_epi64(packed, 0xd8));
    }
  }
};

template <class Op>
void tiles(const ListTileTask& task) {
  constexpr std::size_t kRows = 4;
  constexpr std::size_t kVectors = Op::kKeyVectors;
  alignas(32) std::int32_t best[kCodeTileRows][8 * kVectors];
  alignas(32) std::int32_t lane_of[kCodeTileRows][8 * kVectors];
  for (std::size_t r = 0; r < task.n_rows; ++r) {
    for (std::size_t i = 0; i < 8 * kVectors; ++i) {
      best[r][i] = kFar;
      lane_of[r][i] = static_cast<std::int32_t>(i);
    }
  }
  const __m256i ascending = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (std::size_t lane = 0; lane < task.lanes; lane += Op::kLanes) {
    const std::uint8_t* const panel = task.panel + lane * task.stride;
    for (std::size_t first = 0; first < task.n_rows; first += kRows) {
      __m256i keys[kRows][kVectors];
      Op::template keys<kRows>(task.rows + first, panel, task.stride, task.terms + lane, keys);
      for (std::size_t r = 0; r < kRows && first + r < task.n_rows; ++r) {
        for (std::size_t j = 0; j < kVectors; ++j) {
          std::int32_t* const least = best[first + r] + 8 * j;
          std::int32_t* const where = lane_of[first + r] + 8 * j;
          const __m256i before = load_ints(least);
          const __m256i smaller = _mm256_cmpgt_epi32(before, keys[r][j]);
          const __m256i number =
              _mm256_add_epi32(_mm256_set1_epi32(static_cast<std::int32_t>(lane + 8 * j)), ascending);
          store_ints(least, _mm256_blendv_epi8(before, keys[r][j], smaller));
          store_ints(where, _mm256_blendv_epi8(load_ints(where), number, smaller));
        }
      }
    }
  }
  for (std::size_t r = 0; r < task.n_rows; ++r) {
    std::size_t nearest = 0;
    for (std::size_t i = 1; i < 8 * kVectors; ++i) {
      const bool smaller = best[r][i] != best[r][nearest] ? best[r][i] < best[r][nearest]
                                                          : lane_of[r][i] < lane_of[r][nearest];
      if (smaller) nearest = i;
    }
    task.best_keys[r] = best[r][nearest];
    task.best[r] = static_cast<std::uint32_t>(lane_of[r][nearest]);
  }
}

struct ProductTerm {
  __m256i ones = _mm256_set1_epi16(1);
  IQDB_INLINE __m256i add(__m256i sum, const std::uint8_t* code, __m256i query) const {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return _mm256_dpbusd_epi32(sum, load_bytes(code), query);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(load_bytes(code), query), ones));
#endif
  }
};

struct DifferenceTerm {
  IQDB_INLINE __m256i add(__m256i sum, const std::uint8_t* code, __m256i query) const {
    return _mm256_add_epi32(sum, _mm256_sad_epu8(load_bytes(code), query));  // odd lanes stay 0
  }
};

template <class Term>
void scan_codes(const ListScanTask& task) {
  const Term term;
  const auto* const query = static_cast<const std::uint8_t*>(task.query);
  const std::size_t stride = task.stride;
  std::size_t n = 0;
  for (; n + 4 <= task.n; n += 4) {
    const std::uint8_t* const code = task.codes + n * stride;
    __m256i sums[4] = {};
    for (std::size_t i = 0; i < stride; i += 32) {
      const __m256i q = load_bytes(query + i);
#pragma GCC unroll 4
      for (std::size_t r = 0; r < 4; ++r) sums[r] = term.add(sums[r], code + r * stride + i, q);
    }
    const __m256i pairs =
        _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    const __m128i total = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(task.sums + n), total);
  }
  for (; n < task.n; ++n) {
    const std::uint8_t* const code = task.codes + n * stride;
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < stride; i += 32) sum = term.add(sum, code + i, load_bytes(query + i));
    __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
    task.sums[n] = _mm_cvtsi128_si32(total);
  }
}

void sum_halves(const HalfTask& task) {
  const __m256i low_half = _mm256_set1_epi8(0x0f);
  for (std::size_t block = 0; block < task.n_blocks; ++block) {
    const std::uint8_t* const codes = task.codes + block * task.pairs * kHalfRows;
    // Pairs of bytes are summed up as 16-bit integers, the upper bytes once more by themselves: what they add
    // to the first sums can then be taken away.
    __m256i both = _mm256_setzero_si256();
    __m256i upper = both;
    for (std::size_t pair = 0; pair < task.pairs; ++pair) {
      const __m256i code = load_bytes(codes + pair * kHalfRows);
      const auto* const tables = reinterpret_cast<const __m128i*>(task.table + pair * 2 * kHalfWords);
      const __m256i first = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(tables)),
                                                _mm256_and_si256(code, low_half));
      const __m256i second = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(tables + 1)),
                                                 _mm256_and_si256(_mm256_srli_epi16(code, 4), low_half));
      both = _mm256_add_epi16(both, _mm256_add_epi16(first, second));
      upper = _mm256_add_epi16(upper,
                               _mm256_add_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8)));
    }
    const __m256i even = _mm256_sub_epi16(both, _mm256_slli_epi16(upper, 8));
    const __m256i low = _mm256_unpacklo_epi16(even, upper);   // rows 0-7 and 16-23
    const __m256i high = _mm256_unpackhi_epi16(even, upper);  // rows 8-15 and 24-31
    auto* const out = reinterpret_cast<__m256i*>(task.sums + block * kHalfRows);
    _mm256_storeu_si256(out, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(low, high, 0x31));
  }
}

#else  // portable

void sum_halves(const HalfTask& task) {
  for (std::size_t block = 0; block < task.n_blocks; ++block) {
    const std::uint8_t* const codes = task.codes + block * task.pairs * kHalfRows;
    std::uint16_t* const sums = task.sums + block * kHalfRows;
    for (std::size_t row = 0; row < kHalfRows; ++row) sums[row] = 0;
    for (std::size_t pair = 0; pair < task.pairs; ++pair) {
      const std::uint8_t* const table = task.table + pair * 2 * kHalfWords;
      for (std::size_t row = 0; row < kHalfRows; ++row) {
        const std::uint8_t code = codes[pair * kHalfRows + row];
        sums[row] =
            static_cast<std::uint16_t>(sums[row] + table[code & 15] + table[kHalfWords + (code >> 4)]);
      }
    }
  }
}

struct Products {
  static constexpr std::size_t kLanes = 16;
  static constexpr std::size_t kGroup = 4;
  IQDB_INLINE static std::int32_t term(std::uint8_t x, std::uint8_t c) {
    return x * static_cast<std::int8_t>(c);
  }
  IQDB_INLINE static std::int32_t key(std::int32_t term, std::int32_t sum) { return term - 2 * sum; }
};

struct Differences {
  static constexpr std::size_t kLanes = 8;
  static constexpr std::size_t kGroup = 8;
  IQDB_INLINE static std::int32_t term(std::uint8_t x, std::uint8_t c) { return x > c ? x - c : c - x; }
  IQDB_INLINE static std::int32_t key(std::int32_t term, std::int32_t sum) { return term + sum; }
};

template <class Op>
void tiles(const ListTileTask& task) {
  for (std::size_t r = 0; r < task.n_rows; ++r) {
    std::int32_t least = kFar;
    std::size_t nearest = 0;
    for (std::size_t lane = 0; lane < task.lanes; lane += Op::kLanes) {
      const std::uint8_t* panel = task.panel + lane * task.stride;
      std::int32_t sums[Op::kLanes] = {};
      for (std::size_t i = 0; i < task.stride; i += Op::kGroup, panel += kPanelStep) {
        for (std::size_t c = 0; c < Op::kLanes; ++c) {
          for (std::size_t b = 0; b < Op::kGroup; ++b) {
            sums[c] += Op::term(task.rows[r][i + b], panel[c * Op::kGroup + b]);
          }
        }
      }
      for (std::size_t c = 0; c < Op::kLanes; ++c) {
        const std::int32_t key = Op::key(task.terms[lane + c], sums[c]);
        if (key < least) {
          least = key;
          nearest = lane + c;
        }
      }
    }
    task.best_keys[r] = least;
    task.best[r] = static_cast<std::uint32_t>(nearest);
  }
}

struct ProductTerm {
  typedef std::int8_t Item;
  IQDB_INLINE static std::int32_t of(std::uint8_t x, Item q) { return x * q; }
};

struct DifferenceTerm {
  typedef std::uint8_t Item;
  IQDB_INLINE static std::int32_t of(std::uint8_t x, Item q) { return x > q ? x - q : q - x; }
};

template <class Term>
void scan_codes(const ListScanTask& task) {
  const auto* const query = static_cast<const typename Term::Item*>(task.query);
  for (std::size_t n = 0; n < task.n; ++n) {
    const std::uint8_t* const code = task.codes + n * task.stride;
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < task.stride; ++i) sum += Term::of(code[i], query[i]);
    task.sums[n] = sum;
  }
}

#endif

}  // namespace

void list_tiles(CodeSum kind, const ListTileTask& task) {
  return kind == CodeSum::kDot ? tiles<Products>(task) : tiles<Differences>(task);
}

void list_scan(CodeSum kind, const ListScanTask& task) {
  return kind == CodeSum::kDot ? scan_codes<ProductTerm>(task) : scan_codes<DifferenceTerm>(task);
}

void half_sums(const HalfTask& task) {
  sum_halves(task);
}

}  // namespace iqdb::IQDB_VARIANT
