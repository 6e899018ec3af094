// Compiled with -ffp-contract=off: centroids are stored, so they must not depend on whether a CPU fuses.
#include "ivf_train.hpp"

#include <algorithm>
#include <numeric>

#include "random.hpp"
#include "ranges.hpp"

namespace iqdb {
namespace {

// Seeds are drawn from so many rows a cluster: each step of k-means++ passes over all of them.
constexpr std::size_t kSeedRowsPerCluster = 4;
// Codes of a step that are worth a thread.
constexpr std::size_t kSeedBytes = 1 << 20;
// The term of a lane without a centroid: above every key, and below what a sum could overflow.
constexpr std::int32_t kNoCentroid = 0x3fffffff;
constexpr int kPanelLimit = 63;

// Centroids as ListTileTask wants them.
class ClusterPanel {
 public:
  ClusterPanel(CodeSum sum, std::size_t stride) : sum_(sum), stride_(stride) {}

  // The listed ones of `centroids`, in that order.
  void pack(const ClusterCodes& centroids, std::span<const std::uint32_t> which) {
    const bool products = sum_ == CodeSum::kDot;
    const std::size_t width = products ? 16 : 8;
    const std::size_t group = products ? 4 : 8;
    const std::size_t lanes = (which.size() + kCodePanelLanes - 1) / kCodePanelLanes * kCodePanelLanes;
    terms_.assign(lanes, kNoCentroid);
    panel_.assign(lanes * stride_, 0);
    for (std::size_t lane = 0; lane < which.size(); ++lane) {
      const std::uint8_t* const code = centroids.of(which[lane]);
      std::uint8_t* const to = panel_.data() + lane / width * width * stride_ + lane % width * group;
      std::int32_t term = 0;
      for (std::size_t i = 0; i < stride_; ++i) {
        std::uint8_t value = code[i];
        if (products) {
          const int centred = std::clamp(int{code[i]} - kCodeCentre, -kPanelLimit, kPanelLimit);
          term += centred * (centred + 2 * kCodeCentre);
          value = static_cast<std::uint8_t>(static_cast<std::int8_t>(centred));
        }
        to[i / group * width * group + i % group] = value;
      }
      terms_[lane] = term;
    }
  }

  // For rows(0..n): the lane with the smallest key, and the key.
  template <class Rows>
  void nearest(const Kernels& kernels, std::size_t n, const Rows& rows, std::uint32_t* best,
               std::int32_t* best_keys) const {
    const std::uint8_t* pointers[kCodeTileRows];
    for (std::size_t begin = 0; begin < n; begin += kCodeTileRows) {
      ListTileTask task = task_for(std::min(kCodeTileRows, n - begin), pointers);
      for (std::size_t i = 0; i < task.n_rows; ++i) pointers[i] = rows(begin + i);
      std::fill(pointers + task.n_rows, pointers + kCodeTileRows, pointers[0]);
      task.best = best + begin;
      task.best_keys = best_keys + begin;
      kernels.list_tiles(sum_, task);
    }
  }

 private:
  ListTileTask task_for(std::size_t n, const std::uint8_t* const* rows) const {
    return {rows, n, stride_, panel_.data(), terms_.size(), terms_.data(), nullptr, nullptr};
  }

  CodeSum sum_;
  std::size_t stride_;
  std::vector<std::uint8_t> panel_;
  std::vector<std::int32_t> terms_;
};

std::vector<std::uint32_t> numbers(std::size_t n) {
  std::vector<std::uint32_t> out(n);
  std::iota(out.begin(), out.end(), 0U);
  return out;
}

class Trainer {
 public:
  Trainer(const Kernels& kernels, const ClusterTraining& training)
      : kernels_(kernels),
        task_(training),
        rows_(training.rows),
        n_clusters_(training.n_clusters),
        codes_(n_clusters_ * rows_.stride),
        sums_(n_clusters_ * rows_.stride),
        assigned_(rows_.n),
        keys_(rows_.n),
        order_(rows_.n),
        starts_(n_clusters_ + 1) {}

  std::vector<double> run() {
    seed();
    for (std::size_t i = 0; i < task_.iterations; ++i) {
      before_ = assigned_;
      assign();
      group();
      fill_empty();
      update();
      if (i > 0 && assigned_ == before_) break;
    }
    std::vector<double> means(codes_.size());
    for (std::size_t c = 0; c < n_clusters_; ++c) {
      for (std::size_t i = 0; i < rows_.stride; ++i) {
        const std::size_t at = c * rows_.stride + i;
        // Without an iteration or a row the seed itself.
        means[at] = size_of(c) == 0 ? static_cast<double>(codes_[at])
                                    : static_cast<double>(sums_[at]) / static_cast<double>(size_of(c));
      }
    }
    return means;
  }

 private:
  ClusterCodes centroids() const { return {rows_.sum, codes_.data(), n_clusters_, rows_.stride}; }
  std::size_t size_of(std::size_t cluster) const { return starts_[cluster + 1] - starts_[cluster]; }

  // k-means++ with squared distances (sums of differences under kAbsoluteDifference) as integers.
  void seed() {
    SplitMix random(task_.seed);
    const std::size_t n = std::min(rows_.n, std::max<std::size_t>(kSeedRowsPerCluster * n_clusters_, 1024));
    std::vector<std::uint8_t> sample(n * rows_.stride);
    std::vector<std::int32_t> lengths(n);
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint8_t* const code = rows_.of(i * rows_.n / n);
      std::copy_n(code, rows_.stride, sample.data() + i * rows_.stride);
      for (std::size_t j = 0; j < rows_.stride; ++j) lengths[i] += std::int32_t{code[j]} * code[j];
    }
    std::vector<std::int64_t> nearest(n, std::int64_t{1} << 40);
    std::vector<bool> taken(n);
    std::vector<std::int32_t> sums(n);
    std::size_t next = random.below(n);
    for (std::size_t c = 0;; ++c) {
      const std::uint8_t* const code = sample.data() + next * rows_.stride;
      std::copy_n(code, rows_.stride, codes_.data() + c * rows_.stride);
      taken[next] = true;
      if (c + 1 == n_clusters_) return;
      for_ranges(n, task_.threads, kSeedBytes / rows_.stride + 1, [&](std::size_t begin, std::size_t end) {
        kernels_.list_scan(rows_.sum, {sample.data() + begin * rows_.stride, rows_.stride, end - begin, code,
                                       sums.data() + begin});
        for (std::size_t i = begin; i < end; ++i) {
          const std::int64_t distance =
              rows_.sum == CodeSum::kDot
                  ? std::int64_t{lengths[i]} + lengths[next] - 2 * std::int64_t{sums[i]}
                  : std::int64_t{sums[i]};
          nearest[i] = std::min(nearest[i], distance);
        }
      });
      const auto total =
          static_cast<std::uint64_t>(std::accumulate(nearest.begin(), nearest.end(), std::int64_t{0}));
      next = 0;
      if (total == 0) {  // only copies of the seeds are left
        while (taken[next]) ++next;
        continue;
      }
      auto left = static_cast<std::int64_t>(random.below(total));
      while (left >= nearest[next]) left -= nearest[next++];
    }
  }

  void assign() {
    ClusterPanel panel(rows_.sum, rows_.stride);
    panel.pack(centroids(), numbers(n_clusters_));
    for_ranges(rows_.n, task_.threads, 1024, [&](std::size_t begin, std::size_t end) {
      panel.nearest(
          kernels_, end - begin, [&](std::size_t i) { return rows_.of(begin + i); }, assigned_.data() + begin,
          keys_.data() + begin);
    });
  }

  // order_ becomes the rows by cluster.
  void group() {
    std::fill(starts_.begin(), starts_.end(), std::size_t{0});
    for (const std::uint32_t cluster : assigned_) ++starts_[cluster + 1];
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
    std::vector<std::size_t> next(starts_.begin(), starts_.end() - 1);
    for (std::size_t row = 0; row < rows_.n; ++row)
      order_[next[assigned_[row]]++] = static_cast<std::uint32_t>(row);
  }

  // Gives each empty cluster the row farthest from its own centroid, whose cluster keeps another row.
  void fill_empty() {
    std::vector<std::uint32_t> empty;
    for (std::size_t c = 0; c < n_clusters_; ++c) {
      if (size_of(c) == 0) empty.push_back(static_cast<std::uint32_t>(c));
    }
    if (empty.empty()) return;
    std::vector<std::int64_t> distance(keys_.begin(), keys_.end());
    if (rows_.sum == CodeSum::kDot) {
      for_ranges(rows_.n, task_.threads, 4096, [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin; row < end; ++row) {
          for (std::size_t i = 0; i < rows_.stride; ++i) {
            const int x = rows_.of(row)[i] - kCodeCentre;
            distance[row] += x * x;
          }
        }
      });
    }
    std::vector<std::uint32_t> far = numbers(rows_.n);
    std::sort(far.begin(), far.end(), [&](std::uint32_t x, std::uint32_t y) {
      return distance[x] != distance[y] ? distance[x] > distance[y] : x < y;
    });
    std::vector<std::size_t> sizes(n_clusters_);
    for (std::size_t c = 0; c < n_clusters_; ++c) sizes[c] = size_of(c);
    std::size_t next = 0;
    for (const std::uint32_t cluster : empty) {
      while (next < far.size() && sizes[assigned_[far[next]]] < 2) ++next;
      if (next == far.size()) break;
      --sizes[assigned_[far[next]]];
      sizes[cluster] = 1;
      assigned_[far[next++]] = cluster;
    }
    group();
  }

  void update() {
    for_ranges(n_clusters_, task_.threads, 16, [&](std::size_t begin, std::size_t end) {
      for (std::size_t c = begin; c < end; ++c) {
        const std::size_t count = size_of(c);
        if (count == 0) continue;
        std::uint32_t* const sum = sums_.data() + c * rows_.stride;
        std::fill_n(sum, rows_.stride, 0U);
        for (std::size_t i = starts_[c]; i < starts_[c + 1]; ++i) {
          const std::uint8_t* const code = rows_.of(order_[i]);
          for (std::size_t j = 0; j < rows_.stride; ++j) sum[j] += code[j];
        }
        for (std::size_t j = 0; j < rows_.stride; ++j) {
          codes_[c * rows_.stride + j] =
              static_cast<std::uint8_t>((2 * std::uint64_t{sum[j]} + count) / (2 * count));
        }
      }
    });
  }

  const Kernels& kernels_;
  const ClusterTraining& task_;
  const ClusterCodes& rows_;
  std::size_t n_clusters_;
  std::vector<std::uint8_t> codes_;  // the centroids, rounded
  std::vector<std::uint32_t> sums_;  // of the codes in each cluster; n < 2^24 rows of codes below 256
  std::vector<std::uint32_t> assigned_;
  std::vector<std::uint32_t> before_;
  std::vector<std::int32_t> keys_;
  std::vector<std::uint32_t> order_;
  std::vector<std::size_t> starts_;
};

}  // namespace

std::vector<double> train_clusters(const Kernels& kernels, const ClusterTraining& training) {
  return Trainer(kernels, training).run();
}

void decode_centroids(const CodeModel& model, const double* means, std::size_t n, std::size_t dim,
                      float* centroids) {
  for (std::size_t c = 0; c < n; ++c) {
    for (std::size_t j = 0; j < dim; ++j) {
      const double offset = (means[c * code_stride(dim) + j] - kCodeCentre) / model.scale;
      centroids[c * dim + j] = static_cast<float>(double{model.mean[j]} + offset);
    }
  }
}

void encode_centroids(const CodeModel& model, const float* centroids, std::size_t n, std::size_t dim,
                      std::uint8_t* codes) {
  const std::size_t stride = code_stride(dim);
  // Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, ties to even.
  constexpr double kMagic = 6'755'399'441'055'744.0;
  for (std::size_t c = 0; c < n; ++c) {
    std::uint8_t* const code = codes + c * stride;
    for (std::size_t j = 0; j < dim; ++j) {
      const double value = (double{centroids[c * dim + j]} - double{model.mean[j]}) * model.scale;
      const double limited =
          value >= -kCodeReach ? std::min<double>(value, kCodeReach) : -kCodeReach;  // NaN too
      code[j] = static_cast<std::uint8_t>(static_cast<int>((limited + kMagic) - kMagic) + kCodeCentre);
    }
    std::fill(code + dim, code + stride, static_cast<std::uint8_t>(kCodeCentre));
  }
}

void assign_clusters(const Kernels& kernels, const ClusterCodes& rows, const ClusterCodes& centroids,
                     std::uint32_t* out, std::size_t threads) {
  ClusterPanel panel(rows.sum, rows.stride);
  panel.pack(centroids, numbers(centroids.n));
  for_ranges(rows.n, threads, 1024, [&](std::size_t begin, std::size_t end) {
    std::vector<std::int32_t> keys(end - begin);
    panel.nearest(
        kernels, end - begin, [&](std::size_t i) { return rows.of(begin + i); }, out + begin, keys.data());
  });
}

}  // namespace iqdb
