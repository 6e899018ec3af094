// Compiled with -ffp-contract=off: words are stored, so they must not depend on whether a CPU fuses. Parts
// are independent and each is one thread's, so that they do not depend on the number of threads either.
#include "ivf_product_train.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "random.hpp"
#include "ranges.hpp"

namespace iqdb {
namespace {

// The words of one part as WordTask wants them.
class PartWords {
 public:
  PartWords(bool absolute, std::size_t dim)
      : absolute_(absolute), dim_(dim), words_(dim * kMaxWords), terms_(kMaxWords) {}

  void set(const float* book, std::size_t count) {
    lanes_ = count <= kHalfWords ? kHalfWords : (count + kWordLanes - 1) / kWordLanes * kWordLanes;
    std::fill(terms_.begin(), terms_.end(), std::numeric_limits<float>::infinity());
    for (std::size_t word = 0; word < count; ++word) {
      float term = 0.0f;
      for (std::size_t i = 0; i < dim_; ++i) {
        const float x = book[word * dim_ + i];
        words_[i * kMaxWords + word] = x;
        if (!absolute_) term += x * x;
      }
      terms_[word] = term;
    }
  }
  void nearest(const Kernels& kernels, const float* points, std::size_t n, std::uint8_t* best,
               float* keys) const {
    kernels.nearest_words(absolute_, {points, n, dim_, words_.data(), lanes_, terms_.data(), best, keys});
  }

 private:
  bool absolute_;
  std::size_t dim_;
  std::size_t lanes_ = 0;
  std::vector<float> words_;
  std::vector<float> terms_;
};

std::vector<float> part_of(const ProductPoints& points, std::size_t part, std::size_t begin,
                           std::size_t end) {
  const std::size_t dim = points.part_dim();
  std::vector<float> out((end - begin) * dim);
  for (std::size_t i = begin; i < end; ++i) {
    std::copy_n(points.points + i * points.dim + part * dim, dim, out.data() + (i - begin) * dim);
  }
  return out;
}

void train_part(const Kernels& kernels, const ProductPoints& points, std::size_t part, std::size_t iterations,
                std::uint64_t seed, float* book) {
  const std::size_t dim = points.part_dim();
  const std::vector<float> items = part_of(points, part, 0, points.n);
  std::vector<std::uint32_t> order(points.n);
  std::iota(order.begin(), order.end(), 0U);
  SplitMix random(seed + part);
  for (std::size_t word = 0; word < points.words; ++word) {
    std::swap(order[word], order[word + random.below(points.n - word)]);
    std::copy_n(items.data() + order[word] * dim, dim, book + word * dim);
  }
  PartWords words(points.absolute, dim);
  std::vector<std::uint8_t> best(points.n);
  std::vector<float> keys(points.n);
  std::vector<double> sums(points.words * dim);
  std::vector<std::size_t> counts(points.words);
  for (std::size_t iteration = 0; iteration < iterations; ++iteration) {
    words.set(book, points.words);
    words.nearest(kernels, items.data(), points.n, best.data(), keys.data());
    std::fill(sums.begin(), sums.end(), 0.0);
    std::fill(counts.begin(), counts.end(), std::size_t{0});
    for (std::size_t i = 0; i < points.n; ++i) {
      ++counts[best[i]];
      for (std::size_t j = 0; j < dim; ++j) sums[best[i] * dim + j] += double{items[i * dim + j]};
    }
    for (std::size_t word = 0; word < points.words; ++word) {
      for (std::size_t j = 0; j < dim && counts[word] > 0; ++j) {
        book[word * dim + j] = static_cast<float>(sums[word * dim + j] / static_cast<double>(counts[word]));
      }
      if (counts[word] == 0) {  // starts again from another point
        std::copy_n(items.data() + random.below(points.n) * dim, dim, book + word * dim);
      }
    }
  }
}

}  // namespace

void train_books(const Kernels& kernels, const ProductPoints& points, std::size_t iterations,
                 std::uint64_t seed, float* books, std::size_t threads) {
  for_ranges(points.parts, threads, 1, [&](std::size_t begin, std::size_t end) {
    for (std::size_t part = begin; part < end; ++part) {
      train_part(kernels, points, part, iterations, seed, books + part * points.words * points.part_dim());
    }
  });
}

void encode_products(const Kernels& kernels, const ProductPoints& points, const float* books,
                     std::uint8_t* codes, std::size_t threads) {
  constexpr std::size_t kAtOnce = 1024;
  std::vector<PartWords> parts;
  for (std::size_t part = 0; part < points.parts; ++part) {
    parts.emplace_back(points.absolute, points.part_dim())
        .set(books + part * points.words * points.part_dim(), points.words);
  }
  for_ranges(points.n, threads, kAtOnce, [&](std::size_t begin, std::size_t end) {
    std::vector<std::uint8_t> best(kAtOnce);
    for (std::size_t first = begin; first < end; first += kAtOnce) {
      const std::size_t last = std::min(end, first + kAtOnce);
      for (std::size_t part = 0; part < points.parts; ++part) {
        const std::vector<float> items = part_of(points, part, first, last);
        parts[part].nearest(kernels, items.data(), last - first, best.data(), nullptr);
        for (std::size_t i = first; i < last; ++i) codes[i * points.parts + part] = best[i - first];
      }
    }
  });
}

void product_residuals(const ProductRows& rows, double factor, float* out, std::size_t threads) {
  for_ranges(rows.n, threads, 1024, [&](std::size_t begin, std::size_t end) {
    for (std::size_t row = begin; row < end; ++row) {
      const float* const x = rows.rows + row * rows.dim;
      const float* const centroid = rows.centroids + rows.assigned[row] * rows.dim;
      float* const to = out + row * rows.dim;
      for (std::size_t j = 0; j < rows.dim; ++j)
        to[j] = static_cast<float>((double{x[j]} - double{centroid[j]}) * factor);
    }
  });
}

void product_terms(const ProductCoded& coded, float* terms, std::size_t threads) {
  // A sum in the order of the components is a chain, so that some rows are summed side by side.
  constexpr std::size_t kAbreast = 4;
  const std::size_t part_dim = coded.dim / coded.parts;
  for_ranges(coded.n, threads, 1024, [&](std::size_t begin, std::size_t end) {
    for (std::size_t start = begin; start < end; start += kAbreast) {
      const std::size_t count = std::min(kAbreast, end - start);
      double sums[kAbreast] = {};
      const float* centroid[kAbreast];
      const std::uint8_t* code[kAbreast];
      for (std::size_t i = 0; i < kAbreast; ++i) {
        const std::size_t row = start + std::min(i, count - 1);
        centroid[i] = coded.centroids + coded.assigned[row] * coded.dim;
        code[i] = coded.codes + row * coded.parts;
      }
      for (std::size_t part = 0; part < coded.parts; ++part) {
        const float* const book = coded.books + part * coded.words * part_dim;
        for (std::size_t j = 0; j < part_dim; ++j) {
          for (std::size_t i = 0; i < kAbreast; ++i) {
            const double x =
                double{book[code[i][part] * part_dim + j]} + double{centroid[i][part * part_dim + j]};
            sums[i] += x * x;
          }
        }
      }
      for (std::size_t i = 0; i < count; ++i) {
        constexpr double kMost = std::numeric_limits<float>::max();
        terms[start + i] = static_cast<float>(kMost < sums[i] ? kMost : sums[i]);
      }
    }
  });
}

}  // namespace iqdb
