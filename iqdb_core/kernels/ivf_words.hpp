#pragma once

#include "ivf_table.hpp"

namespace iqdb::IQDB_VARIANT {

void nearest_words(bool absolute, const WordTask& task);

}  // namespace iqdb::IQDB_VARIANT
