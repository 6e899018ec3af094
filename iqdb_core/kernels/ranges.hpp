// Ranges of independent items, shared out to the threads of one call.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "threads.hpp"

namespace iqdb {

// Calls work(begin, end) for ranges of `grain` items that cover 0..n, in ascending order on each thread.
// `grain` is as much as makes a thread worth its start: less than two of them stay on the caller's thread.
template <class Work>
void for_ranges(size_t n, size_t threads, size_t grain, const Work& work) {
  const size_t ranges = n / grain + (n % grain != 0);
  if (ranges <= 1 || threads <= 1) {
    if (n != 0) work(size_t{0}, n);
    return;
  }
  std::atomic<size_t> next{0};
  run_threads(std::min(threads, ranges), [&](size_t) {
    for (size_t range = next++; range < ranges; range = next++) {
      work(range * grain, std::min(n, (range + 1) * grain));
    }
  });
}

}  // namespace iqdb
