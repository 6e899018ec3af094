// Exact search, over vectors alone and over stored codes and bounds that are anything, or that are right:
// then both find the same, bit for bit.
#include <vector>

#include "blocks.hpp"
#include "code_search.hpp"
#include "coded.hpp"
#include "search.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider feed(data, size);
  choose_variant(feed);
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 90);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const auto n_queries = feed.ConsumeIntegralInRange<std::size_t>(0, 40);
  const auto metric = static_cast<iqdb::Metric>(feed.ConsumeIntegralInRange<int>(0, 2));
  const bool honest = feed.ConsumeBool();
  const bool masked = feed.ConsumeBool();
  const bool tied = feed.ConsumeBool();
  const std::size_t stride = iqdb::code_stride(dim);
  iqdb::CodeModel model = model_of(feed, dim);
  model.unit_length = metric != iqdb::Metric::kEuclidean;
  iqdb::SearchTask task{};
  task.k = feed.ConsumeIntegralInRange<std::size_t>(1, n);
  const double farthest = feed.ConsumeFloatingPoint<double>();
  if (feed.ConsumeBool() && !std::isnan(farthest)) task.max_distance = farthest;

  const Array<float> vectors(feed, n * dim);
  const Array<float> queries(feed, n_queries * dim);
  const Array<std::uint8_t> mask(feed, (n + 7) / 8);
  const Array<std::int64_t> tie_keys(feed, n);
  const Array<std::uint8_t> codes(feed, n * stride);
  const Array<float> bounds(feed, 2 * n);
  const Array<float> norms(feed, n);
  make_finite(queries);
  if (honest) {
    make_finite(vectors);
    std::vector<std::int32_t> lengths(n);
    model = iqdb::train_codes(metric, vectors.data(), n, dim);
    iqdb::encode_rows(model, vectors.data(), n, dim, codes.data(), lengths.data(), norms.data(),
                      bounds.data(), 1);
  }
  const CheckedBlocks vector_blocks(feed, vectors);
  const CheckedBlocks code_blocks(feed, codes);
  task.vectors = vectors.data();
  task.n = n;
  task.dim = dim;
  task.queries = queries.data();
  task.n_queries = n_queries;
  task.metric = metric;
  task.mask = masked ? mask.data() : nullptr;
  task.tie_keys = tied ? tie_keys.data() : nullptr;
  task.block_table = vector_blocks.table();
  task.width = task.k;

  Found plain(n_queries, task.width);
  plain.take(&task);
  const std::int64_t damaged = iqdb::search(task);
  MUST(damaged < 0 || vector_blocks.may_be_found());
  if (damaged < 0) check_rows(plain.rows, plain.counts, task.width, n);

  iqdb::CodedRows coded{&model, codes.data(), stride, bounds.data(), nullptr, 0.0f, code_blocks.table()};
  if (metric == iqdb::Metric::kDot) {
    coded.norms = norms.data();
    coded.least_u = iqdb::least_inverse(norms.data(), n);
  }
  Found found(n_queries, task.width);
  found.take(&task);
  const iqdb::CodeSearchResult result = iqdb::search_codes(task, coded);
  using Part = iqdb::CodeSearchResult::Part;
  MUST(result.damaged != Part::kCodes || code_blocks.may_be_found());
  MUST(result.damaged != Part::kVectors || vector_blocks.may_be_found());
  if (result.damaged != Part::kNone) return 0;
  check_rows(found.rows, found.counts, task.width, n);
  if (!honest || damaged >= 0) return 0;
  found.must_be(plain, task.width);
  return 0;
}
