#pragma once

#include "ivf_table.hpp"

namespace iqdb::IQDB_VARIANT {

void nearest_words(bool absolute, const WordTask& task);
void word_values(bool absolute, const WordTableTask& task);
void word_steps(const WordStepsTask& task);

}  // namespace iqdb::IQDB_VARIANT
