#include "checksum_vectors.hpp"

#include <algorithm>

#include "checksum.hpp"
#include "dispatch.hpp"

namespace iqdb {
namespace {

// Small enough to stay in a CPU's own cache between the looks at it.
constexpr size_t kPieceBlocks = 16;

}  // namespace

size_t check_vectors(const VectorBlocks& blocks, uint8_t* wrong, HashPair* hashes) {
  const uint8_t* const data = blocks.data.data();
  const size_t bytes = blocks.data.size();
  const size_t n_blocks = (bytes + kBlockBytes - 1) / kBlockBytes;
  const size_t components = blocks.row_bytes / sizeof(float);
  size_t bad = blocks.n_rows * components;
  size_t row = 0;
  for (size_t block = 0; block < n_blocks;) {
    const size_t stop = std::min(block + kPieceBlocks, n_blocks);
    for (; block < stop; ++block) {
      const size_t offset = block * kBlockBytes;
      const size_t size = std::min(kBlockBytes, bytes - offset);
      const uint32_t crc = crc32c_block(blocks.prefix, blocks.first_block + block, data + offset, size);
      wrong[block] = crc != blocks.crcs[block];
    }
    // The rows that end here.
    const size_t end = std::min(stop * kBlockBytes, bytes);
    const size_t complete = end < blocks.start ? 0 : (end - blocks.start) / blocks.row_bytes;
    const size_t last = std::min(complete, blocks.n_rows);
    if (last <= row) continue;
    const uint8_t* const rows = data + blocks.start + row * blocks.row_bytes;
    hash_rows(rows, last - row, blocks.row_bytes, hashes + row);
    if (bad == blocks.n_rows * components) {
      const size_t n = (last - row) * components;
      const size_t found = kernels().first_non_finite(reinterpret_cast<const float*>(rows), n);
      if (found != n) bad = row * components + found;
    }
    row = last;
  }
  return bad;
}

}  // namespace iqdb
