#include "jsonl_columns.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

namespace iqdb {
namespace {

template <class T>
void append_bytes(std::vector<uint8_t>& values, const T& value) {
  const auto* const bytes = reinterpret_cast<const uint8_t*>(&value);
  values.insert(values.end(), bytes, bytes + sizeof value);
}

}  // namespace

JsonKey* JsonKeys::find(std::string_view text, size_t place) {
  if (place < at_place_.size() && at_place_[place]->text == text) return at_place_[place];
  const auto found = index_.find(text);
  if (found == index_.end()) return nullptr;
  if (place < at_place_.size()) at_place_[place] = found->second;
  return found->second;
}

JsonKey& JsonKeys::add(std::string_view text, size_t place, KeyUse use) {
  JsonKey& key = keys_.emplace_back(JsonKey{std::string(text), use});
  index_.emplace(key.text, &key);
  if (place == at_place_.size()) {
    at_place_.push_back(&key);
  } else if (place < at_place_.size()) {
    at_place_[place] = &key;
  }
  return key;
}

JsonColumn& JsonColumns::column(JsonKey& key, ColumnType type, uint32_t row) {
  uint32_t& place = key.columns[static_cast<size_t>(type)];
  if (place == 0) {
    JsonColumn& added = columns_.emplace_back(JsonColumn{key.text, type, {}, {}, {}});
    if (type == ColumnType::kString) added.offsets.push_back(0);
    place = static_cast<uint32_t>(columns_.size());
  }
  JsonColumn& column = columns_[place - 1];
  column.rows.push_back(row);
  return column;
}

void JsonColumns::append_null(JsonKey& key, uint32_t row) {
  column(key, ColumnType::kNull, row);
}

void JsonColumns::append_bool(JsonKey& key, uint32_t row, bool value) {
  column(key, ColumnType::kBool, row).values.push_back(value ? 1 : 0);
}

void JsonColumns::append_int64(JsonKey& key, uint32_t row, int64_t value) {
  append_bytes(column(key, ColumnType::kInt64, row).values, value);
}

void JsonColumns::append_float64(JsonKey& key, uint32_t row, double value) {
  append_bytes(column(key, ColumnType::kFloat64, row).values, value);
}

void JsonColumns::append_string(JsonKey& key, uint32_t row, std::string_view value) {
  JsonColumn& strings = column(key, ColumnType::kString, row);
  strings.values.insert(strings.values.end(), value.begin(), value.end());
  strings.offsets.push_back(strings.values.size());
}

std::vector<JsonColumn> JsonColumns::take() {
  // std::string orders by unsigned bytes
  std::sort(columns_.begin(), columns_.end(), [](const JsonColumn& a, const JsonColumn& b) {
    return std::tie(a.key, a.type) < std::tie(b.key, b.type);
  });
  return std::move(columns_);
}

}  // namespace iqdb
