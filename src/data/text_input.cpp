#include "data/text_input.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <system_error>

#include "base/error.hpp"

namespace llama3d {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{1} << 18;

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

/// Without the blanks around it; a form feed stays, for it may be the separator itself.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

bool holds_json_lines(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".json")
    throw DataError(
        fmt::format("{} is a JSON document (one value, not a line a document); convert it to JSON lines, "
                    "*.jsonl",
                    path.string()));
  return extension == ".jsonl" || extension == ".ndjson";
}

}  // namespace

TextInput::TextInput(const std::filesystem::path& path, const TextInputOptions& options)
    : path_(path), options_(options), json_lines_(holds_json_lines(path)), buffer_(buffer_bytes) {
  options_.separator = trimmed(options_.separator);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw DataError(fmt::format("{} is missing (no such file); check --input", path.string()));
  if (std::filesystem::is_directory(path, ignored))
    throw DataError(fmt::format("{} is a folder (not a text file); name the files in it", path.string()));
  file_.open(path, std::ios::binary);
  if (!file_)
    throw DataError(fmt::format("{} can't be opened (no permission?); check --input", path.string()));
}

bool TextInput::fill_buffer() {
  file_.read(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  if (file_.bad())
    throw DataError(fmt::format("{} can't be read (input error); check the disk", path_.string()));
  buffer_begin_ = 0;
  buffer_end_ = static_cast<std::size_t>(file_.gcount());
  const bool first = bytes_read_ == 0;
  bytes_read_ += file_.gcount();
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (first && std::string_view(buffer_.data(), buffer_end_).starts_with(byte_order_mark))
    buffer_begin_ = byte_order_mark.size();
  return buffer_end_ > 0;
}

bool TextInput::append_line(std::string& text) {
  const std::size_t line_begin = text.size();
  bool any = false;
  while (buffer_begin_ < buffer_end_ || fill_buffer()) {
    const char* begin = buffer_.data() + buffer_begin_;
    const std::size_t left = buffer_end_ - buffer_begin_;
    const auto* feed = static_cast<const char*>(std::memchr(begin, '\n', left));
    const std::size_t length = feed ? static_cast<std::size_t>(feed - begin) + 1 : left;
    if (!any) ++line_;
    any = true;
    text.append(begin, length);
    buffer_begin_ += length;
    check_line(text, line_begin);
    if (feed) break;
  }
  return any;
}

void TextInput::check_line(const std::string& text, std::size_t line_begin) const {
  if (std::memchr(text.data() + line_begin, '\0', text.size() - line_begin))
    throw DataError(
        fmt::format("{}:{} holds a NUL byte (not a text file: compressed, or binary?); give plain text",
                    path_.string(), line_));
  if (static_cast<std::int64_t>(text.size()) > options_.largest_document)
    throw DataError(
        fmt::format("{}:{}: the document there is longer than {} bytes (documents are held in memory "
                    "whole); split it into several",
                    path_.string(), line_, options_.largest_document));
}

bool TextInput::next(RawDocument& document) {
  if (finished_) return false;
  const bool found = json_lines_ ? next_json_line(document) : next_text(document);
  finished_ = !found;
  return found;
}

bool TextInput::next_json_line(RawDocument& document) {
  do {
    document.text.clear();
    if (!append_line(document.text)) return false;
  } while (is_blank(document.text));
  document.line = line_;
  return true;
}

bool TextInput::next_text(RawDocument& document) {
  for (bool more = true; more;) {
    document.text.clear();
    document.line = line_ + 1;
    bool separated = false;
    while (!separated) {
      const std::size_t line_begin = document.text.size();
      more = append_line(document.text);
      if (!more) break;
      if (options_.separator.empty()) continue;
      separated = trimmed(std::string_view(document.text).substr(line_begin)) == options_.separator;
      if (separated) document.text.resize(line_begin);
    }
    if (!is_blank(document.text)) return true;
    // Nothing after the last separator is the normal end of a file, not an empty document.
    if (more || options_.separator.empty()) ++empty_documents_;
  }
  return false;
}

}  // namespace llama3d
