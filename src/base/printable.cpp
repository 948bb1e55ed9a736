#include "base/printable.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.hpp"

namespace llama3d {
namespace {

/// C0, DEL, C1, and what Unicode's general category Cf has for the direction and the joining of text.
bool is_hidden(std::uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x61C || (c >= 0x200B && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
         (c >= 0xFFF9 && c <= 0xFFFB) || (c >= 0xE0000 && c <= 0xE0FFF);
}

void append_escaped(std::uint32_t c, std::string& out) {
  switch (c) {
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    default: out += fmt::format("\\u{:04x}", c);
  }
}

/// Where the last whole character within the first `longest` bytes ends.
std::size_t cut_before(std::string_view text, std::size_t longest) {
  return longest - unfinished_character(text.substr(0, longest));
}

}  // namespace

std::string printable(std::string_view text, std::size_t longest) {
  const bool cut = text.size() > longest;
  if (cut) text = text.substr(0, cut_before(text, longest));
  std::string shown;
  shown.reserve(text.size());
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t bad = std::min(find_invalid_utf8(text, begin), text.size());
    while (begin < bad) {
      const auto [code_point, length] = character_at(text.data() + begin);
      if (is_hidden(code_point))
        append_escaped(code_point, shown);
      else
        shown.append(text, begin, length);
      begin += length;
    }
    if (begin == text.size()) break;
    shown += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[begin++]));
  }
  return cut ? shown + "..." : shown;
}

std::string printable_lines(std::string_view text, std::string_view indent, std::size_t longest) {
  const bool cut = text.size() > longest;
  if (cut) text = text.substr(0, cut_before(text, longest));
  std::string shown;
  for (;;) {
    const std::size_t feed = text.find('\n');
    shown += printable(text.substr(0, feed), longest);
    if (feed == std::string_view::npos) break;
    text.remove_prefix(feed + 1);
    if (text.empty()) break;
    shown += '\n';
    shown += indent;
  }
  return cut ? shown + "..." : shown;
}

}  // namespace llama3d
