#include "jsonl_scanner.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace iqdb {
namespace {

constexpr uint64_t kLowBits = 0x0101010101010101;
constexpr uint64_t kHighBits = 0x8080808080808080;

// Bit 7 of every byte of the word that a plain run of a string cannot go over: '"', '\', control characters
// and all that is not ASCII. A borrow can mark further bytes, but only behind one that is marked rightly.
uint64_t special_bytes(uint64_t word) {
  const uint64_t quote = word ^ (kLowBits * '"');
  const uint64_t backslash = word ^ (kLowBits * '\\');
  const uint64_t control = (word - kLowBits * 0x20) & ~word;
  return (((quote - kLowBits) & ~quote) | ((backslash - kLowBits) & ~backslash) | control | word) & kHighBits;
}

// The bytes of the UTF-8 sequence at p, which starts with a byte of 0x80 or more; 0 when it is none. RFC 3629
// section 4: no overlong forms, no surrogates, nothing above U+10FFFF.
size_t utf8_sequence(const char* text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text);
  const auto tail = [](unsigned char c) { return (c & 0xc0) == 0x80; };
  if (p[0] < 0xc2 || p[0] > 0xf4) return 0;
  if (p[0] < 0xe0) return tail(p[1]) ? 2 : 0;
  if (p[0] < 0xf0) {
    const unsigned char low = p[0] == 0xe0 ? 0xa0 : 0x80;
    const unsigned char high = p[0] == 0xed ? 0x9f : 0xbf;
    return p[1] >= low && p[1] <= high && tail(p[2]) ? 3 : 0;
  }
  const unsigned char low = p[0] == 0xf0 ? 0x90 : 0x80;
  const unsigned char high = p[0] == 0xf4 ? 0x8f : 0xbf;
  return p[1] >= low && p[1] <= high && tail(p[2]) && tail(p[3]) ? 4 : 0;
}

void append_utf8(std::string& out, uint32_t code) {
  const auto byte = [&out](uint32_t value) { out.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xc0 | code >> 6);
    byte(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    byte(0xe0 | code >> 12);
    byte(0x80 | (code >> 6 & 0x3f));
    byte(0x80 | (code & 0x3f));
  } else {
    byte(0xf0 | code >> 18);
    byte(0x80 | (code >> 12 & 0x3f));
    byte(0x80 | (code >> 6 & 0x3f));
    byte(0x80 | (code & 0x3f));
  }
}

}  // namespace

std::string_view JsonScanner::string(std::string& scratch) {
  const char* run = ++p_;  // what follows and needs no decoding
  bool escaped = false;
  for (;;) {
    const uint64_t special = special_bytes(load_le<uint64_t>(p_));
    if (special == 0) {
      p_ += 8;
      continue;
    }
    p_ += std::countr_zero(special) / 8;
    const auto c = static_cast<unsigned char>(*p_);
    if (c >= 0x80) {
      const size_t bytes = utf8_sequence(p_);
      if (bytes == 0) fail("invalid UTF-8 in a string");
      p_ += bytes;
      continue;
    }
    if (c == '"') break;
    if (c == '\n') fail("the line ends within a string");
    if (c != '\\') fail("a control character in a string must be written as an escape, found " + found());
    if (!escaped) scratch.clear();
    escaped = true;
    scratch.append(run, p_);
    escape(scratch);
    run = p_;
  }
  const char* const end = p_++;
  if (!escaped) return {run, static_cast<size_t>(end - run)};
  scratch.append(run, end);
  return scratch;
}

// Decodes the escape at the current '\' and moves behind it.
void JsonScanner::escape(std::string& scratch) {
  constexpr std::string_view kLetters = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  const char* const begin = p_++;
  const char letter = *p_;
  if (letter != 'u') {
    const size_t which = kLetters.find(letter);
    if (which == std::string_view::npos) fail("unknown escape: '\\' and " + found());
    scratch.push_back(kMeanings[which]);
    ++p_;
    return;
  }
  ++p_;
  uint32_t code = four_hex_digits();
  if (code >= 0xdc00 && code < 0xe000) fail_at(begin, "a low surrogate without a high one in an escape");
  if (code >= 0xd800 && code < 0xdc00) {
    if (p_[0] != '\\' || p_[1] != 'u') fail_at(begin, "a high surrogate without a low one in an escape");
    p_ += 2;
    const uint32_t low = four_hex_digits();
    if (low < 0xdc00 || low >= 0xe000) fail_at(begin, "a high surrogate without a low one in an escape");
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  append_utf8(scratch, code);
}

uint32_t JsonScanner::four_hex_digits() {
  uint32_t code = 0;
  for (int i = 0; i < 4; ++i, ++p_) {
    const char c = *p_;
    const char lower = static_cast<char>(c | 0x20);
    if (is_digit(c)) {
      code = code << 4 | static_cast<uint32_t>(c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      code = code << 4 | static_cast<uint32_t>(lower - 'a' + 10);
    } else {
      fail_expected("four hexadecimal digits after '\\u'");
    }
  }
  return code;
}

void JsonScanner::exponent(const char*& p, int64_t& exponent) const {
  constexpr int64_t kEnough = 1'000'000'000'000;  // more than any line has digits to balance
  ++p;
  const bool negative = *p == '-';
  if (*p == '-' || *p == '+') ++p;
  if (!is_digit(*p)) JsonScanner(p).fail_expected("a digit in the exponent");
  int64_t value = 0;
  for (; is_digit(*p); ++p) {
    if (value < kEnough) value = value * 10 + (*p - '0');
  }
  exponent += negative ? -value : value;
}

// The mantissa of a number with many digits, not all of which may be significant.
void JsonScanner::recount(const char* first, const char* last, Decimal& number) const {
  number.mantissa = 0;
  int kept = 0;
  for (const char* p = first; p != last; ++p) {
    if (*p == '.' || (kept == 0 && *p == '0')) continue;
    if (kept < Decimal::kMaxDigits) {
      number.mantissa = number.mantissa * 10 + static_cast<uint64_t>(*p - '0');
      ++kept;
    } else {
      ++number.exponent;
      if (*p != '0') number.exact = false;
    }
  }
}

bool JsonScanner::element_of_text(const Decimal& number, float& out) const {
  const std::optional<float> value = nearest_f32_of_text(number);
  if (value) out = *value;
  return value.has_value();
}

void JsonScanner::literal(std::string_view word) {
  if (std::memcmp(p_, word.data(), word.size()) != 0) fail_expected("a value");
  p_ += word.size();
}

void JsonScanner::skip_value(int depth) {
  std::string scratch;
  switch (peek()) {
    case '{':
    case '[': {
      const char close = *p_ == '{' ? '}' : ']';
      if (depth == 0) fail("values are nested deeper than " + std::to_string(kMaxDepth) + " levels");
      ++p_;
      if (take(close)) return;
      do {
        if (close == '}') {
          if (peek() != '"') fail_expected("a key");
          string(scratch);
          expect(':', "':'");
        }
        skip_value(depth - 1);
      } while (more(close));
      return;
    }
    case '"':
      string(scratch);
      return;
    case 't':
      return literal("true");
    case 'f':
      return literal("false");
    case 'n':
      return literal("null");
    default:
      if (*p_ != '-' && !is_digit(*p_)) fail_expected("a value");
      number();
  }
}

void JsonScanner::end_of_line() {
  if (peek() != '\n') fail("expected the end of the line, found " + found());
}

void JsonScanner::fail_expected(const char* expected) const {
  fail("expected " + std::string(expected) + ", found " + found());
}

std::string JsonScanner::found() const {
  const auto c = static_cast<unsigned char>(*p_);
  if (c == '\n') return "the end of the line";
  if (c > ' ' && c < 0x7f) return {'\'', *p_, '\''};
  char text[16];
  std::snprintf(text, sizeof text, "byte 0x%02x", c);
  return text;
}

std::string JsonScanner::found_value() {
  switch (peek()) {
    case '{':
      return "an object";
    case '[':
      return "an array";
    case '"':
      return "a string";
    default:
      for (const std::string_view word : {"true", "false", "null"}) {
        if (std::memcmp(p_, word.data(), word.size()) == 0) return std::string(word);
      }
      return *p_ == '-' || is_digit(*p_) ? "a number" : found();
  }
}

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 80;
  size_t shown = std::min(text.size(), kShown);
  while (shown < text.size() && shown > 0 && (static_cast<unsigned char>(text[shown]) & 0xc0) == 0x80)
    --shown;
  std::string out(1, '"');
  out.append(text.substr(0, shown)).append(shown < text.size() ? "\"..." : "\"");
  return out;
}

}  // namespace iqdb
