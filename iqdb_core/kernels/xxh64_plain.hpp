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
};

// What one pass over records finds.
struct PlainDigest {
  HashPair sum;           // the part of the content digest
  uint64_t sequence = 0;  // the sum of the ids' first hashes, each times 2 rank + 1
  int64_t bad = -1;       // the first component that is no finite number; then nothing else counts
};

// Digest and order of records in one pass. The first has rank `first_rank` among all.
PlainDigest digest_plain(const PlainRecords& records, uint64_t first_rank);

// Says whether ids ascend strictly, all of them above `below` unless there is none.
bool ids_ascend(std::span<const uint64_t> ids, const uint64_t* below);

}  // namespace iqdb
