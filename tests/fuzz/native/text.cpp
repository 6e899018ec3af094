// JSON lines and decimal numbers.
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "arrays.hpp"
#include "dispatch.hpp"
#include "floats.hpp"
#include "jsonl.hpp"

namespace {

void lines(FuzzedDataProvider& feed) {
  iqdb::JsonlOptions options;
  const auto choice = feed.ConsumeIntegral<std::uint8_t>();
  if ((choice & 1) != 0) options.id_field = "id";
  if ((choice & 2) == 0) options.vector_field = "vector";
  if ((choice & 4) != 0) options.metadata_field = "metadata";
  if ((choice & 8) != 0) options.columns = std::vector<std::string>{"n", "s"};
  options.no_metadata = (choice & 16) != 0;
  options.scalars_only = (choice & 32) != 0;
  options.final = (choice & 64) != 0;
  options.max_rows = feed.ConsumeIntegralInRange<std::size_t>(1, 9);
  options.max_line_bytes = feed.ConsumeIntegralInRange<std::size_t>(1, 4096);
  const std::string text = feed.ConsumeRemainingBytesAsString();
  std::string_view rest = text;
  try {
    while (!rest.empty()) {
      // Memory of exactly these bytes: a scanner that relies on what follows the data is seen.
      const std::vector<char> exact(rest.begin(), rest.end());
      const iqdb::JsonlBatch batch = iqdb::parse_jsonl({exact.data(), exact.size()}, options);
      MUST(batch.consumed_bytes <= rest.size());
      MUST(batch.rows <= options.max_rows);
      MUST(batch.vectors.size() == batch.rows * (options.vector_field ? batch.dim : 0));
      MUST(batch.row_lines.size() == batch.rows);
      if (batch.has_ids) MUST(batch.id_offsets.size() == batch.rows + 1);
      for (const iqdb::JsonColumn& column : batch.columns) {
        for (const std::uint32_t row : column.rows) MUST(row < batch.rows);
      }
      if (batch.consumed_bytes == 0) break;
      rest.remove_prefix(batch.consumed_bytes);
      options.first_line += batch.lines;
    }
  } catch (const iqdb::JsonlError& error) {
    MUST(error.line >= options.first_line);
  }
}

void numbers(FuzzedDataProvider& feed) {
  float value = 0;
  feed.ConsumeData(&value, sizeof value);
  if (!std::isfinite(value)) return;
  for (const bool portable : {false, true}) {
    std::string text;
    iqdb::append_f32_json(text, value, portable);
    const float back = std::strtof(text.c_str(), nullptr);
    MUST(std::memcmp(&back, &value, sizeof value) == 0);
    const iqdb::Decimal number{0, 0, false, false, text};
    const auto nearest = iqdb::nearest_f32_of_text(number, portable);
    MUST(nearest && std::memcmp(&*nearest, &value, sizeof value) == 0);
    MUST(iqdb::nearest_f64_of_text(number, portable).has_value());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool ready = (iqdb::select_best_variant(), true);
  (void)ready;
  FuzzedDataProvider feed(data, size);
  if (feed.ConsumeIntegralInRange<int>(0, 7) == 0) {
    numbers(feed);
  } else {
    lines(feed);
  }
  return 0;
}
