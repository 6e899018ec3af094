// k-means over codes, and the assignment of codes to the nearest centroid.
//
// All comparisons are of integers and all means are quotients of integer sums: the result does not depend on
// the number of threads nor on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "code_table.hpp"
#include "codes.hpp"
#include "table.hpp"

namespace iqdb {

// Codes to be divided into clusters: kDot for squared differences, kAbsoluteDifference for absolute ones.
struct ClusterCodes {
  CodeSum sum;
  const std::uint8_t* codes;  // [n][stride]
  std::size_t n;
  std::size_t stride;

  const std::uint8_t* of(std::size_t row) const { return codes + row * stride; }
};

struct ClusterTraining {
  ClusterCodes rows;
  std::size_t n_clusters;  // at most rows.n
  std::size_t iterations;  // at most so many; fewer when nothing changes any more
  std::uint64_t seed;
  std::size_t threads;
};

// Trains centroids: k-means++ on a part of the rows (Arthur and Vassilvitskii, SODA 2007), then Lloyd's
// iterations. A cluster that is left empty starts again from the row that is farthest from its own centroid.
// Under absolute differences too a centroid is the mean of its rows, though their medians would be nearer to
// them.
//
// Returns means in code units, float64[n_clusters][stride].
std::vector<double> train_clusters(const Kernels& kernels, const ClusterTraining& training);

// Centroids as components, from means in code units. centroids[n][dim].
void decode_centroids(const CodeModel& model, const double* means, std::size_t n, std::size_t dim,
                      float* centroids);

// Centroids as codes, from components; unlike a row of unit length a centroid is not scaled.
// codes[n][stride].
void encode_centroids(const CodeModel& model, const float* centroids, std::size_t n, std::size_t dim,
                      std::uint8_t* codes);

// The nearest centroid of every row, the first of equals. `centroids` are codes.
void assign_clusters(const Kernels& kernels, const ClusterCodes& rows, const ClusterCodes& centroids,
                     std::uint32_t* out, std::size_t threads);

}  // namespace iqdb
