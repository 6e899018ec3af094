#include "ids.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "byteorder.hpp"

namespace iqdb {
namespace {

// Queries that go through the levels of a binary search together: their cache misses overlap.
constexpr size_t kGroup = 16;

uint64_t int_value(const IdView& id) {
  if (id.payload.size() != 8) {
    throw std::invalid_argument("an integer id has " + std::to_string(id.payload.size()) +
                                " bytes, expected 8");
  }
  return load_le<uint64_t>(id.payload.data());
}

int compare(const IdView& a, const IdView& b) {
  if (a.kind != b.kind) return a.kind < b.kind ? -1 : 1;
  if (a.kind == kIntId) {
    const uint64_t x = int_value(a);
    const uint64_t y = int_value(b);
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const size_t shared = std::min(a.payload.size(), b.payload.size());
  const int order = shared == 0 ? 0 : std::memcmp(a.payload.data(), b.payload.data(), shared);
  if (order != 0) return order;
  return a.payload.size() < b.payload.size() ? -1 : a.payload.size() > b.payload.size() ? 1 : 0;
}

// The row at a place of the sorted order.
class Order {
 public:
  Order(std::span<const uint32_t> order, size_t rows) : order_(order), rows_(rows) {}

  size_t row(size_t place) const {
    if (order_.empty()) return place;
    const uint32_t row = order_[place];
    if (row >= rows_) {
      throw std::invalid_argument("entry " + std::to_string(place) + " of the order is row " +
                                  std::to_string(row) + " of " + std::to_string(rows_));
    }
    return row;
  }

 private:
  std::span<const uint32_t> order_;
  size_t rows_;
};

// Binary search for groups of queries in lockstep. All queries of a group halve the same lengths, so only
// the start of the range differs. `prepare(rows, count)` may prefetch what the comparisons will read,
// `below(row, query)` says whether the id of a row sorts below a query.
template <class Prepare, class Below, class Equal>
void lookup(const Order& order, size_t rows, size_t queries, const Prepare& prepare, const Below& below,
            const Equal& equal, int64_t* out) {
  std::array<size_t, kGroup> start;
  std::array<size_t, kGroup> probe;
  for (size_t first = 0; first < queries; first += kGroup) {
    const size_t count = std::min(kGroup, queries - first);
    start.fill(0);
    for (size_t length = rows; length > 1;) {
      const size_t half = length / 2;
      for (size_t i = 0; i < count; ++i) probe[i] = order.row(start[i] + half - 1);
      prepare(std::span(probe.data(), count));
      for (size_t i = 0; i < count; ++i) start[i] += below(probe[i], first + i) ? half : 0;
      length -= half;
    }
    for (size_t i = 0; i < count; ++i) {
      out[first + i] = -1;
      if (rows == 0) continue;
      const size_t row = order.row(start[i]);
      if (equal(row, first + i)) out[first + i] = static_cast<int64_t>(row);
    }
  }
}

// The next eight bytes of an id from some depth on, as a number that orders like the bytes.
struct SortKey {
  uint64_t chunk;
  uint32_t row;
  uint8_t left;  // bytes left at this depth, 9 for more than 8: a prefix sorts before what it begins

  bool operator<(const SortKey& other) const {
    if (chunk != other.chunk) return chunk < other.chunk;
    if (left != other.left) return left < other.left;
    return row < other.row;
  }
};

constexpr uint8_t kMoreLeft = 9;

SortKey sort_key(const IdView& id, uint32_t row, size_t depth) {
  if (id.kind == kIntId) return {int_value(id), row, 8};
  const size_t left = id.payload.size() - std::min(depth, id.payload.size());
  uint64_t chunk = 0;
  for (size_t i = 0; i < std::min<size_t>(left, 8); ++i) {
    chunk |= uint64_t{id.payload[depth + i]} << (56 - 8 * i);
  }
  return {chunk, row, static_cast<uint8_t>(std::min<size_t>(left, kMoreLeft))};
}

}  // namespace

IdView VarIds::operator[](size_t row) const {
  const uint8_t kind = kinds[row];
  if (kind > kTextId) {
    throw std::invalid_argument("id kind " + std::to_string(kind) + " of row " + std::to_string(row) +
                                " is not 0, 1 or 2");
  }
  return {kind, payloads[row]};
}

void lookup_u64(std::span<const uint64_t> ids, std::span<const uint32_t> order,
                std::span<const uint64_t> queries, int64_t* out) {
  lookup(
      Order(order, ids.size()), ids.size(), queries.size(), [](std::span<const size_t>) {},
      [&](size_t row, size_t query) { return ids[row] < queries[query]; },
      [&](size_t row, size_t query) { return ids[row] == queries[query]; }, out);
}

void lookup_var(const VarIds& ids, std::span<const uint32_t> order, const VarIds& queries, int64_t* out) {
  const auto prefetch = [&](std::span<const size_t> rows) {
    for (const size_t row : rows) {
      __builtin_prefetch(&ids.kinds[row]);
      __builtin_prefetch(&ids.payloads.offsets[row]);
    }
    for (const size_t row : rows) {
      const uint64_t offset = ids.payloads.offsets[row];
      if (offset < ids.payloads.data.size()) __builtin_prefetch(&ids.payloads.data[offset]);
    }
  };
  lookup(
      Order(order, ids.size()), ids.size(), queries.size(), prefetch,
      [&](size_t row, size_t query) { return compare(ids[row], queries[query]) < 0; },
      [&](size_t row, size_t query) { return compare(ids[row], queries[query]) == 0; }, out);
}

// Sorts by eight bytes at a time: comparisons look at the keys alone, and an id's bytes are read again only
// for the runs that were equal so far. A list of runs and not recursion, because an id may be 65535 bytes
// deep.
void sort_ids_var(const VarIds& ids, uint32_t* out_order) {
  struct Run {
    size_t begin;
    size_t end;
    size_t depth;
  };
  std::vector<SortKey> keys;
  keys.reserve(ids.size());
  std::vector<Run> runs;
  for (uint8_t kind = kIntId; kind <= kTextId; ++kind) {
    const size_t begin = keys.size();
    for (size_t row = 0; row < ids.size(); ++row) {
      const IdView id = ids[row];
      if (id.kind == kind) keys.push_back(sort_key(id, static_cast<uint32_t>(row), 0));
    }
    if (keys.size() > begin) runs.push_back({begin, keys.size(), 0});
  }
  while (!runs.empty()) {
    const Run run = runs.back();
    runs.pop_back();
    const auto first = keys.begin() + static_cast<ptrdiff_t>(run.begin);
    const auto last = keys.begin() + static_cast<ptrdiff_t>(run.end);
    if (!std::is_sorted(first, last)) std::sort(first, last);
    for (size_t begin = run.begin; begin < run.end;) {
      size_t end = begin + 1;
      while (end < run.end && keys[end].chunk == keys[begin].chunk && keys[end].left == keys[begin].left)
        ++end;
      if (keys[begin].left == kMoreLeft && end - begin > 1) {
        const size_t depth = run.depth + 8;
        for (size_t i = begin; i < end; ++i) keys[i] = sort_key(ids[keys[i].row], keys[i].row, depth);
        runs.push_back({begin, end, depth});
      }
      begin = end;
    }
  }
  for (size_t i = 0; i < keys.size(); ++i) out_order[i] = keys[i].row;
}

}  // namespace iqdb
