#include "graph_filtered.hpp"

#include <algorithm>

namespace iqdb {
namespace {

// Nodes that pass, from all over the mask, where a walk begins beside the graph's entries.
constexpr std::size_t kSeeds = 16;

bool passes(const std::uint8_t* mask, std::size_t node) {
  return ((mask[node >> 3] >> (node & 7)) & 1) != 0;
}

void prefetch(const void* from, std::size_t bytes) {
  const auto* const first = static_cast<const char*>(from);
  for (std::size_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(first + offset);
}

}  // namespace

void FilteredWalker::forget(std::size_t n) {
  for (const std::uint32_t word : touched_words_) visited_[word] = 0;
  touched_words_.clear();
  if (visited_.size() < (n + 63) / 64) visited_.resize((n + 63) / 64);
}

bool FilteredWalker::visit(std::uint32_t node) {
  std::uint64_t& word = visited_[node >> 6];
  const std::uint64_t bit = std::uint64_t{1} << (node & 63);
  if ((word & bit) != 0) return false;
  if (word == 0) touched_words_.push_back(node >> 6);
  word |= bit;
  return true;
}

bool FilteredWalker::verify(const BlockTable* table, std::size_t begin, std::size_t bytes) {
  if (table == nullptr) return true;
  for (std::size_t block = begin / kBlockBytes; block <= (begin + bytes - 1) / kBlockBytes; ++block) {
    if (table->verify(block)) continue;
    damaged_table = table;
    damaged_block = block;
    return false;
  }
  return true;
}

// Scores the nodes in fresh_ and puts them into the pool; `first` becomes the nearest place that changed.
bool FilteredWalker::score(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks,
                           const QueryCode& query, std::size_t breadth, std::size_t* first) {
  if (blocks.codes != nullptr) {
    for (const std::uint32_t node : fresh_)
      blocks.codes->ask_for(node * graph.codes.stride, graph.codes.stride);
  }
  for (const std::uint32_t node : fresh_) {
    if (!verify(blocks.codes, node * graph.codes.stride, graph.codes.stride)) return false;
  }
  keys_.resize(fresh_.size());
  Walker::keys(kernels, graph.codes, query, fresh_, keys_.data());
  scored_ += fresh_.size();
  for (std::size_t i = 0; i < fresh_.size(); ++i) {
    const Place place = {keys_[i], fresh_[i], false};
    if (pool_.size() == breadth) {
      if (!(place < pool_.back())) continue;
      pool_.pop_back();
    }
    const auto at = std::lower_bound(pool_.begin(), pool_.end(), place);
    *first = std::min(*first, static_cast<std::size_t>(at - pool_.begin()));
    pool_.insert(at, place);
  }
  return true;
}

// fresh_ becomes nodes that pass, at even distances among the words of the mask.
void FilteredWalker::seed(const Graph& graph, const std::uint8_t* mask) {
  const std::size_t n = graph.codes.n;
  const std::size_t bytes = (n + 7) / 8;
  std::size_t next = 0;  // a byte that no seed was taken from
  for (std::size_t i = 0; i < kSeeds; ++i) {
    std::size_t byte = std::max(next, i * bytes / kSeeds);
    while (byte < bytes && mask[byte] == 0) ++byte;
    if (byte == bytes) return;
    next = byte + 1;
    const std::size_t node = 8 * byte + static_cast<std::size_t>(__builtin_ctz(mask[byte]));
    // Bits behind the last node do not count.
    if (node < n && visit(static_cast<std::uint32_t>(node)))
      fresh_.push_back(static_cast<std::uint32_t>(node));
  }
}

// fresh_ becomes the neighbours of a node that pass, and those of the neighbours that do not.
bool FilteredWalker::look_around(const Graph& graph, const GraphBlocks& blocks, std::uint32_t node,
                                 const std::uint8_t* mask) {
  const std::size_t n = graph.codes.n;
  const std::size_t row_bytes = graph.degree * sizeof(*graph.links);
  const auto links_of = [&](std::uint32_t of) { return graph.links + std::size_t{of} * graph.degree; };
  if (!verify(blocks.links, node * row_bytes, row_bytes)) return false;
  through_.clear();
  const std::uint32_t* links = links_of(node);
  for (std::size_t i = 0; i < graph.degree; ++i) {
    if (links[i] >= n || !visit(links[i])) continue;
    if (passes(mask, links[i])) {
      fresh_.push_back(links[i]);
    } else {
      through_.push_back(links[i]);
      if (blocks.links != nullptr) blocks.links->ask_for(links[i] * row_bytes, row_bytes);
      prefetch(links_of(links[i]), row_bytes);
    }
  }
  for (const std::uint32_t passed : through_) {
    if (fresh_.size() >= 2 * graph.degree) {
      // Another node may still pass through what was not needed here.
      visited_[passed >> 6] &= ~(std::uint64_t{1} << (passed & 63));
      continue;
    }
    if (!verify(blocks.links, passed * row_bytes, row_bytes)) return false;
    links = links_of(passed);
    for (std::size_t i = 0; i < graph.degree; ++i) {
      if (links[i] < n && passes(mask, links[i]) && visit(links[i])) fresh_.push_back(links[i]);
    }
  }
  return true;
}

bool FilteredWalker::walk(const Kernels& kernels, const Graph& graph, const GraphBlocks& blocks,
                          const QueryCode& query, std::size_t breadth, const std::uint8_t* mask) {
  pool_.clear();
  scored_ = 0;
  forget(graph.codes.n);
  if (breadth == 0) return true;

  fresh_.clear();
  seed(graph, mask);
  for (const std::uint32_t entry : graph.entries) {
    if (entry < graph.codes.n && passes(mask, entry) && visit(entry)) fresh_.push_back(entry);
  }
  std::size_t place = 0;
  if (!score(kernels, graph, blocks, query, breadth, &place)) return false;

  // The pool is walked from its near end; an insertion in front of the place sets it back.
  place = 0;
  while (place < pool_.size()) {
    if (pool_[place].expanded) {
      ++place;
      continue;
    }
    pool_[place].expanded = true;
    fresh_.clear();
    if (!look_around(graph, blocks, pool_[place].node, mask)) return false;
    std::size_t first = place + 1;
    if (!score(kernels, graph, blocks, query, breadth, &first)) return false;
    place = first;
  }
  return true;
}

}  // namespace iqdb
