#include "base/utf8.hpp"

#include <cstring>

namespace llama3d {
namespace {

struct Sequence {
  std::size_t length;  ///< of the character, or of what there is of it
  bool valid;
};

/// Reads the character at the front of `text`, which is not empty.
Sequence read_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte alone decides about overlong forms, surrogates and what is above U+10FFFF.
  unsigned low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < length; ++i) {
    if (i >= text.size() || byte(i) < low || byte(i) > high) return {i, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true};
}

}  // namespace

std::size_t find_invalid_utf8(std::string_view text, std::size_t begin) {
  constexpr std::uint64_t high_bits = 0x8080808080808080;
  while (begin < text.size()) {
    std::uint64_t eight = high_bits;
    if (text.size() - begin >= sizeof eight) std::memcpy(&eight, text.data() + begin, sizeof eight);
    if ((eight & high_bits) == 0) {
      begin += sizeof eight;
      continue;
    }
    const auto [length, valid] = read_character(text.substr(begin));
    if (!valid) return begin;
    begin += length;
  }
  return std::string_view::npos;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string replaced;
  replaced.reserve(text.size());
  std::size_t begin = 0;
  for (;;) {
    const std::size_t bad = find_invalid_utf8(text, begin);
    replaced.append(text.substr(begin, bad - begin));
    if (bad == std::string_view::npos) return replaced;
    replaced.append("\xEF\xBF\xBD");
    begin = bad + read_character(text.substr(bad)).length;
  }
}

std::size_t unfinished_character(std::string_view text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const std::size_t length = byte >= 0xF5 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC2 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace llama3d
