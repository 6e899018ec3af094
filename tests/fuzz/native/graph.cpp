// Searches by graphs whose neighbours, entries, codes, lengths and norms are anything.
#include "blocks.hpp"
#include "coded.hpp"
#include "graph_search.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider feed(data, size);
  choose_variant(feed);
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 24);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const auto degree = feed.ConsumeIntegralInRange<std::size_t>(1, 9);
  const auto n_queries = feed.ConsumeIntegralInRange<std::size_t>(0, 2);
  const std::size_t stride = iqdb::code_stride(dim);
  const auto metric = static_cast<iqdb::Metric>(feed.ConsumeIntegralInRange<int>(0, 3));
  const bool in_range = feed.ConsumeBool();
  const iqdb::CodeModel model = model_of(feed, dim);
  const Array<std::uint32_t> entries(feed, feed.ConsumeIntegralInRange<std::size_t>(0, 4));
  const Array<std::uint32_t> links(feed, n * degree);
  const Array<std::int32_t> lengths(feed, n);
  const Array<float> norms(feed, n);
  const Array<float> queries(feed, n_queries * dim);
  const Array<std::uint8_t> mask(feed, (n + 7) / 8);
  const Array<std::uint8_t> codes(feed, n * stride);
  const Array<float> vectors(feed, n * dim);
  const Array<std::uint8_t> coarse(feed, n * iqdb::coarse_stride(stride));
  const Array<std::int32_t> coarse_lengths(feed, n);
  make_finite(queries);
  // Most numbers of nodes near the limit, so that walks go somewhere.
  for (std::size_t i = 0; i < links.size() && in_range; ++i) links[i] %= static_cast<std::uint32_t>(n + 2);
  for (std::size_t i = 0; i < entries.size() && in_range; ++i)
    entries[i] %= static_cast<std::uint32_t>(n + 2);

  iqdb::GraphSearch task{};
  const auto sum =
      metric == iqdb::Metric::kManhattan ? iqdb::CodeSum::kAbsoluteDifference : iqdb::CodeSum::kDot;
  task.graph.codes = {
      sum, codes.data(), lengths.data(), metric == iqdb::Metric::kDot ? norms.data() : nullptr, n, stride};
  if (feed.ConsumeBool()) {
    task.graph.codes.coarse = coarse.data();
    task.graph.codes.coarse_lengths = coarse_lengths.data();
  }
  const CheckedBlocks code_blocks(feed, codes);
  const CheckedBlocks coarse_blocks(feed, coarse);
  const CheckedBlocks link_blocks(feed, links);
  const CheckedBlocks vector_blocks(feed, vectors);
  const bool coarsely = task.graph.codes.coarse != nullptr;
  task.blocks = {code_blocks.table(), coarsely ? coarse_blocks.table() : nullptr, link_blocks.table()};
  task.vector_blocks = vector_blocks.table();
  task.graph.links = links.data();
  task.graph.degree = degree;
  task.graph.entries = entries.span();
  task.model = &model;
  task.metric = metric;
  task.vectors = vectors.data();
  task.dim = dim;
  task.queries = queries.data();
  task.n_queries = n_queries;
  task.k = feed.ConsumeIntegralInRange<std::size_t>(1, n);
  task.breadth = feed.ConsumeIntegralInRange<std::size_t>(task.k, 40);
  task.scored = feed.ConsumeIntegralInRange<std::size_t>(task.k, 40);
  task.mask = feed.ConsumeBool() ? mask.data() : nullptr;
  task.filtered = task.mask != nullptr && feed.ConsumeBool();
  task.max_distance = HUGE_VAL;
  task.threads = 1;
  task.width = task.k;
  std::vector<std::int64_t> rows(n_queries * task.width, -1);
  std::vector<double> distances(rows.size());
  std::vector<std::int64_t> counts(n_queries);
  std::vector<std::int64_t> visited(2 * n_queries);
  task.rows = rows.data();
  task.distances = distances.data();
  task.counts = counts.data();
  task.visited = visited.data();
  const int damaged = iqdb::search_graph(iqdb::kernels(), task).part;
  const CheckedBlocks* const parts[] = {&code_blocks, &link_blocks, &vector_blocks, &coarse_blocks};
  MUST(damaged == 0 || parts[damaged - 1]->may_be_found());
  if (damaged == 0) check_rows(rows, counts, task.width, n);
  return 0;
}
