// A panel of queries against a block of rows at the speed of a matrix product: a tile of sums stays
// in registers, each component of a row is broadcast and meets a whole vector of queries.
//
// The queries are packed (there are few); the rows are read where they are, which costs nothing
// because a broadcast load has no alignment or stride to care for, and saves the copy of the database
// that a general matrix product makes. The idea of the tile is that of Goto and van de Geijn,
// "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008.
#include "tiles.hpp"

#include "simd.hpp"

namespace iqdb::IQDB_VARIANT {
namespace {

// Rows x vectors of a tile: as many sums as the registers hold beside the panel's vectors, one
// broadcast and, in the passes that need them, temporaries.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr std::size_t kMaxVectors = 2;
constexpr std::size_t tile_rows(Pass pass, std::size_t vectors) {
  return vectors == 1 ? 16 : pass == Pass::kDot ? 12 : 10;
}
#else
constexpr std::size_t kMaxVectors = 2;
constexpr std::size_t tile_rows(Pass pass, std::size_t vectors) {
  return vectors == 1 ? (pass == Pass::kDot ? 12 : 10) : pass == Pass::kDot ? 6 : 5;
}
#endif

template <Pass pass>
struct Term;

template <>
struct Term<Pass::kDot> {
  typedef Floats Sum;
  static IQDB_INLINE void add(Sum& sum, Floats q, const float* x) { sum += q * *x; }
};

template <>
struct Term<Pass::kAbsolute> {
  typedef Floats Sum;
  static IQDB_INLINE void add(Sum& sum, Floats q, const float* x) { sum += absolute(q - *x); }
};

template <>
struct Term<Pass::kBits> {
  typedef Ints Sum;
  static IQDB_INLINE void add(Sum& sum, Floats q, const float* x) {
    std::int32_t item;
    __builtin_memcpy(&item, x, 4);
    sum += bits(q) != (Ints{} + item);
  }
};

template <Pass pass, std::size_t kRows, std::size_t kVectors>
IQDB_INLINE void report(const TileTask& task, std::size_t first, const Ints (&dropped)[kRows][kVectors]) {
  for (std::size_t r = 0; r < kRows && first + r < task.n_rows; ++r) {
    std::int32_t flags[kVectors * kFloats];
    __builtin_memcpy(flags, dropped[r], sizeof flags);
    for (std::size_t lane = 0; lane < kVectors * kFloats; ++lane) {
      if (flags[lane] == 0) task.sink.candidate(task.sink.self, first + r, lane);
    }
  }
}

template <Pass pass, std::size_t kVectors>
void run(const TileTask& task) {
  constexpr std::size_t kRows = tile_rows(pass, kVectors);
  constexpr std::size_t kWidth = kVectors * kFloats;
  static_assert(kRows <= kMaxTileRows);
  const std::size_t dim = task.dim;
  for (std::size_t first = 0; first < task.n_rows; first += kRows) {
    const float* row[kRows];
    for (std::size_t r = 0; r < kRows; ++r) row[r] = task.rows[first + r];
    typename Term<pass>::Sum sums[kRows][kVectors] = {};
    const float* panel = task.panel;
    for (std::size_t i = 0; i < dim; ++i) {
      Floats q[kVectors];
#pragma GCC unroll 4
      for (std::size_t j = 0; j < kVectors; ++j) q[j] = load(panel + j * kFloats);
#pragma GCC unroll 16
      for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (std::size_t j = 0; j < kVectors; ++j) Term<pass>::add(sums[r][j], q[j], row[r] + i);
      }
      panel += kWidth;
    }

    Ints dropped[kRows][kVectors];
    Ints kept = {};
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (std::size_t j = 0; j < kVectors; ++j) {
        const Floats a = load(task.a + j * kFloats);
        if constexpr (pass == Pass::kDot) {
          const Floats b = load(task.b + j * kFloats);
          dropped[r][j] = sums[r][j] < a + (task.v[first + r] + b * task.u[first + r]);
        } else if constexpr (pass == Pass::kBits) {
          dropped[r][j] = __builtin_convertvector(-sums[r][j], Floats) > a;
        } else {
          dropped[r][j] = sums[r][j] > a;
        }
        kept |= ~dropped[r][j];
      }
    }
    if (__builtin_expect(any(kept), 0)) report<pass>(task, first, dropped);
  }
}

template <Pass pass>
void run(const TileTask& task) {
  if (task.vectors == 1) return run<pass, 1>(task);
  return run<pass, 2>(task);
}

}  // namespace


void pack(const float* const* queries, std::size_t n_queries, std::size_t dim, std::size_t vectors,
          float* panel) {
  const std::size_t width = vectors * kFloats;
  for (std::size_t lane = 0; lane < width; ++lane) {
    for (std::size_t i = 0; i < dim; ++i) panel[i * width + lane] = lane < n_queries ? queries[lane][i] : 0.0f;
  }
}

void tiles(Pass pass, const TileTask& task) {
  switch (pass) {
    case Pass::kDot:
      return run<Pass::kDot>(task);
    case Pass::kAbsolute:
      return run<Pass::kAbsolute>(task);
    case Pass::kBits:
      return run<Pass::kBits>(task);
    case Pass::kSquares:
      return;  // batches of euclidean queries go by kDot
  }
}

}  // namespace iqdb::IQDB_VARIANT
