#include "cli/toml.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.hpp"

namespace llama3d {
namespace {

using nlohmann::ordered_json;

bool is_key_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
}

class TomlReader {
 public:
  TomlReader(const std::string& text, const std::string& origin) : text_(text), origin_(origin) {}

  ordered_json read() {
    ordered_json all = ordered_json::object();
    for (skip_blank(true); !at_end(); skip_blank(true)) {
      if (peek() == '[') refuse("a [section] (sections are not used); write the options at the top level");
      const std::string key = read_key();
      if (all.contains(key)) refuse(fmt::format("{} once more; give it once", key));
      skip_blank(false);
      if (peek() == '.') refuse("a key with a dot (sections are not used); write the option's name alone");
      if (peek() != '=') refuse(fmt::format("no '=' after {}; write lines like tp-size = 2", key));
      ++place_;
      skip_blank(false);
      all[key] = read_value();
      skip_blank(false);
      if (!at_end() && peek() != '\n')
        refuse(fmt::format("{} after the value of {}; remove it", rest(), key));
    }
    return all;
  }

 private:
  bool at_end() const { return place_ >= text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[place_]; }

  [[noreturn]] void refuse(const std::string& problem) const {
    const auto end = text_.begin() + static_cast<std::ptrdiff_t>(std::min(place_, text_.size()));
    throw ConfigurationError(
        fmt::format("{} line {}: {}", origin_, 1 + std::count(text_.begin(), end, '\n'), problem));
  }

  /// What is left of the line, for messages; a file that is no text may have long and strange ones.
  std::string rest() const {
    std::string line = text_.substr(place_, text_.find_first_of("\r\n", place_) - place_).substr(0, 60);
    for (char& c : line)
      if (std::iscntrl(static_cast<unsigned char>(c))) c = '?';
    return line.empty() ? "nothing" : fmt::format("'{}'", line);
  }

  /// Spaces and comments, and with `lines` the ends of lines too.
  void skip_blank(bool lines) {
    while (!at_end()) {
      const char c = peek();
      if (c == '#')
        place_ = std::min(text_.find('\n', place_), text_.size());
      else if (c == ' ' || c == '\t' || c == '\r' || (lines && c == '\n'))
        ++place_;
      else
        return;
    }
  }

  std::string read_key() {
    if (peek() == '"' || peek() == '\'') return read_string();
    const std::size_t begin = place_;
    while (!at_end() && is_key_character(peek())) ++place_;
    if (place_ == begin) refuse(fmt::format("{} is no option; write lines like tp-size = 2", rest()));
    return text_.substr(begin, place_ - begin);
  }

  ordered_json read_value() {
    if (peek() == '[') return read_array();
    if (peek() == '"' || peek() == '\'') return read_string();
    const std::size_t begin = place_;
    while (is_key_character(peek()) || peek() == '.' || peek() == '+') ++place_;
    const std::string word = text_.substr(begin, place_ - begin);
    if (word == "true" || word == "false") return word == "true";
    place_ = begin;
    ordered_json number = read_number(word);
    place_ = begin + word.size();
    return number;
  }

  ordered_json read_number(std::string word) const {
    std::erase(word, '_');
    if (word.starts_with('+')) word.erase(0, 1);
    const char* end = word.data() + word.size();
    std::int64_t integer = 0;
    if (const auto result = std::from_chars(word.data(), end, integer);
        result.ec == std::errc() && result.ptr == end)
      return integer;
    double real = 0;
    if (const auto result = std::from_chars(word.data(), end, real);
        !word.empty() && result.ec == std::errc() && result.ptr == end)
      return real;
    refuse(fmt::format("{} is no value; write a number, true, false, or a text in quotes", rest()));
  }

  std::string read_string() {
    const char quote = peek();
    if (text_.compare(place_, 3, std::string(3, quote)) == 0)
      refuse("a text of several lines; write it in one line and single quotes");
    const std::size_t begin = place_;
    std::string value;
    for (++place_; peek() != quote; ++place_) {
      if (at_end() || peek() == '\n') {
        place_ = begin;
        refuse(fmt::format("{} has no closing quote; add it", rest()));
      }
      value += quote == '"' && peek() == '\\' ? read_escape() : peek();
    }
    ++place_;
    return value;
  }

  char read_escape() {
    ++place_;
    switch (peek()) {
      case '"': return '"';
      case '\\': return '\\';
      case 'n': return '\n';
      case 't': return '\t';
      default: refuse("an unknown escape after \\; write the text in single quotes");
    }
  }

  ordered_json read_array() {
    ordered_json array = ordered_json::array();
    const std::size_t begin = place_++;
    for (skip_blank(true); peek() != ']'; skip_blank(true)) {
      array.push_back(read_value());
      skip_blank(true);
      if (peek() == ',') {
        ++place_;
      } else if (peek() != ']') {
        place_ = begin;
        refuse("an array without its closing ]; write it like [5, 5, 6]");
      }
    }
    ++place_;
    return array;
  }

  const std::string& text_;
  const std::string& origin_;
  std::size_t place_ = 0;
};

}  // namespace

nlohmann::ordered_json parse_toml(const std::string& text, const std::string& origin) {
  return TomlReader(text, origin).read();
}

}  // namespace llama3d
