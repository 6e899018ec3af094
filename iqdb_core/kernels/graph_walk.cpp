#include <algorithm>
#include <bit>
#include <cstring>

#include "graph.hpp"

namespace iqdb {
namespace {

// A pool entry: the key, shifted so that unsigned order is key order, above the node's number, above the
// bit that says the node's neighbours were looked at. Sorting entries sorts by key, then node.
constexpr std::uint64_t pack(std::int32_t key, std::uint32_t node) {
  return (std::uint64_t{static_cast<std::uint32_t>(key) ^ 0x80000000U} << 32) | (std::uint64_t{node} << 1);
}
// An integer whose order is that of the float's.
std::int32_t ordered(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}
constexpr std::uint32_t node_of(std::uint64_t entry) {
  return static_cast<std::uint32_t>(entry) >> 1;
}
constexpr std::int32_t key_of(std::uint64_t entry) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(entry >> 32) ^ 0x80000000U);
}

}  // namespace

Walker::Candidate Walker::at(std::size_t i) const {
  return {key_of(pool_[i]), node_of(pool_[i])};
}

void Walker::keys(const Kernels& kernels, const Codes& codes, const QueryCode& query,
                  std::span<const std::uint32_t> nodes, std::int32_t* out) {
  kernels.code_sums(codes.sum, {codes.data, codes.stride, nodes.data(), nodes.size(), query.bytes, out});
  if (codes.sum != CodeSum::kDot) return;
  if (codes.norms != nullptr) {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      out[i] = ordered(-static_cast<float>(out[i] + query.offset) * codes.norms[nodes[i]]);
    }
    return;
  }
  // |code - query|^2 less the query's own term, which is the same for every node.
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    out[i] = static_cast<std::int32_t>(codes.lengths[nodes[i]] - 2 * std::int64_t{out[i]});
  }
}

void Walker::forget() {
  for (const std::uint32_t word : touched_words_) visited_[word] = 0;
  touched_words_.clear();
}

bool Walker::visit(std::uint32_t node) {
  std::uint64_t& word = visited_[node >> 6];
  const std::uint64_t bit = std::uint64_t{1} << (node & 63);
  if ((word & bit) != 0) return false;
  if (word == 0) touched_words_.push_back(node >> 6);
  word |= bit;
  return true;
}

// Puts the entry in its place and returns that, or the pool's size when it is not among the nearest.
std::size_t Walker::insert(std::uint64_t entry, std::size_t breadth) {
  std::uint64_t* const pool = pool_.data();
  if (size_ == breadth && entry >= pool[size_ - 1]) return size_;
  const std::size_t place = static_cast<std::size_t>(std::lower_bound(pool, pool + size_, entry) - pool);
  const std::size_t moved = (size_ < breadth ? size_ : size_ - 1) - place;
  std::memmove(pool + place + 1, pool + place, moved * sizeof(*pool));
  pool[place] = entry;
  if (size_ < breadth) ++size_;
  return place;
}

bool Walker::verify(const BlockTable* table, std::size_t begin, std::size_t bytes) {
  if (table == nullptr) return true;
  for (std::size_t block = begin / kBlockBytes; block <= (begin + bytes - 1) / kBlockBytes; ++block) {
    if (!table->verify(block)) {
      damaged_table = table;
      damaged_block = block;
      return false;
    }
  }
  return true;
}

// Scores the nodes in fresh_ and inserts them; `first` becomes the nearest place that changed.
bool Walker::score(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks,
                   const QueryCode& query, std::size_t breadth, std::size_t* first) {
  if (blocks.codes != nullptr) {
    for (const std::uint32_t node : fresh_) {
      if (!verify(blocks.codes, node * graph.codes.stride, graph.codes.stride)) return false;
    }
  }
  sums_.resize(fresh_.size());
  keys(kernels, graph.codes, query, fresh_, sums_.data());
  for (std::size_t i = 0; i < fresh_.size(); ++i) {
    *first = std::min(*first, insert(pack(sums_[i], fresh_[i]), breadth));
  }
  scored_ += fresh_.size();
  return true;
}

bool Walker::walk(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks,
                  const QueryCode& query, std::size_t breadth) {
  const std::size_t n = graph.codes.n;
  breadth = std::min(breadth, n);
  size_ = scored_ = expanded_ = 0;
  if (breadth == 0) return true;
  if (pool_.size() < breadth + 1) pool_.resize(breadth + 1);
  if (visited_.size() < (n + 63) / 64) visited_.resize((n + 63) / 64);
  forget();

  fresh_.clear();
  for (const std::uint32_t entry : graph.entries) {
    if (entry < n && visit(entry)) fresh_.push_back(entry);
  }
  std::size_t place = breadth;
  if (!score(kernels, graph, blocks, query, breadth, &place)) return false;

  // The pool is walked from its near end; an insertion in front of the place sets it back.
  place = 0;
  while (place < size_) {
    if ((pool_[place] & 1) != 0) {
      ++place;
      continue;
    }
    const std::size_t node = node_of(pool_[place]);
    pool_[place] |= 1;
    ++expanded_;
    const std::uint32_t* const links = graph.links + node * graph.degree;
    if (!verify(blocks.links, node * graph.degree * sizeof(*links), graph.degree * sizeof(*links)))
      return false;
    fresh_.clear();
    for (std::size_t i = 0; i < graph.degree; ++i) {
      if (links[i] < n && visit(links[i])) fresh_.push_back(links[i]);
    }
    std::size_t first = place + 1;
    if (!score(kernels, graph, blocks, query, breadth, &first)) return false;
    place = first;
    if (place < size_) {
      const auto* const next =
          reinterpret_cast<const char*>(graph.links + node_of(pool_[place]) * graph.degree);
      for (std::size_t byte = 0; byte < graph.degree * sizeof(*links); byte += 64)
        __builtin_prefetch(next + byte);
    }
  }
  return true;
}

}  // namespace iqdb
