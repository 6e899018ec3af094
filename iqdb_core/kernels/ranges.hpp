// Splits independent work over threads that live for one call, so that a fork between calls finds none.
#pragma once

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace iqdb {

// Calls work(begin, end) for consecutive ranges that cover 0..n. A thread gets at least `grain` items, so
// that small work stays on the caller's thread. `work` must not throw: an exception that leaves a
// std::thread ends the process.
template <class Work>
void for_ranges(size_t n, size_t threads, size_t grain, const Work& work) {
  const size_t parts = std::clamp<size_t>(n / std::max<size_t>(grain, 1), 1, std::max<size_t>(threads, 1));
  // begin of a part, without overflow for any n
  const auto begin = [&](size_t part) { return n / parts * part + std::min(part, n % parts); };
  std::vector<std::thread> workers;
  workers.reserve(parts - 1);
  for (size_t part = 1; part < parts; ++part) {
    try {
      workers.emplace_back([&work, &begin, part] { work(begin(part), begin(part + 1)); });
    } catch (const std::system_error&) {  // no more threads to be had: the caller does this part as well
      work(begin(part), begin(part + 1));
    }
  }
  work(begin(0), begin(1));
  for (std::thread& worker : workers) worker.join();
}

}  // namespace iqdb
