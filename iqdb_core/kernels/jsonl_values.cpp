// The values of a record: its vector, its id and its metadata.
#include <bit>
#include <charconv>
#include <limits>

#include "byteorder.hpp"
#include "jsonl_parser.hpp"

namespace iqdb {
namespace {

// Limits of the file format (formats/, "Limits").
constexpr size_t kMaxDim = 65536;
constexpr size_t kMaxIdBytes = 65535;
constexpr size_t kMaxStringBytes = size_t{16} << 20;

}  // namespace

void JsonlParser::vector(JsonScanner& scanner) {
  const char* const begin = scanner.at();
  if (*begin != '[') {
    scanner.fail("the field " + quoted(*vector_field_) + " must be an array of numbers, found " +
                 scanner.found_value());
  }
  scanner.advance();
  if (scanner.take(']')) JsonScanner::fail_at(begin, "the vector is empty");
  std::vector<float>& vectors = batch_.vectors;
  const size_t known = batch_.dim;
  const size_t used = vectors.size();
  vectors.resize(used + known);
  float* const out = vectors.data() + used;
  size_t count = 0;
  do {
    const char c = scanner.peek();
    if (c != '-' && (c < '0' || c > '9')) {
      const std::string found = c == 'N' || c == 'I' ? "NaN or Infinity" : scanner.found_value();
      scanner.fail("component " + std::to_string(count) + " of the vector must be a number, found " + found);
    }
    const char* const element = scanner.at();
    float component;
    if (!scanner.element(component)) {
      JsonScanner::fail_at(element,
                           "component " + std::to_string(count) + " of the vector is too large for float32");
    }
    if (count < known) {
      out[count] = component;
    } else if (known == 0) {
      vectors.push_back(component);
    }
    ++count;
  } while (scanner.more(']'));
  if (known != 0 && count != known) {
    JsonScanner::fail_at(
        begin, "the vector has " + std::to_string(count) + " components, expected " + std::to_string(known));
  }
  if (count > kMaxDim) {
    JsonScanner::fail_at(begin, "the vector has " + std::to_string(count) + " components, more than " +
                                    std::to_string(kMaxDim));
  }
  batch_.dim = count;
  has_vector_ = true;
}

void JsonlParser::append_id(IdKind kind, const void* bytes, size_t n) {
  const auto* const first = static_cast<const uint8_t*>(bytes);
  batch_.id_kinds.push_back(kind);
  batch_.id_bytes.insert(batch_.id_bytes.end(), first, first + n);
  batch_.id_offsets.push_back(batch_.id_bytes.size());
  has_id_ = true;
}

void JsonlParser::id(JsonScanner& scanner) {
  const char* const begin = scanner.at();
  const auto refuse = [&](const std::string& found) {
    JsonScanner::fail_at(begin,
                         "an id is an integer from 0 to 18446744073709551615, a string of 1 to 65535 bytes "
                         "or {\"hex\": \"...\"}, found " +
                             found);
  };
  const auto check_bytes = [&](size_t n) {
    if (n == 0) refuse("an empty one");
    if (n > kMaxIdBytes) refuse("one of " + std::to_string(n) + " bytes");
  };
  const char c = *begin;
  if (c == '-' || (c >= '0' && c <= '9')) {
    const std::string_view text = scanner.number().text;
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) {
      refuse(text.size() > 40 ? "another number" : std::string(text));
    }
    value = little_endian(value);
    append_id(kIntId, &value, sizeof value);
  } else if (c == '"') {
    const std::string_view text = scanner.string(scratch_);
    check_bytes(text.size());
    append_id(kTextId, text.data(), text.size());
  } else if (c == '{') {
    const std::optional<std::string_view> hex = tagged(scanner, "hex");
    if (!hex || hex->size() % 2 != 0) refuse("another object");
    check_bytes(hex->size() / 2);
    std::string bytes;
    for (size_t i = 0; i < hex->size(); i += 2) {
      uint8_t byte = 0;
      const char* const digits = hex->data() + i;
      if (std::from_chars(digits, digits + 2, byte, 16).ptr != digits + 2) refuse("another object");
      bytes.push_back(static_cast<char>(byte));
    }
    append_id(kBytesId, bytes.data(), bytes.size());
  } else {
    refuse(scanner.found_value());
  }
}

// The value of an object that has one member, the key `tag` and a string; nothing when the next value is
// well-formed JSON but not that.
std::optional<std::string_view> JsonlParser::tagged(JsonScanner& scanner, std::string_view tag) {
  JsonScanner trial = scanner;
  trial.advance();
  if (trial.peek() != '"' || trial.string(scratch_) != tag) return std::nullopt;
  if (!trial.take(':') || trial.peek() != '"') return std::nullopt;
  const std::string_view value = trial.string(scratch_);
  if (!trial.take('}')) return std::nullopt;
  scanner = trial;
  return value;
}

// Passes over an array, or an object that stands for no number; false when the next value is neither.
bool JsonlParser::skip_nested(JsonScanner& scanner) {
  const char c = *scanner.at();
  if (c != '[' && c != '{') return false;
  JsonScanner trial = scanner;
  if (c == '{' && tagged(trial, "float")) return false;
  scanner.skip_value();
  return true;
}

void JsonlParser::value(JsonScanner& scanner, JsonKey& key) {
  switch (*scanner.at()) {
    case 'n':
      scanner.literal("null");
      return columns_.append_null(key, row());
    case 't':
      scanner.literal("true");
      return columns_.append_bool(key, row(), true);
    case 'f':
      scanner.literal("false");
      return columns_.append_bool(key, row(), false);
    case '"': {
      const char* const begin = scanner.at();
      const std::string_view text = scanner.string(scratch_);
      if (text.size() > kMaxStringBytes) {
        JsonScanner::fail_at(begin, "the value of " + quoted(key.text) + " has " +
                                        std::to_string(text.size()) + " bytes, more than 16 MiB");
      }
      return columns_.append_string(key, row(), text);
    }
    case '{': {
      const JsonScanner before = scanner;
      const std::optional<std::string_view> text = tagged(scanner, "float");
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      if (text == "nan")
        return columns_.append_float64(key, row(), std::bit_cast<double>(0x7ff8000000000000));
      if (text == "inf") return columns_.append_float64(key, row(), kInfinity);
      if (text == "-inf") return columns_.append_float64(key, row(), -kInfinity);
      if (text && text->size() == 20 && text->starts_with("nan:")) {
        uint64_t bits = 0;
        const char* const end = text->data() + text->size();
        const bool whole = std::from_chars(text->data() + 4, end, bits, 16).ptr == end;
        const auto number = std::bit_cast<double>(bits);
        if (whole && number != number) return columns_.append_float64(key, row(), number);
      }
      scanner = before;
      [[fallthrough]];
    }
    case '[':
      scanner.fail("the value of " + quoted(key.text) +
                   " must be a string, a number, true, false, null or {\"float\": \"nan\", \"inf\" or "
                   "\"-inf\"}, found " +
                   scanner.found_value());
    default:
      number(scanner, key);
  }
}

void JsonlParser::number(JsonScanner& scanner, JsonKey& key) {
  const char* const begin = scanner.at();
  if (*begin != '-' && (*begin < '0' || *begin > '9')) scanner.fail_expected("a value");
  const Decimal number = scanner.number();
  const std::string_view text = number.text;
  if (text.find_first_of(".eE") == std::string_view::npos) {
    int64_t value = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) {
      JsonScanner::fail_at(begin, "the integer of " + quoted(key.text) + " is outside -2^63 to 2^63-1");
    }
    return columns_.append_int64(key, row(), value);
  }
  const std::optional<double> value = nearest_f64(number);
  if (!value) JsonScanner::fail_at(begin, "the number of " + quoted(key.text) + " is too large for float64");
  columns_.append_float64(key, row(), *value);
}

}  // namespace iqdb
