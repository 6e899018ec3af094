// k-nearest-neighbour search over a graph: walk by codes, then score by vectors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codes.hpp"
#include "graph.hpp"
#include "metric.hpp"

namespace iqdb {

struct GraphSearch {
  Graph graph;
  GraphBlocks blocks;
  const CodeModel* model;
  const std::uint32_t* values;  // what bits stand for (bits.hpp), in place of a model under hamming
  Metric metric;
  const float* vectors;  // [n][dim]
  std::size_t dim;
  const BlockTable* vector_blocks;  // null when verified
  const float* queries;             // [n_queries][dim]
  std::size_t n_queries;
  std::size_t k;
  std::size_t breadth;       // ef: nodes that the walk keeps
  std::size_t scored;        // of those that pass the mask, how many are scored by their vectors
  const std::uint8_t* mask;  // bits; null for every row
  bool filtered;             // whether the walk keeps only nodes that pass the mask
  double max_distance;
  std::size_t threads;
  std::size_t width;      // slots of a query in the outputs, at least k
  std::int64_t* rows;     // [n_queries][width]
  double* distances;      // [n_queries][width]
  std::int64_t* counts;   // [n_queries]
  std::int64_t* visited;  // [n_queries][2] codes compared, then vectors compared: 0 when the walk got
                          // stuck or no code of the query says how far rows are
};

// What was damaged, if anything: 0 nothing, 1 codes, 2 links, 3 vectors, 4 coarse codes; and the block.
struct Damage {
  int part = 0;
  std::size_t block = 0;
};

Damage search_graph(const Kernels& kernels, const GraphSearch& search);

}  // namespace iqdb
