// Records that are vectors with integer ids and nothing else: what a plain array of numbers becomes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "xxh64.hpp"

namespace iqdb {

struct PlainRecords {
  const float* vectors;  // [ids.size()][dim]
  std::span<const uint64_t> ids;
  size_t dim;

  size_t size_bytes() const { return ids.size() * dim * sizeof(float); }
};

// What one pass over records finds.
struct PlainDigest {
  HashPair sum;           // the part of the content digest
  uint64_t sequence = 0;  // the sum of the ids' first hashes, each times 2 rank + 1
  int64_t bad = -1;       // the first component that is no finite number; then nothing else counts
};

// Digest, order and block checksums of records in one pass, in which every byte comes from memory once.
// The first record has rank `first_rank` among all, and its first byte begins block `first_block` of the
// section; `crcs` has one entry for every block that the records touch.
PlainDigest digest_plain(const PlainRecords& records, uint64_t first_rank, uint32_t prefix,
                         uint64_t first_block, std::span<uint32_t> crcs);

// Says whether ids ascend strictly, all of them above `below` unless there is none.
bool ids_ascend(std::span<const uint64_t> ids, const uint64_t* below);

}  // namespace iqdb
