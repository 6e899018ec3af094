// The life of a search: threads take ranges of rows; a range is cut into blocks that stay in the L2
// cache; a block's checksums are verified where they were not before, then all queries meet it, a
// panel at a time. A pass (scan.cpp, tiles.cpp) drops what cannot be among the k nearest (bounds.hpp);
// the rest is scored canonically at once and offered to the query's heap, which lowers the limit of
// all that follows. Each thread has its own heaps and reads the others' limits. The n x q matrix of
// distances never exists.
#include "search.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "bounds.hpp"
#include "candidates.hpp"
#include "dispatch.hpp"
#include "nearest.hpp"
#include "table.hpp"
#include "threads.hpp"
#include "topk.hpp"

namespace iqdb {
namespace {

// Below this many queries each reads the block by itself (scan), which is faster than a panel that is
// mostly padding.
constexpr std::size_t kPanelQueries = 4;
// A block of rows, with the panel, has to fit the L2 cache (at least 256 KiB on what we run on, 1 MiB
// on most).
constexpr std::size_t kBlockOfRowsBytes = 256 * 1024;
constexpr std::size_t kMaxBlockRows = 4096;
// Packed queries of one sweep over the rows; more queries take more sweeps.
constexpr std::size_t kSweepBytes = 8 * 1024 * 1024;
constexpr std::size_t kMaxSweepQueries = 4096;
// Products that are worth a thread: it costs some 20 microseconds to start.
constexpr std::size_t kProductsPerThread = 1 << 21;
// Where few rows are within the distance that was asked for, the first components show that for most: a
// euclidean distance over them, summed in the same lanes, is never above that over all.
constexpr std::size_t kFirstComponents = 16;
constexpr std::size_t kFirstComponentsFrom = 4 * kFirstComponents;
// A row scored by all its components costs about as much as so many dropped by the first ones, and more.
constexpr std::size_t kDroppedPerScored = 64;
constexpr std::size_t kScoredInAnyCase = 4096;

struct Panel {
  std::size_t first;    // query of the sweep
  std::size_t count;    // queries
  std::size_t vectors;  // SIMD vectors
  std::size_t lane;     // where its limits start
  std::size_t packed;   // where its components start
};

// What all threads share while they look for the nearest rows of queries first..first+count.
class Sweep {
 public:
  // Passes look at the first `width` components of rows.
  Sweep(const SearchTask& task, Candidates& candidates, std::size_t first, std::size_t count,
        std::size_t width, std::size_t block_rows)
      : task(task),
        kernels(iqdb::kernels()),
        candidates(candidates),
        first(first),
        count(count),
        width(width),
        block_rows(block_rows),
        batch(count >= kPanelQueries),
        norm2(count),
        shared(count, task.max_distance) {
    const bool centred = batch && task.metric == Metric::kEuclidean;
    if (centred) find_centre();
    bounds.emplace(task.metric, width, batch, centre);
    queries.reserve(count);
    if (batch) lay_out_panels();
    for (std::size_t i = 0; i < count; ++i) {
      norm2[i] = kernels.norm2(query(i), task.dim);
      if (!batch) queries.push_back(bounds->query(query(i)));
    }
    if (batch) pack();
  }

  const float* query(std::size_t i) const { return task.queries + (first + i) * task.dim; }

  const SearchTask& task;
  const Kernels& kernels;
  Candidates& candidates;
  const std::size_t first;
  const std::size_t count;
  const std::size_t width;
  const std::size_t block_rows;
  const bool batch;
  std::vector<double> norm2;
  SharedLimits shared;
  std::vector<float> centre;
  std::optional<Bounds> bounds;
  std::vector<Bounds::Query> queries;
  std::vector<Panel> panels;
  std::vector<float> packed;
  std::size_t lanes = 0;
  std::atomic<std::int64_t> damaged{-1};
  std::atomic<bool> given_up{false};  // too many rows are within the distance: all components are needed

 private:
  void find_centre() {
    std::vector<double> sum(width);
    std::size_t tame = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (!(kernels.norm2(query(i), width) <= 1e29)) continue;
      ++tame;
      for (std::size_t j = 0; j < width; ++j) sum[j] += query(i)[j];
    }
    centre.resize(width);
    for (std::size_t j = 0; j < width && tame > 0; ++j) {
      centre[j] = static_cast<float>(sum[j] / static_cast<double>(tame));
    }
  }

  void lay_out_panels() {
    const std::size_t floats = kernels.vector_floats;
    std::size_t size = 0;
    for (std::size_t i = 0; i < count;) {
      const std::size_t left = (count - i + floats - 1) / floats;
      const std::size_t vectors = std::min(left, kernels.max_panel_vectors);
      panels.push_back({i, std::min(count - i, vectors * floats), vectors, lanes, size});
      i += vectors * floats;
      lanes += vectors * floats;
      size += vectors * floats * width;
    }
    packed.resize(size);
  }

  void pack() {
    std::vector<float> moved(centre.empty() ? 0 : kernels.max_panel_vectors * kernels.vector_floats * width);
    std::vector<const float*> pointers;
    for (const Panel& panel : panels) {
      pointers.clear();
      for (std::size_t i = 0; i < panel.count; ++i) {
        const float* q = query(panel.first + i);
        if (!centre.empty()) {
          float* to = moved.data() + i * width;
          for (std::size_t j = 0; j < width; ++j) to[j] = q[j] - centre[j];
          q = to;
        }
        pointers.push_back(q);
        queries.push_back(bounds->query(q));
      }
      kernels.pack(pointers.data(), pointers.size(), width, panel.vectors, packed.data() + panel.packed);
    }
  }
};

// One thread's part of a sweep.
class Worker {
 public:
  explicit Worker(Sweep& sweep)
      : sweep_(sweep),
        task_(sweep.task),
        kernels_(sweep.kernels),
        heaps_(sweep.count, TopK(sweep.task.k)),
        rows_(sweep.block_rows),
        pointers_(sweep.block_rows + kMaxTileRows),
        norms_(sweep.block_rows),
        u_(sweep.block_rows + kMaxTileRows),
        v_(sweep.block_rows + kMaxTileRows),
        sums_(sweep.block_rows),
        limit_(sweep.count),
        // Lanes without a query let nothing through: no sum is below -inf or above it, respectively.
        a_(sweep.batch ? sweep.lanes : sweep.count, sweep.bounds->has_row_terms() ? kInfinity : -kInfinity),
        b_(a_.size(), 0.0f) {
    for (TopK& heap : heaps_) heap.reserve(std::min<std::size_t>(task_.k, 64));
    for (std::size_t i = 0; i < sweep.count; ++i) set_limit(i, sweep.shared.of(i));
  }

  void run() {
    Candidates::Range range;
    while (sweep_.damaged.load(std::memory_order_relaxed) < 0 && sweep_.candidates.next(&range)) {
      while (range.first < range.last && !sweep_.given_up.load(std::memory_order_relaxed)) {
        n_rows_ = sweep_.candidates.take(&range, sweep_.block_rows, rows_.data());
        if (n_rows_ == 0) break;
        if (!verify()) return;
        for (std::size_t i = 0; i < n_rows_; ++i) pointers_[i] = task_.vectors + rows_[i] * task_.dim;
        for (std::size_t i = 0; i < kMaxTileRows; ++i) pointers_[n_rows_ + i] = pointers_[n_rows_ - 1];
        if (sweep_.batch) {
          met_ += n_rows_ * sweep_.count;
          meet_panels();
        } else {
          for (std::size_t i = 0; i < sweep_.count; ++i) meet_query(i);
        }
      }
    }
  }

  TopK& heap(std::size_t query) { return heaps_[query]; }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();

  // The blocks that hold the block's rows; rows ascend, so blocks do.
  bool verify() {
    if (task_.block_table == nullptr) return true;
    const std::size_t row_bytes = task_.dim * sizeof(float);
    std::size_t next = 0;
    for (std::size_t i = 0; i < n_rows_; ++i) {
      if (!sweep_.candidates.has(rows_[i])) continue;
      const std::size_t begin = rows_[i] * row_bytes;
      const std::size_t end = (begin + row_bytes - 1) / kBlockBytes + 1;
      for (next = std::max(next, begin / kBlockBytes); next < end; ++next) {
        if (task_.block_table->verify(next)) continue;
        report_damage(static_cast<std::int64_t>(next));
        return false;
      }
    }
    return true;
  }

  void report_damage(std::int64_t block) {
    std::int64_t known = sweep_.damaged.load(std::memory_order_relaxed);
    while ((known < 0 || block < known) &&
           !sweep_.damaged.compare_exchange_weak(known, block, std::memory_order_relaxed)) {
    }
  }

  void meet_query(std::size_t query) {
    refresh_limit(query);
    const Bounds& bounds = *sweep_.bounds;
    kernels_.scan(bounds.pass(), sweep_.query(query), pointers_.data(), n_rows_, task_.dim, sums_.data(),
                  norms_.data());
    if (bounds.has_row_terms()) {
      bounds.rows(norms_.data(), sums_.data(), n_rows_, u_.data(), v_.data());
      for (std::size_t i = 0; i < n_rows_; ++i) {
        if (!(sums_[i] < a_[query] + (v_[i] + b_[query] * u_[i]))) score(query, rows_[i]);
      }
    } else {
      for (std::size_t i = 0; i < n_rows_; ++i) {
        if (!(sums_[i] > a_[query])) score(query, rows_[i]);
      }
    }
  }

  void meet_panels() {
    const Bounds& bounds = *sweep_.bounds;
    if (bounds.pass() == Pass::kDot) {
      const float* centre = sweep_.centre.empty() ? nullptr : sweep_.centre.data();
      kernels_.norms(pointers_.data(), n_rows_, sweep_.width, centre, norms_.data());
    } else if (bounds.pass() == Pass::kMinimum) {
      kernels_.totals(pointers_.data(), n_rows_, sweep_.width, sums_.data(), norms_.data());
    }
    if (bounds.has_row_terms()) {
      bounds.rows(norms_.data(), sums_.data(), n_rows_, u_.data(), v_.data());
    }
    for (const Panel& panel : sweep_.panels) {
      for (std::size_t i = 0; i < panel.count; ++i) refresh_limit(panel.first + i);
      panel_ = &panel;
      const TileTask tile = {
          .rows = pointers_.data(),
          .n_rows = n_rows_,
          .dim = sweep_.width,
          .panel = sweep_.packed.data() + panel.packed,
          .vectors = panel.vectors,
          .a = a_.data() + panel.lane,
          .b = b_.data() + panel.lane,
          .u = u_.data(),
          .v = v_.data(),
          .sink = {.candidate =
                       [](void* self, std::size_t row, std::size_t lane) {
                         auto* worker = static_cast<Worker*>(self);
                         if (lane >= worker->panel_->count) return;  // padding met a wild row
                         worker->score(worker->panel_->first + lane, worker->rows_[row]);
                       },
                   .self = this},
      };
      kernels_.tiles(bounds.pass(), tile);
    }
  }

  void score(std::size_t query, std::size_t row) {
    if (!sweep_.candidates.has(row)) return;
    if (sweep_.width < task_.dim && ++scored_ > kScoredInAnyCase + met_ / kDroppedPerScored) {
      sweep_.given_up.store(true, std::memory_order_relaxed);
      return;
    }
    const double distance = kernels_.canonical(task_.metric, sweep_.query(query), sweep_.norm2[query],
                                               task_.vectors + row * task_.dim, task_.dim);
    if (offer_row(task_, heaps_[query], sweep_.shared, query, row, distance)) refresh_limit(query);
  }

  // Every row at a distance of at most the limit must be looked at. Shared limits are other heaps' and
  // so leave ties open; this thread's own heap is full of earlier rows, which win ties by row number.
  // Only Hamming distances are coarse enough for that to matter.
  void refresh_limit(std::size_t query) {
    double limit = sweep_.shared.of(query);
    const TopK& heap = heaps_[query];
    if (heap.full() && task_.metric == Metric::kHamming && task_.tie_keys == nullptr) {
      limit = std::min(limit, heap.worst().distance - 1.0);
    }
    if (limit != limit_[query]) set_limit(query, limit);
  }

  void set_limit(std::size_t query, double limit) {
    limit_[query] = limit;
    // Panels but the last are full, so that a query's lane is its number.
    sweep_.bounds->limits(sweep_.queries[query], limit, &a_[query], &b_[query]);
  }

  Sweep& sweep_;
  const SearchTask& task_;
  const Kernels& kernels_;
  std::vector<TopK> heaps_;
  std::size_t n_rows_ = 0;
  std::vector<std::size_t> rows_;
  std::vector<const float*> pointers_;
  std::vector<float> norms_;
  std::vector<float> u_;
  std::vector<float> v_;
  std::vector<float> sums_;
  std::vector<double> limit_;  // that a_ and b_ are made for
  std::vector<float> a_;
  std::vector<float> b_;
  const Panel* panel_ = nullptr;
  std::size_t met_ = 0;  // pairs of a row and a query of a batch
  std::size_t scored_ = 0;
};

// Neither more threads than the work is worth nor, for few rows, blocks so large that threads idle.
std::size_t useful_threads(const SearchTask& task, std::size_t candidates, std::size_t queries) {
  const double products =
      static_cast<double>(candidates) * static_cast<double>(task.dim) * static_cast<double>(queries);
  const double useful = products / static_cast<double>(kProductsPerThread) + 1.0;
  return std::max<std::size_t>(
      1, useful < static_cast<double>(task.threads) ? static_cast<std::size_t>(useful) : task.threads);
}

std::size_t rows_per_block(const SearchTask& task, std::size_t threads) {
  const std::size_t fitting = kBlockOfRowsBytes / (task.dim * sizeof(float));
  const std::size_t fair = task.n / (threads * 8);
  return std::clamp<std::size_t>(std::min(fitting, fair), 2 * kMaxTileRows, kMaxBlockRows);
}

// -1, the number of a damaged block, or kGivenUp: then the sweep has to be made anew, at full width.
constexpr std::int64_t kGivenUp = -2;

bool first_components_may_do(const SearchTask& task, std::size_t queries) {
  return task.metric == Metric::kEuclidean && task.max_distance < std::numeric_limits<double>::infinity() &&
         queries >= kPanelQueries && task.dim >= kFirstComponentsFrom;
}

std::int64_t search_sweep(Sweep& sweep, std::size_t threads) {
  const SearchTask& task = sweep.task;
  std::vector<std::unique_ptr<Worker>> workers(threads);
  run_threads(threads, [&](std::size_t i) {
    workers[i] = std::make_unique<Worker>(sweep);
    workers[i]->run();
  });
  if (sweep.damaged.load() >= 0) return sweep.damaged.load();
  if (sweep.given_up.load()) return kGivenUp;
  write_nearest(task, workers, sweep.first, sweep.count, threads);
  return -1;
}

}  // namespace

std::int64_t search(const SearchTask& task) {
  const DefaultFloatEnvironment environment;
  if (task.k == 0 || task.n_queries == 0) {  // also when there are no rows
    std::fill_n(task.rows, task.n_queries * task.width, std::int64_t{-1});
    std::fill_n(task.distances, task.n_queries * task.width, std::numeric_limits<double>::infinity());
    std::fill_n(task.counts, task.n_queries, std::int64_t{0});
    return -1;
  }
  std::size_t queries = kSweepBytes / (task.dim * sizeof(float));
  queries = std::clamp<std::size_t>(queries / 64 * 64, 64, kMaxSweepQueries);
  const std::size_t first_queries = std::min(queries, task.n_queries);
  Candidates candidates(task.n, task.mask, rows_per_block(task, task.threads), first_queries < kPanelQueries);
  const std::size_t threads = useful_threads(task, candidates.count(), first_queries);
  for (std::size_t first = 0; first < task.n_queries; first += queries) {
    const std::size_t count = std::min(queries, task.n_queries - first);
    const std::size_t block_rows = rows_per_block(task, task.threads);
    std::int64_t found = kGivenUp;
    if (first_components_may_do(task, count)) {
      candidates.restart();
      Sweep sweep(task, candidates, first, count, kFirstComponents, block_rows);
      found = search_sweep(sweep, threads);
    }
    if (found == kGivenUp) {
      candidates.restart();
      Sweep sweep(task, candidates, first, count, task.dim, block_rows);
      found = search_sweep(sweep, threads);
    }
    if (found >= 0) return found;
  }
  return -1;
}

}  // namespace iqdb
