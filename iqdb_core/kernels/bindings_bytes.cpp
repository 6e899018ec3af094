// The module's functions over bytes: checksums, hashes, ids and strings. As in bindings.cpp, shapes are
// checked here; what arrays say (offsets, row numbers) is checked where it is used, in the kernels.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "bindings.hpp"
#include "buffers.hpp"
#include "checksum.hpp"
#include "floats.hpp"
#include "ids.hpp"
#include "packed.hpp"
#include "strings.hpp"
#include "strings_dictionary.hpp"
#include "xxh64_records.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

std::span<const uint8_t> bytes_of(const Buffer<const uint8_t>& buffer) {
  return {buffer.data(), buffer.size()};
}

// offsets[count + 1] and the bytes they part; what the offsets say is checked where they are used.
PackedBytes packed(const Buffer<const uint64_t>& offsets, const Buffer<const uint8_t>& data) {
  offsets.expect_at_least(1);
  return {{offsets.data(), offsets.size()}, bytes_of(data)};
}

VarIds var_ids(const Buffer<const uint8_t>& kinds, const Buffer<const uint64_t>& offsets,
               const Buffer<const uint8_t>& data) {
  offsets.expect_size(kinds.size() + 1);
  return {bytes_of(kinds), packed(offsets, data)};
}

// The hash pairs of a u64[n, 2] buffer.
template <class T>
auto hash_pairs(const Buffer<T>& buffer) {
  using Pair = std::conditional_t<std::is_const_v<T>, const HashPair, HashPair>;
  return std::span<Pair>(reinterpret_cast<Pair*>(buffer.data()), buffer.rows(2));
}

template <class T>
std::optional<Buffer<T>> optional_buffer(const std::optional<BufferArg>& argument, const char* name) {
  using Optional = std::optional<Buffer<T>>;
  return argument ? Optional(std::in_place, *argument, name) : Optional();  // a Buffer cannot be moved
}

size_t expect_threads(int64_t threads) {
  if (threads < 1) {
    throw nb::value_error(("threads must be at least 1, found " + std::to_string(threads)).c_str());
  }
  return static_cast<size_t>(threads);
}

uint32_t py_crc32c(BufferArg data_arg, uint32_t value) {
  const Buffer<const uint8_t> data(data_arg, "data");
  const nb::gil_scoped_release release;
  return crc32c(value, data.data(), data.size());
}

uint32_t py_crc32c_portable(BufferArg data_arg, uint32_t value) {
  const Buffer<const uint8_t> data(data_arg, "data");
  return crc32c_portable(value, data.data(), data.size());
}

void py_crc32c_blocks(BufferArg data_arg, uint32_t prefix, uint64_t first_block, BufferArg out_arg) {
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<uint32_t> out(out_arg, "out");
  out.expect_size((data.size() + kBlockBytes - 1) / kBlockBytes);
  const nb::gil_scoped_release release;
  crc32c_blocks(bytes_of(data), prefix, first_block, out.data());
}

int64_t py_verify_blocks(BufferArg data_arg, BufferArg crcs_arg, BufferArg verified_arg, uint32_t prefix,
                         uint64_t first, uint64_t stop, int64_t threads) {
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<const uint32_t> crcs(crcs_arg, "crcs");
  const Buffer<uint8_t> verified(verified_arg, "verified");
  const BlockTable table{bytes_of(data), {crcs.data(), crcs.size()}, verified.data(), prefix};
  crcs.expect_size(table.blocks());
  verified.expect_size(table.blocks());
  if (first > stop || stop > table.blocks()) {
    throw nb::value_error("first and stop must be in order and at most the number of blocks");
  }
  const size_t checked_threads = expect_threads(threads);
  const nb::gil_scoped_release release;
  return verify_blocks(table, first, stop, checked_threads);
}

std::pair<uint64_t, uint64_t> py_hash_bytes(BufferArg data_arg) {
  const Buffer<const uint8_t> data(data_arg, "data");
  const nb::gil_scoped_release release;
  const HashPair hash = hash_pair(data.data(), data.size());
  return {hash.h0, hash.h1};
}

void py_hash_vectors(BufferArg vectors_arg, BufferArg out_arg, int64_t threads) {
  const Buffer<const float> vectors(vectors_arg, "vectors");
  const Buffer<uint64_t> out_buffer(out_arg, "out");
  const std::span<HashPair> out = hash_pairs(out_buffer);
  if (vectors.ndim() != 2 && vectors.size() != 0) vectors.fail("must be a 2-D buffer");
  if (vectors.size() != 0 || !out.empty()) {
    if (vectors.ndim() != 2 || vectors.shape(0) != out.size()) out_buffer.fail("must have one row a vector");
  }
  const size_t row_bytes = out.empty() ? 0 : vectors.size() / out.size() * sizeof(float);
  const size_t checked_threads = expect_threads(threads);
  const nb::gil_scoped_release release;
  hash_rows(reinterpret_cast<const uint8_t*>(vectors.data()), out.size(), row_bytes, out.data(),
            checked_threads);
}

void py_hash_ids_u64(BufferArg ids_arg, BufferArg out_arg) {
  const Buffer<const uint64_t> ids(ids_arg, "ids");
  const Buffer<uint64_t> out(out_arg, "out");
  out.expect_size(2 * ids.size());
  HashPair* const pairs = hash_pairs(out).data();
  const nb::gil_scoped_release release;
  hash_ids_u64({ids.data(), ids.size()}, pairs);
}

void py_hash_ids_var(BufferArg kinds_arg, BufferArg offsets_arg, BufferArg data_arg, BufferArg out_arg) {
  const Buffer<const uint8_t> kinds(kinds_arg, "kinds");
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<uint64_t> out(out_arg, "out");
  const VarIds ids = var_ids(kinds, offsets, data);
  out.expect_size(2 * ids.size());
  HashPair* const pairs = hash_pairs(out).data();
  const nb::gil_scoped_release release;
  hash_ids_var(ids, pairs);
}

// Values go to the rows listed in `rows`, or one to every row of `out`.
RowTargets row_targets(const std::optional<Buffer<const uint32_t>>& rows, size_t count,
                       const Buffer<uint64_t>& out) {
  const std::span<HashPair> pairs = hash_pairs(out);
  if (rows) {
    rows->expect_size(count);
  } else if (pairs.size() != count) {
    out.fail("must have one row a value when there are no rows");
  }
  return {rows ? rows->data() : nullptr, pairs};
}

void py_hash_values(BufferArg prefix_arg, BufferArg values_arg, uint64_t width,
                    std::optional<BufferArg> rows_arg, BufferArg out_arg) {
  const Buffer<const uint8_t> prefix(prefix_arg, "prefix");
  const Buffer<const uint8_t> values(values_arg, "values");
  const auto rows = optional_buffer<const uint32_t>(rows_arg, "rows");
  const Buffer<uint64_t> out(out_arg, "out");
  // Values without bytes (nulls) are as many as there are places for them.
  const size_t count = width != 0 ? values.size() / width : rows ? rows->size() : hash_pairs(out).size();
  values.expect_size(count * width);
  const RowTargets targets = row_targets(rows, count, out);
  const nb::gil_scoped_release release;
  hash_values(bytes_of(prefix), values.data(), count, width, targets);
}

void py_hash_strings(BufferArg prefix_arg, BufferArg offsets_arg, BufferArg data_arg,
                     std::optional<BufferArg> rows_arg, BufferArg out_arg) {
  const Buffer<const uint8_t> prefix(prefix_arg, "prefix");
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const auto rows = optional_buffer<const uint32_t>(rows_arg, "rows");
  const Buffer<uint64_t> out(out_arg, "out");
  const PackedBytes values = packed(offsets, data);
  const RowTargets targets = row_targets(rows, values.size(), out);
  const nb::gil_scoped_release release;
  hash_strings(bytes_of(prefix), values, targets);
}

std::pair<uint64_t, uint64_t> py_combine_digest(BufferArg ids_arg, BufferArg vectors_arg,
                                                BufferArg metadata_arg, std::optional<BufferArg> out_arg) {
  const Buffer<const uint64_t> ids(ids_arg, "id_h");
  const Buffer<const uint64_t> vectors(vectors_arg, "vec_h");
  const Buffer<const uint64_t> metadata(metadata_arg, "meta_h");
  const auto out = optional_buffer<uint64_t>(out_arg, "out");
  const std::span<const HashPair> id_pairs = hash_pairs(ids);
  vectors.expect_size(ids.size());
  metadata.expect_size(ids.size());
  if (out) out->expect_size(ids.size());
  const HashPair* const vector_pairs = hash_pairs(vectors).data();
  const HashPair* const metadata_pairs = hash_pairs(metadata).data();
  HashPair* const out_pairs = out ? hash_pairs(*out).data() : nullptr;
  const nb::gil_scoped_release release;
  const HashPair sum =
      combine_digest(id_pairs.size(), id_pairs.data(), vector_pairs, metadata_pairs, out_pairs);
  return {sum.h0, sum.h1};
}

// The order of a lookup: as many rows as there are ids, or none when the ids are in order themselves.
std::span<const uint32_t> order_of(const std::optional<Buffer<const uint32_t>>& order, size_t n) {
  if (!order) return {};
  order->expect_size(n);
  return {order->data(), order->size()};
}

void py_lookup_u64(BufferArg ids_arg, std::optional<BufferArg> order_arg, BufferArg queries_arg,
                   BufferArg out_arg) {
  const Buffer<const uint64_t> ids(ids_arg, "ids");
  const auto order = optional_buffer<const uint32_t>(order_arg, "order");
  const Buffer<const uint64_t> queries(queries_arg, "queries");
  const Buffer<int64_t> out(out_arg, "out");
  const std::span<const uint32_t> order_rows = order_of(order, ids.size());
  out.expect_size(queries.size());
  const nb::gil_scoped_release release;
  lookup_u64({ids.data(), ids.size()}, order_rows, {queries.data(), queries.size()}, out.data());
}

void py_lookup_var(BufferArg kinds_arg, BufferArg offsets_arg, BufferArg data_arg,
                   std::optional<BufferArg> order_arg, BufferArg qkinds_arg, BufferArg qoffsets_arg,
                   BufferArg qdata_arg, BufferArg out_arg) {
  const Buffer<const uint8_t> kinds(kinds_arg, "kinds");
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const auto order = optional_buffer<const uint32_t>(order_arg, "order");
  const Buffer<const uint8_t> qkinds(qkinds_arg, "qkinds");
  const Buffer<const uint64_t> qoffsets(qoffsets_arg, "qoffsets");
  const Buffer<const uint8_t> qdata(qdata_arg, "qdata");
  const Buffer<int64_t> out(out_arg, "out");
  const VarIds ids = var_ids(kinds, offsets, data);
  const VarIds queries = var_ids(qkinds, qoffsets, qdata);
  const std::span<const uint32_t> order_rows = order_of(order, ids.size());
  out.expect_size(queries.size());
  const nb::gil_scoped_release release;
  lookup_var(ids, order_rows, queries, out.data());
}

void py_sort_ids_var(BufferArg kinds_arg, BufferArg offsets_arg, BufferArg data_arg,
                     BufferArg out_order_arg) {
  const Buffer<const uint8_t> kinds(kinds_arg, "kinds");
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<uint32_t> out_order(out_order_arg, "out_order");
  const VarIds ids = var_ids(kinds, offsets, data);
  out_order.expect_size(ids.size());
  if (ids.size() > std::numeric_limits<uint32_t>::max()) kinds.fail("must have at most 2^32-1 items");
  const nb::gil_scoped_release release;
  sort_ids_var(ids, out_order.data());
}

void py_compare_strings(BufferArg offsets_arg, BufferArg data_arg, BufferArg needle_arg, BufferArg out_arg) {
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<const uint8_t> needle(needle_arg, "needle");
  const Buffer<int8_t> out(out_arg, "out");
  const PackedBytes values = packed(offsets, data);
  out.expect_size(values.size());
  const nb::gil_scoped_release release;
  compare_strings(values, bytes_of(needle), out.data());
}

void py_contains_strings(BufferArg offsets_arg, BufferArg data_arg, BufferArg needle_arg, BufferArg out_arg) {
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<const uint8_t> needle(needle_arg, "needle");
  const Buffer<uint8_t> out(out_arg, "out");
  const PackedBytes values = packed(offsets, data);
  out.expect_size(values.size());
  const nb::gil_scoped_release release;
  contains_strings(values, bytes_of(needle), out.data());
}

int64_t py_dictionary_strings(BufferArg offsets_arg, BufferArg data_arg, BufferArg codes_arg,
                              BufferArg rows_arg) {
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<uint32_t> codes(codes_arg, "out_codes");
  const Buffer<uint32_t> rows(rows_arg, "out_rows");
  const PackedBytes values = packed(offsets, data);
  codes.expect_size(values.size());
  if (values.size() > std::numeric_limits<uint32_t>::max()) codes.fail("must have at most 2^32-1 items");
  const nb::gil_scoped_release release;
  return dictionary_strings(values, {rows.data(), rows.size()}, codes.data());
}

void py_gather_strings(BufferArg offsets_arg, BufferArg data_arg, BufferArg rows_arg, BufferArg out_arg) {
  const Buffer<const uint64_t> offsets(offsets_arg, "offsets");
  const Buffer<const uint8_t> data(data_arg, "data");
  const Buffer<const int64_t> rows(rows_arg, "rows");
  const Buffer<uint8_t> out(out_arg, "out_data");
  const PackedBytes values = packed(offsets, data);
  const nb::gil_scoped_release release;
  gather_strings(values, {rows.data(), rows.size()}, {out.data(), out.size()});
}

nb::bytes format_json(BufferArg vector_arg, bool portable) {
  const Buffer<const float> vector(vector_arg, "vector");
  std::string text(1, '[');
  {
    const nb::gil_scoped_release release;
    text.reserve(vector.size() * 13 + 2);  // "-0.012345678,"
    for (const float component : vector) {
      if (!std::isfinite(component)) throw nb::value_error("vector must be finite");
      if (text.size() > 1) text.push_back(',');
      append_f32_json(text, component, portable);
    }
    text.push_back(']');
  }
  return nb::bytes(text.data(), text.size());
}

nb::bytes py_format_f32_json(BufferArg vector_arg) {
  return format_json(vector_arg, false);
}

nb::bytes py_format_f32_json_portable(BufferArg vector_arg) {
  return format_json(vector_arg, true);
}

}  // namespace

void bind_bytes(nb::module_& m) {
  m.def("crc32c", py_crc32c, "data"_a, "value"_a = 0,
        "CRC-32C (Castagnoli) of `data`; `value` is the checksum of the bytes before it.");
  m.def("_crc32c_portable", py_crc32c_portable, "data"_a, "value"_a = 0,
        "crc32c() without the CPU's CRC instruction.");
  m.def("crc32c_blocks", py_crc32c_blocks, "data"_a, "prefix"_a, "first_block"_a, "out"_a,
        "out[i] = checksum of the 4096-byte block i of `data`, which is block first_block + i of its "
        "section.");
  m.def("verify_blocks", py_verify_blocks, "data"_a, "crcs"_a, "verified"_a, "prefix"_a, "first"_a, "stop"_a,
        "threads"_a = 1,
        "Verify the blocks first..stop that are not marked in `verified`, and mark them. Returns the first "
        "damaged one, or -1.");
  m.def("hash_bytes", py_hash_bytes, "data"_a, "XXH64 of `data` under the seeds 0 and 1.");
  m.def("hash_vectors", py_hash_vectors, "vectors"_a, "out"_a, "threads"_a = 1,
        "out[i] = both hashes of the bytes of vector i.");
  m.def("hash_ids_u64", py_hash_ids_u64, "ids"_a, "out"_a, "out[i] = both hashes of integer id i.");
  m.def("hash_ids_var", py_hash_ids_var, "kinds"_a, "offsets"_a, "data"_a, "out"_a,
        "out[i] = both hashes of id i.");
  m.def("hash_values", py_hash_values, "prefix"_a, "values"_a, "width"_a, "rows"_a.none(), "out"_a,
        "out[rows[i]] += both hashes of `prefix` and the `width` bytes of value i. Rows None: value i "
        "belongs to row i. Width 0: one empty value a row.");
  m.def("hash_strings", py_hash_strings, "prefix"_a, "offsets"_a, "data"_a, "rows"_a.none(), "out"_a,
        "out[rows[i]] += both hashes of `prefix` and string i. Rows None: string i belongs to row i.");
  m.def("combine_digest", py_combine_digest, "id_h"_a, "vec_h"_a, "meta_h"_a, "out"_a.none(),
        "Join the hashes of ids, vectors and metadata to record hashes, into `out` unless it is None. "
        "Returns their sums modulo 2^64.");
  m.def("lookup_u64", py_lookup_u64, "ids"_a, "order"_a.none(), "queries"_a, "out"_a,
        "out[i] = row of the id queries[i], or -1. `order` lists the rows by ascending id; None: the rows "
        "ascend themselves.");
  m.def("lookup_var", py_lookup_var, "kinds"_a, "offsets"_a, "data"_a, "order"_a.none(), "qkinds"_a,
        "qoffsets"_a, "qdata"_a, "out"_a, "lookup_u64() for ids of any kind.");
  m.def("sort_ids_var", py_sort_ids_var, "kinds"_a, "offsets"_a, "data"_a, "out_order"_a,
        "out_order = rows by ascending id: by kind, then integers by value and others bytewise; equal ids "
        "by row.");
  m.def("compare_strings", py_compare_strings, "offsets"_a, "data"_a, "needle"_a, "out"_a,
        "out[i] = -1, 0 or 1: how string i stands to `needle`, bytewise.");
  m.def("contains_strings", py_contains_strings, "offsets"_a, "data"_a, "needle"_a, "out"_a,
        "out[i] = 1 if string i contains `needle`, else 0.");
  m.def("dictionary_strings", py_dictionary_strings, "offsets"_a, "data"_a, "out_codes"_a, "out_rows"_a,
        "Number the distinct strings by first appearance: out_codes[i] = number of string i, out_rows[e] = "
        "first place of number e. Returns how many there are, or -1 when they are more than out_rows has "
        "room for.");
  m.def("gather_strings", py_gather_strings, "offsets"_a, "data"_a, "rows"_a, "out_data"_a,
        "Copy the strings at `rows` to `out_data`, one after the other; they must fill it exactly.");
  m.def("format_f32_json", py_format_f32_json, "vector"_a,
        "The vector as a JSON array, each component as the shortest decimal that reads back as the same "
        "float32.");
  m.def("_format_f32_json_portable", py_format_f32_json_portable, "vector"_a,
        "format_f32_json() without std::to_chars.");
}

}  // namespace iqdb
