// The kernels that exist once per instruction set, as a table of function pointers.
//
// Everything in this table but `canonical`, `norm2`, sums of codes and what concerns words is only a filter:
// its f32 sums may differ between variants in their last bits. bounds.hpp says by how much, and search.cpp
// re-scores with `canonical` whatever the filter cannot exclude, so that results never depend on the variant.
#pragma once

#include <cstddef>

#include "code_table.hpp"
#include "ivf_table.hpp"
#include "metric.hpp"

namespace iqdb {

// What a pass over the rows sums up, for a row x and a query q.
enum class Pass : int {
  kDot,       // q[i] * x[i]
  kSquares,   // (q[i] - x[i])^2
  kAbsolute,  // |q[i] - x[i]|
  kMinimum,   // min(q[i], x[i])
  kBits,      // 1 where the bits of q[i] and x[i] differ
};

// Called for each pair that a tile cannot exclude: `row` counts from the block's first row, `lane`
// from the panel's first query. It may lower the limits that it was called under.
struct Sink {
  void (*candidate)(void* self, std::size_t row, std::size_t lane);
  void* self;
};

// One panel of queries against one block of rows.
//
// kDot and kMinimum drop a pair when  sum < a[lane] + (v[row] + b[lane] * u[row]);
// kBits does when  sum > a[lane]. The other passes have no tiles.
// A comparison with NaN drops nothing.
struct TileTask {
  const float* const* rows;  // padded with valid pointers to a multiple of kMaxTileRows
  std::size_t n_rows;
  std::size_t dim;
  const float* panel;  // [dim][vectors * vector_floats], see Kernels::pack
  std::size_t vectors;
  const float* a;  // [vectors * vector_floats]
  const float* b;  // the same; not for kBits
  const float* u;  // [n_rows, padded like rows]; not for kBits
  const float* v;
  Sink sink;
};

inline constexpr std::size_t kMaxTileRows = 16;

struct Kernels {
  const char* name;

  // The distance that callers see: float64, one fixed order of operations, bit-identical in every
  // variant. `query_norm2` is norm2(query). NaN (only possible for non-finite input) becomes +inf.
  double (*canonical)(Metric metric, const float* query, double query_norm2, const float* row,
                      std::size_t dim);
  double (*norm2)(const float* x, std::size_t dim);

  // The rows of these three are padded like those of a TileTask.
  // sums[i] for each row; kDot also writes norms[i], the sum of squares of the row. Not for kMinimum.
  void (*scan)(Pass pass, const float* query, const float* const* rows, std::size_t n_rows, std::size_t dim,
               float* sums, float* norms);
  // norms[i] = |rows[i] - centre|^2, or |rows[i]|^2 without a centre.
  void (*norms)(const float* const* rows, std::size_t n_rows, std::size_t dim, const float* centre,
                float* norms);
  // sums[i] = the sum of the row's components, sizes[i] = that of their absolute values.
  void (*totals)(const float* const* rows, std::size_t n_rows, std::size_t dim, float* sums, float* sizes);

  // f32 items of one SIMD vector, and the most vectors that a panel has.
  std::size_t vector_floats;
  std::size_t max_panel_vectors;
  // Interleaves up to vectors * vector_floats queries (missing ones become zeros).
  void (*pack)(const float* const* queries, std::size_t n_queries, std::size_t dim, std::size_t vectors,
               float* panel);
  void (*tiles)(Pass pass, const TileTask& task);

  void (*code_sums)(CodeSum kind, const CodeTask& task);
  void (*code_scan)(CodeSum kind, const CodeScanTask& task);
  void (*code_tiles)(CodeSum kind, const CodeTileTask& task);
  void (*half_sums)(const HalfTask& task);
  void (*nearest_words)(bool absolute, const WordTask& task);
  void (*word_values)(bool absolute, const WordTableTask& task);
  void (*word_steps)(const WordStepsTask& task);

  // The index of the first infinity or NaN, or n.
  std::size_t (*first_non_finite)(const float* x, std::size_t n);
};

}  // namespace iqdb
