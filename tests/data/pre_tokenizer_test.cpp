// The hand-written scanner against PCRE2, which runs the expression itself.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <boost/test/unit_test.hpp>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "data/tokenizer/pre_tokenizer.hpp"
#include "data/tokenizer/unicode_class.hpp"

using namespace llama3d;

namespace {

struct Release {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

class Expression {
 public:
  explicit Expression(std::string_view pattern) {
    int error = 0;
    PCRE2_SIZE place = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                              PCRE2_UTF | PCRE2_UCP, &error, &place, nullptr));
    BOOST_REQUIRE(code_);
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
    match_.reset(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
  }
  /// Where the match at `begin` ends; `begin` for none.
  std::size_t end(std::string_view text, std::size_t begin) const {
    const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin,
                                  PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, match_.get(), nullptr);
    BOOST_REQUIRE((found > 0 || found == PCRE2_ERROR_NOMATCH));
    return found > 0 ? pcre2_get_ovector_pointer(match_.get())[1] : begin;
  }

 private:
  std::unique_ptr<pcre2_code, Release> code_;
  std::unique_ptr<pcre2_match_data, Release> match_;
};

void append_utf8(std::string& text, std::uint32_t c) {
  const auto add = [&](std::uint32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (c < 0x80) return add(c);
  if (c < 0x800) {
    add(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      add(0xE0 | c >> 12);
    } else {
      add(0xF0 | c >> 18);
      add(0x80 | (c >> 12 & 0x3F));
    }
    add(0x80 | (c >> 6 & 0x3F));
  }
  add(0x80 | (c & 0x3F));
}

std::string utf8(std::uint32_t code_point) {
  std::string text;
  append_utf8(text, code_point);
  return text;
}

bool is_surrogate(std::uint32_t c) {
  return c >= 0xD800 && c < 0xE000;
}

/// Code points that this version of PCRE2 and our tables both know, or both do not.
const std::vector<std::uint32_t>& common_code_points() {
  static const std::vector<std::uint32_t> points = [] {
    const Expression unassigned("\\p{Cn}"), letter("\\p{L}"), number("\\p{N}");
    std::vector<std::uint32_t> found;
    for (std::uint32_t c = 0; c < 0x110000; ++c) {
      if (is_surrogate(c)) continue;
      const std::string text = utf8(c);
      const bool ours = character_classes()[c] == CharacterClass::letter ||
                        character_classes()[c] == CharacterClass::number;
      const bool theirs = letter.end(text, 0) > 0 || number.end(text, 0) > 0;
      // Assigned after Unicode 16, or after the version of PCRE2.
      if (ours != theirs && (theirs || unassigned.end(text, 0) > 0)) continue;
      found.push_back(c);
    }
    return found;
  }();
  return points;
}

std::vector<std::size_t> pieces(std::string_view text) {
  std::vector<std::size_t> ends;
  for (std::size_t at = 0; at < text.size();) ends.push_back(at = piece_end(text, at));
  return ends;
}

std::vector<std::size_t> pieces(const Expression& expression, std::string_view text) {
  std::vector<std::size_t> ends;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = expression.end(text, at);
    BOOST_REQUIRE(end > at);
    ends.push_back(at = end);
  }
  return ends;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(pre_tokenizer)

BOOST_AUTO_TEST_CASE(classes_are_those_of_unicode) {
  const Expression letter("\\p{L}"), number("\\p{N}"), space("\\s");
  BOOST_TEST(common_code_points().size() > 1'090'000u);
  std::size_t differing = 0;
  for (const std::uint32_t c : common_code_points()) {
    const std::string text = utf8(c);
    const CharacterClass ours = character_classes()[c];
    const bool white = ours == CharacterClass::space || ours == CharacterClass::newline;
    differing += (letter.end(text, 0) > 0) != (ours == CharacterClass::letter) ||
                 (number.end(text, 0) > 0) != (ours == CharacterClass::number) ||
                 (space.end(text, 0) > 0) != white;
  }
  // PCRE2 has U+180E among white space, as Unicode had before 6.3.
  BOOST_TEST(differing <= 1u);
  BOOST_TEST((character_classes()[0x180E] == CharacterClass::other));
}

BOOST_AUTO_TEST_CASE(random_text_splits_as_the_expression_says) {
  const Expression expression(llama3_expression);
  std::mt19937 draw(11);
  const std::vector<std::string> odd = {" ",
                                        "  ",
                                        "\t",
                                        "\n",
                                        "\r",
                                        "\r\n",
                                        "\xC2\xA0",
                                        "\xE3\x80\x80",
                                        "\xC2\x85",
                                        "'s",
                                        "'S",
                                        "'\xC5\xBF",
                                        "'t",
                                        "'T",
                                        "'re",
                                        "'Re",
                                        "'ve",
                                        "'VE",
                                        "'m",
                                        "'ll",
                                        "'lL",
                                        "'d",
                                        "'l",
                                        "'r",
                                        "'v",
                                        "'",
                                        "''",
                                        "a",
                                        "Z",
                                        "\xC3\xA9",
                                        "\xE4\xB8\xAD",
                                        "\xCC\x81",
                                        "\xE2\x84\xAA",
                                        "1",
                                        "23",
                                        "\xD9\xA0",
                                        "\xC2\xBD",
                                        "!",
                                        "...",
                                        "_",
                                        "\xF0\x9F\x98\x80"};
  std::size_t differing = 0, sabotaged = 0;
  for (int turn = 0; turn < 200'000; ++turn) {
    std::string text;
    const unsigned random_share = turn % 4;
    for (auto left = 1 + draw() % 12; left > 0; --left) {
      if (draw() % 4 < random_share)
        append_utf8(text, common_code_points()[draw() % common_code_points().size()]);
      else
        text += odd[draw() % odd.size()];
    }
    if (text.find("\xE1\xA0\x8E") != std::string::npos) continue;  // U+180E, see above
    differing += pieces(text) != pieces(expression, text);
    sabotaged += pieces(text + "x") != pieces(expression, text);
  }
  BOOST_TEST(differing == 0u);
  BOOST_TEST(sabotaged == 200'000u);
}

BOOST_AUTO_TEST_SUITE_END()
