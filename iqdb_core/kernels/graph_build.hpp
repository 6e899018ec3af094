// Building, extending and repairing the graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "codes.hpp"
#include "graph.hpp"

namespace iqdb {

struct GraphBuild {
  Codes codes;
  std::uint32_t* links;  // [n][degree]; those of linked rows are kept, the others written
  std::size_t degree;    // 2 m
  std::size_t m;
  std::size_t ef_construction;
  std::uint64_t seed;
  std::span<const std::uint32_t> fresh;  // rows to insert, each once; all others are linked
  std::vector<std::uint32_t> entries;    // in: those of the linked part; out: those of the whole
  std::size_t threads;
  // Of inner products: what codes stand for, and lengths, where nodes are to be linked by these too.
  const CodeModel* model = nullptr;
  const float* norms = nullptr;
};

// Inserts the fresh nodes. The result depends on the arguments but not on `threads`: nodes are
// inserted in batches against the graph as it was before the batch, and links are written in
// (node, key, neighbour) order (Dhulipala et al., ParlayANN, arXiv 2305.04359).
void extend_graph(const Kernels& kernels, GraphBuild& build);

// Carries a graph over to new row numbers: `target[old]` is the new row, or kNoNode for a row that is gone.
// A node that loses neighbours is offered those neighbours' neighbours in their place, then pruned as at
// insertion (Singh et al., FreshDiskANN, arXiv 2105.09613, section 4.2); one that lost many is linked anew.
void carry_graph(const Kernels& kernels, GraphBuild& build, const std::uint32_t* old_links, std::size_t old_n,
                 std::span<const std::uint32_t> old_entries, const std::uint32_t* target);

}  // namespace iqdb
