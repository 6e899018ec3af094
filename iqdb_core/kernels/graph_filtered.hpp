// The walk of a filtered search: over the nodes that pass a mask, and through those that do not.
//
// The pool holds nodes that pass alone, so that it need not be wider than without a filter. A neighbour that
// does not pass is not compared; its own neighbours are looked at in its place, as in ACORN-1 (Patel et al.,
// arXiv 2403.04871), until an expanded node has found twice as many neighbours that pass as a node has links.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph.hpp"

namespace iqdb {

// One thread's scratch space for filtered walks.
class FilteredWalker {
 public:
  // Best-first search with a pool of `breadth` nodes whose bit is set in the mask. The pool is then readable
  // through size(), node() and key(), nearest first, equal keys by node. False when a damaged block was
  // met: see damaged_*.
  bool walk(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks, const QueryCode& query,
            std::size_t breadth, const std::uint8_t* mask);

  std::size_t size() const { return pool_.size(); }
  std::uint32_t node(std::size_t i) const { return pool_[i].node; }
  std::int32_t key(std::size_t i) const { return pool_[i].key; }
  // Distances computed by the last walk.
  std::size_t scored() const { return scored_; }

  // Which array and which block was damaged, after walk() returned false.
  const BlockTable* damaged_table = nullptr;
  std::size_t damaged_block = 0;

 private:
  struct Place {
    std::int32_t key;
    std::uint32_t node;
    bool expanded;

    bool operator<(const Place& other) const {
      return key != other.key ? key < other.key : node < other.node;
    }
  };

  bool verify(const BlockTable* table, std::size_t begin, std::size_t bytes);
  bool visit(std::uint32_t node);
  void forget(std::size_t n);
  void seed(const Graph& graph, const std::uint8_t* mask);
  bool look_around(const Graph& graph, const GraphBlocks& blocks, std::uint32_t node,
                   const std::uint8_t* mask);
  bool score(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks, const QueryCode& query,
             std::size_t breadth, std::size_t* first);

  std::vector<Place> pool_;
  std::vector<std::uint64_t> visited_;        // one bit a node: compared, or passed through
  std::vector<std::uint32_t> touched_words_;  // those with a bit set, so that forgetting costs what was done
  std::vector<std::uint32_t> fresh_;
  std::vector<std::uint32_t> through_;
  std::vector<std::int32_t> keys_;
  std::size_t scored_ = 0;
};

}  // namespace iqdb
