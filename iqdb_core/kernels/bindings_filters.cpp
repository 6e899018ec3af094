// Filters over the columns of a snapshot, whose rows become bits of one mask.
#include <nanobind/nanobind.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "bindings.hpp"
#include "buffers.hpp"
#include "byteorder.hpp"
#include "dispatch.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

constexpr size_t kWordBits = 64;

using Words = std::vector<uint64_t>;

size_t words_for(size_t bits) {
  return (bits + kWordBits - 1) / kWordBits;
}

uint64_t word_of(const Buffer<const uint8_t>& bitmap, size_t index) {
  if (8 * index + 8 <= bitmap.size()) return load_le<uint64_t>(bitmap.data() + 8 * index);
  uint64_t word = 0;
  for (size_t i = 0; i < 8; ++i) {
    const size_t at = 8 * index + i;
    if (at < bitmap.size()) word |= static_cast<uint64_t>(bitmap.data()[at]) << (8 * i);
  }
  return word;
}

// Moves bit i of `values` to where bit i of those set in `presence` is; fails unless there are `n_values`.
void spread(const Words& values, size_t n_values, const Buffer<const uint8_t>& presence, size_t n_rows,
            Words& rows) {
  size_t next = 0;
  rows.resize(words_for(n_rows));
  for (size_t i = 0; i < rows.size(); ++i) {
    uint64_t present = word_of(presence, i);
    if (next + static_cast<size_t>(std::popcount(present)) > n_values) {
      next = n_values + 1;
      break;
    }
    uint64_t found = 0;
    for (; present != 0; present &= present - 1, ++next) {
      const uint64_t bit = values[next / kWordBits] >> (next % kWordBits) & 1;
      found |= (present & -present) & (uint64_t{0} - bit);
    }
    rows[i] = found;
  }
  // Bits behind the last row would be set in the rows of others.
  const size_t tail = n_rows % kWordBits;
  const bool beyond = tail != 0 && word_of(presence, rows.size() - 1) >> tail != 0;
  if (next != n_values || beyond) presence.fail("must have one bit within the rows for each value");
}

// Sets the bits of `mask` that are set in `rows`, whose bit 0 is bit `first` of the mask.
void add_to(uint8_t* mask, size_t first, const Words& rows, size_t n_rows) {
  if (n_rows == 0) return;
  uint8_t* const bytes = mask + first / 8;
  const size_t shift = first % 8;
  const size_t end = (shift + n_rows + 7) / 8;
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t low = rows[i] << shift;
    const uint64_t carried = i != 0 && shift != 0 ? rows[i - 1] >> (kWordBits - shift) : 0;
    const uint64_t word = low | carried;
    if (8 * i + 8 <= end) {
      store_le(bytes + 8 * i, load_le<uint64_t>(bytes + 8 * i) | word);
      continue;
    }
    for (size_t j = 0; 8 * i + j < end; ++j) bytes[8 * i + j] |= static_cast<uint8_t>(word >> (8 * j));
  }
  if (8 * rows.size() < end) bytes[end - 1] |= static_cast<uint8_t>(rows.back() >> (kWordBits - shift));
}

struct Interval {
  int64_t int_low;
  int64_t int_high;
  double float_low;
  double float_high;
};

// Fills `words` with the bits of one column's values, and returns how many values there are.
size_t test_values(nb::handle object, const Interval& interval, Words& words) {
  const BufferArg argument{object.ptr()};
  Py_buffer view;
  if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) != 0) {
    PyErr_Clear();
    throw nb::type_error("values must be C-contiguous buffers");
  }
  const bool floats = detail::item_kind(view.format) == detail::ItemKind::kFloat;
  PyBuffer_Release(&view);
  const Kernels& table = kernels();
  if (floats) {
    const Buffer<const double> values(argument, "values");
    words.resize(words_for(values.size()));
    table.within_float64(values.data(), values.size(), interval.float_low, interval.float_high, words.data());
    return values.size();
  }
  const Buffer<const int64_t> values(argument, "values");
  words.resize(words_for(values.size()));
  table.within_int64(values.data(), values.size(), interval.int_low, interval.int_high, words.data());
  return values.size();
}

void invert(Words& words, size_t n) {
  for (uint64_t& word : words) word = ~word;
  if (n % kWordBits != 0) words.back() &= (uint64_t{1} << (n % kWordBits)) - 1;
}

void py_mask_within(nb::typed<nb::list, nb::any> columns, int64_t int_low, int64_t int_high, double float_low,
                    double float_high, bool inverted, BufferArg mask_arg) {
  const Buffer<uint8_t> mask(mask_arg, "mask");
  const Interval interval{int_low, int_high, float_low, float_high};
  Words words;
  Words rows;
  for (const nb::handle item : columns) {
    const auto column = nb::cast<nb::tuple>(item);
    if (column.size() != 4) throw nb::value_error("a column must be first row, rows, values and presence");
    const auto first = nb::cast<uint64_t>(column[0]);
    const auto n_rows = nb::cast<uint64_t>(column[1]);
    if (first > 8 * mask.size() || n_rows > 8 * mask.size() - first)
      mask.fail("must have a bit for each row");
    const size_t n_values = test_values(column[2], interval, words);
    if (inverted) invert(words, n_values);
    if (column[3].is_none()) {
      if (n_values != n_rows)
        throw nb::value_error("a column without presence must have a value for each row");
      add_to(mask.data(), first, words, n_rows);
    } else {
      const Buffer<const uint8_t> presence(BufferArg{nb::object(column[3]).ptr()}, "presence");
      presence.expect_at_least((n_rows + 7) / 8);
      spread(words, n_values, presence, n_rows, rows);
      add_to(mask.data(), first, rows, n_rows);
    }
  }
}

}  // namespace

void bind_filters(nb::module_& m) {
  m.def("mask_within", py_mask_within, "columns"_a, "int_low"_a, "int_high"_a, "float_low"_a, "float_high"_a,
        "inverted"_a, "mask"_a,
        "Set the bits of `mask` that belong to values in a closed interval, or outside of it if `inverted`; "
        "NaN is outside of all. Each column is a tuple: its first row, how many rows it covers, an int64 or "
        "float64 value for each row that has one, and the bitmap of those rows (None: all).");
}

}  // namespace iqdb
