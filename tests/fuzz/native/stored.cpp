// What else reads arrays of a file: the check of a graph's links, carrying a graph and lists over to another
// snapshot, coarse codes, product codes, values under filters, finite components.
#include <cmath>
#include <vector>

#include "coded.hpp"
#include "graph_build.hpp"
#include "graph_check.hpp"
#include "ivf_product.hpp"
#include "ivf_product_train.hpp"
#include "ivf_train.hpp"

namespace {

// Numbers of nodes, most of them near the limit.
Array<std::uint32_t> nodes(FuzzedDataProvider& feed, std::size_t count, std::size_t n, bool in_range) {
  Array<std::uint32_t> out(feed, count);
  for (std::size_t i = 0; i < count && in_range; ++i) {
    if (out[i] != iqdb::kNoNode) out[i] %= static_cast<std::uint32_t>(n + 1);
  }
  return out;
}

void check(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(0, 60);
  const auto degree = feed.ConsumeIntegralInRange<std::size_t>(1, 12);
  const bool in_range = feed.ConsumeBool();
  const auto threads = feed.ConsumeIntegralInRange<std::size_t>(1, 2);
  const Array<std::uint32_t> entries =
      nodes(feed, feed.ConsumeIntegralInRange<std::size_t>(0, 5), n, in_range);
  const Array<std::uint32_t> links = nodes(feed, n * degree, n, in_range);
  const iqdb::GraphFaults found = iqdb::check_graph(links.data(), n, degree, entries.span(), threads);
  for (std::size_t kind = 0; kind < iqdb::kGraphFaults; ++kind) {
    MUST(found.count[kind] <= n * degree);
    MUST(found.count[kind] == 0 || found.first_node[kind] < n);
  }
  MUST(found.unreachable <= n);
  MUST(found.unreachable == 0 || found.first_unreachable < n);
  // The reachable ones, counted in another way.
  std::vector<bool> seen(n);
  std::vector<std::uint32_t> todo;
  for (std::size_t i = 0; i < entries.size(); ++i) todo.push_back(entries[i]);
  std::size_t reached = 0;
  while (!todo.empty()) {
    const std::uint32_t node = todo.back();
    todo.pop_back();
    if (node >= n || seen[node]) continue;
    seen[node] = true;
    ++reached;
    for (std::size_t i = 0; i < degree; ++i) todo.push_back(links[node * degree + i]);
  }
  MUST(found.unreachable == n - reached);
}

// A graph of a file, carried over to rows of which some are gone and others new, as a compaction does.
void carry(FuzzedDataProvider& feed) {
  const auto old_n = feed.ConsumeIntegralInRange<std::size_t>(1, 30);
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 30);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 33);
  const auto m = feed.ConsumeIntegralInRange<std::size_t>(1, 4);
  const bool absolute = feed.ConsumeBool();
  const bool in_range = feed.ConsumeBool();
  iqdb::GraphBuild build{};
  build.ef_construction = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  build.threads = feed.ConsumeIntegralInRange<std::size_t>(1, 2);
  build.seed = feed.ConsumeIntegral<std::uint64_t>();
  const std::size_t stride = iqdb::code_stride(dim);
  const Array<std::uint32_t> entries =
      nodes(feed, feed.ConsumeIntegralInRange<std::size_t>(0, 4), old_n, in_range);
  const Array<std::uint32_t> old_links = nodes(feed, old_n * 2 * m, old_n, in_range);
  const Array<std::uint32_t> target = nodes(feed, old_n, n, true);
  const Array<std::int32_t> lengths(feed, n);
  const Array<std::uint8_t> codes(feed, n * stride);
  // Each new row comes from one old row at most: this is not of the file, and checked before.
  std::vector<bool> taken(n);
  for (std::size_t i = 0; i < old_n; ++i) {
    if (target[i] >= n || taken[target[i]]) {
      target[i] = iqdb::kNoNode;
    } else {
      taken[target[i]] = true;
    }
  }
  std::vector<std::uint32_t> links(n * 2 * m, iqdb::kNoNode);
  build.codes = {absolute ? iqdb::CodeSum::kAbsoluteDifference : iqdb::CodeSum::kDot,
                 codes.data(),
                 lengths.data(),
                 nullptr,
                 n,
                 stride};
  build.links = links.data();
  build.degree = 2 * m;
  build.m = m;
  iqdb::carry_graph(iqdb::kernels(), build, old_links.data(), old_n, entries.span(), target.data());
  std::vector<std::uint32_t> fresh;
  for (std::size_t row = 0; row < n; ++row) {
    if (!taken[row]) fresh.push_back(static_cast<std::uint32_t>(row));
  }
  build.fresh = fresh;
  iqdb::extend_graph(iqdb::kernels(), build);
  for (const std::uint32_t node : build.entries) MUST(node < n);
  // What is derived stays as it was: a node that named itself does so still.
  for (const std::uint32_t link : links) MUST(link == iqdb::kNoNode || link < n);
}

void lists(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const auto part_dim = feed.ConsumeIntegralInRange<std::size_t>(1, 5);
  const auto parts = feed.ConsumeIntegralInRange<std::size_t>(1, 8);
  const auto n_lists = feed.ConsumeIntegralInRange<std::size_t>(1, 9);
  const auto n_words = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const bool absolute = feed.ConsumeBool();
  const auto threads = feed.ConsumeIntegralInRange<std::size_t>(1, 2);
  const std::size_t dim = part_dim * parts;
  const std::size_t stride = iqdb::code_stride(dim);
  const iqdb::CodeSum sum = absolute ? iqdb::CodeSum::kAbsoluteDifference : iqdb::CodeSum::kDot;
  const iqdb::CodeModel model = model_of(feed, dim);
  const Array<float> centroids(feed, n_lists * dim);
  const Array<float> points(feed, n * dim);
  const Array<float> books(feed, parts * n_words * part_dim);
  const Array<std::uint8_t> codes(feed, n * stride);

  std::vector<std::uint8_t> centroid_codes(n_lists * stride);
  iqdb::encode_centroids(model, centroids.data(), n_lists, dim, centroid_codes.data());
  std::vector<std::uint32_t> assigned(n);
  iqdb::assign_clusters(iqdb::kernels(), {sum, codes.data(), n, stride},
                        {sum, centroid_codes.data(), n_lists, stride}, assigned.data(), threads);
  for (const std::uint32_t list : assigned) MUST(list < n_lists);

  std::vector<std::uint8_t> products(n * parts);
  const iqdb::ProductPoints product{absolute, points.data(), n, dim, parts, n_words};
  iqdb::encode_products(iqdb::kernels(), product, books.data(), products.data(), threads);
  for (const std::uint8_t word : products) MUST(word < n_words);

  std::vector<std::uint8_t> coarse(n * iqdb::coarse_stride(stride));
  std::vector<std::int32_t> coarse_lengths(n);
  iqdb::coarsen_codes(codes.data(), n, stride, coarse.data(), coarse_lengths.data(), threads);
  std::vector<std::uint8_t> encoded(n * stride);
  std::vector<std::int32_t> lengths(n);
  std::vector<float> norms(n);
  std::vector<float> bounds(2 * n);
  iqdb::encode_rows(model, points.data(), n, dim, encoded.data(), lengths.data(), norms.data(), bounds.data(),
                    threads);
}

template <class T>
void within(FuzzedDataProvider& feed, void (*kernel)(const T*, std::size_t, T, T, std::uint64_t*)) {
  T low{};
  T high{};
  feed.ConsumeData(&low, sizeof low);
  feed.ConsumeData(&high, sizeof high);
  const Array<T> values(feed, feed.remaining_bytes() / sizeof(T));
  std::vector<std::uint64_t> words((values.size() + 63) / 64);
  kernel(values.data(), values.size(), low, high, words.data());
  for (std::size_t i = 0; i < 64 * words.size(); ++i) {
    const bool in = i < values.size() && low <= values[i] && values[i] <= high;
    MUST((words[i / 64] >> i % 64 & 1) == (in ? 1U : 0U));
  }
}

void finite(FuzzedDataProvider& feed) {
  const Array<float> values(feed, feed.remaining_bytes() / sizeof(float));
  std::size_t first = 0;
  while (first < values.size() && std::isfinite(values[first])) ++first;
  MUST(iqdb::kernels().first_non_finite(values.data(), values.size()) == first);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider feed(data, size);
  choose_variant(feed);
  switch (feed.ConsumeIntegralInRange<int>(0, 5)) {
    case 0:
      check(feed);
      break;
    case 1:
      carry(feed);
      break;
    case 2:
      lists(feed);
      break;
    case 3:
      within(feed, iqdb::kernels().within_int64);
      break;
    case 4:
      within(feed, iqdb::kernels().within_float64);
      break;
    default:
      finite(feed);
  }
  return 0;
}
