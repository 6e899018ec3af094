// Threads of one call: started for it, joined before it returns, so that a fork between calls is safe.
#pragma once

#include <cfenv>
#include <cstddef>
#include <functional>

namespace iqdb {

// Runs work(0) .. work(n - 1), work(0) on the calling thread, and returns when all are done. Fewer
// threads run if the system refuses to start more, so `work` must share its items out as it goes.
// Rethrows the first exception that a worker ended with.
void run_threads(std::size_t n, const std::function<void(std::size_t worker)>& work);

// Round to nearest with gradual underflow for as long as it lives. Libraries built with -ffast-math
// switch subnormal numbers off for the threads that load them; distances must not depend on that.
class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&saved_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  std::fenv_t saved_;
};

}  // namespace iqdb
