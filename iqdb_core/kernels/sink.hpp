// Who takes the pairs that a tile of rows and queries cannot exclude.
#pragma once

#include <cstddef>

namespace iqdb {

// Called for each such pair: `row` counts from the block's first row, `lane` from the panel's first query. It
// may lower the limits that it was called under.
struct Sink {
  void (*candidate)(void* self, std::size_t row, std::size_t lane);
  void* self;
};

}  // namespace iqdb
