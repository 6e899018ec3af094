// XXH64 (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md) under the seeds 0 and 1 at once: the
// content digest needs both of everything, and they share the loads and a third of the multiplications.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "byteorder.hpp"

namespace iqdb {

struct HashPair {
  uint64_t h0 = 0;  // seed 0
  uint64_t h1 = 0;  // seed 1

  HashPair& operator+=(const HashPair& other) {
    h0 += other.h0;
    h1 += other.h1;
    return *this;
  }
};

// Hashes bytes that come in pieces. Copying it keeps the state: a common prefix is hashed once.
class Hasher {
 public:
  Hasher();

  void update(const uint8_t* p, size_t n);

  // The hash of everything so far; more may follow.
  HashPair digest() const;

 private:
  static constexpr size_t kStripe = 32;

  uint64_t lanes_[2][4];      // one accumulator a seed and lane
  uint8_t pending_[kStripe];  // bytes that do not fill a stripe yet
  uint64_t total_ = 0;
};

HashPair hash_pair(const uint8_t* p, size_t n);

// out[i] = hash of row i's bytes. Several rows go through the CPU at once.
void hash_rows(const uint8_t* rows, size_t n, size_t row_bytes, HashPair* out);

}  // namespace iqdb
