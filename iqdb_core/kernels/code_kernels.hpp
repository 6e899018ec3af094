#pragma once

#include "code_table.hpp"

namespace iqdb::IQDB_VARIANT {

void code_sums(CodeSum kind, const CodeTask& task);
void coarse_sums(CodeSum kind, const CoarseTask& task);

}  // namespace iqdb::IQDB_VARIANT
