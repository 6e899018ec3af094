#include "table.hpp"

#include "bit_kernels.hpp"
#include "canonical.hpp"
#include "code_kernels.hpp"
#include "code_tiles.hpp"
#include "encode.hpp"
#include "intervals.hpp"
#include "ivf_tiles.hpp"
#include "ivf_words.hpp"
#include "scan.hpp"
#include "simd.hpp"
#include "tiles.hpp"
#include "xxh64_rows.hpp"

#define IQDB_TEXT_OF(name) #name
#define IQDB_TEXT(name) IQDB_TEXT_OF(name)

namespace iqdb::IQDB_VARIANT {

const Kernels& kernels();

const Kernels& kernels() {
  static constinit const Kernels table = {
      .name = IQDB_TEXT(IQDB_VARIANT),
      .canonical = canonical,
      .norm2 = norm2,
      .scan = scan,
      .norms = norms,
      .totals = totals,
      .vector_floats = kFloats,
      .max_panel_vectors = kMaxPanelVectors,
      .pack = pack,
      .tiles = tiles,
      .code_sums = code_sums,
      .coarse_sums = coarse_sums,
      .list_scan = list_scan,
      .list_tiles = list_tiles,
      .half_sums = half_sums,
      .nearest_words = nearest_words,
      .word_values = word_values,
      .word_steps = word_steps,
      .bit_scan = bit_scan,
      .bit_split = kBitSplit,
      .bit_tiles = kBitTiles,
      .encode = encode,
      .row_squares = row_squares,
      .code_scan = code_scan,
      .code_pick = code_pick,
      .code_panel_lanes = kCodePanelLanes,
      .code_pack = code_pack,
      .code_tiles = code_tiles,
      .mix_rows = mix_rows,
      .first_non_finite = first_non_finite,
      .within_int64 = within_int64,
      .within_float64 = within_float64,
  };
  return table;
}

}  // namespace iqdb::IQDB_VARIANT
