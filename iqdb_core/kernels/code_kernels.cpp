// One query's code against the codes of listed nodes. Compiled once per instruction set.
//
// All sums are of integers, so every variant gives the same keys: a graph is the same on every CPU.
#include <cstddef>
#include <cstdint>

#include "code_kernels.hpp"
#include "simd.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace iqdb::IQDB_VARIANT {
namespace {

constexpr std::size_t kLineBytes = 64;
// How many codes are asked for ahead of the one in hand: enough to hide a cache miss behind the sums
// of those before it. Measured on 128 to 416 bytes a code.
constexpr std::size_t kAhead = 6;

IQDB_INLINE void prefetch(const std::uint8_t* code, std::size_t stride) {
  for (std::size_t offset = 0; offset < stride; offset += kLineBytes) __builtin_prefetch(code + offset);
}

#if defined(__AVX2__)
IQDB_INLINE std::int32_t sum_of_lanes(__m256i x) {
  __m128i y = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0x4e));
  y = _mm_add_epi32(y, _mm_shuffle_epi32(y, 0xb1));
  return _mm_cvtsi128_si32(y);
}
IQDB_INLINE __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
#endif

// sum of code[i] * query[i]; codes are below 128, so that a pair of products fits 16 bits
// (2 * 127 * 127 < 32768) and vpmaddubsw never saturates.
struct Dot {
  using Item = std::int8_t;
  IQDB_INLINE std::int32_t operator()(const std::uint8_t* code, const Item* query, std::size_t stride) const {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < stride; i += 32) {
      sum = _mm256_dpbusd_epi32(sum, load_bytes(code + i), load_bytes(query + i));
    }
    return sum_of_lanes(sum);
#elif defined(__AVX2__)
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    __m256i other = sum;
    std::size_t i = 0;
    for (; i + 64 <= stride; i += 64) {
      const __m256i a = _mm256_maddubs_epi16(load_bytes(code + i), load_bytes(query + i));
      const __m256i b = _mm256_maddubs_epi16(load_bytes(code + i + 32), load_bytes(query + i + 32));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, ones));
      other = _mm256_add_epi32(other, _mm256_madd_epi16(b, ones));
    }
    if (i < stride) {
      const __m256i a = _mm256_maddubs_epi16(load_bytes(code + i), load_bytes(query + i));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, ones));
    }
    return sum_of_lanes(_mm256_add_epi32(sum, other));
#else
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < stride; ++i) sum += std::int32_t{code[i]} * query[i];
    return sum;
#endif
  }
};

// sum of |code[i] - query[i]|
struct AbsoluteDifference {
  using Item = std::uint8_t;
  IQDB_INLINE std::int32_t operator()(const std::uint8_t* code, const Item* query, std::size_t stride) const {
#if defined(__AVX2__)
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < stride; i += 32) {
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(load_bytes(code + i), load_bytes(query + i)));
    }
    return sum_of_lanes(sum);  // the upper half of each 64-bit sum is zero
#else
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < stride; ++i) {
      sum += code[i] > query[i] ? code[i] - query[i] : query[i] - code[i];
    }
    return sum;
#endif
  }
};

// the number of bytes that differ
struct BytesThatDiffer {
  using Item = std::uint8_t;
  IQDB_INLINE std::int32_t operator()(const std::uint8_t* code, const Item* query, std::size_t stride) const {
#if defined(__AVX2__)
    const __m256i one = _mm256_set1_epi8(1);
    __m256i same = _mm256_setzero_si256();
    for (std::size_t i = 0; i < stride; i += 32) {
      const __m256i equal = _mm256_cmpeq_epi8(load_bytes(code + i), load_bytes(query + i));
      same = _mm256_add_epi64(same, _mm256_sad_epu8(_mm256_and_si256(equal, one), _mm256_setzero_si256()));
    }
    return static_cast<std::int32_t>(stride) - sum_of_lanes(same);
#else
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < stride; ++i) sum += code[i] != query[i];
    return sum;
#endif
  }
};

// the number of bits that differ
struct BitsThatDiffer {
  using Item = std::uint8_t;
  IQDB_INLINE std::int32_t operator()(const std::uint8_t* code, const Item* query, std::size_t stride) const {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < stride; i += 8) {
      std::uint64_t a;
      std::uint64_t b;
      __builtin_memcpy(&a, code + i, 8);
      __builtin_memcpy(&b, query + i, 8);
      sum += __builtin_popcountll(a ^ b);
    }
    return sum;
  }
};

// sum of half-byte * query[i]. Eight products of a pair, at most 2 * 15 * 128 each, fit 16 bits.
struct CoarseDot {
  using Item = std::int8_t;
  IQDB_INLINE std::int32_t operator()(const std::uint8_t* code, const Item* query, std::size_t stride) const {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    const __m256i low = _mm256_set1_epi8(0x0f);
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < stride; i += 32) {
      const __m256i x = load_bytes(code + i);
      sum = _mm256_dpbusd_epi32(sum, _mm256_and_si256(x, low), load_bytes(query + 2 * i));
      sum = _mm256_dpbusd_epi32(sum, _mm256_and_si256(_mm256_srli_epi16(x, 4), low),
                                load_bytes(query + 2 * i + 32));
    }
    return sum_of_lanes(sum);
#elif defined(__AVX2__)
    constexpr std::size_t kUnwidened = 4 * 32;
    const __m256i low = _mm256_set1_epi8(0x0f);
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t begin = 0; begin < stride; begin += kUnwidened) {
      const std::size_t end = begin + kUnwidened < stride ? begin + kUnwidened : stride;
      __m256i narrow = _mm256_setzero_si256();
      for (std::size_t i = begin; i < end; i += 32) {
        const __m256i x = load_bytes(code + i);
        const __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(x, low), load_bytes(query + 2 * i));
        const __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(x, 4), low),
                                               load_bytes(query + 2 * i + 32));
        narrow = _mm256_add_epi16(narrow, _mm256_add_epi16(a, b));
      }
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(narrow, ones));
    }
    return sum_of_lanes(sum);
#else
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < stride; i += 32) {
      for (std::size_t b = i; b < i + 32; ++b) {
        sum += (code[b] & 0x0f) * query[i + b] + (code[b] >> 4) * query[i + b + 32];
      }
    }
    return sum;
#endif
  }
};

// sum of |8 * half-byte + 4 - query[i]|
struct CoarseDifference {
  using Item = std::uint8_t;
  IQDB_INLINE std::int32_t operator()(const std::uint8_t* code, const Item* query, std::size_t stride) const {
#if defined(__AVX2__)
    const __m256i kept = _mm256_set1_epi8(0x78);
    const __m256i middle = _mm256_set1_epi8(4);
    __m256i sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < stride; i += 32) {
      const __m256i x = load_bytes(code + i);
      const __m256i a = _mm256_or_si256(_mm256_and_si256(_mm256_slli_epi16(x, 3), kept), middle);
      const __m256i b = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(x, 1), kept), middle);
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(a, load_bytes(query + 2 * i)));
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(b, load_bytes(query + 2 * i + 32)));
    }
    return sum_of_lanes(sum);
#else
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < stride; i += 32) {
      for (std::size_t b = i; b < i + 32; ++b) {
        const int first = 8 * (code[b] & 0x0f) + 4 - query[i + b];
        const int second = 8 * (code[b] >> 4) + 4 - query[i + b + 32];
        sum += (first < 0 ? -first : first) + (second < 0 ? -second : second);
      }
    }
    return sum;
#endif
  }
};

template <class Task, class Sum>
void sums(const Task& task, Sum sum) {
  const auto* query = static_cast<const typename Sum::Item*>(task.query);
  const std::size_t head = task.n_nodes < kAhead ? task.n_nodes : kAhead;
  for (std::size_t i = 0; i < head; ++i) prefetch(task.codes + task.nodes[i] * task.stride, task.stride);
  for (std::size_t i = 0; i < task.n_nodes; ++i) {
    if (i + kAhead < task.n_nodes) {
      prefetch(task.codes + task.nodes[i + kAhead] * task.stride, task.stride);
    }
    task.sums[i] = sum(task.codes + task.nodes[i] * task.stride, query, task.stride);
  }
}

}  // namespace

void code_sums(CodeSum kind, const CodeTask& task) {
  switch (kind) {
    case CodeSum::kDot:
      return sums(task, Dot{});
    case CodeSum::kAbsoluteDifference:
      return sums(task, AbsoluteDifference{});
    case CodeSum::kBytesThatDiffer:
      return sums(task, BytesThatDiffer{});
    case CodeSum::kBitsThatDiffer:
      return sums(task, BitsThatDiffer{});
  }
}

void coarse_sums(CodeSum kind, const CoarseTask& task) {
  if (kind == CodeSum::kAbsoluteDifference) return sums(task, CoarseDifference{});
  sums(task, CoarseDot{});
}

}  // namespace iqdb::IQDB_VARIANT
