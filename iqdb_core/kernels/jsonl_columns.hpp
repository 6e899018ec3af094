// The metadata half of the JSON Lines parser: keys by number and columns by key and type.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace iqdb {

// The types of a metadata column, by the numbers that the file format has for them.
enum class ColumnType : uint8_t { kNull = 1, kBool = 2, kInt64 = 3, kFloat64 = 4, kString = 5 };

// The values of one key that have one type.
struct JsonColumn {
  std::string key;
  ColumnType type;
  std::vector<uint32_t> rows;     // ascending
  std::vector<uint8_t> values;    // packed: nothing, u8, i64, f64, or the strings one after the other
  std::vector<uint64_t> offsets;  // one more than there are strings; empty for the other types
};

// What the parser does with the value of a key.
enum class KeyUse : uint8_t { kMetadata, kIgnored, kId, kVector, kMapping };

struct JsonKey {
  std::string text;
  KeyUse use;
  uint64_t last_object = 0;              // number of the object that had it last, from 1
  std::array<uint32_t, 6> columns = {};  // by type: 1 + place in JsonColumns, 0: none yet
};

// The keys of one kind of object (records, or their metadata), found by text. Objects tend to have the same
// keys in the same order, so the key that stood at the same place before is tried first.
class JsonKeys {
 public:
  // The key, or null when it is new.
  JsonKey* find(std::string_view text, size_t place);
  JsonKey& add(std::string_view text, size_t place, KeyUse use);
  size_t size() const { return keys_.size(); }

 private:
  std::deque<JsonKey> keys_;  // a deque, because the index refers to the texts in it
  std::unordered_map<std::string_view, JsonKey*> index_;
  std::vector<JsonKey*> at_place_;
};

class JsonColumns {
 public:
  void append_null(JsonKey& key, uint32_t row);
  void append_bool(JsonKey& key, uint32_t row, bool value);
  void append_int64(JsonKey& key, uint32_t row, int64_t value);
  void append_float64(JsonKey& key, uint32_t row, double value);
  void append_string(JsonKey& key, uint32_t row, std::string_view value);

  // All columns, by key (bytewise) and type.
  std::vector<JsonColumn> take();

 private:
  JsonColumn& column(JsonKey& key, ColumnType type, uint32_t row);

  std::vector<JsonColumn> columns_;
};

}  // namespace iqdb
