#include "xxh64_plain.hpp"

#include <algorithm>
#include <vector>

#include "dispatch.hpp"
#include "xxh64_records.hpp"

namespace iqdb {
namespace {

// Small enough to stay in a CPU's own cache between the two looks at it.
constexpr size_t kPieceBytes = size_t{1} << 16;

}  // namespace

PlainDigest digest_plain(const PlainRecords& records, uint64_t first_rank) {
  const size_t n = records.ids.size();
  const size_t row_bytes = records.dim * sizeof(float);
  const size_t rows_at_once = std::max<size_t>(1, kPieceBytes / std::max<size_t>(row_bytes, 1));
  const auto* const bytes = reinterpret_cast<const uint8_t*>(records.vectors);
  std::vector<HashPair> hashes(3 * std::min(rows_at_once, n));
  PlainDigest found;
  for (size_t start = 0; start < n; start += rows_at_once) {
    const size_t count = std::min(rows_at_once, n - start);
    const float* const values = records.vectors + start * records.dim;
    const size_t bad = kernels().first_non_finite(values, count * records.dim);
    if (bad != count * records.dim) {
      found.bad = static_cast<int64_t>(start * records.dim + bad);
      return found;
    }
    HashPair* const vector_hashes = hashes.data();
    HashPair* const id_hashes = vector_hashes + count;
    HashPair* const no_metadata = id_hashes + count;  // zeros, and nobody writes there
    hash_rows(bytes + start * row_bytes, count, row_bytes, vector_hashes);
    hash_ids_u64(records.ids.subspan(start, count), id_hashes);
    std::fill_n(no_metadata, count, HashPair{});
    found.sum += combine_digest(count, id_hashes, vector_hashes, no_metadata, nullptr);
    for (size_t i = 0; i < count; ++i) {
      found.sequence += id_hashes[i].h0 * (2 * (first_rank + start + i) + 1);
    }
  }
  return found;
}

bool ids_ascend(std::span<const uint64_t> ids, const uint64_t* below) {
  for (const uint64_t& id : ids) {
    if (below != nullptr && id <= *below) return false;
    below = &id;
  }
  return true;
}

}  // namespace iqdb
