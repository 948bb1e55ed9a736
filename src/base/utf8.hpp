#pragma once
// UTF-8 as Unicode defines it: no surrogates, no overlong forms, nothing above U+10FFFF.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llama3d {

struct Character {
  std::uint32_t code_point;
  std::uint32_t length;  ///< bytes
};

/// The character that begins at `text`, in valid UTF-8.
inline Character character_at(const char* text) {
  const auto byte = [&](int i) { return std::uint32_t{static_cast<unsigned char>(text[i])}; };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (lead < 0xF0) return {(lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4};
}

/// Offset of the first byte from `begin` on that is no part of a valid character; npos when all is valid.
std::size_t find_invalid_utf8(std::string_view text, std::size_t begin = 0);

/// Each longest beginning of a character that does not go on, or single byte that begins none, as one U+FFFD:
/// what Python's errors="replace" and web browsers do.
std::string replace_invalid_utf8(std::string_view text);

/// Bytes at the end of `text` that begin a character and do not finish it, as far as its length tells.
std::size_t unfinished_character(std::string_view text);

}  // namespace llama3d
