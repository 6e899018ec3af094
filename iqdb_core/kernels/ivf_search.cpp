// Compiled with -ffp-contract=off: the keys of product codes order candidates, so they must not depend on
// whether a CPU fuses.
#include "ivf_search.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <mutex>

#include "dispatch.hpp"
#include "ivf_product.hpp"
#include "threads.hpp"
#include "topk.hpp"

namespace iqdb {
namespace {

constexpr std::size_t kAtOnce = 256;  // codes of a list whose sums are held at a time
constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kPrefetchedLines = 32;

bool allowed(const std::uint8_t* mask, std::size_t row) {
  return ((mask[row >> 3] >> (row & 7)) & 1) != 0;
}

void prefetch(const void* from, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += kLineBytes)
    __builtin_prefetch(static_cast<const char*>(from) + at);
}

// A key above a number, so that unsigned order is the order of keys, then numbers.
constexpr std::uint64_t pack(std::int32_t key, std::size_t number) {
  return (std::uint64_t{static_cast<std::uint32_t>(key) ^ 0x80000000U} << 32) |
         static_cast<std::uint32_t>(number);
}
constexpr std::size_t number_of(std::uint64_t entry) {
  return static_cast<std::uint32_t>(entry);
}

// An integer whose order is that of the float's.
std::int32_t ordered(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}

// The `size` smallest entries that were offered.
class Smallest {
 public:
  void restart(std::size_t size) {
    size_ = size;
    entries_.clear();
    limit_ = std::numeric_limits<std::int32_t>::max();
  }
  // Keys above it need not be offered.
  std::int32_t limit() const { return limit_; }
  void offer(std::int32_t key, std::size_t number) {
    entries_.push_back(pack(key, number));
    if (entries_.size() >= 2 * size_ + kSlack) shrink();
  }
  const std::vector<std::uint64_t>& finish() {
    if (entries_.size() > size_) shrink();
    std::sort(entries_.begin(), entries_.end());
    return entries_;
  }

 private:
  static constexpr std::size_t kSlack = 64;

  void shrink() {
    std::nth_element(entries_.begin(), entries_.begin() + static_cast<std::ptrdiff_t>(size_ - 1),
                     entries_.end());
    entries_.resize(size_);
    limit_ = static_cast<std::int32_t>(static_cast<std::uint32_t>(entries_.back() >> 32) ^ 0x80000000U);
  }

  std::size_t size_ = 1;
  std::vector<std::uint64_t> entries_;
  std::int32_t limit_ = 0;
};

// One thread's scratch space, kept between calls.
struct Scratch {
  std::vector<std::uint8_t> code;
  std::vector<std::int32_t> sums;
  std::vector<std::uint64_t> ranking;
  std::vector<std::uint32_t> places;
  std::vector<std::uint32_t> rows;
  Smallest nearest;
  ProductTable table;
};

class Search {
 public:
  Search(const Kernels& kernels, const ListSearch& task)
      : kernels_(kernels),
        task_(task),
        lists_(*task.lists),
        sum_(lists_.metric == Metric::kManhattan ? CodeSum::kAbsoluteDifference : CodeSum::kDot) {}

  ListDamage run() {
    const std::size_t workers =
        std::clamp<std::size_t>(task_.n_queries / 4, 1, std::max<std::size_t>(task_.threads, 1));
    run_threads(workers, [this](std::size_t) {
      thread_local Scratch scratch;
      for (;;) {
        const std::size_t i = next_.fetch_add(1);
        if (i >= task_.n_queries || stopped_.load(std::memory_order_relaxed)) return;
        if (!one(i, scratch)) return;
      }
    });
    return damage_;
  }

 private:
  bool one(std::size_t i, Scratch& scratch) {
    const float* const query = task_.queries + i * lists_.dim;
    const bool by_product = lists_.product.codes != nullptr;
    rank(query, scratch);
    std::int64_t offset = 0;
    if (by_product) {
      scratch.table.fill(kernels_, lists_, query);
    } else if (lists_.metric == Metric::kDot) {
      offset = encode_direction(*lists_.model, query, lists_.dim, scratch.code.data());
    }
    scratch.nearest.restart(task_.scored);
    std::size_t compared = 0;
    std::size_t probed = 0;
    std::size_t sorted = std::min(task_.n_probes, scratch.ranking.size());
    for (; probed < scratch.ranking.size() && (probed < task_.n_probes || compared < task_.enough);
         ++probed) {
      if (probed == sorted) {  // more than planned: now their order matters too
        std::sort(scratch.ranking.begin() + static_cast<std::ptrdiff_t>(sorted), scratch.ranking.end());
        sorted = scratch.ranking.size();
      }
      if (probed + 1 < scratch.ranking.size()) prefetch_list(number_of(scratch.ranking[probed + 1]));
      const std::size_t list = number_of(scratch.ranking[probed]);
      if (!(by_product ? scan_product(query, list, scratch, &compared)
                       : scan_codes(list, offset, scratch, &compared))) {
        return false;
      }
    }
    if (!score(i, query, scratch)) return false;
    task_.visited[3 * i] = static_cast<std::int64_t>(compared);
    task_.visited[3 * i + 2] = static_cast<std::int64_t>(probed);
    return true;
  }

  // scratch.ranking becomes all lists, the first n_probes of them the nearest in order; scratch.code the
  // query's.
  void rank(const float* query, Scratch& scratch) {
    const std::size_t count = lists_.count();
    scratch.code.resize(lists_.stride());
    scratch.sums.resize(std::max(count, kAtOnce));
    scratch.ranking.resize(count);
    // Lists of vectors of unit length are ranked by their distance from the query's direction, others by the
    // metric.
    const bool by_product = lists_.metric == Metric::kDot && !lists_.model->unit_length;
    if (by_product) {
      encode_direction(*lists_.model, query, lists_.dim, scratch.code.data());
    } else {
      encode_query(*lists_.model, sum_ == CodeSum::kDot, query, lists_.dim, scratch.code.data());
    }
    kernels_.list_scan(
        sum_, {lists_.centroid_codes, lists_.stride(), count, scratch.code.data(), scratch.sums.data()});
    for (std::size_t list = 0; list < count; ++list) {
      const std::int32_t sum = scratch.sums[list];
      scratch.ranking[list] = pack(by_product ? -sum : key_of(sum, lists_.centroid_lengths[list]), list);
    }
    const auto begin = scratch.ranking.begin();
    const auto middle = begin + static_cast<std::ptrdiff_t>(std::min(task_.n_probes, count));
    if (middle != scratch.ranking.end()) std::nth_element(begin, middle, scratch.ranking.end());
    std::sort(begin, middle);
  }

  std::int32_t key_of(std::int32_t sum, std::int32_t length) const {
    return sum_ == CodeSum::kDot ? static_cast<std::int32_t>(length - 2 * std::int64_t{sum}) : sum;
  }

  void prefetch_list(std::size_t list) const {
    const std::size_t begin = lists_.offsets[list];
    const std::size_t count = lists_.offsets[list + 1] - begin;
    const ProductCodes& product = lists_.product;
    if (product.codes != nullptr) prefetch(lists_.centroids + list * lists_.dim, lists_.dim * sizeof(float));
    if (product.codes == nullptr) {
      prefetch_some(lists_.codes + begin * lists_.stride(), count * lists_.stride());
    } else if (product.words->halves) {
      const std::size_t bytes = product.pairs() * kHalfRows;
      prefetch_some(product.codes + product.blocks[list] * bytes,
                    (product.blocks[list + 1] - product.blocks[list]) * bytes);
    } else {
      prefetch_some(product.codes + begin * product.parts, count * product.parts);
    }
  }

  static void prefetch_some(const std::uint8_t* from, std::size_t bytes) {
    prefetch(from, std::min(bytes, kPrefetchedLines * kLineBytes));
  }

  bool scan_codes(std::size_t list, std::int64_t offset, Scratch& scratch, std::size_t* compared) {
    const bool products = lists_.norms != nullptr;
    for (std::size_t begin = lists_.offsets[list]; begin < lists_.offsets[list + 1]; begin += kAtOnce) {
      const std::size_t count = std::min<std::size_t>(kAtOnce, lists_.offsets[list + 1] - begin);
      if (!verified(ListPart::kCodes, begin * lists_.stride(), count * lists_.stride()) ||
          !verified(ListPart::kLengths, begin * sizeof(std::int32_t), count * sizeof(std::int32_t)) ||
          (products && !verified(ListPart::kNorms, begin * sizeof(float), count * sizeof(float))) ||
          !choose(begin, count, scratch)) {
        return false;
      }
      const bool every = scratch.places.empty() && task_.mask == nullptr;
      const std::size_t chosen = every ? count : scratch.places.size();
      if (every) {
        kernels_.list_scan(sum_, {lists_.codes + begin * lists_.stride(), lists_.stride(), count,
                                  scratch.code.data(), scratch.sums.data()});
      } else {
        kernels_.code_sums(sum_, {lists_.codes, lists_.stride(), scratch.places.data(), chosen,
                                  scratch.code.data(), scratch.sums.data()});
      }
      *compared += chosen;
      std::int32_t limit = scratch.nearest.limit();
      for (std::size_t j = 0; j < chosen; ++j) {
        const std::size_t place = every ? begin + j : scratch.places[j];
        const std::int32_t key =
            products ? ordered(-static_cast<float>(scratch.sums[j] + offset) * lists_.norms[place])
                     : key_of(scratch.sums[j], lists_.lengths[place]);
        if (key > limit) continue;
        scratch.nearest.offer(key, place);
        limit = scratch.nearest.limit();
      }
    }
    return true;
  }

  bool scan_product(const float* query, std::size_t list, Scratch& scratch, std::size_t* compared) {
    const ProductCodes& product = lists_.product;
    const std::size_t first = lists_.offsets[list];
    const std::size_t last = lists_.offsets[list + 1];
    if (first == last) return true;
    scratch.table.aim(kernels_, lists_, query, list);
    for (std::size_t begin = first; begin < last; begin += kAtOnce) {
      const std::size_t count = std::min<std::size_t>(kAtOnce, last - begin);
      if (product.terms != nullptr &&
          !verified(ListPart::kProductTerms, begin * sizeof(float), count * sizeof(float))) {
        return false;
      }
      if (!choose(begin, count, scratch)) return false;
      const bool every = task_.mask == nullptr;
      const std::size_t chosen = every ? count : scratch.places.size();
      *compared += chosen;
      const auto offer = [&](std::size_t place, std::int32_t key) {
        if (key <= scratch.nearest.limit()) scratch.nearest.offer(key, place);
      };
      if (product.words->halves) {
        const std::size_t block = product.blocks[list] + (begin - first) / kHalfRows;
        const std::size_t blocks = (count + kHalfRows - 1) / kHalfRows;
        const std::size_t bytes = product.pairs() * kHalfRows;
        if (!verified(ListPart::kProductCodes, block * bytes, blocks * bytes)) return false;
        std::uint16_t sums[kAtOnce];
        kernels_.half_sums(
            {product.codes + block * bytes, blocks, product.pairs(), scratch.table.halves(), sums});
        const ProductTable& table = scratch.table;
        for (std::size_t j = 0; j < chosen; ++j) {
          const std::size_t place = every ? begin + j : scratch.places[j];
          offer(place, table.key(product.terms, place, sums[place - begin]));
        }
      } else {
        if (!verified(ListPart::kProductCodes, begin * product.parts, count * product.parts)) return false;
        for (std::size_t j = 0; j < chosen; ++j) {
          const std::size_t place = every ? begin + j : scratch.places[j];
          offer(place, scratch.table.key(lists_, place));
        }
      }
    }
    return true;
  }

  // scratch.places becomes the places of the rows that pass the mask, where there is one.
  bool choose(std::size_t begin, std::size_t count, Scratch& scratch) {
    scratch.places.clear();
    if (task_.mask == nullptr) return true;
    if (!verified(ListPart::kRows, begin * sizeof(std::uint32_t), count * sizeof(std::uint32_t)))
      return false;
    for (std::size_t place = begin; place < begin + count; ++place) {
      const std::size_t row = lists_.rows[place];
      if (row < lists_.n && allowed(task_.mask, row))
        scratch.places.push_back(static_cast<std::uint32_t>(place));
    }
    return true;
  }

  bool score(std::size_t i, const float* query, Scratch& scratch) {
    const std::size_t dim = lists_.dim;
    scratch.rows.clear();
    for (const std::uint64_t entry : scratch.nearest.finish()) {
      const std::size_t place = number_of(entry);
      if (!verified(ListPart::kRows, place * sizeof(std::uint32_t), sizeof(std::uint32_t))) return false;
      if (lists_.rows[place] < lists_.n) scratch.rows.push_back(lists_.rows[place]);
    }
    constexpr std::size_t kAhead = 4;
    const auto vector = [&](std::size_t j) { return task_.vectors + std::size_t{scratch.rows[j]} * dim; };
    for (std::size_t j = 0; j < std::min(scratch.rows.size(), kAhead); ++j)
      prefetch(vector(j), dim * sizeof(float));
    const double norm2 = kernels_.norm2(query, dim);
    TopK best(task_.k);
    for (std::size_t j = 0; j < scratch.rows.size(); ++j) {
      if (j + kAhead < scratch.rows.size()) prefetch(vector(j + kAhead), dim * sizeof(float));
      const auto row = static_cast<std::int64_t>(scratch.rows[j]);
      if (!verified(ListPart::kVectors, scratch.rows[j] * dim * sizeof(float), dim * sizeof(float)))
        return false;
      const double distance = kernels_.canonical(lists_.metric, query, norm2, vector(j), dim);
      if (distance <= task_.max_distance) best.offer({distance, row, row});
    }
    std::vector<Hit> hits = best.hits();
    task_.counts[i] = static_cast<std::int64_t>(write_smallest(
        hits, task_.k, task_.width, task_.rows + i * task_.width, task_.distances + i * task_.width));
    task_.visited[3 * i + 1] = static_cast<std::int64_t>(scratch.rows.size());
    return true;
  }

  bool verified(ListPart part, std::size_t begin, std::size_t bytes) {
    const BlockTable* const table = task_.blocks[static_cast<std::size_t>(part)];
    if (table == nullptr || bytes == 0) return true;
    for (std::size_t block = begin / kBlockBytes; block <= (begin + bytes - 1) / kBlockBytes; ++block) {
      if (table->verify(block)) continue;
      const std::lock_guard lock(mutex_);
      if (damage_.part == ListPart::kNone) damage_ = {part, block};
      stopped_.store(true, std::memory_order_relaxed);
      return false;
    }
    return true;
  }

  const Kernels& kernels_;
  const ListSearch& task_;
  const Lists& lists_;
  const CodeSum sum_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  ListDamage damage_;
};

}  // namespace

ListDamage search_lists(const Kernels& kernels, const ListSearch& search) {
  return Search(kernels, search).run();
}

}  // namespace iqdb
