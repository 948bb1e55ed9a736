// Text as it grows token by token: what may be shown of it, and where it ends.
#include "data/generated_text.hpp"

#include <boost/test/unit_test.hpp>

#include "base/error.hpp"
#include "base/utf8.hpp"
#include "data/tokenizer/byte_tokenizer.hpp"

using namespace llama3d;

namespace {

const ByteTokenizer bytes;

/// What is shown after each byte, and whether the text ended with the last.
std::vector<std::string> shown(const std::string& text, const StopRules& rules, bool ends = false) {
  GeneratedText growing(bytes, rules);
  std::vector<std::string> pieces;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool ended = growing.append(static_cast<unsigned char>(text[i]));
    BOOST_CHECK_EQUAL(ended, ends && i + 1 == text.size());
    pieces.push_back(growing.take());
  }
  pieces.push_back(growing.take_rest());
  BOOST_CHECK(growing.take_rest().empty());
  return pieces;
}

using Pieces = std::vector<std::string>;

}  // namespace

BOOST_AUTO_TEST_SUITE(generated_text)

BOOST_AUTO_TEST_CASE(characters_are_shown_whole) {
  BOOST_CHECK(shown("aé€😀b", {}) == (Pieces{"a", "", "é", "", "", "€", "", "", "", "😀", "b", ""}));
}

BOOST_AUTO_TEST_CASE(bytes_that_are_no_characters_are_replaced) {
  BOOST_CHECK(shown("\xE2\x82"
                    "a\xFF\x80",
                    {}) == (Pieces{"", "", "\uFFFDa", "\uFFFD", "\uFFFD", ""}));
  BOOST_CHECK(shown("a\xE2\x82", {}) == (Pieces{"a", "", "", "\uFFFD"}));
  // In pieces as at once.
  for (const std::string text :
       {"\xF0\x9F\xE2\x82\xAC", "\xC3\xC3\xA9", "\xED\xA0\x80x", "\xF4\x90\x80\x80"}) {
    std::string all;
    for (const auto& piece : shown(text, {})) all += piece;
    BOOST_CHECK_EQUAL(all, replace_invalid_utf8(text));
  }
}

BOOST_AUTO_TEST_CASE(a_stop_text_is_never_shown) {
  const StopRules rules{{}, {"STOP"}};
  BOOST_CHECK(shown("aSTOP", rules, true) == (Pieces{"a", "", "", "", "", ""}));
  // What only looked like it comes as soon as that is known, or at the end.
  BOOST_CHECK(shown("SSTxST", rules) == (Pieces{"", "S", "", "STx", "", "", "ST"}));
}

BOOST_AUTO_TEST_CASE(the_first_of_several_stop_texts_counts) {
  BOOST_CHECK(shown("xab", {{}, {"zzz", "ab", "b"}}, true) == (Pieces{"x", "", "", ""}));
  BOOST_CHECK(shown("xb", {{}, {"ab", "b"}}, true) == (Pieces{"x", "", ""}));
}

BOOST_AUTO_TEST_CASE(a_stop_text_within_a_character_s_bytes) {
  BOOST_CHECK(shown("é!é?", {{}, {"é?"}}, true) == (Pieces{"", "", "é!", "", "", "", ""}));
}

BOOST_AUTO_TEST_CASE(stop_tokens_end_without_a_text) {
  const StopRules rules = StopRules::of(bytes, {"end"});
  BOOST_CHECK(rules.texts == Pieces{"end"});
  GeneratedText text(bytes, rules);
  BOOST_CHECK(!text.append('a'));
  BOOST_CHECK(text.append(bytes.end_of_text()));
  BOOST_CHECK_EQUAL(text.take_rest(), "a");
  BOOST_CHECK_THROW(StopRules::of(bytes, {""}), ConfigurationError);
}

BOOST_AUTO_TEST_SUITE_END()
