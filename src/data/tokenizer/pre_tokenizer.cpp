#include "data/tokenizer/pre_tokenizer.hpp"

#include "base/utf8.hpp"
#include "data/tokenizer/unicode_class.hpp"

namespace llama3d {
namespace {

class Scanner {
 public:
  explicit Scanner(std::string_view text)
      : classes_(character_classes().data()), end_(text.data() + text.size()) {}

  bool is(const char* at, CharacterClass wanted) const { return at < end_ && class_at(at) == wanted; }
  CharacterClass class_at(const char* at) const { return classes_[character_at(at).code_point]; }

  /// Past all characters of this class, but `most` at most.
  const char* skip(const char* at, CharacterClass wanted, std::size_t most = ~std::size_t{0}) const {
    for (; at < end_ && most > 0; --most) {
      const auto [code_point, length] = character_at(at);
      if (classes_[code_point] != wanted) break;
      at += length;
    }
    return at;
  }

  /// Past 's, 't, 're, 've, 'm, 'll or 'd in any case, given what follows the apostrophe; null for none.
  const char* contraction(const char* at) const {
    const auto lower = [&](int i) { return end_ - at > i ? at[i] | 0x20 : 0; };
    switch (lower(0)) {
      case 's':
      case 't':
      case 'm':
      case 'd': return at + 1;
      case 'r':
      case 'v': return lower(1) == 'e' ? at + 2 : nullptr;
      case 'l': return lower(1) == 'l' ? at + 2 : nullptr;
    }
    // The one character outside ASCII that is a case of these letters: the long s.
    if (end_ - at >= 2 && at[0] == '\xC5' && at[1] == '\xBF') return at + 2;
    return nullptr;
  }

  /// The three alternatives for white space alone.
  const char* white_space(const char* begin) const {
    const char *at = begin, *last = begin, *after_newline = nullptr;
    while (at < end_) {
      const auto [code_point, length] = character_at(at);
      const CharacterClass found = classes_[code_point];
      if (found != CharacterClass::space && found != CharacterClass::newline) break;
      last = at;
      at += length;
      if (found == CharacterClass::newline) after_newline = at;
    }
    if (after_newline) return after_newline;
    // The last one belongs to what follows, if anything does and this leaves something.
    return at < end_ && last > begin ? last : at;
  }

  const char* piece(const char* begin) const {
    const auto [code_point, length] = character_at(begin);
    const CharacterClass first = classes_[code_point];
    const char* next = begin + length;
    if (first == CharacterClass::letter) return skip(next, CharacterClass::letter);
    if (first == CharacterClass::number) return skip(next, CharacterClass::number, 2);
    if (code_point == '\'')
      if (const char* after = contraction(next)) return after;
    if (first != CharacterClass::newline && is(next, CharacterClass::letter))
      return skip(next, CharacterClass::letter);
    if (first == CharacterClass::other || (code_point == ' ' && is(next, CharacterClass::other)))
      return skip(skip(next, CharacterClass::other), CharacterClass::newline);
    return white_space(begin);
  }

 private:
  const CharacterClass* classes_;
  const char* end_;
};

bool is_white_space(CharacterClass value) {
  return value == CharacterClass::space || value == CharacterClass::newline;
}

/// Whether pieces end between any two such characters, whatever is around them: no alternative goes on from
/// a letter or a number to another class, or from a line's end to anything but white space.
bool always_apart(CharacterClass left, CharacterClass right) {
  if (left == CharacterClass::letter || left == CharacterClass::number) return right != left;
  return left == CharacterClass::newline && !is_white_space(right);
}

}  // namespace

std::size_t piece_end(std::string_view text, std::size_t begin) {
  return static_cast<std::size_t>(Scanner(text).piece(text.data() + begin) - text.data());
}

std::size_t last_piece_boundary(std::string_view text) {
  const CharacterClasses& classes = character_classes();
  // The characters left and right of `cut`, where both are whole and valid.
  std::size_t end = text.size();
  bool right_valid = false;
  CharacterClass right = CharacterClass::other;
  while (end > 0) {
    std::size_t begin = end - 1;
    while (begin > 0 && end - begin < 4 && (text[begin] & 0xC0) == 0x80) --begin;
    const std::string_view bytes = text.substr(begin, end - begin);
    const bool valid = find_invalid_utf8(bytes) == std::string_view::npos;
    const CharacterClass left =
        valid ? classes[character_at(bytes.data()).code_point] : CharacterClass::other;
    if (valid && right_valid && always_apart(left, right)) return end;
    right = left;
    right_valid = valid;
    end = begin;
  }
  return 0;
}

}  // namespace llama3d
