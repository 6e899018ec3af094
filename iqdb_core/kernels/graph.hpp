// A flat proximity graph over codes, and the walk that searches it.
//
// The graph is the bottom layer of HNSW (Malkov and Yashunin, arXiv 1603.09320): each node keeps up to
// `degree` neighbours, chosen so that none is nearer to another than to the node. There are no upper
// layers: in the dimensions that embeddings have they bring nothing over a few fixed entries (Munyampirwa
// et al., arXiv 2412.01940), and a fixed-degree array can be mapped and walked in place.
//
// Nothing here trusts the arrays: they may come from a hostile file. Every neighbour and entry is compared
// with the number of nodes where it is used; one that is out of range is passed over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "checksum.hpp"
#include "code_table.hpp"
#include "table.hpp"

namespace iqdb {

inline constexpr std::uint32_t kNoNode = 0xffffffffU;
inline constexpr std::size_t kMaxDegree = 1024;
// A pool entry spends one bit of the node's number on "expanded".
inline constexpr std::size_t kMaxNodes = std::size_t{1} << 31;

// Codes of all nodes. The key of a pair grows with its distance; keys are exact integers. Under hamming codes
// have a bit a component (bits.hpp), and keys are the distances.
struct Codes {
  CodeSum sum;
  const std::uint8_t* data;     // [n][stride]
  const std::int32_t* lengths;  // [n] sum of squares of the code, for CodeSum::kDot; else null
  const float* norms;           // [n] for inner products: |x| in the model's unit; else null
  std::size_t n;
  std::size_t stride;
  // What walks read in place of the codes, if any; see codes.hpp.
  const std::uint8_t* coarse = nullptr;          // [n][coarse_stride(stride)]
  const std::int32_t* coarse_lengths = nullptr;  // [n]

  const std::uint8_t* of(std::uint32_t node) const { return data + node * stride; }
};

// A query's code. `offset` belongs to the sums of an inner product; see encode_direction.
struct QueryCode {
  const std::uint8_t* bytes;
  std::int64_t offset = 0;
};

struct Graph {
  Codes codes;
  const std::uint32_t* links;  // [n][degree], kNoNode after the last neighbour
  std::size_t degree;
  std::span<const std::uint32_t> entries;
};

// Blocks of codes and links that must be verified before a walk reads them; null when they are.
struct GraphBlocks {
  const BlockTable* codes = nullptr;
  const BlockTable* coarse = nullptr;
  const BlockTable* links = nullptr;
};

// One thread's scratch space for walks: the pool and the set of visited nodes.
class Walker {
 public:
  struct Candidate {
    std::int32_t key;
    std::uint32_t node;
  };

  // Best-first search with a pool of `breadth` nodes (ef). The pool is then readable through size() and
  // at(), nearest first, equal keys by node: keys of coarse codes where there are any. False when a damaged
  // block was met: see damaged_*.
  bool walk(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks, const QueryCode& query,
            std::size_t breadth);

  std::size_t size() const { return size_; }
  Candidate at(std::size_t i) const;
  // Distances computed and nodes expanded by the last walk.
  std::size_t scored() const { return scored_; }
  std::size_t expanded() const { return expanded_; }

  // Keys of the query against listed nodes, without walking.
  static void keys(const Kernels& kernels, const Codes& codes, const QueryCode& query,
                   std::span<const std::uint32_t> nodes, std::int32_t* out);

  // Which array and which block was damaged, after walk() or verify() returned false.
  const BlockTable* damaged_table = nullptr;
  std::size_t damaged_block = 0;

  // Verifies a part of an array; false when it is damaged.
  bool verify(const BlockTable* table, std::size_t begin, std::size_t bytes);

 private:
  void gather(std::span<const std::uint32_t> nodes, std::size_t n);
  std::size_t insert(std::uint64_t entry, std::size_t breadth);
  bool score(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks, std::size_t breadth,
             std::size_t* first);
  void coarse_keys(const Kernels& kernels, const Codes& codes);
  void forget();

  std::vector<std::uint64_t> pool_;
  std::size_t size_ = 0;
  std::vector<std::uint64_t> visited_;        // one bit a node
  std::vector<std::uint32_t> visited_nodes_;  // those with a bit set, so that forgetting costs what was done
  QueryCode query_{};
  std::int64_t coarse_offset_ = 0;
  std::vector<std::uint8_t> padded_;  // the query's code as wide as coarse codes are
  std::vector<std::uint32_t> fresh_;
  std::vector<std::int32_t> sums_;
  std::size_t scored_ = 0;
  std::size_t expanded_ = 0;
};

}  // namespace iqdb
