#include "graph_build.hpp"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>

#include "codes.hpp"
#include "graph_products.hpp"
#include "random.hpp"
#include "threads.hpp"

namespace iqdb {
namespace {

constexpr std::size_t kEntries = 16;
constexpr std::size_t kEntrySample = 4096;
// A batch is at most this share of the nodes: its members do not see each other, and at 2% recall does not
// suffer from that (arXiv 2305.04359, section 4).
constexpr std::size_t kBatchShare = 50;
constexpr std::size_t kItemsPerGrab = 16;
constexpr int kConnectRounds = 4;
// Links of one node to nodes with the very same code: more would leave no place for links out of their group.
constexpr std::size_t kMostTwins = 4;
// A node that lost more than one neighbour in so many is given new ones by a walk.
constexpr std::size_t kDeserted = 16;

using Candidate = Walker::Candidate;

bool nearer(const Candidate& x, const Candidate& y) {
  return x.key != y.key ? x.key < y.key : x.node < y.node;
}

// What a walk's keys leave out: with it a key is the whole squared distance, which can be compared between
// nodes.
std::int32_t own_term(const Codes& codes, std::uint32_t node) {
  return codes.sum == CodeSum::kDot ? codes.lengths[node] : 0;
}

// A key with the own term. Lengths may come from a file that made them up; sums of such ones wrap.
std::int32_t whole_key(std::int32_t key, std::int32_t own) {
  return static_cast<std::int32_t>(std::int64_t{key} + own);
}

// What one thread needs while it links nodes.
struct Scratch {
  Walker walker;
  std::vector<Candidate> candidates;
  std::vector<Candidate> chosen;
  std::vector<std::uint32_t> nodes;
  std::vector<std::int32_t> keys;
};

// Of candidates sorted by key, adds to `chosen` so that each is nearer to the node than to any chosen before
// it (the heuristic of arXiv 1603.09320, algorithm 4), until there are `limit`.
void choose_more(const Kernels& kernels, const Codes& codes, Scratch& scratch, std::size_t limit) {
  constexpr std::size_t kAtOnce = 8;  // the nearest kept ones exclude most candidates: look at few first
  scratch.nodes.clear();
  for (const Candidate& already : scratch.chosen) scratch.nodes.push_back(already.node);
  std::size_t twins = 0;
  for (const Candidate& candidate : scratch.candidates) {
    if (scratch.chosen.size() >= limit) break;
    if (candidate.key == 0 && ++twins > kMostTwins) continue;
    bool kept = true;
    const std::int32_t own = own_term(codes, candidate.node);
    for (std::size_t begin = 0; kept && begin < scratch.nodes.size(); begin += kAtOnce) {
      const std::size_t count = std::min(kAtOnce, scratch.nodes.size() - begin);
      scratch.keys.resize(count);
      Walker::keys(kernels, codes, {codes.of(candidate.node)}, {scratch.nodes.data() + begin, count},
                   scratch.keys.data());
      kept = std::all_of(scratch.keys.begin(), scratch.keys.end(),
                         [&](std::int32_t key) { return whole_key(key, own) >= candidate.key; });
    }
    if (!kept) continue;
    scratch.chosen.push_back(candidate);
    scratch.nodes.push_back(candidate.node);
  }
}

void choose(const Kernels& kernels, const Codes& codes, Scratch& scratch, std::size_t limit) {
  scratch.chosen.clear();
  choose_more(kernels, codes, scratch, limit);
}

struct Link {
  std::uint32_t node;
  std::int32_t key;
  std::uint32_t neighbour;
};

class Builder {
 public:
  Builder(const Kernels& kernels, GraphBuild& build) : kernels_(kernels), build_(build) {
    for (std::size_t i = 0; i < std::max<std::size_t>(build.threads, 1); ++i) scratch_.emplace_back();
  }

  void extend() {
    const std::size_t n = build_.codes.n;
    std::vector<std::uint32_t> order(build_.fresh.begin(), build_.fresh.end());
    for (const std::uint32_t node : order) std::fill_n(links_of(node), build_.degree, kNoNode);
    SplitMix random(build_.seed);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);

    std::size_t linked = n - order.size();
    const bool is_new = linked == 0;
    std::size_t next = 0;
    if (is_new && !order.empty()) {
      build_.entries = {order[0]};
      linked = next = 1;
    }
    while (next < order.size()) {
      const std::size_t share = std::max<std::size_t>(n / kBatchShare, 1);
      const std::size_t count = std::min({linked, share, order.size() - next});
      insert({order.data() + next, count});
      next += count;
      linked += count;
    }
    if (is_new) choose_entries(order);  // an extended graph keeps its entries
    if (build_.norms != nullptr) link_products(kernels_, build_);
    connect();
  }

  // Gives nodes that lost much of their neighbourhood a new one, in batches as at the build.
  void renew(std::span<const std::uint32_t> rows) {
    const std::size_t share = std::max<std::size_t>(build_.codes.n / kBatchShare, 1);
    for (std::size_t begin = 0; begin < rows.size(); begin += share) {
      insert_again(rows.subspan(begin, std::min(share, rows.size() - begin)));
    }
  }

  // Fills places that became free in lists: `offer` appends to scratch.nodes what may take them, and returns
  // how many there are. What is left of a list stays as it is: choosing again among it would thin it out each
  // time.
  template <class Offer>
  void refill(std::span<const std::uint32_t> rows, const Offer& offer) {
    parallel(rows.size(), [&](std::size_t i, Scratch& scratch) {
      std::uint32_t* const links = links_of(rows[i]);
      std::uint32_t* const end = std::find(links, links + build_.degree, kNoNode);
      scratch.nodes.clear();
      const std::size_t free = offer(rows[i], scratch.nodes);
      std::sort(scratch.nodes.begin(), scratch.nodes.end());
      scratch.nodes.erase(std::unique(scratch.nodes.begin(), scratch.nodes.end()), scratch.nodes.end());
      std::erase_if(scratch.nodes, [&](std::uint32_t node) { return std::find(links, end, node) != end; });
      scratch.candidates.clear();
      score_nodes(rows[i], scratch);
      std::sort(scratch.candidates.begin(), scratch.candidates.end(), nearer);
      scratch.chosen.clear();
      for (const std::uint32_t* link = links; link != end; ++link) scratch.chosen.push_back({0, *link});
      const std::size_t used = scratch.chosen.size();
      choose_more(kernels_, build_.codes, scratch, std::min(used + free, build_.degree));
      for (std::size_t j = used; j < scratch.chosen.size(); ++j) links[j] = scratch.chosen[j].node;
    });
  }

 private:
  Graph graph() const { return {build_.codes, build_.links, build_.degree, build_.entries}; }
  std::uint32_t* links_of(std::uint32_t node) const { return build_.links + node * build_.degree; }

  template <class Work>
  void parallel(std::size_t n, const Work& work) {
    std::atomic<std::size_t> next{0};
    const std::size_t threads = std::clamp<std::size_t>(n / kItemsPerGrab, 1, scratch_.size());
    run_threads(threads, [&](std::size_t worker) {
      for (;;) {
        const std::size_t begin = next.fetch_add(kItemsPerGrab);
        if (begin >= n) return;
        for (std::size_t i = begin; i < std::min(n, begin + kItemsPerGrab); ++i) work(i, scratch_[worker]);
      }
    });
  }

  // For each node of the batch the neighbours that an insertion would give it now, into chosen_.
  void find_neighbours(std::span<const std::uint32_t> batch) {
    chosen_.resize(std::max(chosen_.size(), batch.size()));
    parallel(batch.size(), [&](std::size_t i, Scratch& scratch) {
      scratch.walker.walk(kernels_, graph(), {}, {build_.codes.of(batch[i])}, build_.ef_construction);
      found_by_walk(batch[i], scratch);
      choose(kernels_, build_.codes, scratch, build_.m);
      chosen_[i] = scratch.chosen;
    });
  }

  // What the walk found becomes the candidates, nearest first.
  void found_by_walk(std::uint32_t node, Scratch& scratch) const {
    scratch.candidates.clear();
    scratch.nodes.clear();
    for (std::size_t j = 0; j < scratch.walker.size(); ++j) {
      const Candidate found = scratch.walker.at(j);
      if (found.node == node) continue;
      if (build_.codes.coarse != nullptr) {
        scratch.nodes.push_back(found.node);
      } else {
        add_candidate(node, found, scratch);
      }
    }
    if (build_.codes.coarse == nullptr) return;
    score_nodes(node, scratch);
    std::sort(scratch.candidates.begin(), scratch.candidates.end(), nearer);
  }

  void insert(std::span<const std::uint32_t> batch) {
    find_neighbours(batch);
    reverse_.clear();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      std::uint32_t* const links = links_of(batch[i]);
      for (std::size_t j = 0; j < chosen_[i].size(); ++j) {
        links[j] = chosen_[i][j].node;
        reverse_.push_back({chosen_[i][j].node, chosen_[i][j].key, batch[i]});
      }
    }
    link_back();
  }

  // As insert, for nodes that have neighbours already: the links found are added in both directions.
  void insert_again(std::span<const std::uint32_t> batch) {
    find_neighbours(batch);
    reverse_.clear();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      for (const Candidate& found : chosen_[i]) {
        reverse_.push_back({batch[i], found.key, found.node});
        reverse_.push_back({found.node, found.key, batch[i]});
      }
    }
    link_back();
  }

  // Adds the links of reverse_ to their nodes, in an order that no thread can change.
  void link_back() {
    std::sort(reverse_.begin(), reverse_.end(), [](const Link& x, const Link& y) {
      if (x.node != y.node) return x.node < y.node;
      return x.key != y.key ? x.key < y.key : x.neighbour < y.neighbour;
    });
    reverse_.erase(std::unique(reverse_.begin(), reverse_.end(),
                               [](const Link& x, const Link& y) {
                                 return x.node == y.node && x.neighbour == y.neighbour;
                               }),
                   reverse_.end());
    groups_.clear();
    for (std::size_t i = 0; i < reverse_.size(); ++i) {
      if (i == 0 || reverse_[i].node != reverse_[i - 1].node) groups_.push_back(i);
    }
    groups_.push_back(reverse_.size());
    parallel(groups_.size() - 1, [&](std::size_t g, Scratch& scratch) {
      const std::uint32_t node = reverse_[groups_[g]].node;
      std::uint32_t* const links = links_of(node);
      std::uint32_t* const end = std::find(links, links + build_.degree, kNoNode);
      std::vector<Candidate>& added = scratch.candidates;
      added.clear();
      for (std::size_t i = groups_[g]; i < groups_[g + 1]; ++i) {
        if (std::find(links, end, reverse_[i].neighbour) == end) {
          added.push_back({reverse_[i].key, reverse_[i].neighbour});
        }
      }
      const auto used = static_cast<std::size_t>(end - links);
      if (used + added.size() <= build_.degree) {
        for (std::size_t i = 0; i < added.size(); ++i) end[i] = added[i].node;
        return;
      }
      scratch.nodes.assign(links, end);
      score_nodes(node, scratch);
      keep(node, scratch);
    });
  }

  void add_candidate(std::uint32_t node, Candidate candidate, Scratch& scratch) const {
    scratch.candidates.push_back({whole_key(candidate.key, own_term(build_.codes, node)), candidate.node});
  }

  // Adds scratch.nodes to the candidates, with their keys to `node`.
  void score_nodes(std::uint32_t node, Scratch& scratch) const {
    scratch.keys.resize(scratch.nodes.size());
    Walker::keys(kernels_, build_.codes, {build_.codes.of(node)}, scratch.nodes, scratch.keys.data());
    for (std::size_t i = 0; i < scratch.nodes.size(); ++i) {
      add_candidate(node, {scratch.keys[i], scratch.nodes[i]}, scratch);
    }
  }

  void keep(std::uint32_t node, Scratch& scratch) {
    std::sort(scratch.candidates.begin(), scratch.candidates.end(), nearer);
    choose(kernels_, build_.codes, scratch, build_.degree);
    std::uint32_t* const links = links_of(node);
    for (std::size_t j = 0; j < build_.degree; ++j) {
      links[j] = j < scratch.chosen.size() ? scratch.chosen[j].node : kNoNode;
    }
  }

  // The node nearest the centre of the data, and some at random for data in islands.
  void choose_entries(std::span<const std::uint32_t> order) {
    if (order.empty()) return;
    std::uint32_t central = order[0];
    if (build_.codes.sum == CodeSum::kDot) {
      const std::span<const std::uint32_t> sample = order.first(std::min(order.size(), kEntrySample));
      const std::vector<std::uint8_t> middle(build_.codes.stride, std::uint8_t{kCodeCentre});
      std::vector<std::int32_t> keys(sample.size());
      Walker::keys(kernels_, build_.codes, {middle.data()}, sample, keys.data());
      central = sample[static_cast<std::size_t>(std::min_element(keys.begin(), keys.end()) - keys.begin())];
    }
    build_.entries = {central};
    for (const std::uint32_t node : order) {
      if (build_.entries.size() == kEntries) break;
      if (node != central) build_.entries.push_back(node);
    }
  }

  void reach(std::uint32_t from) {
    std::vector<std::uint32_t> open = {from};
    reached_[from] = true;
    while (!open.empty()) {
      const std::uint32_t* const links = links_of(open.back());
      open.pop_back();
      for (std::size_t j = 0; j < build_.degree && links[j] != kNoNode; ++j) {
        if (reached_[links[j]]) continue;
        reached_[links[j]] = true;
        open.push_back(links[j]);
      }
    }
  }

  // Pruning can leave a node that no walk reaches. Each gets a link from its nearest reachable node that has
  // room, or else in place of that node's farthest neighbour; the latter may cut another off, hence the
  // rounds.
  void connect() {
    Scratch& scratch = scratch_[0];
    for (int round = 0; round < kConnectRounds; ++round) {
      reached_.assign(build_.codes.n, false);
      for (const std::uint32_t entry : build_.entries) {
        if (!reached_[entry]) reach(entry);
      }
      bool changed = false;
      for (std::uint32_t node = 0; node < build_.codes.n; ++node) {
        if (reached_[node]) continue;
        scratch.walker.walk(kernels_, graph(), {}, {build_.codes.of(node)}, build_.ef_construction);
        if (scratch.walker.size() == 0) return;
        std::uint32_t* links = nullptr;
        for (std::size_t j = 0; j < scratch.walker.size() && links == nullptr; ++j) {
          std::uint32_t* const offered = links_of(scratch.walker.at(j).node);
          if (offered[build_.degree - 1] == kNoNode) links = offered;
        }
        if (links == nullptr) links = links_of(scratch.walker.at(0).node);
        std::uint32_t* const end = links + build_.degree;
        std::uint32_t* const free = std::find(links, end, kNoNode);
        *(free == end ? end - 1 : free) = node;
        reach(node);
        changed = true;
      }
      if (!changed) return;
    }
  }

  const Kernels& kernels_;
  GraphBuild& build_;
  std::vector<Scratch> scratch_;
  std::vector<std::vector<Candidate>> chosen_;
  std::vector<Link> reverse_;
  std::vector<std::size_t> groups_;
  std::vector<bool> reached_;
};

}  // namespace

void extend_graph(const Kernels& kernels, GraphBuild& build) {
  Builder(kernels, build).extend();
}

void carry_graph(const Kernels& kernels, GraphBuild& build, const std::uint32_t* old_links, std::size_t old_n,
                 std::span<const std::uint32_t> old_entries, const std::uint32_t* target) {
  const std::size_t degree = build.degree;
  std::vector<std::uint32_t> torn;      // old numbers of rows that lost a neighbour
  std::vector<std::uint32_t> deserted;  // new numbers of those that lost many
  for (std::size_t old = 0; old < old_n; ++old) {
    if (target[old] == kNoNode) continue;
    std::uint32_t* const links = build.links + target[old] * degree;
    std::size_t used = 0;
    std::size_t lost = 0;
    for (std::size_t j = 0; j < degree; ++j) {
      const std::uint32_t neighbour = old_links[old * degree + j];
      if (neighbour >= old_n) continue;
      if (target[neighbour] == kNoNode) {
        ++lost;
      } else {
        links[used++] = target[neighbour];
      }
    }
    std::fill(links + used, links + degree, kNoNode);
    if (lost > 0) torn.push_back(static_cast<std::uint32_t>(old));
    if (kDeserted * lost > lost + used) deserted.push_back(target[old]);
  }

  std::vector<std::uint32_t> torn_rows;
  std::vector<std::uint32_t> old_of(build.codes.n, kNoNode);
  for (const std::uint32_t old : torn) {
    torn_rows.push_back(target[old]);
    old_of[target[old]] = old;
  }
  Builder builder(kernels, build);
  builder.refill(torn_rows, [&](std::uint32_t row, std::vector<std::uint32_t>& nodes) {
    std::size_t lost = 0;
    const std::uint32_t* const links = old_links + old_of[row] * degree;
    for (std::size_t j = 0; j < degree; ++j) {
      if (links[j] >= old_n || target[links[j]] != kNoNode) continue;
      ++lost;
      for (std::size_t i = 0; i < degree; ++i) {
        const std::uint32_t second = old_links[links[j] * degree + i];
        if (second < old_n && target[second] != kNoNode && target[second] != row)
          nodes.push_back(target[second]);
      }
    }
    return lost;
  });

  build.entries.clear();
  for (const std::uint32_t entry : old_entries) {
    if (entry < old_n && target[entry] != kNoNode) build.entries.push_back(target[entry]);
  }
  for (std::size_t old = 0; old < old_n && build.entries.size() < kEntries; ++old) {
    const std::uint32_t row = target[old];
    if (row == kNoNode || std::find(build.entries.begin(), build.entries.end(), row) != build.entries.end())
      continue;
    build.entries.push_back(row);
  }
  builder.renew(deserted);
}

}  // namespace iqdb
