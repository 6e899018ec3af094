#include "topk.hpp"

#include <algorithm>
#include <limits>

namespace iqdb {

void TopK::offer(const Hit& hit) {
  if (hits_.size() < k_) {
    hits_.push_back(hit);
    std::push_heap(hits_.begin(), hits_.end());
  } else if (hit < hits_.front()) {
    hits_.front() = hit;
    sift_down();
  }
}

void TopK::sift_down() {
  const std::size_t n = hits_.size();
  const Hit moved = hits_.front();
  std::size_t hole = 0;
  for (std::size_t child = 1; child < n; child = 2 * hole + 1) {
    if (child + 1 < n && hits_[child] < hits_[child + 1]) ++child;
    if (!(moved < hits_[child])) break;
    hits_[hole] = hits_[child];
    hole = child;
  }
  hits_[hole] = moved;
}

std::size_t write_smallest(std::vector<Hit>& hits, std::size_t k, std::size_t width, std::int64_t* rows,
                           double* distances) {
  const std::size_t count = std::min(k, hits.size());
  std::partial_sort(hits.begin(), hits.begin() + static_cast<std::ptrdiff_t>(count), hits.end());
  for (std::size_t i = 0; i < width; ++i) {
    rows[i] = i < count ? hits[i].row : -1;
    distances[i] = i < count ? hits[i].distance : std::numeric_limits<double>::infinity();
  }
  return count;
}

}  // namespace iqdb
