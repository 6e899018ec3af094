// Codebooks of product quantisation: training them and coding points with them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "table.hpp"

namespace iqdb {

struct ProductPoints {
  bool absolute;        // nearest by absolute differences, not by squared ones
  const float* points;  // [n][dim]
  std::size_t n;
  std::size_t dim;
  std::size_t parts;  // divides dim
  std::size_t words;  // of each part, at most kMaxWords

  std::size_t part_dim() const { return dim / parts; }
};

// k-means for each part by itself, from seeds drawn among the points; words <= n.
// books[parts][words][part_dim].
void train_books(const Kernels& kernels, const ProductPoints& points, std::size_t iterations,
                 std::uint64_t seed, float* books, std::size_t threads);

// codes[n][parts]: the nearest word of each part.
void encode_products(const Kernels& kernels, const ProductPoints& points, const float* books,
                     std::uint8_t* codes, std::size_t threads);

// Rows, each assigned to a centroid.
struct ProductRows {
  const float* rows;  // [n][dim]
  std::size_t n;
  std::size_t dim;
  const float* centroids;         // [.][dim]
  const std::uint32_t* assigned;  // [n], numbers of centroids
};

// out[n][dim]: what rows differ by from their centroids, times a factor.
void product_residuals(const ProductRows& rows, double factor, float* out, std::size_t threads);

// Rows as they are coded: a centroid and a word for each part.
struct ProductCoded {
  const std::uint8_t* codes;  // [n][parts], numbers of words
  std::size_t n;
  std::size_t dim;
  std::size_t parts;  // divides dim
  std::size_t words;
  const float* books;             // [parts][words][dim / parts]
  const float* centroids;         // [.][dim]
  const std::uint32_t* assigned;  // [n]
};

// terms[n]: the square of the length of what the row is coded as, at most the greatest f32.
void product_terms(const ProductCoded& coded, float* terms, std::size_t threads);

}  // namespace iqdb
