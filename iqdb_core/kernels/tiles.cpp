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

// A tile's sums fill the registers but for what the pass needs beside them: 12 of 16 or 24 of 32 sums
// for products, 10 or 20 where the terms take registers too.
#if defined(__AVX512F__)
constexpr std::size_t kRegisters = 32;
#elif defined(__aarch64__)
constexpr std::size_t kRegisters = 24;  // of 32: GCC keeps the components of all rows in registers
#else
constexpr std::size_t kRegisters = 16;
#endif

constexpr std::size_t tile_rows(Pass pass, std::size_t vectors) {
  const std::size_t sums = pass == Pass::kDot ? kRegisters * 3 / 4 : kRegisters * 5 / 8;
  const std::size_t rows = sums / vectors;
  return rows < kMaxTileRows ? rows : kMaxTileRows;
}

#if defined(__FMA__)
const volatile float opaque_one = 1.0f;
#endif

IQDB_INLINE Floats minimum(Floats x, Floats y) {
  return x < y ? x : y;
}

template <Pass pass>
struct Term;

template <>
struct Term<Pass::kDot> {
  typedef Floats Sum;
  IQDB_INLINE void add(Sum& sum, Floats q, const float* x) const { sum += q * *x; }
};

// |q - x| = q + x - 2 min(q, x), and the sums of q and of x are known: one operation less than
// |q - x|.
template <>
struct Term<Pass::kMinimum> {
  typedef Floats Sum;
#if defined(__FMA__)
  // AMD's cores take minima and additions on the same two units, fused products on the other two. The
  // compiler must not see that the factor is 1.
  Floats one = broadcast(opaque_one);
  IQDB_INLINE void add(Sum& sum, Floats q, const float* x) const { sum += one * minimum(q, broadcast(*x)); }
#else
  IQDB_INLINE void add(Sum& sum, Floats q, const float* x) const { sum += minimum(q, broadcast(*x)); }
#endif
};

// Counts down by one for each equal component.
template <>
struct Term<Pass::kBits> {
  typedef Ints Sum;
  IQDB_INLINE void add(Sum& sum, Floats q, const float* x) const {
    std::int32_t item;
    __builtin_memcpy(&item, x, 4);
    sum += bits(q) == (Ints{} + item);
  }
};

template <std::size_t kRows, std::size_t kVectors>
void report(const TileTask& task, std::size_t first, const Ints (&dropped)[kRows][kVectors]) {
  for (std::size_t r = 0; r < kRows && first + r < task.n_rows; ++r) {
    for (std::size_t j = 0; j < kVectors; ++j) {
      if (!any(~dropped[r][j])) continue;
      for (std::size_t lane = 0; lane < kFloats; ++lane) {
        if (dropped[r][j][lane] == 0) task.sink.candidate(task.sink.self, first + r, j * kFloats + lane);
      }
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
    const Term<pass> term;
    const float* panel = task.panel;
    for (std::size_t i = 0; i < dim; ++i) {
      Floats q[kVectors];
#pragma GCC unroll 4
      for (std::size_t j = 0; j < kVectors; ++j) q[j] = load(panel + j * kFloats);
#pragma GCC unroll 16
      for (std::size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (std::size_t j = 0; j < kVectors; ++j) term.add(sums[r][j], q[j], row[r] + i);
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
        if constexpr (pass == Pass::kBits) {
          dropped[r][j] = __builtin_convertvector(sums[r][j] + static_cast<std::int32_t>(dim), Floats) > a;
        } else {
          const Floats b = load(task.b + j * kFloats);
          dropped[r][j] = sums[r][j] < a + (task.v[first + r] + b * task.u[first + r]);
        }
        kept |= ~dropped[r][j];
      }
    }
    if (__builtin_expect(any(kept), 0)) report(task, first, dropped);
  }
}

template <Pass pass>
void run_panel(const TileTask& task) {
  if (task.vectors == 1) return run<pass, 1>(task);
  return run<pass, kMaxPanelVectors>(task);
}

}  // namespace

void pack(const float* const* queries, std::size_t n_queries, std::size_t dim, std::size_t vectors,
          float* panel) {
  const std::size_t width = vectors * kFloats;
  for (std::size_t lane = 0; lane < width; ++lane) {
    for (std::size_t i = 0; i < dim; ++i)
      panel[i * width + lane] = lane < n_queries ? queries[lane][i] : 0.0f;
  }
}

void tiles(Pass pass, const TileTask& task) {
  switch (pass) {
    case Pass::kDot:
      return run_panel<Pass::kDot>(task);
    case Pass::kMinimum:
      return run_panel<Pass::kMinimum>(task);
    case Pass::kBits:
      return run_panel<Pass::kBits>(task);
    case Pass::kSquares:
    case Pass::kAbsolute:
      return;  // batches go by kDot and kMinimum
  }
}

}  // namespace iqdb::IQDB_VARIANT
