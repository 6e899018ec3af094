// The same life of a search as in search.cpp, over codes: threads take ranges of rows, a block's codes meet
// all queries, what the bounds (code_bounds.hpp) let through is scored canonically by its vector at once.
#include "code_search.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "candidates.hpp"
#include "code_bounds.hpp"
#include "dispatch.hpp"
#include "nearest.hpp"
#include "table.hpp"
#include "threads.hpp"
#include "topk.hpp"

namespace iqdb {
namespace {

// Below this many queries each reads the block by itself.
constexpr std::size_t kPanelQueries = 4;
constexpr std::size_t kBlockOfRowsBytes = 256 * 1024;
constexpr std::size_t kMaxBlockRows = 4096;
// Packed queries of one sweep over the rows; more queries take more sweeps.
constexpr std::size_t kSweepBytes = 4 * 1024 * 1024;
constexpr std::size_t kMaxSweepQueries = 4096;
// Products of codes that are worth a thread.
constexpr std::size_t kProductsPerThread = 1 << 23;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
// A row's norm below this has no inverse to speak of.
constexpr float kLeastNorm = 1e-30f;

float inverse(float norm) {
  return norm >= kLeastNorm ? 1.0f / norm : 0.0f;
}

// What all threads share while they look for the nearest rows of queries first..first+count.
struct Sweep {
  Sweep(const SearchTask& task, const CodedRows& rows, Candidates& candidates, std::size_t first,
        std::size_t count, std::size_t block_rows)
      : task(task),
        rows(rows),
        kernels(iqdb::kernels()),
        candidates(candidates),
        bounds(task.metric, *rows.model, task.dim, rows.least_u),
        first(first),
        count(count),
        block_rows(block_rows),
        batch(count >= kPanelQueries),
        shared(count, task.max_distance),
        codes(count * rows.stride) {
    for (std::size_t i = 0; i < count; ++i) {
      norm2.push_back(kernels.norm2(query(i), task.dim));
      queries.push_back(bounds.encode(query(i), batch ? kCodePanelReach : 127, code(i)));
    }
    if (batch) pack();
  }

  const float* query(std::size_t i) const { return task.queries + (first + i) * task.dim; }
  std::int8_t* code(std::size_t i) { return codes.data() + i * rows.stride; }

  void report(CodeSearchResult::Part part, std::size_t block) {
    const std::lock_guard lock(mutex);
    if (result.damaged == CodeSearchResult::Part::kNone) {
      result.damaged = part;
      result.block = block;
    }
    stopped.store(true, std::memory_order_relaxed);
  }

  const SearchTask& task;
  const CodedRows& rows;
  const Kernels& kernels;
  Candidates& candidates;
  const CodeBounds bounds;
  const std::size_t first;
  const std::size_t count;
  const std::size_t block_rows;
  const bool batch;
  std::vector<double> norm2;
  SharedLimits shared;
  std::vector<std::int8_t> codes;
  std::vector<CodeBounds::Query> queries;
  std::vector<std::int8_t> packed;  // panels of code_panel_lanes queries
  std::atomic<bool> stopped{false};
  std::mutex mutex;
  CodeSearchResult result;

 private:
  void pack() {
    const std::size_t lanes = kernels.code_panel_lanes;
    packed.resize((count + lanes - 1) / lanes * lanes * rows.stride);
    std::vector<const std::int8_t*> pointers;
    for (std::size_t i = 0; i < count; i += lanes) {
      pointers.clear();
      for (std::size_t j = i; j < std::min(count, i + lanes); ++j) pointers.push_back(code(j));
      kernels.code_pack(pointers.data(), pointers.size(), rows.stride, packed.data() + i * rows.stride);
    }
  }
};

// One thread's part of a sweep.
class Worker {
 public:
  explicit Worker(Sweep& sweep)
      : sweep_(sweep),
        task_(sweep.task),
        coded_(sweep.rows),
        kernels_(sweep.kernels),
        heaps_(sweep.count, TopK(sweep.task.k)),
        rows_(sweep.block_rows),
        pointers_(sweep.block_rows + kMaxTileRows),
        p_gathered_(pointers_.size()),
        r_gathered_(pointers_.size()),
        u_(pointers_.size()),
        sums_(pointers_.size()),
        kept_(sweep.block_rows),
        limit_(sweep.count) {
    const std::size_t lanes = (sweep.count + kernels_.code_panel_lanes - 1) / kernels_.code_panel_lanes;
    // Lanes without a query let nothing through.
    a_.resize(lanes * kernels_.code_panel_lanes, kInfinity);
    b_.resize(a_.size());
    c_.resize(a_.size());
    d_.resize(a_.size());
    for (TopK& heap : heaps_) heap.reserve(std::min<std::size_t>(task_.k, 64));
    for (std::size_t i = 0; i < sweep.count; ++i) set_limit(i, sweep.shared.of(i));
  }

  void run() {
    Candidates::Range range;
    while (!stopped() && sweep_.candidates.next(&range)) {
      while (range.first < range.last && !stopped()) {
        n_rows_ = sweep_.candidates.take(&range, sweep_.block_rows, rows_.data());
        if (n_rows_ == 0) break;
        if (!verify_codes()) return;
        gather();
        if (sweep_.batch && begun_) {
          meet_panels();
        } else {
          for (std::size_t i = 0; i < sweep_.count && !stopped(); ++i) meet_query(i);
        }
        begun_ = true;
      }
    }
  }

  TopK& heap(std::size_t query) { return heaps_[query]; }
  std::size_t scored() const { return scored_; }

 private:
  bool stopped() const { return sweep_.stopped.load(std::memory_order_relaxed); }

  // The blocks that hold the codes of the block's rows, gaps between candidates included; rows ascend.
  bool verify_codes() {
    if (coded_.blocks == nullptr) return true;
    std::size_t next = 0;
    for (std::size_t i = 0; i < n_rows_; ++i) {
      if (!sweep_.candidates.has(rows_[i])) continue;
      const std::size_t begin = rows_[i] * coded_.stride;
      const std::size_t end = (begin + coded_.stride - 1) / kBlockBytes + 1;
      for (next = std::max(next, begin / kBlockBytes); next < end; ++next) {
        if (coded_.blocks->verify(next)) continue;
        sweep_.report(CodeSearchResult::Part::kCodes, next);
        return false;
      }
    }
    return true;
  }

  bool verify_vector(std::size_t row) {
    if (task_.block_table == nullptr) return true;
    const std::size_t begin = row * task_.dim * sizeof(float);
    const std::size_t last = (begin + task_.dim * sizeof(float) - 1) / kBlockBytes;
    for (std::size_t block = begin / kBlockBytes; block <= last; ++block) {
      if (task_.block_table->verify(block)) continue;
      sweep_.report(CodeSearchResult::Part::kVectors, block);
      return false;
    }
    return true;
  }

  void gather() {
    const bool has_u = sweep_.bounds.has_u();
    const std::size_t first = rows_[0];
    for (std::size_t i = 0; i < n_rows_; ++i) pointers_[i] = coded_.codes + rows_[i] * coded_.stride;
    for (std::size_t i = 0; i < kMaxTileRows; ++i) pointers_[n_rows_ + i] = pointers_[n_rows_ - 1];
    for (std::size_t i = 0; has_u && i < n_rows_; ++i) u_[i] = inverse(coded_.norms[rows_[i]]);
    p_ = coded_.bounds + first;
    r_ = coded_.bounds + task_.n + first;
    // Rows that follow one another have their terms in place; what pads a tile is read too.
    if (rows_[n_rows_ - 1] - first == n_rows_ - 1 && first + n_rows_ + kMaxTileRows <= task_.n) return;
    for (std::size_t i = 0; i < n_rows_; ++i) {
      p_gathered_[i] = coded_.bounds[rows_[i]];
      r_gathered_[i] = coded_.bounds[task_.n + rows_[i]];
    }
    p_ = p_gathered_.data();
    r_ = r_gathered_.data();
  }

  void meet_query(std::size_t query) {
    refresh_limit(query);
    kernels_.code_scan(pointers_.data(), n_rows_, coded_.stride, sweep_.code(query), sums_.data());
    const bool has_u = sweep_.bounds.has_u();
    const CodePick pick = {.sums = sums_.data(),
                           .n_rows = n_rows_,
                           .p = p_,
                           .r = r_,
                           .u = has_u ? u_.data() : nullptr,
                           .a = a_[query],
                           .b = b_[query],
                           .c = c_[query],
                           .d = d_[query]};
    const std::size_t kept = kernels_.code_pick(pick, kept_.data());
    if (!heaps_[query].full()) nearest_first(query, kept);
    for (std::size_t i = 0; i < kept && !stopped(); ++i) {
      // The limit may have fallen since.
      const std::size_t at = kept_[i];
      const float limit =
          a_[query] + b_[query] * p_[at] + c_[query] * r_[at] + (has_u ? d_[query] * u_[at] : 0.0f);
      if (!(static_cast<float>(sums_[at]) < limit)) score(query, rows_[at]);
    }
  }

  // Puts the k rows that seem nearest in front, so that the limit falls before the others are looked at.
  void nearest_first(std::size_t query, std::size_t kept) {
    if (kept <= task_.k) return;
    const bool has_u = sweep_.bounds.has_u();
    order_.clear();
    for (std::size_t i = 0; i < kept; ++i) {
      const std::size_t at = kept_[i];
      const double estimate =
          sweep_.bounds.estimate(sweep_.queries[query], sums_[at], p_[at], has_u ? u_[at] : 0.0f);
      // Codes from a hostile file can make it NaN, which has no order.
      order_.push_back({estimate == estimate ? estimate : 0.0, kept_[i]});
    }
    std::nth_element(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(task_.k), order_.end());
    for (std::size_t i = 0; i < kept; ++i) kept_[i] = order_[i].second;
  }

  void meet_panels() {
    const std::size_t lanes = kernels_.code_panel_lanes;
    for (first_ = 0; first_ < sweep_.count && !stopped(); first_ += lanes) {
      for (std::size_t i = first_; i < std::min(first_ + lanes, sweep_.count); ++i) refresh_limit(i);
      const CodeTileTask tile = {.rows = pointers_.data(),
                                 .n_rows = n_rows_,
                                 .stride = coded_.stride,
                                 .panel = sweep_.packed.data() + first_ * coded_.stride,
                                 .a = a_.data() + first_,
                                 .b = b_.data() + first_,
                                 .c = c_.data() + first_,
                                 .d = d_.data() + first_,
                                 .p = p_,
                                 .r = r_,
                                 .u = sweep_.bounds.has_u() ? u_.data() : nullptr,
                                 .sink = {.candidate =
                                              [](void* self, std::size_t row, std::size_t lane) {
                                                auto* worker = static_cast<Worker*>(self);
                                                const std::size_t query = worker->first_ + lane;
                                                if (query >= worker->sweep_.count)
                                                  return;  // padding met a wild row
                                                worker->score(query, worker->rows_[row]);
                                              },
                                          .self = this}};
      kernels_.code_tiles(tile);
    }
  }

  void score(std::size_t query, std::size_t row) {
    if (!sweep_.candidates.has(row) || stopped() || !verify_vector(row)) return;
    ++scored_;
    const double distance = kernels_.canonical(task_.metric, sweep_.query(query), sweep_.norm2[query],
                                               task_.vectors + row * task_.dim, task_.dim);
    if (offer_row(task_, heaps_[query], sweep_.shared, query, row, distance)) refresh_limit(query);
  }

  // Every row at a distance of at most the limit must be looked at.
  void refresh_limit(std::size_t query) {
    const double limit = sweep_.shared.of(query);
    if (limit != limit_[query]) set_limit(query, limit);
  }

  void set_limit(std::size_t query, double distance) {
    limit_[query] = distance;
    const CodeLimit limit = sweep_.bounds.limit(sweep_.queries[query], distance);
    a_[query] = limit.a;
    b_[query] = limit.b;
    c_[query] = limit.c;
    d_[query] = limit.d;
  }

  Sweep& sweep_;
  const SearchTask& task_;
  const CodedRows& coded_;
  const Kernels& kernels_;
  std::vector<TopK> heaps_;
  std::size_t n_rows_ = 0;
  std::vector<std::size_t> rows_;
  std::vector<const std::uint8_t*> pointers_;
  std::vector<float> p_gathered_;
  std::vector<float> r_gathered_;
  const float* p_ = nullptr;
  const float* r_ = nullptr;
  std::vector<float> u_;
  std::vector<std::int32_t> sums_;
  std::vector<std::uint32_t> kept_;
  std::vector<std::pair<double, std::uint32_t>> order_;
  std::vector<double> limit_;  // that a_, b_, c_ and d_ are made for
  std::vector<float> a_;
  std::vector<float> b_;
  std::vector<float> c_;
  std::vector<float> d_;
  std::size_t first_ = 0;  // query of the panel in hand
  std::size_t scored_ = 0;
  bool begun_ = false;  // a block was seen, so that limits are known
};

void search_sweep(Sweep& sweep, std::size_t threads) {
  const SearchTask& task = sweep.task;
  std::vector<std::unique_ptr<Worker>> workers(threads);
  run_threads(threads, [&](std::size_t i) {
    workers[i] = std::make_unique<Worker>(sweep);
    workers[i]->run();
  });
  if (sweep.result.damaged != CodeSearchResult::Part::kNone) return;
  for (const auto& worker : workers) {
    if (worker != nullptr) sweep.result.scored += worker->scored();
  }
  write_nearest(task, workers, sweep.first, sweep.count, threads);
}

}  // namespace

float least_inverse(const float* norms, std::size_t n) {
  float least = kInfinity;
  for (std::size_t i = 0; i < n; ++i) least = std::min(least, inverse(norms[i]));
  return n == 0 ? 0.0f : least * (1.0f - 0x1p-20f);
}

CodeSearchResult search_codes(const SearchTask& task, const CodedRows& rows) {
  CodeSearchResult result;
  if (task.k == 0 || task.n_queries == 0) {  // also when there are no rows
    std::fill_n(task.rows, task.n_queries * task.width, std::int64_t{-1});
    std::fill_n(task.distances, task.n_queries * task.width, std::numeric_limits<double>::infinity());
    std::fill_n(task.counts, task.n_queries, std::int64_t{0});
    return result;
  }
  const std::size_t queries =
      std::clamp<std::size_t>(kSweepBytes / rows.stride / 64 * 64, 64, kMaxSweepQueries);
  const std::size_t first_queries = std::min(queries, task.n_queries);
  const std::size_t block_rows =
      std::clamp<std::size_t>(std::min(kBlockOfRowsBytes / rows.stride, task.n / (task.threads * 8)),
                              2 * kMaxTileRows, kMaxBlockRows);
  Candidates candidates(task.n, task.mask, block_rows, first_queries < kPanelQueries);
  const double products = static_cast<double>(candidates.count()) * static_cast<double>(task.dim) *
                          static_cast<double>(first_queries);
  const double useful = products / static_cast<double>(kProductsPerThread) + 1.0;
  const std::size_t threads = std::max<std::size_t>(
      1, useful < static_cast<double>(task.threads) ? static_cast<std::size_t>(useful) : task.threads);
  for (std::size_t first = 0; first < task.n_queries; first += queries) {
    candidates.restart();
    Sweep sweep(task, rows, candidates, first, std::min(queries, task.n_queries - first), block_rows);
    search_sweep(sweep, threads);
    sweep.result.scored += result.scored;
    result = sweep.result;
    if (result.damaged != CodeSearchResult::Part::kNone) break;
  }
  return result;
}

}  // namespace iqdb
