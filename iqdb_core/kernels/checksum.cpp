#include "checksum.hpp"

#include <algorithm>
#include <array>
#include <atomic>

#include "byteorder.hpp"
#include "ranges.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace iqdb {
namespace {

constexpr uint32_t kPolynomial = 0x82f63b78;  // Castagnoli, bits reversed

// Slice-by-8 (Kounavis and Berry, "A systematic approach to building high performance software-based CRC
// generators", 2005): kSlices[s][b] is byte b followed by s zero bytes.
using Slices = std::array<std::array<uint32_t, 256>, 8>;

constexpr Slices make_slices() {
  Slices slices{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
    slices[0][byte] = crc;
  }
  for (size_t s = 1; s < 8; ++s) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = slices[s - 1][byte];
      slices[s][byte] = crc >> 8 ^ slices[0][crc & 0xff];
    }
  }
  return slices;
}

constexpr Slices kSlices = make_slices();

// The register after `zeros` more zero bytes is a linear function of its four bytes: one table for each.
using ShiftTable = std::array<std::array<uint32_t, 256>, 4>;

constexpr ShiftTable make_shift(size_t zeros) {
  // Images of the 32 single bits by running the register over the zeros, all other values by xor.
  std::array<uint32_t, 32> images{};
  for (size_t bit = 0; bit < 32; ++bit) {
    uint32_t crc = uint32_t{1} << bit;
    for (size_t i = 0; i < zeros; ++i) crc = crc >> 8 ^ kSlices[0][crc & 0xff];
    images[bit] = crc;
  }
  ShiftTable table{};
  for (size_t byte = 0; byte < 4; ++byte) {
    for (uint32_t value = 0; value < 256; ++value) {
      for (size_t bit = 0; bit < 8; ++bit) {
        if (value >> bit & 1) table[byte][value] ^= images[8 * byte + bit];
      }
    }
  }
  return table;
}

// A lane is what one of three independent streams sums before the three are joined. With 1360 bytes a
// 4096-byte block is three lanes and 16 bytes more; the short lanes serve log frames and short sections.
constexpr size_t kLongLane = 1360;
constexpr size_t kShortLane = 168;
constexpr ShiftTable kLongShift = make_shift(kLongLane);
constexpr ShiftTable kShortShift = make_shift(kShortLane);

inline uint32_t shifted(const ShiftTable& table, uint32_t crc) {
  return table[0][crc & 0xff] ^ table[1][crc >> 8 & 0xff] ^ table[2][crc >> 16 & 0xff] ^ table[3][crc >> 24];
}

// The CPU's CRC instruction. Written as assembly, because intrinsics only compile inside functions with a
// target attribute, which templates and lambdas do not pass on, and whose spelling differs by compiler.
#if defined(__x86_64__)
struct CrcInstruction {
  static bool available() { return __builtin_cpu_supports("sse4.2"); }
  static uint32_t eight(uint32_t crc, uint64_t word) {
    uint64_t wide = crc;
    asm("crc32q %1, %0" : "+r"(wide) : "rm"(word));
    return static_cast<uint32_t>(wide);
  }
  static uint32_t one(uint32_t crc, uint8_t byte) {
    asm("crc32b %1, %0" : "+r"(crc) : "rm"(byte));
    return crc;
  }
};
#define IQDB_HAS_CRC_INSTRUCTION 1
#elif defined(__aarch64__)
struct CrcInstruction {
  static bool available() {
#if defined(__linux__)
    constexpr unsigned long kHwcapCrc32 = 1UL << 7;
    return (getauxval(AT_HWCAP) & kHwcapCrc32) != 0;
#else
    return true;  // every 64-bit Apple CPU has it
#endif
  }
  static uint32_t eight(uint32_t crc, uint64_t word) {
    asm(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
    return crc;
  }
  static uint32_t one(uint32_t crc, uint8_t byte) {
    asm(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(uint32_t{byte}));
    return crc;
  }
};
#define IQDB_HAS_CRC_INSTRUCTION 1
#else
#define IQDB_HAS_CRC_INSTRUCTION 0
#endif

#if IQDB_HAS_CRC_INSTRUCTION
// The instruction has a latency of three cycles and a throughput of one a cycle on most CPUs, so three
// streams run interleaved (Gopal et al., "Fast CRC computation for iSCSI polynomial using CRC32
// instruction", Intel 2011).
template <size_t kLane>
uint32_t three_lanes(uint32_t crc, const ShiftTable& shift, const uint8_t*& p, size_t& n) {
  while (n >= 3 * kLane) {
    uint32_t second = 0;
    uint32_t third = 0;
    for (size_t i = 0; i < kLane; i += 8) {
      crc = CrcInstruction::eight(crc, load_le<uint64_t>(p + i));
      second = CrcInstruction::eight(second, load_le<uint64_t>(p + kLane + i));
      third = CrcInstruction::eight(third, load_le<uint64_t>(p + 2 * kLane + i));
    }
    crc = shifted(shift, shifted(shift, crc) ^ second) ^ third;
    p += 3 * kLane;
    n -= 3 * kLane;
  }
  return crc;
}

uint32_t crc32c_instruction(uint32_t value, const uint8_t* p, size_t n) {
  uint32_t crc = ~value;
  crc = three_lanes<kLongLane>(crc, kLongShift, p, n);
  crc = three_lanes<kShortLane>(crc, kShortShift, p, n);
  for (; n >= 8; p += 8, n -= 8) crc = CrcInstruction::eight(crc, load_le<uint64_t>(p));
  for (; n > 0; ++p, --n) crc = CrcInstruction::one(crc, *p);
  return ~crc;
}
#endif

using Crc32c = uint32_t (*)(uint32_t, const uint8_t*, size_t);

Crc32c fastest() {
#if IQDB_HAS_CRC_INSTRUCTION
  if (CrcInstruction::available()) return crc32c_instruction;
#endif
  return crc32c_portable;
}

Crc32c chosen() {
  static const Crc32c function = fastest();
  return function;
}

}  // namespace

uint32_t crc32c_portable(uint32_t value, const uint8_t* p, size_t n) {
  uint32_t crc = ~value;
  for (; n >= 8; p += 8, n -= 8) {
    const uint64_t word = load_le<uint64_t>(p) ^ crc;
    crc = 0;
    for (size_t i = 0; i < 8; ++i) crc ^= kSlices[7 - i][word >> (8 * i) & 0xff];
  }
  for (; n > 0; ++p, --n) crc = crc >> 8 ^ kSlices[0][(crc ^ *p) & 0xff];
  return ~crc;
}

uint32_t crc32c(uint32_t value, const uint8_t* p, size_t n) {
  return chosen()(value, p, n);
}

bool crc32c_is_accelerated() {
  return chosen() != crc32c_portable;
}

uint32_t crc32c_block(uint32_t prefix, uint64_t index, const uint8_t* p, size_t n) {
  uint8_t number[8];
  store_le(number, index);
  return crc32c(crc32c(prefix, number, sizeof number), p, n);
}

// Two threads may both check a block; they then store the same value.
void BlockTable::ask_now([[maybe_unused]] size_t block) const {
#if defined(__unix__) || defined(__APPLE__)
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(data.data()) + block * kBlockBytes;
  const auto end = begin + std::min(kBlockBytes, data.size() - block * kBlockBytes);
  const std::uintptr_t first = begin / page * page;
  // Only a hint: where it fails, the block is read when it is touched.
  static_cast<void>(madvise(reinterpret_cast<void*>(first), end - first, MADV_WILLNEED));
#endif
}

bool BlockTable::verify_now(size_t block) const {
  const size_t offset = block * kBlockBytes;
  const size_t bytes = std::min(kBlockBytes, data.size() - offset);
  if (crc32c_block(prefix, block, data.data() + offset, bytes) != crcs[block]) return false;
  __atomic_store_n(&verified[block], uint8_t{1}, __ATOMIC_RELEASE);
  return true;
}

void crc32c_blocks(std::span<const uint8_t> data, uint32_t prefix, uint64_t first_block, uint32_t* out) {
  for (size_t offset = 0; offset < data.size(); offset += kBlockBytes) {
    const size_t bytes = std::min(kBlockBytes, data.size() - offset);
    *out++ = crc32c_block(prefix, first_block++, data.data() + offset, bytes);
  }
}

int64_t verify_blocks(const BlockTable& table, size_t first, size_t stop, size_t threads) {
  constexpr size_t kBlocksPerRange = 512;  // 2 MiB, some 100 microseconds
  std::atomic<size_t> damaged{stop};
  for_ranges(stop - first, threads, kBlocksPerRange, [&](size_t begin, size_t end) {
    for (size_t block = first + begin; block < first + end && block < damaged.load(); ++block) {
      if (table.verify(block)) continue;
      size_t known = damaged.load();
      while (block < known && !damaged.compare_exchange_weak(known, block)) {
      }
    }
  });
  return damaged.load() == stop ? -1 : static_cast<int64_t>(damaged.load());
}

}  // namespace iqdb
