// k-nearest-neighbour search over inverted lists: rank the centroids, scan the nearest lists by codes, then
// score the nearest candidates by their vectors.
//
// Nothing here trusts the arrays but the offsets, which are checked when they are opened: row numbers are
// compared with the number of rows, and codes with the size of their table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "checksum.hpp"
#include "codes.hpp"
#include "ivf_product.hpp"
#include "metric.hpp"
#include "table.hpp"

namespace iqdb {

// What a search may find damaged. kVectors comes last.
enum class ListPart : int { kNone, kCodes, kRows, kLengths, kNorms, kProductCodes, kProductTerms, kVectors };
inline constexpr std::size_t kListParts = 8;

// Product quantisation (Jegou et al., PAMI 33(1), 2011): the difference of a vector from its list's centroid
// is cut into parts, and a byte says which word of the part's codebook stands for each.
//
// Where there are few words, a code is half a byte and each list is padded to blocks of kHalfRows rows, as
// HalfTask has them.
struct ProductCodes {
  const std::uint8_t* codes =
      nullptr;                   // in list order, [n][parts] or [blocks][pairs][kHalfRows]; null without
  const float* terms = nullptr;  // [n] |x|^2 of the coded vector, euclidean only
  std::size_t parts = 0;
  const ProductWords* words = nullptr;
  std::span<const std::size_t> blocks = {};  // [lists + 1] where the blocks of each list begin, for halves

  std::size_t pairs() const { return (parts + 1) / 2; }
};

struct Lists {
  Metric metric;
  const CodeModel* model;
  std::size_t n;
  std::size_t dim;
  const float* centroids;                  // [lists][dim]
  const std::uint8_t* centroid_codes;      // [lists][stride], see encode_centroids
  const std::int32_t* centroid_lengths;    // [lists]
  std::span<const std::uint64_t> offsets;  // [lists + 1], ascending from 0 to n
  const std::uint32_t* rows;               // [n]
  const std::uint8_t* codes;               // [n][stride], in list order
  const std::int32_t* lengths;             // [n]
  const float* norms;                      // [n] inner product only
  ProductCodes product;

  std::size_t count() const { return offsets.size() - 1; }
  std::size_t stride() const { return code_stride(dim); }
};

struct ListSearch {
  const Lists* lists;
  std::array<const BlockTable*, kListParts> blocks;  // by ListPart; null when verified
  const float* vectors;                              // [n][dim]
  const float* queries;                              // [n_queries][dim]
  std::size_t n_queries;
  std::size_t k;
  std::size_t n_probes;  // lists; more are probed until `enough` rows that pass the mask were seen
  std::size_t enough;
  std::size_t scored;        // of those how many are scored by their vectors
  const std::uint8_t* mask;  // bits; null for every row
  double max_distance;
  std::size_t threads;
  std::size_t width;      // slots of a query in the outputs, at least k
  std::int64_t* rows;     // [n_queries][width]
  double* distances;      // [n_queries][width]
  std::int64_t* counts;   // [n_queries]
  std::int64_t* visited;  // [n_queries][3] codes compared, vectors compared, lists probed
};

struct ListDamage {
  ListPart part = ListPart::kNone;
  std::size_t block = 0;
};

ListDamage search_lists(const Kernels& kernels, const ListSearch& search);

}  // namespace iqdb
