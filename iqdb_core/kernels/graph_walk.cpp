#include <algorithm>
#include <bit>
#include <cstring>

#include "codes.hpp"
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

// Nodes whose neighbours are scored together.
constexpr std::size_t kAtOnce = 2;
constexpr std::size_t kEarly = 6;

void prefetch_links(const Graph& graph, const BlockTable* blocks, std::size_t node) {
  const std::size_t bytes = graph.degree * sizeof(*graph.links);
  if (blocks != nullptr) blocks->ask_for(node * bytes, bytes);
  const auto* const links = reinterpret_cast<const char*>(graph.links + node * graph.degree);
  for (std::size_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(links + byte);
}

}  // namespace

Walker::Candidate Walker::at(std::size_t i) const {
  return {key_of(pool_[i]), node_of(pool_[i])};
}

void Walker::keys(const Kernels& kernels, const Codes& codes, const QueryCode& query,
                  std::span<const std::uint32_t> nodes, std::int32_t* out) {
  if (codes.sum == CodeSum::kDot) {
    const void* const terms = codes.norms != nullptr ? static_cast<const void*>(codes.norms) : codes.lengths;
    for (const std::uint32_t node : nodes) __builtin_prefetch(static_cast<const std::int32_t*>(terms) + node);
  }
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
  for (const std::uint32_t node : visited_nodes_) visited_[node >> 6] = 0;
  visited_nodes_.clear();
}

// Adds those of the listed nodes that no walk was at yet to `fresh_`.
void Walker::gather(std::span<const std::uint32_t> nodes, std::size_t n) {
  const std::size_t before = fresh_.size();
  fresh_.resize(before + nodes.size());
  std::uint32_t* end = fresh_.data() + before;
  for (const std::uint32_t node : nodes) {
    if (node >= n) continue;
    // Whether a node is new is not to be predicted, so it is written and then kept or not.
    std::uint64_t& word = visited_[node >> 6];
    const std::uint64_t bit = std::uint64_t{1} << (node & 63);
    *end = node;
    end += (word & bit) == 0;
    word |= bit;
  }
  fresh_.resize(static_cast<std::size_t>(end - fresh_.data()));
  visited_nodes_.insert(visited_nodes_.end(), fresh_.begin() + static_cast<std::ptrdiff_t>(before),
                        fresh_.end());
}

// Puts the entry in its place and returns that, or the pool's size when it is not among the nearest.
std::size_t Walker::insert(std::uint64_t entry, std::size_t breadth) {
  std::uint64_t* const pool = pool_.data();
  if (size_ == breadth && entry >= pool[size_ - 1]) return size_;
  // Without branches: where an entry belongs is not to be predicted.
  const std::uint64_t* at = pool;
  for (std::size_t left = size_; left > 0;) {
    const std::size_t half = left / 2;
    const bool is_behind = at[half] < entry;
    at = is_behind ? at + half + 1 : at;
    left = is_behind ? left - half - 1 : half;
  }
  const auto place = static_cast<std::size_t>(at - pool);
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

// Keys of the query against the nodes in fresh_, by their coarse codes. What is the same for every node is
// left out, as in keys().
void Walker::coarse_keys(const Kernels& kernels, const Codes& codes) {
  const void* const terms =
      codes.norms != nullptr ? static_cast<const void*>(codes.norms) : codes.coarse_lengths;
  for (const std::uint32_t node : fresh_) __builtin_prefetch(static_cast<const std::int32_t*>(terms) + node);
  kernels.coarse_sums(codes.sum, {codes.coarse, coarse_stride(codes.stride), fresh_.data(), fresh_.size(),
                                  padded_.data(), sums_.data()});
  if (codes.sum != CodeSum::kDot) return;
  if (codes.norms != nullptr) {
    for (std::size_t i = 0; i < fresh_.size(); ++i) {
      sums_[i] =
          ordered(-static_cast<float>(8 * std::int64_t{sums_[i]} + coarse_offset_) * codes.norms[fresh_[i]]);
    }
    return;
  }
  for (std::size_t i = 0; i < fresh_.size(); ++i) {
    sums_[i] = static_cast<std::int32_t>(codes.coarse_lengths[fresh_[i]] - 16 * std::int64_t{sums_[i]});
  }
}

// Scores the nodes in fresh_ and inserts them; `first` becomes the nearest place that changed.
bool Walker::score(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks, std::size_t breadth,
                   std::size_t* first) {
  const Codes& codes = graph.codes;
  const bool is_coarse = codes.coarse != nullptr;
  const BlockTable* const table = is_coarse ? blocks.coarse : blocks.codes;
  if (table != nullptr) {
    const std::size_t stride = is_coarse ? coarse_stride(codes.stride) : codes.stride;
    for (const std::uint32_t node : fresh_) table->ask_for(node * stride, stride);
    for (const std::uint32_t node : fresh_) {
      if (!verify(table, node * stride, stride)) return false;
    }
  }
  sums_.resize(fresh_.size());
  if (is_coarse) {
    coarse_keys(kernels, codes);
  } else {
    keys(kernels, codes, query_, fresh_, sums_.data());
  }
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
  query_ = query;
  if (graph.codes.coarse != nullptr) {
    const std::size_t stride = graph.codes.stride;
    padded_.assign(2 * coarse_stride(stride), std::uint8_t{0});
    std::memcpy(padded_.data(), query.bytes, stride);
    // A half-byte h stands for 8 h + 4: with the 4s of all components the offset is that of codes.
    coarse_offset_ = query.offset;
    const auto* const signed_query = reinterpret_cast<const std::int8_t*>(query.bytes);
    for (std::size_t j = 0; graph.codes.norms != nullptr && j < stride; ++j)
      coarse_offset_ += 4 * signed_query[j];
  }

  fresh_.clear();
  gather(graph.entries, n);
  std::size_t place = breadth;
  if (!score(kernels, graph, blocks, breadth, &place)) return false;

  const bool is_coarse = graph.codes.coarse != nullptr;
  const std::uint8_t* const codes = is_coarse ? graph.codes.coarse : graph.codes.data;
  const std::size_t stride = is_coarse ? coarse_stride(graph.codes.stride) : graph.codes.stride;
  // The pool is walked from its near end; an insertion in front of the place sets it back.
  place = 0;
  while (place < size_) {
    // Neighbours of a few nodes are scored at once, to wait less often for memory.
    fresh_.clear();
    std::size_t taken = 0;
    for (; place < size_ && taken < kAtOnce; ++place) {
      if ((pool_[place] & 1) != 0) continue;
      const std::size_t node = node_of(pool_[place]);
      pool_[place] |= 1;
      ++taken;
      ++expanded_;
      const std::uint32_t* const links = graph.links + node * graph.degree;
      if (!verify(blocks.links, node * graph.degree * sizeof(*links), graph.degree * sizeof(*links)))
        return false;
      gather({links, graph.degree}, n);
      if (taken == 1) {
        // While the next node's links are gone through, the first codes are on their way.
        for (std::size_t i = 0; i < std::min(fresh_.size(), kEarly); ++i) {
          for (std::size_t byte = 0; byte < stride; byte += 64)
            __builtin_prefetch(codes + fresh_[i] * stride + byte);
        }
      }
    }
    std::size_t first = place;
    for (std::size_t ahead = 0; place < size_ && ahead < kAtOnce; ++place) {
      if ((pool_[place] & 1) != 0) continue;
      ++ahead;
      prefetch_links(graph, blocks.links, node_of(pool_[place]));
    }
    if (!score(kernels, graph, blocks, breadth, &first)) return false;
    place = first;
    if (place < size_) prefetch_links(graph, blocks.links, node_of(pool_[place]));
  }
  return true;
}

}  // namespace iqdb
