// The same life of a search as in search.cpp: threads take ranges of rows, and a block of their codes meets
// all queries. A few queries count bits row by row, as fast as memory gives them; many look their half-bytes
// up in tables, a tile of rows at a time.
#include "bit_search.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "bits.hpp"
#include "candidates.hpp"
#include "dispatch.hpp"
#include "nearest.hpp"
#include "table.hpp"
#include "threads.hpp"
#include "topk.hpp"

namespace iqdb {
namespace {

// Below this many queries tiles cost more than they save. Measured.
constexpr std::size_t kTiledQueries = 8;
// Codes of a block, and their tiles of twice the size, have to fit the L2 cache.
constexpr std::size_t kBlockOfCodesBytes = 64 * 1024;
constexpr std::size_t kMaxBlockRows = 4096;
// Tables of one sweep over the rows; more queries take more sweeps.
constexpr std::size_t kSweepBytes = 8 * 1024 * 1024;
constexpr std::size_t kMaxSweepQueries = 4096;
// Bytes of codes that are worth a thread.
constexpr std::size_t kBytesPerThread = 1 << 20;
// Tiles sum up in 16 bits.
constexpr std::size_t kMostTiledDim = 65'535;
// Padding of a group of queries: no sum of these is within a limit of 0.
constexpr std::uint8_t kFarAway = 4;

// kTables[h][x]: bits in which the half-bytes h and x differ.
constexpr auto kTables = [] {
  std::array<std::array<std::uint8_t, kBitWords>, kBitWords> tables{};
  for (unsigned h = 0; h < kBitWords; ++h) {
    for (unsigned x = 0; x < kBitWords; ++x) tables[h][x] = static_cast<std::uint8_t>(std::popcount(h ^ x));
  }
  return tables;
}();

// What all threads share while they look for the nearest rows of queries first..first+count.
struct Sweep {
  Sweep(const SearchTask& task, const BitRows& rows, Candidates& candidates, std::size_t first,
        std::size_t count, std::size_t block_rows)
      : task(task),
        rows(rows),
        kernels(iqdb::kernels()),
        candidates(candidates),
        first(first),
        count(count),
        block_rows(block_rows),
        words(bit_words(task.dim)),
        tiled(count >= kTiledQueries && kernels.bit_tiles != nullptr && task.dim <= kMostTiledDim),
        shared(count, task.max_distance) {
    for (std::size_t i = 0; i < count; ++i) {
      queries.push_back(encode_bit_query(rows.values, query(i), task.dim));
    }
    if (tiled) make_tables();
  }

  const float* query(std::size_t i) const { return task.queries + (first + i) * task.dim; }
  std::size_t stride() const { return 8 * words; }
  std::size_t halves() const { return 16 * words; }

  void report(BitSearchResult::Part part, std::size_t block) {
    const std::lock_guard lock(mutex);
    if (result.damaged == BitSearchResult::Part::kNone) {
      result.damaged = part;
      result.block = block;
    }
    stopped.store(true, std::memory_order_relaxed);
  }

  const SearchTask& task;
  const BitRows& rows;
  const Kernels& kernels;
  Candidates& candidates;
  const std::size_t first;
  const std::size_t count;
  const std::size_t block_rows;
  const std::size_t words;
  const bool tiled;
  SharedLimits shared;
  std::vector<BitQuery> queries;
  std::vector<std::uint8_t> tables;  // [count, rounded up][halves()][kBitWords]
  std::atomic<bool> stopped{false};
  std::mutex mutex;
  BitSearchResult result;

 private:
  void make_tables() {
    const std::size_t groups = (count + kBitTileQueries - 1) / kBitTileQueries;
    tables.assign(groups * kBitTileQueries * halves() * kBitWords, kFarAway);
    std::uint8_t* to = tables.data();
    for (const BitQuery& query : queries) {
      const auto* const code = reinterpret_cast<const std::uint8_t*>(query.code.data());
      const auto* const mask = reinterpret_cast<const std::uint8_t*>(query.mask.data());
      for (std::size_t half = 0; half < halves(); ++half, to += kBitWords) {
        const unsigned shift = 4 * (half % 2);
        const std::array<std::uint8_t, kBitWords>& table = kTables[code[half / 2] >> shift & 15];
        std::memcpy(to, table.data(), kBitWords);
        const unsigned kept = mask[half / 2] >> shift & 15;
        if (kept == 15) continue;
        for (unsigned x = 0; x < kBitWords; ++x)
          to[x] = static_cast<std::uint8_t>(std::popcount((x ^ code[half / 2] >> shift) & kept));
      }
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
        kept_(sweep.block_rows),
        distances_(sweep.block_rows) {
    for (TopK& heap : heaps_) heap.reserve(std::min<std::size_t>(task_.k, 64));
    if (!sweep.candidates.every_row()) {
      rows_.resize(sweep.block_rows);
      gathered_.resize(sweep.block_rows * sweep.stride());
    }
    if (!sweep.tiled) return;
    const std::size_t tiles = (sweep.block_rows + kBitTileRows - 1) / kBitTileRows;
    halves_.resize(tiles * kBitTileRows * sweep.halves());
  }

  void run() {
    Candidates::Range range;
    while (!stopped() && sweep_.candidates.next(&range)) {
      while (range.first < range.last && !stopped()) {
        if (!take(&range)) break;
        if (!verify_codes()) return;
        // Limits are known once a block was seen.
        if (sweep_.tiled && begun_) {
          meet_tiles();
        } else {
          for (std::size_t i = 0; i < sweep_.count; ++i) meet_query(i);
        }
        begun_ = true;
      }
    }
  }

  TopK& heap(std::size_t query) { return heaps_[query]; }

 private:
  bool stopped() const { return sweep_.stopped.load(std::memory_order_relaxed); }
  std::size_t row(std::size_t at) const { return in_place_ ? first_ + at : rows_[at]; }

  // The next block of rows becomes codes_; false when there is none.
  bool take(Candidates::Range* range) {
    const std::size_t stride = sweep_.stride();
    in_place_ = sweep_.candidates.every_row();
    if (in_place_) {
      first_ = range->first;
      n_rows_ = std::min(sweep_.block_rows, range->last - first_);
      range->first += n_rows_;
      codes_ = sweep_.rows.codes + first_ * stride;
      return n_rows_ != 0;
    }
    n_rows_ = sweep_.candidates.take(range, sweep_.block_rows, rows_.data());
    codes_ = gathered_.data();
    return n_rows_ != 0;
  }

  // The blocks that hold the codes of candidates; then the codes are gathered that do not stand in place.
  bool verify_codes() {
    const std::size_t stride = sweep_.stride();
    if (sweep_.rows.blocks != nullptr && in_place_ && task_.mask == nullptr) {
      std::size_t next = 0;
      if (!verify(first_ * stride, n_rows_ * stride, &next)) return false;
    } else if (sweep_.rows.blocks != nullptr) {
      std::size_t next = 0;
      for (std::size_t i = 0; i < n_rows_; ++i) {
        if (sweep_.candidates.has(row(i)) && !verify(row(i) * stride, stride, &next)) return false;
      }
    }
    for (std::size_t i = 0; !in_place_ && i < n_rows_; ++i)
      std::memcpy(gathered_.data() + i * stride, sweep_.rows.codes + rows_[i] * stride, stride);
    return true;
  }

  // Blocks before `next` were looked at.
  bool verify(std::size_t begin, std::size_t bytes, std::size_t* next) {
    const std::size_t end = (begin + bytes - 1) / kBlockBytes + 1;
    for (*next = std::max(*next, begin / kBlockBytes); *next < end; ++*next) {
      if (sweep_.rows.blocks->verify(*next)) continue;
      sweep_.report(BitSearchResult::Part::kCodes, *next);
      return false;
    }
    return true;
  }

  void meet_query(std::size_t query) {
    const std::int64_t limit = limit_of(query);
    if (limit < 0) return;
    const BitQuery& asked = sweep_.queries[query];
    const std::size_t kept = kernels_.bit_scan({.codes = codes_,
                                                .n_rows = n_rows_,
                                                .words = sweep_.words,
                                                .query = asked.code.data(),
                                                .mask = asked.foreign != 0 ? asked.mask.data() : nullptr,
                                                .limit = static_cast<std::uint32_t>(limit),
                                                .kept = kept_.data(),
                                                .distances = distances_.data()});
    for (std::size_t i = 0; i < kept; ++i) offer(query, row(kept_[i]), distances_[i]);
  }

  void meet_tiles() {
    const std::size_t n_tiles = (n_rows_ + kBitTileRows - 1) / kBitTileRows;
    kernels_.bit_split(codes_, n_rows_, sweep_.words, halves_.data());
    for (group_ = 0; group_ < sweep_.count && !stopped(); group_ += kBitTileQueries) {
      for (std::size_t lane = 0; lane < kBitTileQueries; ++lane) {
        lowered_[lane] = 0;
        if (group_ + lane < sweep_.count) lower(lane);
      }
      kernels_.bit_tiles(
          {.halves = halves_.data(),
           .n_tiles = n_tiles,
           .n_halves = sweep_.halves(),
           .tables = sweep_.tables.data() + group_ * sweep_.halves() * kBitWords,
           .limits = lowered_.data(),
           .sink = {.candidate = [](void* self, std::size_t at,
                                    std::size_t lane) { static_cast<Worker*>(self)->candidate(at, lane); },
                    .self = this}});
    }
  }

  void candidate(std::size_t at, std::size_t lane) {
    const std::size_t query = group_ + lane;
    if (at >= n_rows_ || query >= sweep_.count) return;  // what pads a tile or a group
    const BitQuery& asked = sweep_.queries[query];
    std::uint32_t distance = 0;
    for (std::size_t w = 0; w < sweep_.words; ++w) {
      std::uint64_t word;
      std::memcpy(&word, codes_ + (at * sweep_.words + w) * 8, 8);
      distance += static_cast<std::uint32_t>(std::popcount((word ^ asked.code[w]) & asked.mask[w]));
    }
    offer(query, row(at), distance);
    lower(lane);
  }

  void lower(std::size_t lane) {
    // A limit below 0 lets some rows through that are then refused.
    lowered_[lane] = static_cast<std::uint16_t>(std::clamp<std::int64_t>(limit_of(group_ + lane), 0, 65'535));
  }

  void offer(std::size_t query, std::size_t row, std::uint32_t different) {
    if (!sweep_.candidates.has(row)) return;
    offer_row(task_, heaps_[query], sweep_.shared, query, row,
              static_cast<double>(different + sweep_.queries[query].foreign));
  }

  // The most bits that may differ in a row that must be looked at. Shared limits are other heaps' and so
  // leave ties open; this thread's own heap is full of earlier rows, which win ties by row number.
  std::int64_t limit_of(std::size_t query) const {
    double limit = sweep_.shared.of(query);
    const TopK& heap = heaps_[query];
    if (heap.full() && task_.tie_keys == nullptr) limit = std::min(limit, heap.worst().distance - 1.0);
    limit = std::min(limit, static_cast<double>(task_.dim));  // which is infinite at first
    if (!(limit >= 0.0)) return -1;
    return static_cast<std::int64_t>(limit) - std::int64_t{sweep_.queries[query].foreign};
  }

  Sweep& sweep_;
  const SearchTask& task_;
  const Kernels& kernels_;
  std::vector<TopK> heaps_;
  std::size_t n_rows_ = 0;
  bool in_place_ = true;
  std::size_t first_ = 0;  // row of the block, in place
  const std::uint8_t* codes_ = nullptr;
  std::vector<std::size_t> rows_;
  std::vector<std::uint8_t> gathered_;
  std::vector<std::uint32_t> kept_;
  std::vector<std::uint32_t> distances_;
  std::vector<std::uint8_t> halves_;
  std::size_t group_ = 0;  // first query of the group in hand
  std::array<std::uint16_t, kBitTileQueries> lowered_{};
  bool begun_ = false;
};

// Computes the distances of all hits from the vectors.
void score_hits(Sweep& sweep, std::size_t threads) {
  const SearchTask& task = sweep.task;
  const auto verified = [&](std::size_t row) {
    if (task.block_table == nullptr) return true;
    const std::size_t begin = row * task.dim * sizeof(float);
    const std::size_t last = (begin + task.dim * sizeof(float) - 1) / kBlockBytes;
    for (std::size_t block = begin / kBlockBytes; block <= last; ++block) {
      if (task.block_table->verify(block)) continue;
      sweep.report(BitSearchResult::Part::kVectors, block);
      return false;
    }
    return true;
  };
  std::atomic<std::size_t> next{0};
  run_threads(sweep.count * task.k > 1000 ? threads : 1, [&](std::size_t) {
    std::vector<Hit> hits;
    for (std::size_t i = next.fetch_add(1); i < sweep.count; i = next.fetch_add(1)) {
      const std::size_t slot = (sweep.first + i) * task.width;
      std::int64_t& count = task.counts[sweep.first + i];
      hits.clear();
      for (std::int64_t j = 0; j < count; ++j) {
        const std::int64_t row = task.rows[slot + static_cast<std::size_t>(j)];
        if (!verified(static_cast<std::size_t>(row))) return;
        const double distance =
            sweep.kernels.canonical(task.metric, sweep.query(i), 0.0,
                                    task.vectors + static_cast<std::size_t>(row) * task.dim, task.dim);
        if (distance > task.max_distance) continue;
        hits.push_back({distance, task.tie_keys != nullptr ? task.tie_keys[row] : row, row});
      }
      count = static_cast<std::int64_t>(
          write_smallest(hits, task.k, task.width, task.rows + slot, task.distances + slot));
    }
  });
}

void search_sweep(Sweep& sweep, std::size_t threads) {
  std::vector<std::unique_ptr<Worker>> workers(threads);
  run_threads(threads, [&](std::size_t i) {
    workers[i] = std::make_unique<Worker>(sweep);
    workers[i]->run();
  });
  if (sweep.result.damaged != BitSearchResult::Part::kNone) return;
  write_nearest(sweep.task, workers, sweep.first, sweep.count, threads);
  if (sweep.task.vectors != nullptr) score_hits(sweep, threads);
}

}  // namespace

BitSearchResult search_bits(const SearchTask& task, const BitRows& rows) {
  if (task.k == 0 || task.n_queries == 0) {  // also when there are no rows
    std::fill_n(task.rows, task.n_queries * task.width, std::int64_t{-1});
    std::fill_n(task.distances, task.n_queries * task.width, std::numeric_limits<double>::infinity());
    std::fill_n(task.counts, task.n_queries, std::int64_t{0});
    return {};
  }
  const std::size_t stride = 8 * bit_words(task.dim);
  const std::size_t table_bytes = 2 * stride * kBitWords;
  const std::size_t queries =
      std::clamp<std::size_t>(kSweepBytes / table_bytes / 64 * 64, 64, kMaxSweepQueries);
  const std::size_t first_queries = std::min(queries, task.n_queries);
  const std::size_t fair = task.n / (task.threads * 8) / kBitTileRows * kBitTileRows;
  const std::size_t block_rows =
      std::clamp<std::size_t>(std::min(kBlockOfCodesBytes / stride, fair), kBitTileRows, kMaxBlockRows);
  Candidates candidates(task.n, task.mask, block_rows, true);
  const double bytes = static_cast<double>(candidates.count()) * static_cast<double>(stride) *
                       static_cast<double>(first_queries);
  const double useful = bytes / static_cast<double>(kBytesPerThread) + 1.0;
  const std::size_t threads = std::max<std::size_t>(
      1, useful < static_cast<double>(task.threads) ? static_cast<std::size_t>(useful) : task.threads);
  for (std::size_t first = 0; first < task.n_queries; first += queries) {
    candidates.restart();
    Sweep sweep(task, rows, candidates, first, std::min(queries, task.n_queries - first), block_rows);
    search_sweep(sweep, threads);
    if (sweep.result.damaged != BitSearchResult::Part::kNone) return sweep.result;
  }
  return {};
}

}  // namespace iqdb
