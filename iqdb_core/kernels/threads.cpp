#include "threads.hpp"

#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace iqdb {

void run_threads(std::size_t n, const std::function<void(std::size_t worker)>& work) {
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto guarded = [&](std::size_t worker) noexcept {
    try {
      const DefaultFloatEnvironment environment;
      work(worker);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  try {
    threads.reserve(n);
    for (std::size_t worker = 1; worker < n; ++worker) threads.emplace_back(guarded, worker);
  } catch (const std::system_error&) {
    // Out of threads: those that did start, and this one, do the work.
  } catch (const std::bad_alloc&) {
  }
  guarded(0);
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace iqdb
