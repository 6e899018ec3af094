// The hashes of a record's parts in the content digest. What exactly is hashed is the specification's
// business (formats/, "Content digest"); every function does many records a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ids.hpp"
#include "packed.hpp"
#include "xxh64.hpp"

namespace iqdb {

// out[i] = hash of row i's bytes.
void hash_rows(const uint8_t* rows, size_t n, size_t row_bytes, HashPair* out, size_t threads);

// out[i] = hash of the kind's byte and the payload.
void hash_ids_u64(std::span<const uint64_t> ids, HashPair* out);
void hash_ids_var(const VarIds& ids, HashPair* out);

// out[row of value i] += hash of prefix and value i. The row is rows[i], or i when there are no rows. Throws
// std::invalid_argument for a row outside `out`.
struct RowTargets {
  const uint32_t* rows;  // or null
  std::span<HashPair> out;

  HashPair& operator[](size_t i) const;
};
void hash_values(std::span<const uint8_t> prefix, const uint8_t* values, size_t count, size_t width,
                 const RowTargets& targets);
void hash_strings(std::span<const uint8_t> prefix, const PackedBytes& values, const RowTargets& targets);

// The record's hash from those of its parts, into out[i] unless out is null; returns the sum over all rows.
HashPair combine_digest(size_t n, const HashPair* ids, const HashPair* vectors, const HashPair* metadata,
                        HashPair* out);

}  // namespace iqdb
