#pragma once
// What Llama 3's regular expression asks of a character.

#include <array>
#include <cstdint>
#include <span>

namespace llama3d {

struct CodePointRange {
  std::uint32_t first, last;
};

/// \p{L}, \p{N} and \s as tiktoken and tokenizers have them, Unicode 16: not a library's, whose version would
/// decide about tokens.
extern const std::span<const CodePointRange> letter_ranges, number_ranges, white_space_ranges;

enum class CharacterClass : std::uint8_t {
  other,
  letter,
  number,
  space,    ///< white space other than the two below
  newline,  ///< \r and \n
};

using CharacterClasses = std::array<CharacterClass, 0x110000>;

/// The class of every code point.
const CharacterClasses& character_classes();

}  // namespace llama3d
