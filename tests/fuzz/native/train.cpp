// Training: clusters, product codebooks, links by inner products. Whatever trains, the number of threads and
// the CPU's instructions make no difference.
#include <algorithm>
#include <cstring>
#include <vector>

#include "coded.hpp"
#include "graph_build.hpp"
#include "graph_products.hpp"
#include "ivf_product_train.hpp"
#include "ivf_train.hpp"

namespace {

template <class T>
bool same(const std::vector<T>& one, const std::vector<T>& other) {
  return one.size() == other.size() &&
         (one.empty() || std::memcmp(one.data(), other.data(), one.size() * sizeof(T)) == 0);
}

// Calls with every set of kernels, and with one thread and two; all must return the same.
template <class Call>
auto everywhere(const Call& call) {
  const auto first = call(iqdb::kernels(), 1);
  for (const std::string& name : iqdb::variant_names()) {
    iqdb::select_variant(name);
    MUST(same(first, call(iqdb::kernels(), 2)));
  }
  return first;
}

void clusters(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 90);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const auto n_clusters = feed.ConsumeIntegralInRange<std::size_t>(1, n);
  const bool absolute = feed.ConsumeBool();
  const auto iterations = feed.ConsumeIntegralInRange<std::size_t>(1, 5);
  const auto seed = feed.ConsumeIntegral<std::uint64_t>();
  const std::size_t stride = iqdb::code_stride(dim);
  const iqdb::CodeModel model = model_of(feed, dim);
  const Array<std::uint8_t> codes(feed, n * stride);
  // Codes are made from vectors before anything is trained on them: they have seven bits, and none is 0.
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(codes[i] % 127 + 1);
  const iqdb::CodeSum sum = absolute ? iqdb::CodeSum::kAbsoluteDifference : iqdb::CodeSum::kDot;
  const iqdb::ClusterCodes rows{sum, codes.data(), n, stride};
  const std::vector<double> means = everywhere([&](const iqdb::Kernels& kernels, std::size_t threads) {
    return iqdb::train_clusters(kernels, {rows, n_clusters, iterations, seed, threads});
  });
  MUST(means.size() == n_clusters * stride);
  for (const double mean : means) MUST(mean >= 1 && mean <= 127);
  std::vector<float> centroids(n_clusters * dim);
  iqdb::decode_centroids(model, means.data(), n_clusters, dim, centroids.data());
  std::vector<std::uint8_t> coded(n_clusters * stride);
  iqdb::encode_centroids(model, centroids.data(), n_clusters, dim, coded.data());
  const auto lists = everywhere([&](const iqdb::Kernels& kernels, std::size_t threads) {
    std::vector<std::uint32_t> assigned(n);
    iqdb::assign_clusters(kernels, rows, {sum, coded.data(), n_clusters, stride}, assigned.data(), threads);
    return assigned;
  });
  for (const std::uint32_t list : lists) MUST(list < n_clusters);
}

void books(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 60);
  const auto part_dim = feed.ConsumeIntegralInRange<std::size_t>(1, 6);
  const auto parts = feed.ConsumeIntegralInRange<std::size_t>(1, 6);
  const auto words = feed.ConsumeIntegralInRange<std::size_t>(1, n);
  const bool absolute = feed.ConsumeBool();
  const auto iterations = feed.ConsumeIntegralInRange<std::size_t>(1, 5);
  const auto seed = feed.ConsumeIntegral<std::uint64_t>();
  const Array<float> points(feed, n * parts * part_dim);
  make_finite(points);
  // Rows are scaled before anything is trained on them; sums of such squares stay finite.
  for (std::size_t i = 0; i < points.size(); ++i) points[i] = std::clamp(points[i], -1e6F, 1e6F);
  const iqdb::ProductPoints task{absolute, points.data(), n, parts * part_dim, parts, words};
  const auto trained = everywhere([&](const iqdb::Kernels& kernels, std::size_t threads) {
    std::vector<float> out(parts * words * part_dim);
    iqdb::train_books(kernels, task, iterations, seed, out.data(), threads);
    return out;
  });
  const auto codes = everywhere([&](const iqdb::Kernels& kernels, std::size_t threads) {
    std::vector<std::uint8_t> out(n * parts);
    iqdb::encode_products(kernels, task, trained.data(), out.data(), threads);
    return out;
  });
  for (const std::uint8_t word : codes) MUST(word < words);
}

// What product codes are made from, and the terms of rows that are coded.
void residuals(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(0, 60);
  const auto part_dim = feed.ConsumeIntegralInRange<std::size_t>(1, 6);
  const auto parts = feed.ConsumeIntegralInRange<std::size_t>(1, 6);
  const auto words = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const auto n_lists = feed.ConsumeIntegralInRange<std::size_t>(1, 9);
  const auto factor = feed.ConsumeFloatingPoint<double>();
  const std::size_t dim = part_dim * parts;
  const Array<float> centroids(feed, n_lists * dim);
  const Array<float> books(feed, parts * words * part_dim);
  const Array<std::uint32_t> assigned(feed, n);
  const Array<std::uint8_t> codes(feed, n * parts);
  const Array<float> rows(feed, n * dim);
  // As the binding has checked them.
  for (std::size_t i = 0; i < n; ++i) assigned[i] %= static_cast<std::uint32_t>(n_lists);
  for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(codes[i] % words);
  make_finite(rows);
  make_finite(centroids);
  make_finite(books);
  const auto out = everywhere([&](const iqdb::Kernels&, std::size_t threads) {
    std::vector<float> found(n * dim);
    iqdb::product_residuals({rows.data(), n, dim, centroids.data(), assigned.data()}, factor, found.data(),
                            threads);
    return found;
  });
  MUST(out.size() == n * dim);
  const auto terms = everywhere([&](const iqdb::Kernels&, std::size_t threads) {
    std::vector<float> found(n);
    iqdb::product_terms({.codes = codes.data(),
                         .n = n,
                         .dim = dim,
                         .parts = parts,
                         .words = words,
                         .books = books.data(),
                         .centroids = centroids.data(),
                         .assigned = assigned.data()},
                        found.data(), threads);
    return found;
  });
  for (const float term : terms) MUST(std::isfinite(term) && term >= 0);
}

// Links by inner products begin at a thousand nodes, more than an input fills: it is repeated over them.
void products(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1020, 1060);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 33);
  const auto m = feed.ConsumeIntegralInRange<std::size_t>(1, 4);
  const bool in_range = feed.ConsumeBool();
  const bool coarsely = feed.ConsumeBool();
  const bool whole = feed.ConsumeBool();
  const std::size_t stride = iqdb::code_stride(dim);
  const iqdb::CodeModel model = model_of(feed, dim);
  const auto ef_construction = feed.ConsumeIntegralInRange<std::size_t>(1, 30);
  const auto n_entries = feed.ConsumeIntegralInRange<std::size_t>(0, 4);
  const auto n_fresh = feed.ConsumeIntegralInRange<std::size_t>(0, 24);
  std::uint64_t state = feed.ConsumeIntegral<std::uint64_t>();
  const std::vector<std::uint8_t> given = feed.ConsumeRemainingBytes<std::uint8_t>();
  std::size_t at = 0;
  const auto next = [&] {
    state = state * 6364136223846793005 + 1442695040888963407;
    const std::uint8_t byte = given.empty() ? 0 : given[at++ % given.size()];
    return static_cast<std::uint32_t>(state >> 32) ^ byte * 0x01010101U;
  };
  std::vector<std::uint8_t> codes(n * stride);
  for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(next());
  std::vector<std::int32_t> lengths(n);
  std::vector<float> norms(n);
  for (std::size_t i = 0; i < n; ++i) {
    lengths[i] = static_cast<std::int32_t>(next());
    const std::uint32_t word = next();
    if (state >> 63 != 0) {
      std::memcpy(&norms[i], &word, sizeof word);
    } else {
      norms[i] = static_cast<float>(word % 1000) / 100;
    }
  }
  std::vector<std::uint8_t> coarse(n * iqdb::coarse_stride(stride));
  std::vector<std::int32_t> coarse_lengths(n);
  iqdb::coarsen_codes(codes.data(), n, stride, coarse.data(), coarse_lengths.data(), 1);
  std::vector<std::uint32_t> links(n * 2 * m);
  for (std::uint32_t& link : links) {
    // As the binding has checked them: nodes, or none.
    link = next() % static_cast<std::uint32_t>(n + (in_range ? 0 : 1));
    if (link == n) link = iqdb::kNoNode;
  }
  std::vector<std::uint32_t> entries(whole ? 1 + n_entries : n_entries);
  for (std::uint32_t& entry : entries) entry = next() % static_cast<std::uint32_t>(n);
  std::vector<std::uint32_t> fresh;
  for (std::size_t i = 0; i < n_fresh; ++i) fresh.push_back(static_cast<std::uint32_t>((i * 37 + 5) % n));

  const auto made = everywhere([&](const iqdb::Kernels& kernels, std::size_t threads) {
    std::vector<std::uint32_t> out = links;
    iqdb::GraphBuild build{};
    build.codes = {iqdb::CodeSum::kDot, codes.data(), lengths.data(), nullptr, n, stride};
    if (coarsely) {
      build.codes.coarse = coarse.data();
      build.codes.coarse_lengths = coarse_lengths.data();
    }
    build.links = out.data();
    build.degree = 2 * m;
    build.m = m;
    build.ef_construction = ef_construction;
    build.threads = threads;
    build.seed = state;
    build.fresh = fresh;
    build.entries = entries;
    build.model = &model;
    build.norms = norms.data();
    if (whole) {
      iqdb::extend_graph(kernels, build);
    } else {
      iqdb::link_products(kernels, build);
    }
    return out;
  });
  for (const std::uint32_t link : made) MUST(link == iqdb::kNoNode || link < n);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider feed(data, size);
  choose_variant(feed);
  switch (feed.ConsumeIntegralInRange<int>(0, 3)) {
    case 0:
      clusters(feed);
      break;
    case 1:
      books(feed);
      break;
    case 2:
      residuals(feed);
      break;
    default:
      products(feed);
  }
  return 0;
}
