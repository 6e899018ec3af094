// The k nearest hits seen so far.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace iqdb {

// Hits are ordered by distance, then tie key, then row: a total order, so that the k smallest of a set
// do not depend on the order in which they were offered, nor on how the set was split between threads.
struct Hit {
  double distance;
  std::int64_t tie;
  std::int64_t row;
};

inline bool operator<(const Hit& x, const Hit& y) {
  if (x.distance != y.distance) return x.distance < y.distance;
  if (x.tie != y.tie) return x.tie < y.tie;
  return x.row < y.row;
}

// A heap with the worst kept hit on top. Memory grows with the hits kept, never with k.
class TopK {
 public:
  explicit TopK(std::size_t k) : k_(k) {}

  bool full() const { return hits_.size() >= k_; }
  const Hit& worst() const { return hits_.front(); }
  const std::vector<Hit>& hits() const { return hits_; }
  void reserve(std::size_t n) { hits_.reserve(n); }

  // Keeps the hit if it is among the k smallest so far. k must not be 0.
  void offer(const Hit& hit);

 private:
  void sift_down();

  std::size_t k_;
  std::vector<Hit> hits_;
};

// Writes the k smallest of `hits` in order into the first of `width` slots; the others get row -1 and
// distance infinity. Returns how many were written. Reorders `hits`.
std::size_t write_smallest(std::vector<Hit>& hits, std::size_t k, std::size_t width, std::int64_t* rows,
                           double* distances);

}  // namespace iqdb
