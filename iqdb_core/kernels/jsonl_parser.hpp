// The state of one parse_jsonl() call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>

#include "ids.hpp"
#include "jsonl.hpp"
#include "jsonl_columns.hpp"
#include "jsonl_scanner.hpp"

namespace iqdb {

class JsonlParser {
 public:
  explicit JsonlParser(const JsonlOptions& options);

  JsonlBatch parse(std::string_view data);

 private:
  void line(const char* text);
  void record(JsonScanner& scanner);
  void finish_row();

  template <class OnValue>
  void members(JsonScanner& scanner, JsonKeys& keys, const OnValue& on_value);
  JsonKey& key(JsonScanner& scanner, JsonKeys& keys, uint64_t object, size_t place);
  KeyUse use_of(const JsonKeys& keys, std::string_view text) const;

  void vector(JsonScanner& scanner);
  void id(JsonScanner& scanner);
  void append_id(IdKind kind, const void* bytes, size_t n);
  void mapping(JsonScanner& scanner);
  bool skip_nested(JsonScanner& scanner);
  void value(JsonScanner& scanner, JsonKey& key);
  void number(JsonScanner& scanner, JsonKey& key);
  std::optional<std::string_view> tagged(JsonScanner& scanner, std::string_view tag);

  uint32_t row() const { return static_cast<uint32_t>(batch_.rows); }
  size_t key_count() const { return record_keys_.size() + mapping_keys_.size(); }

  const JsonlOptions& options_;
  const std::optional<std::string_view> id_field_;
  const std::optional<std::string_view> vector_field_;
  const std::optional<std::string_view> metadata_field_;
  std::unordered_set<std::string_view> columns_wanted_;

  JsonlBatch batch_;
  JsonKeys record_keys_;   // of the objects that are lines
  JsonKeys mapping_keys_;  // of the objects in metadata_field
  JsonColumns columns_;
  std::string scratch_;
  uint64_t objects_ = 0;
  uint64_t line_number_ = 0;

  // What the record being read has had so far.
  bool has_vector_ = false;
  bool has_id_ = false;
  bool has_metadata_ = false;
};

}  // namespace iqdb
