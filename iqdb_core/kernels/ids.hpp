// Record ids as arrays: search in a sorted index, and sorting. No array's content is trusted: offsets,
// kinds and row numbers are checked where they are used, and a wrong one throws std::invalid_argument.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "packed.hpp"

namespace iqdb {

enum IdKind : uint8_t { kIntId = 0, kBytesId = 1, kTextId = 2 };

struct IdView {
  uint8_t kind;  // an IdKind
  std::span<const uint8_t> payload;
};

// Ids of any kind. Row i is of kind kinds[i] with the payload payloads[i]: 8 bytes little-endian for an
// integer, else the bytes themselves. Ids order by kind, then integers by value and others bytewise.
struct VarIds {
  std::span<const uint8_t> kinds;
  PackedBytes payloads;

  size_t size() const { return kinds.size(); }
  IdView operator[](size_t row) const;  // row < size()
};

// out[i] = the row whose id is queries[i], or -1. `order` lists the rows by ascending id; empty: the rows
// are in that order themselves. Ids that are in fact not ascending make rows unfindable, nothing worse.
void lookup_u64(std::span<const uint64_t> ids, std::span<const uint32_t> order,
                std::span<const uint64_t> queries, int64_t* out);
void lookup_var(const VarIds& ids, std::span<const uint32_t> order, const VarIds& queries, int64_t* out);

// out_order = the rows in ascending order of their ids, equal ids in order of row.
void sort_ids_var(const VarIds& ids, uint32_t* out_order);

}  // namespace iqdb
