// The module's functions that train inverted lists. As in bindings.cpp, shapes are checked here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "bindings_codes.hpp"
#include "buffers.hpp"
#include "codes.hpp"
#include "dispatch.hpp"
#include "ivf_product.hpp"
#include "ivf_product_train.hpp"
#include "ivf_train.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace iqdb {
namespace {

// Sums of codes in a cluster are held in 32 bits.
constexpr std::size_t kMaxTrainingRows = std::size_t{1} << 24;

ClusterCodes cluster_codes(Metric metric, const Buffer<const std::uint8_t>& codes, std::size_t dim) {
  return {sum_of(metric), codes.data(), codes.rows(code_stride(dim)), code_stride(dim)};
}

void train(BufferArg model_arg, BufferArg codes_arg, int metric_number, std::int64_t iterations,
           std::uint64_t seed, BufferArg centroids_arg, std::int64_t threads) {
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<float> centroids(centroids_arg, "out_centroids");
  if (centroids.ndim() != 2 || centroids.shape(0) == 0 || centroids.shape(1) == 0) {
    centroids.fail("must be a 2-D buffer that is not empty");
  }
  const std::size_t n_clusters = centroids.shape(0);
  const std::size_t dim = centroids.shape(1);
  const Buffer<const double> model_items(model_arg, "model");
  const CodeModel model = model_of(model_items, dim);
  ClusterTraining task{};
  task.rows = cluster_codes(coded_metric(metric_number), codes, dim);
  if (task.rows.n > kMaxTrainingRows) codes.fail("has more rows than can be trained on");
  if (task.rows.n < n_clusters) codes.fail("has fewer rows than there are centroids");
  task.n_clusters = n_clusters;
  task.iterations = at_least_one(iterations, "iterations");
  task.seed = seed;
  task.threads = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  const std::vector<double> means = train_clusters(kernels(), task);
  decode_centroids(model, means.data(), n_clusters, dim, centroids.data());
}

void assign(BufferArg model_arg, BufferArg centroids_arg, BufferArg codes_arg, int metric_number,
            BufferArg out_arg, std::int64_t threads) {
  const Buffer<const float> centroids(centroids_arg, "centroids");
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<std::uint32_t> out(out_arg, "out");
  const std::size_t dim = dim_of(centroids);
  const Buffer<const double> model_items(model_arg, "model");
  const CodeModel model = model_of(model_items, dim);
  const Metric metric = coded_metric(metric_number);
  const ClusterCodes rows = cluster_codes(metric, codes, dim);
  if (centroids.shape(0) == 0) centroids.fail("must not be empty");
  out.expect_size(rows.n);
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  std::vector<std::uint8_t> centroid_codes(centroids.shape(0) * rows.stride);
  encode_centroids(model, centroids.data(), centroids.shape(0), dim, centroid_codes.data());
  assign_clusters(kernels(), rows, {rows.sum, centroid_codes.data(), centroids.shape(0), rows.stride},
                  out.data(), workers);
}

// Points and the books for them, [parts * words][dim / parts].
template <class T>
ProductPoints product_points(const Buffer<const float>& points, const Buffer<T>& books, std::int64_t parts,
                             bool absolute) {
  const std::size_t dim = dim_of(points);
  const std::size_t count = at_least_one(parts, "parts");
  if (dim % count != 0) throw nb::value_error("parts must divide the components");
  const std::size_t words = books.rows(dim / count) / count;
  if (words == 0 || words > kMaxWords || words * count != books.shape(0))
    books.fail("must have 1 to 256 words for every part");
  return {absolute, points.data(), points.shape(0), dim, count, words};
}

void train_product(BufferArg points_arg, std::int64_t parts, bool absolute, std::int64_t iterations,
                   std::uint64_t seed, BufferArg books_arg, std::int64_t threads) {
  const Buffer<const float> points(points_arg, "points");
  const Buffer<float> books(books_arg, "out_books");
  const ProductPoints task = product_points(points, books, parts, absolute);
  if (task.n < task.words) points.fail("has fewer rows than there are words");
  const std::size_t rounds = at_least_one(iterations, "iterations");
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  train_books(kernels(), task, rounds, seed, books.data(), workers);
}

void encode_product(BufferArg books_arg, BufferArg points_arg, std::int64_t parts, bool absolute,
                    BufferArg codes_arg, std::int64_t threads) {
  const Buffer<const float> points(points_arg, "points");
  const Buffer<const float> books(books_arg, "books");
  const Buffer<std::uint8_t> codes(codes_arg, "out_codes");
  const ProductPoints task = product_points(points, books, parts, absolute);
  codes.expect_size(task.n * task.parts);
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  encode_products(kernels(), task, books.data(), codes.data(), workers);
}

void expect_below(const Buffer<const std::uint32_t>& numbers, std::size_t count) {
  for (const std::uint32_t number : numbers) {
    if (number >= count) numbers.fail("must name centroids");
  }
}

void residuals(BufferArg rows_arg, BufferArg centroids_arg, BufferArg assigned_arg, double factor,
               BufferArg out_arg, std::int64_t threads) {
  const Buffer<const float> rows(rows_arg, "rows");
  const Buffer<const float> centroids(centroids_arg, "centroids");
  const Buffer<const std::uint32_t> assigned(assigned_arg, "assigned");
  const Buffer<float> out(out_arg, "out");
  const std::size_t dim = dim_of(centroids);
  const std::size_t n = rows.rows(dim);
  assigned.expect_size(n);
  out.expect_size(n * dim);
  expect_below(assigned, centroids.shape(0));
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  product_residuals({rows.data(), n, dim, centroids.data(), assigned.data()}, factor, out.data(), workers);
}

void terms(BufferArg books_arg, BufferArg centroids_arg, BufferArg assigned_arg, BufferArg codes_arg,
           std::int64_t parts, BufferArg out_arg, std::int64_t threads) {
  const Buffer<const float> books(books_arg, "books");
  const Buffer<const float> centroids(centroids_arg, "centroids");
  const Buffer<const std::uint32_t> assigned(assigned_arg, "assigned");
  const Buffer<const std::uint8_t> codes(codes_arg, "codes");
  const Buffer<float> out(out_arg, "out");
  const std::size_t dim = dim_of(centroids);
  const std::size_t count = at_least_one(parts, "parts");
  if (dim % count != 0) throw nb::value_error("parts must divide the components");
  const std::size_t words = books.rows(dim / count) / count;
  if (words == 0 || words > kMaxWords || words * count != books.rows(dim / count)) {
    books.fail("must have 1 to 256 words for every part");
  }
  const std::size_t n = codes.rows(count);
  assigned.expect_size(n);
  out.expect_size(n);
  expect_below(assigned, centroids.shape(0));
  for (const std::uint8_t code : codes) {
    if (code >= words) codes.fail("must name words");
  }
  const std::size_t workers = at_least_one(threads, "threads");
  const nb::gil_scoped_release released;
  product_terms({.codes = codes.data(),
                 .n = n,
                 .dim = dim,
                 .parts = count,
                 .words = words,
                 .books = books.data(),
                 .centroids = centroids.data(),
                 .assigned = assigned.data()},
                out.data(), workers);
}

}  // namespace

void bind_ivf(nb::module_& m) {
  m.def(
      "product_residuals", &residuals, "rows"_a, "centroids"_a, "assigned"_a, "factor"_a, "out"_a,
      "threads"_a = 1,
      "out[n][dim] = (row - its centroid) * factor, in float64 until it is stored. `assigned` is uint32[n].");
  m.def("product_terms", &terms, "books"_a, "centroids"_a, "assigned"_a, "codes"_a, "parts"_a, "out"_a,
        "threads"_a = 1,
        "out[n] = the square of the length of what each row is coded as: its centroid and the words that "
        "codes[n][parts] name, summed in float64 in the order of the components; at most the greatest "
        "float32.");
  m.def("train_clusters", &train, "model"_a, "codes"_a, "metric"_a, "iterations"_a, "seed"_a,
        "out_centroids"_a, "threads"_a = 1,
        R"(Train centroids by k-means over codes.

The same arguments give the same centroids on every CPU, for any number of threads.

Args:
    model: float64, as train_codes returns it; the codes were made with it.
    codes: uint8[n, stride], n at least the number of centroids.
    metric: 0 to 3.
    iterations: At most so many.
    seed: Chooses the first centroids.
    out_centroids: float32[c, dim].
    threads: At most so many threads.)");
  m.def("assign_clusters", &assign, "model"_a, "centroids"_a, "codes"_a, "metric"_a, "out"_a, "threads"_a = 1,
        "out[i] (uint32) = the centroid (float32[c, dim]) nearest to code i, the first of equals.");
  m.def("train_product", &train_product, "points"_a, "parts"_a, "absolute"_a, "iterations"_a, "seed"_a,
        "out_books"_a, "threads"_a = 1,
        R"(Train a codebook for each part of points (float32[n, dim]) by k-means.

The same arguments give the same books on every CPU, for any number of threads.

Args:
    points: float32[n, dim], n at least the number of words.
    parts: Divides dim.
    absolute: The nearest word is the one with the least sum of absolute, not of squared differences.
    iterations: As many.
    seed: Chooses the first words.
    out_books: float32[parts * words, dim / parts], at most 256 words.
    threads: At most so many threads.)");
  m.def("encode_product", &encode_product, "books"_a, "points"_a, "parts"_a, "absolute"_a, "out_codes"_a,
        "threads"_a = 1,
        "out_codes[i, part] (uint8) = the word of books that is nearest to that part of point i.");
}

}  // namespace iqdb
