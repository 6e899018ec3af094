// Strings, ids, checksums and hashes over arrays whose offsets, kinds and row numbers are anything.
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "arrays.hpp"
#include "checksum.hpp"
#include "dispatch.hpp"
#include "ids.hpp"
#include "strings.hpp"
#include "strings_dictionary.hpp"
#include "xxh64.hpp"
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<std::string> variants = iqdb::variant_names();
  FuzzedDataProvider feed(data, size);
  iqdb::select_variant(variants[feed.ConsumeIntegral<std::uint8_t>() % variants.size()]);
  switch (feed.ConsumeIntegralInRange<int>(0, 2)) {
    case 0:
      strings(feed);
      break;
    case 1:
      ids(feed);
      break;
    default:
      sums(feed);
  }
  return 0;
}
