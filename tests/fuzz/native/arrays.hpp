// Arrays of exactly the bytes that they have, so that a read beyond one is seen; filled from an input.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

// What must hold is checked with this in every build.
#define MUST(condition)                                                                  \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

template <class T>
class Array {
 public:
  Array(FuzzedDataProvider& feed, std::size_t count) : items_(new T[count]()), count_(count) {
    feed.ConsumeData(items_.get(), count * sizeof(T));
  }

  T* data() const { return items_.get(); }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) const { return items_[i]; }
  std::span<const T> span() const { return {items_.get(), count_}; }

 private:
  std::unique_ptr<T[]> items_;
  std::size_t count_;
};
