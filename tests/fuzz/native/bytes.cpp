// Strings, ids, checksums and hashes over arrays whose offsets, kinds and row numbers are anything.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "arrays.hpp"
#include "byteorder.hpp"
#include "checksum.hpp"
#include "checksum_vectors.hpp"
#include "dispatch.hpp"
#include "ids.hpp"
#include "strings.hpp"
#include "strings_dictionary.hpp"
#include "xxh64.hpp"
#include "xxh64_plain.hpp"
#include "xxh64_records.hpp"

namespace {

// Offsets that are small and often ascend.
Array<std::uint64_t> offsets(FuzzedDataProvider& feed, std::size_t count, std::size_t reach) {
  Array<std::uint64_t> out(feed, count);
  const int kind = feed.ConsumeIntegralInRange<int>(0, 3);
  for (std::size_t i = 0; i < count; ++i) {
    if (kind == 0) continue;
    out[i] %= reach + (kind == 1 ? 2 : 1);
    if (kind == 3 && i > 0 && out[i] < out[i - 1]) out[i] = out[i - 1];
  }
  return out;
}

template <class Call>
void tried(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument&) {  // what the arrays say cannot be
  } catch (const std::length_error&) {
  }
}

void strings(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(0, 40);
  const auto bytes = feed.ConsumeIntegralInRange<std::size_t>(0, 200);
  const Array<std::uint64_t> ends = offsets(feed, n + 1, bytes);
  const Array<std::uint8_t> data(feed, bytes);
  const Array<std::uint8_t> needle(feed, feed.ConsumeIntegralInRange<std::size_t>(0, 5));
  const iqdb::PackedBytes values{ends.span(), data.span()};
  std::vector<std::int8_t> order(n);
  std::vector<std::uint8_t> found(n);
  std::vector<std::uint32_t> codes(n);
  std::vector<std::uint32_t> rows(feed.ConsumeIntegralInRange<std::size_t>(0, n));
  std::vector<iqdb::HashPair> sums(feed.ConsumeIntegralInRange<std::size_t>(0, n));
  const Array<std::uint32_t> targets(feed, n);
  const Array<std::int64_t> chosen(feed, feed.ConsumeIntegralInRange<std::size_t>(0, 9));
  for (std::size_t i = 0; i < chosen.size() && n != 0 && chosen[i] % 4 != 0; ++i) {
    chosen[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(chosen[i]) % n);
  }
  std::vector<std::uint8_t> out(feed.ConsumeIntegralInRange<std::size_t>(0, 300));
  tried([&] { iqdb::compare_strings(values, needle.span(), order.data()); });
  tried([&] { iqdb::contains_strings(values, needle.span(), found.data()); });
  tried([&] { iqdb::dictionary_strings(values, rows, codes.data()); });
  tried([&] { iqdb::gather_strings(values, chosen.span(), out); });
  tried([&] { iqdb::hash_strings(needle.span(), values, {targets.data(), sums}); });
  const std::size_t width = bytes % 9;
  const std::size_t count = width == 0 ? n : std::min(n, bytes / width);
  tried([&] {
    iqdb::hash_values(needle.span(), data.data(), count, width,
                      {bytes % 2 != 0 ? targets.data() : nullptr, sums});
  });
}

void ids(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(0, 40);
  const auto bytes = feed.ConsumeIntegralInRange<std::size_t>(0, 400);
  const Array<std::uint64_t> ends = offsets(feed, n + 1, bytes);
  const Array<std::uint8_t> kinds(feed, n);
  const Array<std::uint8_t> data(feed, bytes);
  const Array<std::uint32_t> order(feed, feed.ConsumeBool() ? n : 0);
  const Array<std::uint64_t> numbers(feed, n);
  for (std::size_t i = 0; i < n && kinds[i] != 0xff; ++i) kinds[i] %= 4;
  for (std::size_t i = 0; i < order.size() && n != 0 && order[i] % 8 != 0; ++i) {
    order[i] = static_cast<std::uint32_t>(order[i] % n);
  }
  const iqdb::VarIds stored{kinds.span(), {ends.span(), data.span()}};
  std::vector<std::int64_t> found(n);
  std::vector<std::uint32_t> sorted(n);
  std::vector<iqdb::HashPair> hashes(n);
  tried([&] {
    iqdb::lookup_u64(numbers.span(), order.span(), numbers.span(), found.data());
    for (const std::int64_t row : found) MUST(row >= -1 && row < static_cast<std::int64_t>(n));
  });
  tried([&] { iqdb::lookup_var(stored, order.span(), stored, found.data()); });
  tried([&] { iqdb::sort_ids_var(stored, sorted.data()); });
  tried([&] { iqdb::hash_ids_var(stored, hashes.data()); });
}

void sums(FuzzedDataProvider& feed) {
  const auto shift = feed.ConsumeIntegralInRange<std::size_t>(0, 15);
  const auto cut = feed.ConsumeIntegral<std::uint16_t>();
  const auto start = feed.ConsumeIntegral<std::uint32_t>();
  const std::vector<std::uint8_t> rest = feed.ConsumeRemainingBytes<std::uint8_t>();
  // The same bytes at any alignment, in an array that ends where they end.
  const std::unique_ptr<std::uint8_t[]> memory(new std::uint8_t[shift + rest.size()]);
  std::uint8_t* const p = memory.get() + shift;
  std::copy(rest.begin(), rest.end(), p);
  const std::size_t n = rest.size();
  const std::size_t part = n == 0 ? 0 : cut % (n + 1);
  const std::uint32_t whole = iqdb::crc32c(start, p, n);
  MUST(whole == iqdb::crc32c_portable(start, p, n));
  MUST(whole == iqdb::crc32c(iqdb::crc32c(start, p, part), p + part, n - part));
  iqdb::Hasher hasher;
  hasher.update(p, part);
  hasher.update(p + part, n - part);
  const iqdb::HashPair one = hasher.digest();
  const iqdb::HashPair other = iqdb::hash_pair(p, n);
  MUST(one.h0 == other.h0 && one.h1 == other.h1);

  const std::size_t blocks = (n + iqdb::kBlockBytes - 1) / iqdb::kBlockBytes;
  std::vector<std::uint32_t> crcs(blocks);
  iqdb::crc32c_blocks({p, n}, start, 7, crcs.data());
  iqdb::crc32c_blocks({p, n}, start, 0, crcs.data());
  std::vector<std::uint8_t> verified(blocks);
  const iqdb::BlockTable table{{p, n}, crcs, verified.data(), start};
  MUST(iqdb::verify_blocks(table, 0, blocks, 2) == -1);

  const std::size_t width = 1 + cut % 97;
  std::vector<iqdb::HashPair> rows(n / width);
  iqdb::hash_rows(p, rows.size(), width, rows.data(), 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const iqdb::HashPair row = iqdb::hash_pair(p + i * width, width);
    MUST(row.h0 == rows[i].h0 && row.h1 == rows[i].h1);
  }
}

// XXH64 of three hashes, one behind the other, under the seeds 0 and 1.
iqdb::HashPair joined(const iqdb::HashPair& id, const iqdb::HashPair& vector,
                      const iqdb::HashPair& metadata) {
  std::uint8_t words[2][24];
  for (std::size_t i = 0; i < 3; ++i) {
    const iqdb::HashPair& part = i == 0 ? id : i == 1 ? vector : metadata;
    iqdb::store_le(words[0] + 8 * i, part.h0);
    iqdb::store_le(words[1] + 8 * i, part.h1);
  }
  return {iqdb::hash_pair(words[0], 24).h0, iqdb::hash_pair(words[1], 24).h1};
}

// Digests of records, in one pass over plain ones and in parts.
void digests(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(0, 40);
  // A pass takes 64 KiB at a time: rows of more than that, too.
  const auto dim = feed.ConsumeBool() ? feed.ConsumeIntegralInRange<std::size_t>(1, 9)
                                      : feed.ConsumeIntegral<std::uint16_t>() + 1U;
  const auto first_rank = feed.ConsumeIntegral<std::uint64_t>();
  const auto below = feed.ConsumeIntegral<std::uint64_t>();
  const bool bounded = feed.ConsumeBool();
  const bool sorted = feed.ConsumeBool();
  const Array<iqdb::HashPair> metadata(feed, n);
  const Array<std::uint64_t> ids(feed, n);
  const Array<float> vectors(feed, n * dim);
  for (std::size_t i = 1; i < n && sorted; ++i) ids[i] = ids[i - 1] + (ids[i] % 5 != 0);
  std::vector<iqdb::HashPair> id_hashes(n);
  std::vector<iqdb::HashPair> vector_hashes(n);
  std::vector<iqdb::HashPair> records(n);
  iqdb::hash_ids_u64(ids.span(), id_hashes.data());
  iqdb::hash_rows(reinterpret_cast<const std::uint8_t*>(vectors.data()), n, dim * sizeof(float),
                  vector_hashes.data(), 1);
  const iqdb::HashPair sum =
      iqdb::combine_digest(n, id_hashes.data(), vector_hashes.data(), metadata.data(), records.data());
  iqdb::HashPair expected;
  for (std::size_t i = 0; i < n; ++i) {
    const iqdb::HashPair one = joined(id_hashes[i], vector_hashes[i], metadata[i]);
    MUST(one.h0 == records[i].h0 && one.h1 == records[i].h1);
    expected += one;
  }
  MUST(sum.h0 == expected.h0 && sum.h1 == expected.h1);

  const iqdb::PlainDigest plain = iqdb::digest_plain({vectors.data(), ids.span(), dim}, first_rank);
  std::size_t bad = 0;
  while (bad < n * dim && std::isfinite(vectors[bad])) ++bad;
  MUST(plain.bad == (bad == n * dim ? -1 : static_cast<std::int64_t>(bad)));
  if (plain.bad < 0) {
    iqdb::HashPair whole;
    std::uint64_t sequence = 0;
    for (std::size_t i = 0; i < n; ++i) {
      whole += joined(id_hashes[i], vector_hashes[i], {});
      sequence += id_hashes[i].h0 * (2 * (first_rank + i) + 1);
    }
    MUST(plain.sum.h0 == whole.h0 && plain.sum.h1 == whole.h1 && plain.sequence == sequence);
  }
  bool ascend = !bounded || n == 0 || ids[0] > below;
  for (std::size_t i = 1; i < n; ++i) ascend = ascend && ids[i] > ids[i - 1];
  MUST(iqdb::ids_ascend(ids.span(), bounded ? &below : nullptr) == ascend);
}

// Stored vectors, looked at once: checksums of blocks, hashes of rows, finite components.
void vectors(FuzzedDataProvider& feed) {
  const auto prefix = feed.ConsumeIntegral<std::uint32_t>();
  const auto first_block = feed.ConsumeIntegral<std::uint16_t>();
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 1500);
  const auto damaged = feed.ConsumeIntegral<std::uint8_t>();
  const auto repeats = feed.ConsumeIntegralInRange<std::size_t>(1, 12);
  const auto skipped = feed.ConsumeIntegralInRange<std::size_t>(0, 1100);
  const auto fewer = feed.ConsumeIntegralInRange<std::size_t>(0, 3);
  const std::vector<std::uint8_t> given = feed.ConsumeRemainingBytes<std::uint8_t>();
  // Rows of several blocks, more than an input fills.
  const std::size_t size = given.size() * repeats;
  const std::unique_ptr<float[]> aligned(new float[size / 4 + 1]());
  auto* const data = reinterpret_cast<std::uint8_t*>(aligned.get());
  for (std::size_t i = 0; i < size; ++i) data[i] = given[i % given.size()];
  const std::size_t n_blocks = (size + iqdb::kBlockBytes - 1) / iqdb::kBlockBytes;
  std::vector<std::uint32_t> crcs(n_blocks);
  iqdb::crc32c_blocks({data, size}, prefix, first_block, crcs.data());
  if (n_blocks != 0 && damaged % 2 == 0) crcs[damaged % n_blocks] ^= 1U << damaged % 32;
  const std::size_t start = std::min(skipped, size / 4) * 4;
  const std::size_t most = (size - start) / (4 * dim);
  const std::size_t n_rows = most - std::min(most, fewer);
  std::vector<std::uint8_t> wrong(n_blocks, 7);
  std::vector<iqdb::HashPair> hashes(n_rows);
  const std::size_t bad = iqdb::check_vectors(
      {{data, size}, crcs, prefix, first_block, start, 4 * dim, n_rows}, wrong.data(), hashes.data());
  std::size_t expected = 0;
  while (expected < n_rows * dim && std::isfinite(aligned[start / 4 + expected])) ++expected;
  MUST(bad == expected);
  for (std::size_t i = 0; i < n_blocks; ++i) {
    MUST(wrong[i] == (damaged % 2 == 0 && i == damaged % n_blocks ? 1 : 0));
  }
  for (std::size_t i = 0; i < n_rows; ++i) {
    const iqdb::HashPair row = iqdb::hash_pair(data + start + i * 4 * dim, 4 * dim);
    MUST(row.h0 == hashes[i].h0 && row.h1 == hashes[i].h1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::string> variants = iqdb::variant_names();
  FuzzedDataProvider feed(data, size);
  iqdb::select_variant(variants[feed.ConsumeIntegral<std::uint8_t>() % variants.size()]);
  switch (feed.ConsumeIntegralInRange<int>(0, 4)) {
    case 0:
      strings(feed);
      break;
    case 1:
      ids(feed);
      break;
    case 2:
      digests(feed);
      break;
    case 3:
      vectors(feed);
      break;
    default:
      sums(feed);
  }
  return 0;
}
