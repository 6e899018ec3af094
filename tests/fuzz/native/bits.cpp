// Codes of a bit a component: finding the values, encoding, exact search by bits that are anything or that
// are right, and graphs over them. Right ones find what a search over the vectors finds, bit for bit.
#include <vector>

#include "bit_search.hpp"
#include "bits.hpp"
#include "blocks.hpp"
#include "coded.hpp"
#include "graph_build.hpp"
#include "graph_search.hpp"
#include "search.hpp"

namespace {

const std::uint32_t* words_of(const Array<float>& items) {
  return reinterpret_cast<const std::uint32_t*>(items.data());
}

struct Bits {
  Bits(FuzzedDataProvider& feed, std::size_t n, std::size_t dim, std::size_t n_queries, bool honest)
      : values(feed, 2 * dim),
        choices(feed, (n * dim + 7) / 8),
        query_choices(feed, (n_queries * dim + 3) / 4),
        vectors(feed, n * dim),
        queries(feed, n_queries * dim),
        codes(feed, n * 8 * iqdb::bit_words(dim)) {
    make_finite(values);
    make_finite(queries);
    for (std::size_t i = 0; i < queries.size(); ++i) {
      const unsigned choice = query_choices[i / 4] >> i % 4 * 2 & 3;
      if (choice < 3) queries[i] = values[choice % 2 * dim + i % dim];
    }
    if (!honest) return;
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      vectors[i] = values[(choices[i / 8] >> i % 8 & 1) * dim + i % dim];
    }
    iqdb::encode_bits(words_of(values), words_of(vectors), n, dim, codes.data(), 1);
  }

  Array<float> values;
  Array<std::uint8_t> choices;
  Array<std::uint8_t> query_choices;
  Array<float> vectors;
  Array<float> queries;
  Array<std::uint8_t> codes;
};

// Whether each component has at most two values, counted in another way; the first rows of `values` count.
bool has_two(const Array<float>& rows, std::size_t n, std::size_t dim, const float* values) {
  const auto* const words = words_of(rows);
  for (std::size_t j = 0; j < dim; ++j) {
    std::vector<std::uint32_t> seen;
    const auto take = [&](std::uint32_t word) {
      for (const std::uint32_t other : seen) {
        if (other == word) return;
      }
      seen.push_back(word);
    };
    for (const float* value : {values + j, values + dim + j}) {
      std::uint32_t word;
      std::memcpy(&word, value, sizeof word);
      take(word);
    }
    for (std::size_t i = 0; i < n; ++i) take(words[i * dim + j]);
    if (seen.size() > 2) return false;
  }
  return true;
}

void find(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(0, 90);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 130);
  const auto threads = feed.ConsumeIntegralInRange<std::size_t>(1, 3);
  const Bits bits(feed, n, dim, 0, feed.ConsumeBool());
  std::vector<float> values(bits.values.data(), bits.values.data() + 2 * dim);
  if (n != 0) {
    std::copy_n(bits.vectors.data(), dim, values.data());
    std::copy_n(bits.vectors.data(), dim, values.data() + dim);
  }
  const bool expected = has_two(bits.vectors, n, dim, values.data());
  auto* const words = reinterpret_cast<std::uint32_t*>(values.data());
  MUST(iqdb::find_values(words_of(bits.vectors), n, dim, words, threads) == expected);
  if (!expected) return;
  std::vector<std::uint8_t> codes(n * 8 * iqdb::bit_words(dim));
  iqdb::encode_bits(words, words_of(bits.vectors), n, dim, codes.data(), threads);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < 64 * iqdb::bit_words(dim); ++j) {
      const unsigned bit = codes[i * 8 * iqdb::bit_words(dim) + j / 8] >> j % 8 & 1;
      MUST(j < dim || bit == 0);
      if (j < dim) MUST(words[bit * dim + j] == words_of(bits.vectors)[i * dim + j]);
    }
  }
}

void search(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 150);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 130);
  const auto n_queries = feed.ConsumeIntegralInRange<std::size_t>(0, 20);
  const bool honest = feed.ConsumeBool();
  const bool masked = feed.ConsumeBool();
  const bool tied = feed.ConsumeBool();
  const bool scored = feed.ConsumeBool();
  iqdb::SearchTask task{};
  task.k = feed.ConsumeIntegralInRange<std::size_t>(1, n);
  const double farthest = feed.ConsumeFloatingPoint<double>();
  if (feed.ConsumeBool() && !std::isnan(farthest)) task.max_distance = farthest;
  const Array<std::uint8_t> mask(feed, (n + 7) / 8);
  const Array<std::int64_t> tie_keys(feed, n);
  const Bits bits(feed, n, dim, n_queries, honest);
  const CheckedBlocks vector_blocks(feed, bits.vectors);
  const CheckedBlocks code_blocks(feed, bits.codes);
  task.vectors = bits.vectors.data();
  task.n = n;
  task.dim = dim;
  task.queries = bits.queries.data();
  task.n_queries = n_queries;
  task.metric = iqdb::Metric::kHamming;
  task.mask = masked ? mask.data() : nullptr;
  task.tie_keys = tied ? tie_keys.data() : nullptr;
  task.block_table = vector_blocks.table();
  task.width = task.k;
  Found plain(n_queries, task.width);
  plain.take(&task);
  const std::int64_t damaged = iqdb::search(task);
  MUST(damaged < 0 || vector_blocks.may_be_found());

  if (!scored) {
    task.vectors = nullptr;
    task.block_table = nullptr;
  }
  Found found(n_queries, task.width);
  found.take(&task);
  using Part = iqdb::BitSearchResult::Part;
  const iqdb::BitSearchResult result =
      iqdb::search_bits(task, {words_of(bits.values), bits.codes.data(), code_blocks.table()});
  MUST(result.damaged != Part::kCodes || code_blocks.may_be_found());
  MUST(result.damaged != Part::kVectors || (scored && vector_blocks.may_be_found()));
  if (result.damaged != Part::kNone) return;
  check_rows(found.rows, found.counts, task.width, n);
  if (honest && damaged < 0) found.must_be(plain, task.width);
}

// A graph over bits: built, or with any links at all, and searched.
void graph(FuzzedDataProvider& feed) {
  const auto n = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
  const auto dim = feed.ConsumeIntegralInRange<std::size_t>(1, 70);
  const auto m = feed.ConsumeIntegralInRange<std::size_t>(1, 4);
  const auto n_queries = feed.ConsumeIntegralInRange<std::size_t>(0, 2);
  const bool built = feed.ConsumeBool();
  const Array<std::uint32_t> links(feed, n * 2 * m);
  const Array<std::uint32_t> entries(feed, feed.ConsumeIntegralInRange<std::size_t>(0, 3));
  const Bits bits(feed, n, dim, n_queries, feed.ConsumeBool());
  iqdb::GraphSearch task{};
  task.graph.codes.sum = iqdb::CodeSum::kBitsThatDiffer;
  task.graph.codes.data = bits.codes.data();
  task.graph.codes.n = n;
  task.graph.codes.stride = 8 * iqdb::bit_words(dim);
  task.graph.links = links.data();
  task.graph.degree = 2 * m;
  task.graph.entries = entries.span();
  std::vector<std::uint32_t> found_entries;
  if (built) {
    iqdb::GraphBuild build{};
    build.codes = task.graph.codes;
    build.links = links.data();
    build.degree = 2 * m;
    build.m = m;
    build.ef_construction = feed.ConsumeIntegralInRange<std::size_t>(1, 40);
    build.threads = 1;
    std::vector<std::uint32_t> fresh(n);
    for (std::size_t i = 0; i < n; ++i) fresh[i] = static_cast<std::uint32_t>(i);
    build.fresh = fresh;
    iqdb::extend_graph(iqdb::kernels(), build);
    for (std::size_t i = 0; i < links.size(); ++i) MUST(links[i] == iqdb::kNoNode || links[i] < n);
    found_entries = build.entries;
    task.graph.entries = found_entries;
  }
  const CheckedBlocks code_blocks(feed, bits.codes);
  const CheckedBlocks link_blocks(feed, links);
  const CheckedBlocks vector_blocks(feed, bits.vectors);
  task.blocks = {code_blocks.table(), nullptr, link_blocks.table()};
  task.vector_blocks = vector_blocks.table();
  task.values = words_of(bits.values);
  task.metric = iqdb::Metric::kHamming;
  task.vectors = bits.vectors.data();
  task.dim = dim;
  task.queries = bits.queries.data();
  task.n_queries = n_queries;
  task.k = feed.ConsumeIntegralInRange<std::size_t>(1, n);
  task.breadth = feed.ConsumeIntegralInRange<std::size_t>(task.k, 50);
  task.scored = feed.ConsumeIntegralInRange<std::size_t>(task.k, 50);
  task.max_distance = HUGE_VAL;
  task.threads = 1;
  task.width = task.k;
  Found found(n_queries, task.width);
  std::vector<std::int64_t> visited(2 * n_queries);
  found.take(&task);
  task.visited = visited.data();
  const int damaged = iqdb::search_graph(iqdb::kernels(), task).part;
  const CheckedBlocks* const parts[] = {&code_blocks, &link_blocks, &vector_blocks};
  MUST(damaged >= 0 && damaged <= 3);
  MUST(damaged == 0 || parts[damaged - 1]->may_be_found());
  if (damaged == 0) check_rows(found.rows, found.counts, task.width, n);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider feed(data, size);
  choose_variant(feed);
  switch (feed.ConsumeIntegralInRange<int>(0, 2)) {
    case 0:
      find(feed);
      break;
    case 1:
      search(feed);
      break;
    default:
      graph(feed);
  }
  return 0;
}
