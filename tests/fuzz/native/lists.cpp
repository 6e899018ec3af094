// Searches by inverted lists whose rows, codes, lengths, norms, words and terms are anything.
#include <algorithm>
#include <optional>

#include "blocks.hpp"
#include "coded.hpp"
#include "ivf_search.hpp"
#include "ivf_train.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider feed(data, size);
  choose_variant(feed);
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const auto part_dim = feed.ConsumeIntegralInRange<std::size_t>(1, 4);
  const auto parts = feed.ConsumeIntegralInRange<std::size_t>(1, 10);
  const auto n_words = feed.ConsumeIntegralInRange<std::size_t>(1, 20);
  const auto n_lists = feed.ConsumeIntegralInRange<std::size_t>(1, 6);
  const auto n_queries = feed.ConsumeIntegralInRange<std::size_t>(0, 2);
  const std::size_t dim = part_dim * parts;
  const std::size_t stride = iqdb::code_stride(dim);
  const bool by_product = feed.ConsumeBool();
  auto metric = static_cast<iqdb::Metric>(feed.ConsumeIntegralInRange<int>(0, 3));
  if (by_product && metric == iqdb::Metric::kCosine) metric = iqdb::Metric::kDot;
  const bool in_range = feed.ConsumeBool();
  const iqdb::CodeModel model = model_of(feed, dim);
  const Array<std::uint32_t> rows(feed, n);
  const Array<std::uint64_t> offsets(feed, n_lists + 1);
  const Array<std::int32_t> lengths(feed, n);
  const Array<float> norms(feed, n);
  const Array<float> terms(feed, n);
  const Array<float> queries(feed, n_queries * dim);
  const Array<float> centroids(feed, n_lists * dim);
  const Array<float> books(feed, parts * n_words * part_dim);
  const Array<std::uint8_t> mask(feed, (n + 7) / 8);
  make_finite(queries);
  for (std::size_t i = 0; i < n && in_range; ++i) rows[i] %= static_cast<std::uint32_t>(n + 2);
  // Offsets are checked when lists are opened: they ascend from 0 to n.
  for (std::size_t i = 0; i <= n_lists; ++i) offsets[i] %= n + 1;
  std::sort(offsets.data(), offsets.data() + offsets.size());
  offsets[0] = 0;
  offsets[n_lists] = n;

  std::vector<std::uint8_t> centroid_codes(n_lists * stride);
  std::vector<std::int32_t> centroid_lengths(n_lists);
  iqdb::encode_centroids(model, centroids.data(), n_lists, dim, centroid_codes.data());
  for (std::size_t i = 0; i < centroid_codes.size(); ++i) {
    centroid_lengths[i / stride] += std::int32_t{centroid_codes[i]} * centroid_codes[i];
  }
  iqdb::Lists lists{};
  lists.metric = metric;
  lists.model = &model;
  lists.n = n;
  lists.dim = dim;
  lists.centroids = centroids.data();
  lists.centroid_codes = centroid_codes.data();
  lists.centroid_lengths = centroid_lengths.data();
  lists.offsets = offsets.span();
  lists.rows = rows.data();
  lists.lengths = lengths.data();
  lists.norms = metric == iqdb::Metric::kDot ? norms.data() : nullptr;
  std::optional<iqdb::ProductWords> words;
  std::vector<std::size_t> blocks;
  std::size_t code_bytes = n * stride;
  if (by_product) {
    words.emplace(books.data(), parts, n_words, part_dim);
    lists.product = {
        nullptr, metric == iqdb::Metric::kEuclidean ? terms.data() : nullptr, parts, &*words, {}};
    code_bytes = n * parts;
    if (words->halves) {
      blocks.assign(1, 0);
      for (std::size_t list = 0; list < n_lists; ++list) {
        const std::size_t in_list = offsets[list + 1] - offsets[list];
        blocks.push_back(blocks.back() + (in_list + iqdb::kHalfRows - 1) / iqdb::kHalfRows);
      }
      lists.product.blocks = blocks;
      code_bytes = blocks.back() * lists.product.pairs() * iqdb::kHalfRows;
    }
  }
  const Array<std::uint8_t> codes(feed, code_bytes);
  (by_product ? lists.product.codes : lists.codes) = codes.data();
  const Array<float> vectors(feed, n * dim);

  iqdb::ListSearch task{};
  task.lists = &lists;
  task.vectors = vectors.data();
  task.queries = queries.data();
  task.n_queries = n_queries;
  task.k = feed.ConsumeIntegralInRange<std::size_t>(1, n);
  task.n_probes = feed.ConsumeIntegralInRange<std::size_t>(1, n_lists);
  task.enough = feed.ConsumeIntegralInRange<std::size_t>(0, n);
  task.scored = feed.ConsumeIntegralInRange<std::size_t>(task.k, 60);
  task.mask = feed.ConsumeBool() ? mask.data() : nullptr;
  task.max_distance = HUGE_VAL;
  task.threads = 1;
  task.width = task.k;
  const CheckedBlocks checked[] = {{feed, codes}, {feed, rows},  {feed, lengths}, {feed, norms},
                                   {feed, codes}, {feed, terms}, {feed, vectors}};
  // In the order of ListPart, behind "none"; what a search does not have is not checked either.
  for (std::size_t part = 1; part < iqdb::kListParts; ++part) task.blocks[part] = checked[part - 1].table();
  const bool used[] = {
      !by_product, true, !by_product, lists.norms != nullptr, by_product, lists.product.terms != nullptr,
      true};
  for (std::size_t part = 1; part < iqdb::kListParts; ++part) {
    if (!used[part - 1]) task.blocks[part] = nullptr;
  }
  std::vector<std::int64_t> out_rows(n_queries * task.width, -1);
  std::vector<double> distances(out_rows.size());
  std::vector<std::int64_t> counts(n_queries);
  std::vector<std::int64_t> visited(3 * n_queries);
  task.rows = out_rows.data();
  task.distances = distances.data();
  task.counts = counts.data();
  task.visited = visited.data();
  const auto damaged = static_cast<std::size_t>(iqdb::search_lists(iqdb::kernels(), task).part);
  MUST(damaged == 0 || (checked[damaged - 1].may_be_found() && used[damaged - 1]));
  if (damaged != 0) return 0;
  for (std::size_t query = 0; query < n_queries; ++query) {
    MUST(counts[query] >= 0 && counts[query] <= static_cast<std::int64_t>(task.width));
    for (std::int64_t i = 0; i < counts[query]; ++i) {
      const std::int64_t row = out_rows[query * task.width + static_cast<std::size_t>(i)];
      MUST(row >= 0 && row < static_cast<std::int64_t>(n));
    }
  }
  return 0;
}
