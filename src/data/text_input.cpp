#include "data/text_input.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

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
  next_attempt_ = options_.piece_bytes;
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

TextInput::Line TextInput::append_some(std::string& text) {
  if (buffer_begin_ == buffer_end_ && !fill_buffer()) return Line::none;
  const char* begin = buffer_.data() + buffer_begin_;
  const std::size_t left = buffer_end_ - buffer_begin_;
  const auto* feed = static_cast<const char*>(std::memchr(begin, '\n', left));
  const std::size_t length = feed ? static_cast<std::size_t>(feed - begin) + 1 : left;
  if (!in_line_) ++line_;
  in_line_ = !feed;
  check_part({begin, length});
  check_size(text.size() + length);
  text.append(begin, length);
  buffer_begin_ += length;
  return feed ? Line::whole : Line::part;
}

void TextInput::check_part(std::string_view part) const {
  if (std::memchr(part.data(), '\0', part.size()))
    throw DataError(
        fmt::format("{}:{} holds a NUL byte (not a text file: compressed, or binary?); give plain text",
                    path_.string(), line_));
}

void TextInput::check_size(std::size_t bytes) const {
  if (bytes > options_.largest_piece)
    throw DataError(fmt::format(
        "{}:{}: {} there is longer than {} bytes (it is held in memory whole); split it", path_.string(),
        line_, json_lines_ ? "the line" : "text without a place to cut it", options_.largest_piece));
}

bool TextInput::next(RawText& piece) {
  return !finished_ && (json_lines_ ? next_json_line(piece) : next_text(piece));
}

bool TextInput::next_json_line(RawText& line) {
  do {
    line = {};
    Line got;
    do got = append_some(line.text);
    while (got == Line::part);
    finished_ = got == Line::none && line.text.empty();
    if (finished_) return false;
  } while (is_blank(line.text));
  line.line = line_;
  line.offset = bytes_read_ - static_cast<std::int64_t>(buffer_end_ - buffer_begin_ + line.text.size());
  return true;
}

bool TextInput::next_text(RawText& piece) {
  for (;;) {
    const std::size_t before = document_.text.size();
    const Line got = append_some(document_.text);
    if (got == Line::none) {
      finished_ = true;
      const bool any = end_document(piece);
      // Nothing after the last separator is the normal end of a file, not an empty document.
      if (!any && options_.separator.empty()) ++empty_documents_;
      return any;
    }
    if (before == 0 && document_.begins_document) {
      const std::size_t still_ahead = buffer_end_ - buffer_begin_ + document_.text.size();
      document_.line = line_;
      document_.offset = bytes_read_ - static_cast<std::int64_t>(still_ahead);
    }
    if (got == Line::whole) {
      if (take_separator()) {
        if (end_document(piece)) return true;
        ++empty_documents_;
        continue;
      }
      line_begin_ = document_.text.size();
    }
    if (cut(piece)) return true;
  }
}

bool TextInput::take_separator() {
  if (options_.separator.empty() || line_begin_ == line_cut) return false;
  if (trimmed(std::string_view(document_.text).substr(line_begin_)) != options_.separator) return false;
  document_.text.resize(line_begin_);
  return true;
}

bool TextInput::cut(RawText& piece) {
  if (!options_.last_cut || document_.text.size() < next_attempt_) return false;
  std::string_view text = document_.text;
  // A last line that may become the separator must stay whole.
  if (!options_.separator.empty() && line_begin_ != line_cut &&
      options_.separator.starts_with(trimmed(text.substr(line_begin_))))
    text = text.substr(0, line_begin_);
  const std::size_t place = document_.begins_document && is_blank(text) ? 0 : options_.last_cut(text);
  if (place == 0) {
    next_attempt_ = 2 * document_.text.size();  // trying at every line would take quadratic time
    return false;
  }
  piece = {document_.text.substr(0, place), document_.line, document_.offset, document_.begins_document,
           false};
  document_.text.erase(0, place);
  document_.line += std::count(piece.text.begin(), piece.text.end(), '\n');
  document_.offset += static_cast<std::int64_t>(place);
  document_.begins_document = false;
  if (line_begin_ != line_cut) line_begin_ = line_begin_ >= place ? line_begin_ - place : line_cut;
  next_attempt_ = std::max(options_.piece_bytes, 2 * document_.text.size());
  return true;
}

bool TextInput::end_document(RawText& piece) {
  const bool any = !document_.begins_document || !is_blank(document_.text);
  if (any) piece = std::move(document_);
  document_ = {};
  line_begin_ = 0;
  next_attempt_ = options_.piece_bytes;
  return any;
}

}  // namespace llama3d
