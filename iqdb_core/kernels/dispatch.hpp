// Which of the compiled variants runs.
#pragma once

#include <string>
#include <vector>

#include "table.hpp"

namespace iqdb {

// The table in use. A search takes it once, so that a change in between cannot mix variants.
const Kernels& kernels();

// The names of the variants that this CPU and operating system can run, oldest first.
std::vector<std::string> variant_names();

// Chooses a variant; false when it does not exist or cannot run here.
bool select_variant(const std::string& name);

// The newest one that can run here.
void select_best_variant();

}  // namespace iqdb
