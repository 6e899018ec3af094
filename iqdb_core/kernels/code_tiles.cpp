// Codes of queries against codes of rows: one query against a block of rows (code_scan, code_pick), and
// panels of queries (code_tiles). Sums are exact integers. What a pass lets through is scored by the vectors.
//
// In a panel the bytes of four components of one query lie together, four bytes a lane, so that a row's four
// bytes are broadcast to all lanes and vpmaddubsw and its like sum over them. The rows are read where they
// are.
#include "code_tiles.hpp"

#include "simd.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::size_t kLineBytes = 64;
// The CPU foresees the next row, unless a mask chose it; measured: asking for it as well costs a third.
constexpr std::size_t kRowsAhead = 8;
static_assert(kRowsAhead <= kMaxTileRows);

#if defined(__AVX2__)
IQDB_INLINE __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

// Four vectors of sums become one of four sums.
IQDB_INLINE __m128i sums_of_four(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

// sum + the products of codes and signed bytes, in groups of four
IQDB_INLINE __m256i add_products(__m256i sum, __m256i codes, __m256i query) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(sum, codes, query);
#else
  // Codes are below 128: a pair of products fits 16 bits.
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, query), _mm256_set1_epi16(1)));
#endif
}
#endif

IQDB_INLINE std::int32_t dot(const std::uint8_t* code, const std::int8_t* query, std::size_t n) {
  std::int32_t sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += std::int32_t{code[i]} * query[i];
  return sum;
}

IQDB_INLINE void prefetch_ahead(const std::uint8_t* const* rows, std::size_t r, std::size_t stride) {
  const std::uint8_t* const ahead = rows[r + kRowsAhead];
  if (ahead == rows[r] + kRowsAhead * stride) return;
  for (std::size_t i = 0; i < stride; i += kLineBytes) __builtin_prefetch(ahead + i);
}

}  // namespace

void code_scan(const std::uint8_t* const* rows, std::size_t n_rows, std::size_t stride,
               const std::int8_t* query, std::int32_t* sums) {
  for (std::size_t r = 0; r < n_rows; r += 4) {
    for (std::size_t i = 0; i < 4; ++i) prefetch_ahead(rows, r + i, stride);
#if defined(__AVX2__)
    // One row after the other: four streams at once, which share the loads of the query, took twice as long.
    __m256i sum[4];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < 4; ++i) {
      sum[i] = _mm256_setzero_si256();
      for (std::size_t j = 0; j < stride; j += 32) {
        sum[i] = add_products(sum[i], load_bytes(rows[r + i] + j), load_bytes(query + j));
      }
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + r), sums_of_four(sum[0], sum[1], sum[2], sum[3]));
#else
    for (std::size_t i = 0; i < 4; ++i) sums[r + i] = dot(rows[r + i], query, stride);
#endif
  }
}

std::size_t code_pick(const CodePick& task, std::uint32_t* kept) {
  std::size_t n = 0;
  const float a = task.a;
  const float b = task.b;
  const float c = task.c;
  const float d = task.d;
  std::size_t i = 0;
  for (; i + kFloats <= task.n_rows; i += kFloats) {
    Ints sums;
    __builtin_memcpy(&sums, task.sums + i, sizeof sums);
    Floats limit = a + b * load(task.p + i) + c * load(task.r + i);
    if (task.u != nullptr) limit += d * load(task.u + i);
    const Ints dropped = __builtin_convertvector(sums, Floats) < limit;
    if (__builtin_expect(!any(~dropped), 1)) continue;
    for (std::size_t lane = 0; lane < kFloats; ++lane) {
      if (dropped[lane] == 0) kept[n++] = static_cast<std::uint32_t>(i + lane);
    }
  }
  for (; i < task.n_rows; ++i) {
    float limit = a + b * task.p[i] + c * task.r[i];
    if (task.u != nullptr) limit += d * task.u[i];
    if (!(static_cast<float>(task.sums[i]) < limit)) kept[n++] = static_cast<std::uint32_t>(i);
  }
  return n;
}

void code_pack(const std::int8_t* const* queries, std::size_t n_queries, std::size_t stride,
               std::int8_t* panel) {
  for (std::size_t i = 0; i < stride; i += 4) {
    for (std::size_t lane = 0; lane < kCodePanelLanes; ++lane) {
      for (std::size_t j = 0; j < 4; ++j) *panel++ = lane < n_queries ? queries[lane][i + j] : std::int8_t{0};
    }
  }
}

namespace {

typedef std::int32_t LaneInts __attribute__((vector_size(4 * kCodeLanes)));
typedef float LaneFloats __attribute__((vector_size(4 * kCodeLanes)));
typedef float UnalignedLaneFloats __attribute__((vector_size(4 * kCodeLanes), aligned(4), may_alias));

IQDB_INLINE LaneFloats load_lanes(const float* p) {
  return *reinterpret_cast<const UnalignedLaneFloats*>(p);
}

#if defined(__AVX512VNNI__)
constexpr std::size_t kTileRows = 8;
#else
constexpr std::size_t kTileRows = 4;
#endif
static_assert(kTileRows <= kMaxTileRows);

IQDB_INLINE std::int32_t four_bytes(const void* p) {
  std::int32_t x;
  __builtin_memcpy(&x, p, 4);
  return x;
}

// Eight components of the tile's rows and of a panel.
IQDB_INLINE void step(LaneInts (&sums)[kTileRows][2], const std::uint8_t* const (&row)[kTileRows],
                      std::size_t i, const std::int8_t* panel) {
#if defined(__AVX512VNNI__)
  for (std::size_t half = 0; half < 2; ++half) {
    const __m512i q0 = _mm512_loadu_si512(panel + half * 128);
    const __m512i q1 = _mm512_loadu_si512(panel + half * 128 + 64);
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kTileRows; ++r) {
      const __m512i x = _mm512_set1_epi32(four_bytes(row[r] + i + 4 * half));
      sums[r][0] = (LaneInts)_mm512_dpbusd_epi32((__m512i)sums[r][0], x, q0);
      sums[r][1] = (LaneInts)_mm512_dpbusd_epi32((__m512i)sums[r][1], x, q1);
    }
  }
#elif defined(__AVX2__)
  // Queries of a panel are below 64 in size (kCodePanelReach), so that four products fit 16 bits: one
  // widening for two multiplications.
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
  for (std::size_t r = 0; r < kTileRows; ++r) {
    const __m256i x0 = _mm256_set1_epi32(four_bytes(row[r] + i));
    const __m256i x1 = _mm256_set1_epi32(four_bytes(row[r] + i + 4));
#pragma GCC unroll 2
    for (std::size_t j = 0; j < 2; ++j) {
      const __m256i low = _mm256_maddubs_epi16(x0, load_bytes(panel + 32 * j));
      const __m256i high = _mm256_maddubs_epi16(x1, load_bytes(panel + 64 + 32 * j));
      sums[r][j] += (LaneInts)_mm256_madd_epi16(_mm256_add_epi16(low, high), ones);
    }
  }
#else
  for (std::size_t r = 0; r < kTileRows; ++r) {
    for (std::size_t half = 0; half < 2; ++half) {
      for (std::size_t lane = 0; lane < kCodePanelLanes; ++lane) {
        sums[r][lane / kCodeLanes][lane % kCodeLanes] +=
            dot(row[r] + i + 4 * half, panel + 4 * (half * kCodePanelLanes + lane), 4);
      }
    }
  }
#endif
}

template <bool has_u>
void run(const CodeTileTask& task) {
  for (std::size_t first = 0; first < task.n_rows; first += kTileRows) {
    const std::uint8_t* row[kTileRows];
    for (std::size_t r = 0; r < kTileRows; ++r) row[r] = task.rows[first + r];
    LaneInts sums[kTileRows][2] = {};
    const std::int8_t* panel = task.panel;
    for (std::size_t i = 0; i < task.stride; i += 8, panel += 8 * kCodePanelLanes) step(sums, row, i, panel);

    LaneInts dropped[kTileRows][2];
    LaneInts all = ~LaneInts{};
#pragma GCC unroll 2
    for (std::size_t j = 0; j < 2; ++j) {
      const LaneFloats a = load_lanes(task.a + j * kCodeLanes);
      const LaneFloats b = load_lanes(task.b + j * kCodeLanes);
      const LaneFloats c = load_lanes(task.c + j * kCodeLanes);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < kTileRows; ++r) {
        LaneFloats limit = a + b * task.p[first + r] + c * task.r[first + r];
        if constexpr (has_u) limit += load_lanes(task.d + j * kCodeLanes) * task.u[first + r];
        dropped[r][j] = __builtin_convertvector(sums[r][j], LaneFloats) < limit;
        all &= dropped[r][j];
      }
    }
    bool some = false;
    for (std::size_t lane = 0; lane < kCodeLanes; ++lane) some = some || all[lane] == 0;
    if (__builtin_expect(!some, 1)) continue;
    for (std::size_t r = 0; r < kTileRows && first + r < task.n_rows; ++r) {
      for (std::size_t lane = 0; lane < kCodePanelLanes; ++lane) {
        if (dropped[r][lane / kCodeLanes][lane % kCodeLanes] != 0) continue;
        task.sink.candidate(task.sink.self, first + r, lane);
      }
    }
  }
}

}  // namespace

void code_tiles(const CodeTileTask& task) {
  if (task.u != nullptr) return run<true>(task);
  run<false>(task);
}

}  // namespace iqdb::IQDB_VARIANT
