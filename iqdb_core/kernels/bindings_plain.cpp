// The module's functions over plain records, vectors with integer ids and nothing else, and over vectors
// alone.
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
#include "checksum.hpp"
#include "checksum_vectors.hpp"
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

std::int64_t py_check_vectors(BufferArg data_arg, std::uint32_t prefix, std::uint64_t first_block,
                              BufferArg crcs_arg, std::size_t start, std::size_t dim, BufferArg wrong_arg,
                              BufferArg hashes_arg) {
  const Buffer<const std::uint8_t> data(data_arg, "data");
  const Buffer<const std::uint32_t> crcs(crcs_arg, "crcs");
  const Buffer<std::uint8_t> wrong(wrong_arg, "out_wrong");
  const Buffer<std::uint64_t> hashes(hashes_arg, "out_hashes");
  const std::size_t n_blocks = data.size() / kBlockBytes + (data.size() % kBlockBytes != 0);
  crcs.expect_size(n_blocks);
  wrong.expect_size(n_blocks);
  static_assert(sizeof(HashPair) == 2 * sizeof(std::uint64_t));
  if (hashes.size() % 2 != 0) hashes.fail("must have two items a row");
  const std::size_t n_rows = hashes.size() / 2;
  if (dim == 0 || start > data.size() || start % sizeof(float) != 0 ||
      n_rows > (data.size() - start) / sizeof(float) / dim) {
    data.fail("must hold a row of `dim` components for each two items of out_hashes");
  }
  const VectorBlocks blocks{.data = {data.data(), data.size()},
                            .crcs = {crcs.data(), crcs.size()},
                            .prefix = prefix,
                            .first_block = first_block,
                            .start = start,
                            .row_bytes = dim * sizeof(float),
                            .n_rows = n_rows};
  auto* const out = reinterpret_cast<HashPair*>(hashes.data());
  const nb::gil_scoped_release release;
  const std::size_t bad = check_vectors(blocks, wrong.data(), out);
  return bad == n_rows * dim ? -1 : static_cast<std::int64_t>(bad);
}

}  // namespace

void bind_plain(nb::module_& m) {
  m.def("digest_plain", py_digest_plain, "vectors"_a, "dim"_a, "ids"_a, "first_rank"_a,
        "Digest and order of records with integer ids and no metadata, in one pass. Returns (bad, low, high, "
        "sequence): the first component that is not finite, or -1; the sums of the record hashes; the sum of "
        "the ids' first hashes, each times 2 rank + 1.");
  m.def("check_vectors", py_check_vectors, "data"_a, "prefix"_a, "first_block"_a, "crcs"_a, "start"_a,
        "dim"_a, "out_wrong"_a, "out_hashes"_a,
        "One look at whole blocks of stored vectors. out_wrong[i] tells whether block first_block + i has "
        "another "
        "checksum than crcs[i]; out_hashes[i] is the hash pair, as of hash_vectors, of row i of those that "
        "begin "
        "at byte `start`. Returns the first component of these rows that is not finite, or -1.");
  m.def("number_ids", py_number_ids, "first"_a, "out"_a, "out[i] = first + i, modulo 2^64.");
  m.def("ids_ascend", py_ids_ascend, "ids"_a, "below"_a.none(),
        "Whether the integer ids ascend strictly, the first above `below` unless that is None.");
}

}  // namespace iqdb
