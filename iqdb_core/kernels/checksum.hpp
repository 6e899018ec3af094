// CRC-32C (Castagnoli, RFC 3720 appendix B.4) and the block checksums of the snapshot format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace iqdb {

inline constexpr size_t kBlockBytes = 4096;

// CRC-32C of n bytes. `value` is the checksum of what came before (0 at the start), so that calls chain.
uint32_t crc32c(uint32_t value, const uint8_t* p, size_t n);

// The same by tables alone: what runs on a CPU without a CRC instruction.
uint32_t crc32c_portable(uint32_t value, const uint8_t* p, size_t n);

// True when `crc32c` uses the CPU's CRC instruction.
bool crc32c_is_accelerated();

// The checksum of block `index` of a section. The number of the block is part of what is summed, so that a
// block which was written in the wrong place does not pass.
uint32_t crc32c_block(uint32_t prefix, uint64_t index, const uint8_t* p, size_t n);

// A section's bytes with its table of block checksums and the record of what was verified already.
// `verified` is shared between threads, and with other calls on the same section.
struct BlockTable {
  std::span<const uint8_t> data;
  std::span<const uint32_t> crcs;  // one a block
  uint8_t* verified;               // one byte a block: 0 not yet, 1 verified
  uint32_t prefix;

  size_t blocks() const { return (data.size() + kBlockBytes - 1) / kBlockBytes; }

  // Verifies one block unless that was done before; false when it is damaged. `block` < blocks().
  bool verify(size_t block) const { return is_verified(block) || verify_now(block); }

  // Asks the system to read the blocks of data[begin..begin + bytes) that are not verified yet, and does not
  // wait: for parts that are verified soon after, all at once instead of one after another. bytes > 0.
  void ask_for(size_t begin, size_t bytes) const {
    for (size_t block = begin / kBlockBytes; block <= (begin + bytes - 1) / kBlockBytes; ++block) {
      if (!is_verified(block)) ask_now(block);
    }
  }

 private:
  // The builtins and not std::atomic_ref, which libc++ has only since LLVM 19.
  bool is_verified(size_t block) const { return __atomic_load_n(&verified[block], __ATOMIC_ACQUIRE) != 0; }
  bool verify_now(size_t block) const;
  void ask_now(size_t block) const;
};

// out[i] = checksum of block first_block + i; out has one entry for every block of `data`.
void crc32c_blocks(std::span<const uint8_t> data, uint32_t prefix, uint64_t first_block, uint32_t* out);

// Verifies blocks first..stop (stop <= table.blocks()). Returns the first damaged one, or -1.
int64_t verify_blocks(const BlockTable& table, size_t first, size_t stop, size_t threads);

}  // namespace iqdb
