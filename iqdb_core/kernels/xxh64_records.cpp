#include "xxh64_records.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "ranges.hpp"
#include "xxh64_steps.hpp"

namespace iqdb {
namespace {

// Hashes one prefix with many values behind it. Short values are put behind the prefix and hashed in one go,
// which is quicker than feeding a Hasher in two pieces.
class PrefixedHash {
 public:
  explicit PrefixedHash(std::span<const uint8_t> prefix) : prefix_bytes_(prefix.size()) {
    after_prefix_.update(prefix.data(), prefix.size());
    if (prefix_bytes_ <= joined_.size()) std::copy(prefix.begin(), prefix.end(), joined_.begin());
  }

  HashPair operator()(const uint8_t* value, size_t n) {
    if (prefix_bytes_ <= joined_.size() && n <= joined_.size() - prefix_bytes_) {
      std::copy_n(value, n, joined_.data() + prefix_bytes_);
      return hash_pair(joined_.data(), prefix_bytes_ + n);
    }
    Hasher hasher = after_prefix_;
    hasher.update(value, n);
    return hasher.digest();
  }

 private:
  size_t prefix_bytes_;
  Hasher after_prefix_;
  std::array<uint8_t, 512> joined_;
};

}  // namespace

HashPair& RowTargets::operator[](size_t i) const {
  const size_t row = rows == nullptr ? i : rows[i];
  if (row >= out.size()) {
    throw std::invalid_argument("row " + std::to_string(row) + " of value " + std::to_string(i) +
                                " is outside the " + std::to_string(out.size()) + " rows of out");
  }
  return out[row];
}

void hash_rows(const uint8_t* rows, size_t n, size_t row_bytes, HashPair* out, size_t threads) {
  constexpr size_t kBytesPerThread = size_t{1} << 20;
  const size_t grain = kBytesPerThread / std::max<size_t>(row_bytes, 1) + 1;
  for_ranges(n, threads, grain, [=](size_t begin, size_t end) {
    hash_rows(rows + begin * row_bytes, end - begin, row_bytes, out + begin);
  });
}

void hash_ids_u64(std::span<const uint64_t> ids, HashPair* out) {
  // Nine bytes: eight, of which the first is the kind, and the id's last.
  for (const uint64_t id : ids) {
    const uint64_t first = round_zero(id << 8 | kIntId);
    const uint64_t last = (id >> 56) * kPrime5;
    *out++ = {avalanche(mix_one(mix_eight(short_input(0, 9), first), last)),
              avalanche(mix_one(mix_eight(short_input(1, 9), first), last))};
  }
}

void hash_ids_var(const VarIds& ids, HashPair* out) {
  std::array<PrefixedHash, 3> of_kind{
      PrefixedHash(std::array<uint8_t, 1>{kIntId}),
      PrefixedHash(std::array<uint8_t, 1>{kBytesId}),
      PrefixedHash(std::array<uint8_t, 1>{kTextId}),
  };
  for (size_t row = 0; row < ids.size(); ++row) {
    const IdView id = ids[row];
    out[row] = of_kind[id.kind](id.payload.data(), id.payload.size());
  }
}

void hash_values(std::span<const uint8_t> prefix, const uint8_t* values, size_t count, size_t width,
                 const RowTargets& targets) {
  PrefixedHash hash(prefix);
  for (size_t i = 0; i < count; ++i) targets[i] += hash(values + i * width, width);
}

void hash_strings(std::span<const uint8_t> prefix, const PackedBytes& values, const RowTargets& targets) {
  PrefixedHash hash(prefix);
  for (size_t i = 0; i < values.size(); ++i) {
    const std::span<const uint8_t> value = values[i];
    targets[i] += hash(value.data(), value.size());
  }
}

HashPair combine_digest(size_t n, const HashPair* ids, const HashPair* vectors, const HashPair* metadata,
                        HashPair* out) {
  HashPair sum;
  for (size_t row = 0; row < n; ++row) {
    const HashPair record{hash_words<3>(0, {ids[row].h0, vectors[row].h0, metadata[row].h0}),
                          hash_words<3>(1, {ids[row].h1, vectors[row].h1, metadata[row].h1})};
    if (out != nullptr) out[row] = record;
    sum += record;
  }
  return sum;
}

}  // namespace iqdb
