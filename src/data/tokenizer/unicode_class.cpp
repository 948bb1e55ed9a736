#include "data/tokenizer/unicode_class.hpp"

#include <algorithm>
#include <memory>

namespace llama3d {
namespace {

std::unique_ptr<const CharacterClasses> make_classes() {
  auto classes = std::make_unique<CharacterClasses>();
  const auto fill = [&](std::span<const CodePointRange> ranges, CharacterClass value) {
    for (const auto [first, last] : ranges)
      std::fill(classes->begin() + first, classes->begin() + last + 1, value);
  };
  fill(letter_ranges, CharacterClass::letter);
  fill(number_ranges, CharacterClass::number);
  fill(white_space_ranges, CharacterClass::space);
  (*classes)['\r'] = (*classes)['\n'] = CharacterClass::newline;
  return classes;
}

}  // namespace

const CharacterClasses& character_classes() {
  static const std::unique_ptr<const CharacterClasses> classes = make_classes();
  return *classes;
}

}  // namespace llama3d
