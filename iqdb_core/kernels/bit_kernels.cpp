// Counting bits that differ: one query against rows as they are stored, a few queries against tiles of rows.
// Compiled once per instruction set. All counts are of integers, so that variants do not differ.
#include "bit_kernels.hpp"

#include <cstddef>
#include <cstdint>

#include "simd.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace iqdb::IQDB_VARIANT {
namespace {

#if defined(__POPCNT__) || defined(__aarch64__)
IQDB_INLINE std::uint32_t ones(std::uint64_t x) {
  return static_cast<std::uint32_t>(__builtin_popcountll(x));
}
#else
// Without an instruction the compiler calls a function, word by word.
IQDB_INLINE std::uint32_t ones(std::uint64_t x) {
  x -= x >> 1 & 0x5555555555555555;
  x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return static_cast<std::uint32_t>(x * 0x0101010101010101 >> 56);
}
#endif

IQDB_INLINE std::uint64_t word_at(const std::uint8_t* p) {
  std::uint64_t word;
  __builtin_memcpy(&word, p, 8);
  return word;
}

// Words: how many there are when that is known, or 0.
template <std::size_t Words, bool Masked>
IQDB_INLINE std::uint32_t differing(const std::uint8_t* code, const std::uint64_t* query,
                                    const std::uint64_t* mask, std::size_t n_words) {
  const std::size_t words = Words != 0 ? Words : n_words;
  std::uint32_t sum = 0;
  for (std::size_t w = 0; w < words; ++w) {
    std::uint64_t different = word_at(code + 8 * w) ^ query[w];
    if (Masked) different &= mask[w];
    sum += ones(different);
  }
  return sum;
}

template <std::size_t Words, bool Masked>
std::size_t scan_rows(const BitScanTask& task) {
  constexpr std::size_t kGroup = 4;
  const std::size_t words = Words != 0 ? Words : task.words;
  const std::size_t stride = 8 * words;
  const std::uint32_t limit = task.limit;
  const std::uint64_t* query = task.query;
  std::uint64_t copied[Words != 0 ? Words : 1];
  for (std::size_t w = 0; w < Words; ++w) copied[w] = task.query[w];
  if (Words != 0) query = copied;

  std::size_t count = 0;
  const std::uint8_t* code = task.codes;
  const auto keep = [&](std::size_t row, std::uint32_t sum) {
    task.kept[count] = static_cast<std::uint32_t>(row);
    task.distances[count] = sum;
    count += sum <= limit;
  };
  std::size_t row = 0;
  for (; row + kGroup <= task.n_rows; row += kGroup, code += kGroup * stride) {
    std::uint32_t sums[kGroup];
    bool any = false;
    for (std::size_t r = 0; r < kGroup; ++r) {
      sums[r] = differing<Words, Masked>(code + r * stride, query, task.mask, words);
      any |= sums[r] <= limit;
    }
    // Once limits are known, hardly a row is kept: nothing is written for the others.
    if (!any) continue;
    for (std::size_t r = 0; r < kGroup; ++r) keep(row + r, sums[r]);
  }
  for (; row < task.n_rows; ++row, code += stride)
    keep(row, differing<Words, Masked>(code, query, task.mask, words));
  return count;
}

#if defined(__AVX2__)

typedef std::uint8_t Bytes __attribute__((vector_size(16)));

IQDB_INLINE Bytes low_pairs(Bytes x, Bytes y) {
  return (Bytes)_mm_unpacklo_epi8((__m128i)x, (__m128i)y);
}
IQDB_INLINE Bytes high_pairs(Bytes x, Bytes y) {
  return (Bytes)_mm_unpackhi_epi8((__m128i)x, (__m128i)y);
}

// Byte w of 16 codes becomes 16 bytes, of which each half is stored; `to` is that of the first code.
void split_word(const std::uint8_t* const* codes, std::uint8_t* to) {
  Bytes x[8];
  Bytes y[8];
  for (std::size_t i = 0; i < 8; ++i) {
    x[i] = low_pairs((Bytes)_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes[i])),
                     (Bytes)_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes[i + 8])));
  }
  // Each step pairs rows at half the distance, and parts bytes 0.. from those behind.
  for (std::size_t i = 0; i < 4; ++i) {
    y[i] = low_pairs(x[i], x[i + 4]);
    y[i + 4] = high_pairs(x[i], x[i + 4]);
  }
  for (std::size_t part = 0; part < 8; part += 4) {
    for (std::size_t i = 0; i < 2; ++i) {
      x[part + i] = low_pairs(y[part + i], y[part + i + 2]);
      x[part + i + 2] = high_pairs(y[part + i], y[part + i + 2]);
    }
  }
  for (std::size_t part = 0; part < 8; part += 2) {
    y[part] = low_pairs(x[part], x[part + 1]);
    y[part + 1] = high_pairs(x[part], x[part + 1]);
  }
  for (std::size_t byte = 0; byte < 8; ++byte, to += 2 * kBitTileRows) {
    const Bytes low = y[byte] & 0x0f;
    const Bytes high = y[byte] >> 4;
    __builtin_memcpy(to, &low, 16);
    __builtin_memcpy(to + kBitTileRows, &high, 16);
  }
}

IQDB_INLINE __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// Half-bytes whose counts, at most 4 each, fit a byte together.
constexpr std::size_t kUnwidened = 62;

// Sums of a vector of 32 rows: rows 0-7 and 16-23, then rows 8-15 and 24-31.
struct Sums {
  __m256i first;
  __m256i second;

  IQDB_INLINE void add(__m256i bytes) {
    first = _mm256_add_epi16(first, _mm256_unpacklo_epi8(bytes, _mm256_setzero_si256()));
    second = _mm256_add_epi16(second, _mm256_unpackhi_epi8(bytes, _mm256_setzero_si256()));
  }
  // A bit a row, in order: whether its sum is at most the limit.
  IQDB_INLINE std::uint32_t within(std::uint16_t limit) const {
    const __m256i most = _mm256_set1_epi16(static_cast<std::int16_t>(limit));
    const __m256i zero = _mm256_setzero_si256();
    const __m256i a = _mm256_cmpeq_epi16(_mm256_subs_epu16(first, most), zero);
    const __m256i b = _mm256_cmpeq_epi16(_mm256_subs_epu16(second, most), zero);
    return static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_packs_epi16(a, b)));
  }
};

void tile(const BitTileTask& task, const std::uint8_t* halves, std::uint64_t* within) {
  constexpr std::size_t kVectors = kBitTileRows / 32;
  Sums sums[kBitTileQueries][kVectors] = {};
  for (std::size_t begin = 0; begin < task.n_halves; begin += kUnwidened) {
    const std::size_t end = begin + kUnwidened < task.n_halves ? begin + kUnwidened : task.n_halves;
    __m256i counts[kBitTileQueries][kVectors];
    for (auto& of_query : counts) {
      for (__m256i& count : of_query) count = _mm256_setzero_si256();
    }
    for (std::size_t half = begin; half < end; ++half) {
      const __m256i x[kVectors] = {load_bytes(halves + half * kBitTileRows),
                                   load_bytes(halves + half * kBitTileRows + 32)};
      for (std::size_t q = 0; q < kBitTileQueries; ++q) {
        const auto* const words =
            reinterpret_cast<const __m128i*>(task.tables + (q * task.n_halves + half) * kBitWords);
        const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(words));
        for (std::size_t v = 0; v < kVectors; ++v)
          counts[q][v] = _mm256_add_epi8(counts[q][v], _mm256_shuffle_epi8(table, x[v]));
      }
    }
    for (std::size_t q = 0; q < kBitTileQueries; ++q) {
      for (std::size_t v = 0; v < kVectors; ++v) sums[q][v].add(counts[q][v]);
    }
  }
  for (std::size_t q = 0; q < kBitTileQueries; ++q) {
    within[q] = sums[q][0].within(task.limits[q]) |
                static_cast<std::uint64_t>(sums[q][1].within(task.limits[q])) << 32;
  }
}

#endif

}  // namespace

std::size_t bit_scan(const BitScanTask& task) {
  if (task.mask != nullptr) return scan_rows<0, true>(task);
  switch (task.words) {
    case 1:
      return scan_rows<1, false>(task);
    case 2:
      return scan_rows<2, false>(task);
    case 3:
      return scan_rows<3, false>(task);
    case 4:
      return scan_rows<4, false>(task);
    case 6:
      return scan_rows<6, false>(task);
    case 8:
      return scan_rows<8, false>(task);
    case 12:
      return scan_rows<12, false>(task);
    case 16:
      return scan_rows<16, false>(task);
    default:
      return scan_rows<0, false>(task);
  }
}

#if defined(__AVX2__)

void bit_split(const std::uint8_t* codes, std::size_t n_rows, std::size_t words, std::uint8_t* halves) {
  constexpr std::size_t kRows = 16;
  const std::size_t stride = 8 * words;
  for (std::size_t row = 0; row < n_rows; row += kRows) {
    std::uint8_t* const to = halves + row / kBitTileRows * (2 * stride * kBitTileRows) + row % kBitTileRows;
    for (std::size_t w = 0; w < words; ++w) {
      const std::uint8_t* from[kRows];
      for (std::size_t i = 0; i < kRows; ++i) {
        const std::size_t at = row + i < n_rows ? row + i : n_rows - 1;
        from[i] = codes + at * stride + 8 * w;
      }
      split_word(from, to + w * 16 * kBitTileRows);
    }
  }
}

void bit_tiles(const BitTileTask& task) {
  for (std::size_t t = 0; t < task.n_tiles; ++t) {
    std::uint64_t within[kBitTileQueries];
    tile(task, task.halves + t * task.n_halves * kBitTileRows, within);
    for (std::size_t q = 0; q < kBitTileQueries; ++q) {
      for (std::uint64_t left = within[q]; left != 0; left &= left - 1) {
        const auto row = static_cast<std::size_t>(__builtin_ctzll(left));
        task.sink.candidate(task.sink.self, t * kBitTileRows + row, q);
      }
    }
  }
}

#endif

}  // namespace iqdb::IQDB_VARIANT
