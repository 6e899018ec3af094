#include "jsonl.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "byteorder.hpp"
#include "ids.hpp"
#include "jsonl_parser.hpp"
#include "threads.hpp"

namespace iqdb {
namespace {

// Limits of the file format (formats/, "Limits").
constexpr size_t kMaxKeyBytes = 65535;
constexpr size_t kMaxKeys = 4096;

// A batch ends after the line that brings its keys to this number, so that lines which all have other keys
// cannot make the columns outgrow the data many times over.
constexpr size_t kMaxBatchKeys = 65536;

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

std::optional<std::string_view> view_of(const std::optional<std::string>& text) {
  return text ? std::optional<std::string_view>(*text) : std::nullopt;
}

}  // namespace

JsonlParser::JsonlParser(const JsonlOptions& options)
    : options_(options),
      id_field_(view_of(options.id_field)),
      vector_field_(view_of(options.vector_field)),
      metadata_field_(view_of(options.metadata_field)) {
  batch_.dim = options.dim;
  batch_.id_offsets.push_back(0);
  if (options.columns) columns_wanted_.insert(options.columns->begin(), options.columns->end());
}

JsonlBatch JsonlParser::parse(std::string_view data) {
  std::string copy;
  size_t at = 0;
  if (options_.first_line == 1 && data.starts_with(kByteOrderMark)) at = kByteOrderMark.size();
  bool any_line = false;
  while (at < data.size() && batch_.rows < options_.max_rows && key_count() < kMaxBatchKeys) {
    const std::string_view rest = data.substr(at);
    const size_t searched = std::min(rest.size(), options_.max_line_bytes + 1);
    const void* const newline = std::memchr(rest.data(), '\n', searched);
    line_number_ = options_.first_line + batch_.lines;
    if (newline == nullptr && searched > options_.max_line_bytes) {
      throw JsonlError(line_number_, 1,
                       "the line is longer than " + std::to_string(options_.max_line_bytes) + " bytes");
    }
    if (newline == nullptr && !options_.final) break;
    const size_t length = newline == nullptr
                              ? rest.size()
                              : static_cast<size_t>(static_cast<const char*>(newline) - rest.data());
    const char* text = rest.data();
    if (rest.size() < length + 1 + JsonScanner::kPadding) {  // the scanner reads that far
      copy.assign(rest.substr(0, length)).push_back('\n');
      copy.append(JsonScanner::kPadding, '\0');
      text = copy.data();
    }
    try {
      line(text);
    } catch (const JsonProblem& problem) {
      throw JsonlError(line_number_, static_cast<uint64_t>(problem.at - text) + 1, problem.reason);
    }
    if (batch_.rows == 1 && !std::exchange(any_line, true)) {
      // Lines tend to be alike, so the first tells how many there will be. Two bytes of text make at most
      // four of vector, whatever the first line claims.
      const size_t rows = std::min(rest.size() / (length + 1) + 1, options_.max_rows);
      batch_.vectors.reserve(rows * batch_.dim);
    }
    ++batch_.lines;
    at += std::min(length + 1, rest.size());
  }
  batch_.consumed_bytes = at;
  batch_.columns = columns_.take();
  batch_.has_ids = batch_.rows != 0 && batch_.id_kinds.size() == batch_.rows;
  batch_.ids_all_u64 = batch_.has_ids && std::all_of(batch_.id_kinds.begin(), batch_.id_kinds.end(),
                                                     [](uint8_t kind) { return kind == kIntId; });
  if (batch_.ids_all_u64) {
    batch_.ids_u64.reserve(batch_.rows);
    for (size_t i = 0; i < batch_.rows; ++i) {
      batch_.ids_u64.push_back(load_le<uint64_t>(batch_.id_bytes.data() + 8 * i));
    }
  }
  return std::move(batch_);
}

void JsonlParser::line(const char* text) {
  JsonScanner scanner(text);
  if (scanner.peek() == '\n') return;
  has_vector_ = has_id_ = has_metadata_ = false;
  if (scanner.peek() == 'n' && !vector_field_) {
    scanner.literal("null");
  } else {
    record(scanner);
  }
  scanner.end_of_line();
  finish_row();
}

void JsonlParser::record(JsonScanner& scanner) {
  if (scanner.peek() != '{') {
    scanner.fail("a line must be a JSON object, found " + scanner.found_value());
  }
  const char* const begin = scanner.at();
  members(scanner, record_keys_, [&](JsonKey& key) {
    switch (key.use) {
      case KeyUse::kVector:
        return vector(scanner);
      case KeyUse::kId:
        return id(scanner);
      case KeyUse::kMapping:
        return mapping(scanner);
      case KeyUse::kMetadata:
        if (options_.scalars_only && skip_nested(scanner)) return;
        has_metadata_ = true;
        return value(scanner, key);
      case KeyUse::kIgnored:
        return scanner.skip_value();
    }
  });
  if (!vector_field_) {
    has_metadata_ = has_metadata_ || (!metadata_field_ && !options_.no_metadata);
  } else if (!has_vector_) {
    JsonScanner::fail_at(begin, "the record has no field " + quoted(*vector_field_));
  }
  if (id_field_ && batch_.rows != 0) {
    const bool first_has = batch_.id_kinds.size() > (has_id_ ? 1 : 0);  // this record's is in there already
    const std::string first_line = std::to_string(batch_.row_lines[0]);
    if (first_has && !has_id_) {
      JsonScanner::fail_at(begin, "the record has no field " + quoted(*id_field_) + " but that of line " +
                                      first_line + " has");
    }
    if (!first_has && has_id_) {
      JsonScanner::fail_at(begin, "the record has a field " + quoted(*id_field_) + " but that of line " +
                                      first_line + " has none");
    }
  }
}

void JsonlParser::finish_row() {
  batch_.row_lines.push_back(line_number_);
  batch_.has_metadata.push_back(has_metadata_ ? 1 : 0);
  ++batch_.rows;
}

// Reads an object, with the scanner at the value of each key in turn for `on_value(key)`.
template <class OnValue>
void JsonlParser::members(JsonScanner& scanner, JsonKeys& keys, const OnValue& on_value) {
  scanner.expect('{', "'{'");
  const uint64_t object = ++objects_;  // its own: reading a value may begin further objects
  if (scanner.take('}')) return;
  size_t place = 0;
  size_t metadata_keys = 0;
  do {
    const char* const begin = (scanner.peek(), scanner.at());
    JsonKey& found = key(scanner, keys, object, place++);
    if (found.use == KeyUse::kMetadata && ++metadata_keys > kMaxKeys) {
      JsonScanner::fail_at(begin, "there are more than " + std::to_string(kMaxKeys) + " metadata keys");
    }
    scanner.expect(':', "':'");
    scanner.peek();
    on_value(found);
  } while (scanner.more('}'));
}

JsonKey& JsonlParser::key(JsonScanner& scanner, JsonKeys& keys, uint64_t object, size_t place) {
  if (scanner.peek() != '"') scanner.fail_expected("a key");
  const char* const begin = scanner.at();
  const std::string_view text = scanner.string(scratch_);
  JsonKey* found = keys.find(text, place);
  if (found == nullptr) {
    if (text.size() > kMaxKeyBytes) {
      JsonScanner::fail_at(begin, "the key " + quoted(text) + " has " + std::to_string(text.size()) +
                                      " bytes, more than " + std::to_string(kMaxKeyBytes));
    }
    found = &keys.add(text, place, use_of(keys, text));
  }
  if (std::exchange(found->last_object, object) == object) {
    JsonScanner::fail_at(begin, "the key " + quoted(text) + " is there twice");
  }
  return *found;
}

KeyUse JsonlParser::use_of(const JsonKeys& keys, std::string_view text) const {
  if (&keys == &record_keys_) {
    if (text == vector_field_) return KeyUse::kVector;
    if (text == id_field_) return KeyUse::kId;
    if (text == metadata_field_) return options_.no_metadata ? KeyUse::kIgnored : KeyUse::kMapping;
    if (metadata_field_) return KeyUse::kIgnored;
  }
  const bool wanted = !options_.no_metadata && (!options_.columns || columns_wanted_.contains(text));
  return wanted ? KeyUse::kMetadata : KeyUse::kIgnored;
}

void JsonlParser::mapping(JsonScanner& scanner) {
  const char c = *scanner.at();
  if (c == 'n') return scanner.literal("null");
  if (c != '{') {
    scanner.fail("the field " + quoted(*metadata_field_) + " must be an object or null, found " +
                 scanner.found_value());
  }
  has_metadata_ = true;
  members(scanner, mapping_keys_, [&](JsonKey& key) {
    return key.use == KeyUse::kMetadata ? value(scanner, key) : scanner.skip_value();
  });
}

JsonlBatch parse_jsonl(std::string_view data, const JsonlOptions& options) {
  const DefaultFloatEnvironment environment;
  return JsonlParser(options).parse(data);
}

}  // namespace iqdb
