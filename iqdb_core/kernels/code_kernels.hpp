#pragma once

#include "code_table.hpp"

namespace iqdb::IQDB_VARIANT {

void code_sums(CodeSum kind, const CodeTask& task);

}  // namespace iqdb::IQDB_VARIANT
