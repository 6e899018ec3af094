// Codes of a bit a component, for vectors each of whose components takes at most two values over all rows:
// the components of two rows that differ are then the bits that differ.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace iqdb {

constexpr std::size_t bit_words(std::size_t dim) {
  return (dim + 63) / 64;
}

// What bits stand for, as the bits of f32s: values[j] for a 0 of component j and values[dim + j] for a 1.
// They are the same where all rows have one value.
//
// find_values makes them hold the rows' values too, or returns false when a component has a third one, and
// then they mean nothing. Before the first call both halves are the first row.
bool find_values(const std::uint32_t* rows, std::size_t n, std::size_t dim, std::uint32_t* values,
                 std::size_t threads);

// codes[n][8 * bit_words(dim)]: component j is bit j & 7 of byte j >> 3, and what lies behind the last is 0.
// A component that is not its first value counts as the second.
void encode_bits(const std::uint32_t* values, const std::uint32_t* rows, std::size_t n, std::size_t dim,
                 std::uint8_t* codes, std::size_t threads);

// A query as a code. A component that is neither value differs from every row's: it is counted in `foreign`,
// and its bit of `mask` is 0. One of which rows have a single value needs no second one to differ.
struct BitQuery {
  std::vector<std::uint64_t> code;
  std::vector<std::uint64_t> mask;
  std::uint32_t foreign = 0;
};

BitQuery encode_bit_query(const std::uint32_t* values, const float* query, std::size_t dim);

}  // namespace iqdb
