#pragma once

#include "ivf_table.hpp"

namespace iqdb::IQDB_VARIANT {

void list_tiles(CodeSum kind, const ListTileTask& task);
void list_scan(CodeSum kind, const ListScanTask& task);
void half_sums(const HalfTask& task);

}  // namespace iqdb::IQDB_VARIANT
