#pragma once

#include "ivf_table.hpp"

namespace iqdb::IQDB_VARIANT {

void code_tiles(CodeSum kind, const CodeTileTask& task);
void code_scan(CodeSum kind, const CodeScanTask& task);
void half_sums(const HalfTask& task);

}  // namespace iqdb::IQDB_VARIANT
