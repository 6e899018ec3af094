#include "graph_products.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <utility>

#include "codes.hpp"
#include "threads.hpp"

namespace iqdb {
namespace {

// Fewer nodes are compared one by one, not walked over.
constexpr std::size_t kFewNodes = 1024;
// Walks begin at so many of the longest, too: most hits are among them or beside them.
constexpr std::size_t kLongest = 256;
// Lengths are alike where their standard deviation is at most this share of their mean.
constexpr double kAlike = 0.01;
// As in graph_build.cpp: members of a batch do not see each other's links.
constexpr std::size_t kBatchShare = 50;
constexpr std::size_t kItemsPerGrab = 16;
// Coarse codes order near nodes less well: codes choose among so many times as many.
constexpr std::size_t kCompared = 4;
constexpr double kMost = std::numeric_limits<float>::max();

bool lengths_differ(const float* norms, std::size_t n) {
  double sum = 0.0;
  double squares = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    sum += norms[i];
    squares += double{norms[i]} * norms[i];
  }
  const double mean = sum / static_cast<double>(n);
  const double variance = squares / static_cast<double>(n) - mean * mean;
  return variance > kAlike * kAlike * mean * mean;  // false where a length is no number
}

class Products {
 public:
  Products(const Kernels& kernels, GraphBuild& build)
      : kernels_(kernels), build_(build), wanted_(std::max<std::size_t>(build.m / 2, 1)) {
    codes_ = build.codes;
    codes_.norms = build.norms;
    find_starts();
  }

  void link() {
    const std::size_t share = std::max<std::size_t>(codes_.n / kBatchShare, 1);
    for (std::size_t begin = 0; begin < build_.fresh.size(); begin += share) {
      const std::span<const std::uint32_t> batch =
          build_.fresh.subspan(begin, std::min(share, build_.fresh.size() - begin));
      found_.assign(batch.size() * wanted_, kNoNode);
      parallel(batch.size(), [&](std::size_t i, Scratch& scratch) {
        find(batch[i], scratch, found_.data() + i * wanted_);
      });
      for (std::size_t i = 0; i < batch.size(); ++i) {
        add(build_.links + batch[i] * build_.degree, {found_.data() + i * wanted_, wanted_});
      }
    }
  }

 private:
  struct Scratch {
    Walker walker;
    std::vector<float> direction;
    std::vector<std::uint8_t> code;
    std::vector<std::uint32_t> nodes;
    std::vector<std::int32_t> keys;
    std::vector<std::pair<std::int32_t, std::uint32_t>> nearest;
  };

  template <class Work>
  void parallel(std::size_t n, const Work& work) {
    std::atomic<std::size_t> next{0};
    const std::size_t threads =
        std::clamp<std::size_t>(n / kItemsPerGrab, 1, std::max<std::size_t>(build_.threads, 1));
    while (scratch_.size() < threads) scratch_.emplace_back();
    run_threads(threads, [&](std::size_t worker) {
      for (;;) {
        const std::size_t begin = next.fetch_add(kItemsPerGrab);
        if (begin >= n) return;
        for (std::size_t i = begin; i < std::min(n, begin + kItemsPerGrab); ++i) work(i, scratch_[worker]);
      }
    });
  }

  void find_starts() {
    std::vector<std::uint32_t> rows(codes_.n);
    std::iota(rows.begin(), rows.end(), 0U);
    const std::size_t count = std::min(kLongest, rows.size());
    const auto end = rows.begin() + static_cast<std::ptrdiff_t>(count);
    std::partial_sort(rows.begin(), end, rows.end(), [&](std::uint32_t x, std::uint32_t y) {
      return codes_.norms[x] != codes_.norms[y] ? codes_.norms[x] > codes_.norms[y] : x < y;
    });
    starts_ = build_.entries;
    starts_.insert(starts_.end(), rows.begin(), end);
  }

  // The nodes with the greatest inner products with what the node's code stands for.
  void find(std::uint32_t node, Scratch& scratch, std::uint32_t* out) const {
    const CodeModel& model = *build_.model;
    const std::size_t dim = model.mean.size();
    const std::uint8_t* const bytes = codes_.of(node);
    scratch.direction.resize(dim);
    for (std::size_t j = 0; j < dim; ++j) {
      // A model out of a file may make it larger than any f32.
      const double component = (bytes[j] - kCodeCentre) / model.scale + double{model.mean[j]};
      scratch.direction[j] = static_cast<float>(std::clamp(component, -kMost, kMost));
    }
    scratch.code.resize(codes_.stride);
    QueryCode query{scratch.code.data()};
    query.offset = encode_direction(model, scratch.direction.data(), dim, scratch.code.data());
    Walker& walker = scratch.walker;
    const Graph graph{codes_, build_.links, build_.degree, starts_};
    walker.walk(kernels_, graph, {}, query, std::max(build_.ef_construction / 2, 4 * wanted_));

    scratch.nodes.clear();
    const std::size_t compared = codes_.coarse != nullptr ? kCompared * wanted_ : wanted_;
    for (std::size_t j = 0; j < walker.size() && scratch.nodes.size() < compared; ++j) {
      if (walker.at(j).node != node) scratch.nodes.push_back(walker.at(j).node);
    }
    scratch.keys.resize(scratch.nodes.size());
    Walker::keys(kernels_, codes_, query, scratch.nodes, scratch.keys.data());
    scratch.nearest.clear();
    for (std::size_t j = 0; j < scratch.nodes.size(); ++j)
      scratch.nearest.emplace_back(scratch.keys[j], scratch.nodes[j]);
    std::sort(scratch.nearest.begin(), scratch.nearest.end());
    for (std::size_t j = 0; j < std::min(wanted_, scratch.nearest.size()); ++j)
      out[j] = scratch.nearest[j].second;
  }

  // Adds links to a node's list. Where there is no room, its last ones make room: the farthest, mostly.
  void add(std::uint32_t* links, std::span<const std::uint32_t> found) const {
    const auto is_found = [&](std::uint32_t node) {
      return std::find(found.begin(), found.end(), node) != found.end();
    };
    std::uint32_t* end = std::find(links, links + build_.degree, kNoNode);
    const auto known = static_cast<std::size_t>(std::count_if(links, end, is_found));
    const auto count =
        static_cast<std::size_t>(std::find(found.begin(), found.end(), kNoNode) - found.begin());
    std::size_t room = build_.degree - static_cast<std::size_t>(end - links);
    for (std::uint32_t* last = end; room < count - known && last != links;) {
      if (is_found(*--last)) continue;
      std::copy(last + 1, end, last);
      *--end = kNoNode;
      ++room;
    }
    for (std::size_t j = 0; j < count; ++j) {
      if (end != links + build_.degree && std::find(links, end, found[j]) == end) *end++ = found[j];
    }
  }

  const Kernels& kernels_;
  GraphBuild& build_;
  Codes codes_{};
  std::size_t wanted_;
  std::vector<std::uint32_t> starts_;
  std::vector<std::uint32_t> found_;
  std::vector<Scratch> scratch_;
};

}  // namespace

void link_products(const Kernels& kernels, GraphBuild& build) {
  if (build.codes.n < kFewNodes || !lengths_differ(build.norms, build.codes.n)) return;
  Products(kernels, build).link();
}

}  // namespace iqdb
