#include "data/text_input.hpp"

#include <algorithm>
#include <utility>

namespace llama3d {
namespace {

/// Without the blanks around it; a form feed stays, for it may be the separator itself.
std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  const std::size_t begin = text.find_first_not_of(blanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

}  // namespace

TextInput::TextInput(const std::filesystem::path& path, const TextInputOptions& options)
    : options_(options), file_(path), next_attempt_(options.piece_bytes) {
  options_.separator = trimmed(options_.separator);
}

bool TextInput::next(RawText& piece) {
  if (finished_) return false;
  for (;;) {
    const std::size_t before = document_.text.size();
    const BufferedFile::Line got = file_.append_some(document_.text);
    check_piece_size(file_, file_.line(), document_.text.size(), options_.largest_piece,
                     "text without a place to cut it");
    if (got == BufferedFile::Line::none) {
      finished_ = true;
      const bool any = end_document(piece);
      // Nothing after the last separator is the normal end of a file, not an empty document.
      if (!any && options_.separator.empty()) ++empty_documents_;
      return any;
    }
    if (before == 0 && document_.begins_document) {
      document_.line = file_.line();
      document_.offset = file_.offset() - static_cast<std::int64_t>(document_.text.size());
    }
    if (got == BufferedFile::Line::whole) {
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
