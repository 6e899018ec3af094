// The module's functions over plain records: vectors with integer ids and nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <tuple>

#include "bindings.hpp"
#include "buffers.hpp"
#include "xxh64_plain.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

std::tuple<std::int64_t, std::uint64_t, std::uint64_t, std::uint64_t> py_digest_plain(
    BufferArg vectors_arg, std::size_t dim, BufferArg ids_arg, std::uint64_t first_rank) {
  const Buffer<const float> vectors(vectors_arg, "vectors");
  const Buffer<const std::uint64_t> ids(ids_arg, "ids");
  // Not dim * ids.size(), which may be more than there are integers.
  if (dim == 0 || vectors.size() % dim != 0 || vectors.size() / dim != ids.size()) {
    vectors.fail("must have `dim` components for each id");
  }
  const PlainRecords records{vectors.data(), {ids.data(), ids.size()}, dim};
  PlainDigest found;
  {
    const nb::gil_scoped_release release;
    found = digest_plain(records, first_rank);
  }
  return {found.bad, found.sum.h0, found.sum.h1, found.sequence};
}

void py_number_ids(std::uint64_t first, BufferArg out_arg) {
  const Buffer<std::uint64_t> out(out_arg, "out");
  std::iota(out.begin(), out.end(), first);
}

bool py_ids_ascend(BufferArg ids_arg, std::optional<std::uint64_t> below) {
  const Buffer<const std::uint64_t> ids(ids_arg, "ids");
  const nb::gil_scoped_release release;
  return ids_ascend({ids.data(), ids.size()}, below ? &*below : nullptr);
}

}  // namespace

void bind_plain(nb::module_& m) {
  m.def("digest_plain", py_digest_plain, "vectors"_a, "dim"_a, "ids"_a, "first_rank"_a,
        "Digest and order of records with integer ids and no metadata, in one pass. Returns (bad, low, high, "
        "sequence): the first component that is not finite, or -1; the sums of the record hashes; the sum of "
        "the ids' first hashes, each times 2 rank + 1.");
  m.def("number_ids", py_number_ids, "first"_a, "out"_a, "out[i] = first + i, modulo 2^64.");
  m.def("ids_ascend", py_ids_ascend, "ids"_a, "below"_a.none(),
        "Whether the integer ids ascend strictly, the first above `below` unless that is None.");
}

}  // namespace iqdb
