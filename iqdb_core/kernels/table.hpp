// The kernels that exist once per instruction set, as a table of function pointers.
//
// Everything in this table but `canonical`, `norm2`, hashes, codes, their sums and what concerns words is
// only a filter: its f32 sums may differ between variants in their last bits. bounds.hpp says by how much,
// and search.cpp re-scores with `canonical` whatever the filter cannot exclude, so that results never depend
// on the variant.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bit_table.hpp"
#include "code_table.hpp"
#include "encode_table.hpp"
#include "ivf_table.hpp"
#include "metric.hpp"
#include "sink.hpp"

namespace iqdb {

// What a pass over the rows sums up, for a row x and a query q.
enum class Pass : int {
  kDot,       // q[i] * x[i]
  kSquares,   // (q[i] - x[i])^2
  kAbsolute,  // |q[i] - x[i]|
  kMinimum,   // min(q[i], x[i])
  kBits,      // 1 where the bits of q[i] and x[i] differ
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

// Queries of a panel are coded with numbers of at most this size, a single one with up to 127; see
// code_tiles.cpp.
inline constexpr int kCodePanelReach = 63;

// Sums of one query and n_rows rows. A row is dropped when  sum < a + b p + c r + d u  (code_bounds.hpp); a
// comparison with NaN drops nothing.
struct CodePick {
  const std::int32_t* sums;
  std::size_t n_rows;
  const float* p;
  const float* r;
  const float* u;  // null: no such term
  float a;
  float b;
  float c;
  float d;
};

// One panel of queries against the codes of one block of rows; the same comparison.
struct CodeTileTask {
  const std::uint8_t* const* rows;  // padded with valid pointers to a multiple of kMaxTileRows
  std::size_t n_rows;
  std::size_t stride;
  const std::int8_t* panel;  // [stride / 4][code_panel_lanes][4]
  const float* a;            // [code_panel_lanes], as are b, c and d
  const float* b;
  const float* c;
  const float* d;
  const float* p;  // [n_rows, padded like rows], as are r and u
  const float* r;
  const float* u;  // null: no such term
  Sink sink;
};

// The rows that a call of Kernels::mix_rows takes.
inline constexpr std::size_t kHashedRows = 3;

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
  void (*coarse_sums)(CodeSum kind, const CoarseTask& task);
  void (*list_scan)(CodeSum kind, const ListScanTask& task);
  void (*list_tiles)(CodeSum kind, const ListTileTask& task);
  void (*half_sums)(const HalfTask& task);
  void (*nearest_words)(bool absolute, const WordTask& task);
  void (*word_values)(bool absolute, const WordTableTask& task);
  void (*word_steps)(const WordStepsTask& task);

  // Returns how many rows were kept.
  std::size_t (*bit_scan)(const BitScanTask& task);
  // Tiles of the codes of n_rows rows, [ceil(n_rows / kBitTileRows)][16 * words][kBitTileRows], without what
  // pads the last. Null, like bit_tiles, where the CPU has no instruction for that: scans are then as fast.
  void (*bit_split)(const std::uint8_t* codes, std::size_t n_rows, std::size_t words, std::uint8_t* halves);
  void (*bit_tiles)(const BitTileTask& task);

  // The same in every variant: what they compute is stored. Sums of squares of kEncodedRows rows.
  void (*encode)(const EncodeTask& task);
  void (*row_squares)(const float* const* rows, std::size_t dim, double* squares);

  // sums[i] of a query's code and the codes of rows, which are padded like those of a TileTask, as sums are.
  void (*code_scan)(const std::uint8_t* const* rows, std::size_t n_rows, std::size_t stride,
                    const std::int8_t* query, std::int32_t* sums);
  // The numbers of the rows that cannot be dropped; returns how many.
  std::size_t (*code_pick)(const CodePick& task, std::uint32_t* kept);
  std::size_t code_panel_lanes;
  // Interleaves up to code_panel_lanes queries (missing ones become zeros).
  void (*code_pack)(const std::int8_t* const* queries, std::size_t n_queries, std::size_t stride,
                    std::int8_t* panel);
  void (*code_tiles)(const CodeTileTask& task);

  // XXH64, step 2, of kHashedRows rows that lie row_bytes apart: their first n_stripes stripes of 32 bytes
  // into lanes[kHashedRows][2 seeds][4].
  void (*mix_rows)(const std::uint8_t* rows, std::size_t row_bytes, std::size_t n_stripes,
                   std::uint64_t* lanes);

  // The index of the first infinity or NaN, or n.
  std::size_t (*first_non_finite)(const float* x, std::size_t n);

  // Bit i of words[ceil(n / 64)] tells whether low <= values[i] <= high; those behind the last are 0.
  void (*within_int64)(const std::int64_t* values, std::size_t n, std::int64_t low, std::int64_t high,
                       std::uint64_t* words);
  void (*within_float64)(const double* values, std::size_t n, double low, double high, std::uint64_t* words);
};

}  // namespace iqdb
