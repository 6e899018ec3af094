// SplitMix64 (Steele et al., OOPSLA 2014): a fixed generator, so that a seed means the same everywhere.
#pragma once

#include <cstdint>

namespace iqdb {

class SplitMix {
 public:
  explicit SplitMix(std::uint64_t seed) : state_(seed) {}

  // Uniform over 0 .. bound - 1, but for a bias of bound / 2^64.
  std::uint64_t below(std::uint64_t bound) {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
    x ^= x >> 31;
    return static_cast<std::uint64_t>((Wide{x} * bound) >> 64);
  }

 private:
  __extension__ typedef unsigned __int128 Wide;
  std::uint64_t state_;
};

}  // namespace iqdb
