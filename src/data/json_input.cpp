#include "data/json_input.hpp"

#include <algorithm>
#include <utility>

#include "base/error.hpp"

namespace llama3d {
namespace {

constexpr std::string_view blanks = " \t\r\n";

/// Where an element ends: at the comma or bracket after it, outside all of its own.
class ElementEnd {
 public:
  /// Length of the part of `text` that belongs to the element; text.size() while its end is not in sight.
  std::size_t find(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (in_string_) {
        if (escaped_)
          escaped_ = false;
        else if (c == '\\')
          escaped_ = true;
        else if (c == '"')
          in_string_ = false;
        continue;
      }
      if (depth_ == 0 && (c == ',' || c == ']' || c == '}')) return i;
      if (c == '"') in_string_ = true;
      if (c == '{' || c == '[') ++depth_;
      if (c == '}' || c == ']') --depth_;
    }
    return text.size();
  }

 private:
  std::int64_t depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace

JsonLinesInput::JsonLinesInput(BufferedFile file, std::size_t largest)
    : file_(std::move(file)), largest_(largest) {}

bool JsonLinesInput::next(RawText& record) {
  do {
    record = {};
    BufferedFile::Line got;
    do {
      got = file_.append_some(record.text);
      check_piece_size(file_, file_.line(), record.text.size(), largest_, "the line");
    } while (got == BufferedFile::Line::part);
    if (got == BufferedFile::Line::none && record.text.empty()) return false;
  } while (is_blank(record.text));
  record.line = file_.line();
  record.offset = file_.offset() - static_cast<std::int64_t>(record.text.size());
  return true;
}

JsonArrayInput::JsonArrayInput(BufferedFile file, std::size_t largest)
    : file_(std::move(file)), largest_(largest) {}

void JsonArrayInput::fail(std::int64_t line, const std::string& reason) const {
  throw DataError(fmt::format("{}:{}: the JSON array is damaged ({}); it must be [RECORD, RECORD, ...]",
                              file_.path().string(), line, reason));
}

char JsonArrayInput::next_character() {
  for (std::string_view ahead = file_.ahead(); !ahead.empty(); ahead = file_.ahead()) {
    const std::size_t blank = std::min(ahead.find_first_not_of(blanks), ahead.size());
    line_ += std::count(ahead.begin(), ahead.begin() + static_cast<std::ptrdiff_t>(blank), '\n');
    file_.take(blank);
    if (blank < ahead.size()) return ahead[blank];
  }
  return 0;
}

bool JsonArrayInput::next(RawText& record) {
  if (finished_) return false;
  const char opening = next_character();
  if (opening == 0) fail(line_, begun_ ? "the file ends in the middle of it" : "the file is empty");
  if (!begun_ && opening != '[') fail(line_, "the file does not begin with [");
  if (begun_ && opening != ',' && opening != ']') fail(line_, "no comma after an element");
  const bool first = !begun_;
  begun_ = true;
  if (opening != ']') file_.take(1);
  const char next = next_character();
  if (next == ']' && (first || opening == ']')) {
    file_.take(1);
    if (next_character() != 0) fail(line_, "there is more after its end");
    finished_ = true;
    return false;
  }
  if (next == ',' || next == ']') fail(line_, "an element is missing");
  take_element(record);
  return true;
}

void JsonArrayInput::take_element(RawText& record) {
  record = {};
  record.line = line_;
  record.record = ++records_;
  record.offset = file_.offset();
  ElementEnd end;
  for (;;) {
    const std::string_view ahead = file_.ahead();
    if (ahead.empty()) fail(record.line, "the file ends in the middle of the record that begins there");
    const std::string_view part = ahead.substr(0, end.find(ahead));
    line_ += std::count(part.begin(), part.end(), '\n');
    record.text.append(part);
    check_piece_size(file_, record.line, record.text.size(), largest_, "the record");
    file_.take(part.size());
    if (part.size() < ahead.size()) return;
  }
}

std::unique_ptr<DocumentInput> open_json_records(const std::filesystem::path& path, std::size_t largest) {
  BufferedFile file(path);
  const std::string_view ahead = file.ahead();
  const std::size_t first = ahead.find_first_not_of(blanks);
  if (first != std::string_view::npos && ahead[first] == '[')
    return std::make_unique<JsonArrayInput>(std::move(file), largest);
  return std::make_unique<JsonLinesInput>(std::move(file), largest);
}

}  // namespace llama3d
