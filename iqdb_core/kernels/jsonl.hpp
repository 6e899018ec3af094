// JSON Lines to columns: one record a line, strictly RFC 8259. The rules are in the docstring of
// parse_jsonl() in bindings.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "jsonl_columns.hpp"

namespace iqdb {

struct JsonlOptions {
  uint64_t first_line = 1;  // number of the first line of the data
  std::optional<std::string> id_field;
  std::optional<std::string> vector_field;  // none: the lines are metadata alone
  std::optional<std::string> metadata_field;
  std::optional<std::vector<std::string>> columns;
  bool no_metadata = false;
  bool scalars_only = false;  // pass over arrays and objects among the keys of the record
  size_t dim = 0;             // 0: that of the first record
  size_t max_rows = 0;
  bool final = false;
  size_t max_line_bytes = size_t{256} << 20;
};

struct JsonlBatch {
  size_t rows = 0;
  uint64_t lines = 0;  // consumed, blank ones included
  size_t consumed_bytes = 0;
  size_t dim = 0;
  std::vector<float> vectors;
  std::vector<uint64_t> row_lines;  // number of the line of each row
  bool has_ids = false;             // every row has one; else the id arrays are empty
  bool ids_all_u64 = false;
  std::vector<uint8_t> id_kinds;
  std::vector<uint64_t> id_offsets;
  std::vector<uint8_t> id_bytes;
  std::vector<uint64_t> ids_u64;      // when all ids are integers
  std::vector<uint8_t> has_metadata;  // 1: the row has a mapping, be it empty
  std::vector<JsonColumn> columns;
};

// A line that cannot be taken. No row of its batch is.
class JsonlError : public std::runtime_error {
 public:
  JsonlError(uint64_t line, uint64_t column, const std::string& reason)
      : std::runtime_error("line " + std::to_string(line) + ", column " + std::to_string(column) + ": " +
                           reason),
        line(line),
        column(column),
        reason(reason) {}

  uint64_t line;
  uint64_t column;  // in bytes, from 1
  std::string reason;
};

// Takes complete lines from the start of `data`, and the last one without a line end when options.final.
JsonlBatch parse_jsonl(std::string_view data, const JsonlOptions& options);

}  // namespace iqdb
