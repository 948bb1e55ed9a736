#include "base/printable.hpp"

#include <boost/test/unit_test.hpp>

#include "base/utf8.hpp"

using namespace llama3d;

BOOST_AUTO_TEST_SUITE(printable_text)

BOOST_AUTO_TEST_CASE(letters_of_any_script_stay) {
  for (const char* text :
       {"", "model.norm.weight", "na\xC3\xAFve", "\xE6\xA8\xA1\xE5\x9E\x8B", "\xF0\x9F\xA6\x99"})
    BOOST_TEST(printable(text) == text);
}

BOOST_AUTO_TEST_CASE(what_a_terminal_acts_on_is_escaped) {
  BOOST_TEST(printable("a\nb\r\tc") == "a\\nb\\r\\tc");
  BOOST_TEST(printable("\x1b[31mred\x1b[0m") == "\\u001b[31mred\\u001b[0m");
  BOOST_TEST(printable(std::string("\0\x7f", 2)) == "\\u0000\\u007f");
  BOOST_TEST(printable("\xC2\x9B"
                       "31m") == "\\u009b31m");  // CSI in one character
  BOOST_TEST(printable("\xE2\x80\xAE"
                       "5h.exe") == "\\u202e5h.exe");                     // right to left
  BOOST_TEST(printable("\xE2\x81\xA6\xE2\x80\x8B") == "\\u2066\\u200b");  // isolate, zero width
  BOOST_TEST(printable("\xF3\xA0\x80\x81") == "\\ue0001");                // tag
  // Bytes that are no UTF-8, which a terminal of 8 bits would take for C1: one by one.
  BOOST_TEST(printable("a\x9B"
                       "31m\xFF") == "a\\x9b31m\\xff");
  BOOST_TEST(printable("\xE6\xA8") == "\\xe6\\xa8");
  for (int c = 0; c < 0x20; ++c) {
    const std::string shown = printable(std::string(1, static_cast<char>(c)));
    BOOST_TEST(shown.front() == '\\');
    BOOST_TEST(printable(shown) == shown);
  }
}

BOOST_AUTO_TEST_CASE(of_a_long_text_the_beginning_is_shown) {
  BOOST_TEST(printable(std::string(300, 'x')) == std::string(300, 'x'));
  BOOST_TEST(printable(std::string(301, 'x')) == std::string(300, 'x') + "...");
  BOOST_TEST(printable("abc\xE6\xA8\xA1", 5) == "abc...");  // never half a character
  BOOST_TEST(printable(std::string(std::size_t{1} << 20, '\n'), 10).size() == 23u);
}

BOOST_AUTO_TEST_CASE(lines_of_a_text_look_like_no_line_of_the_programs_own) {
  BOOST_TEST(printable_lines("a = 1\nchecksums: \x1b[1mall right\n", "    ") ==
             "a = 1\n    checksums: \\u001b[1mall right");
  BOOST_TEST(printable_lines("a\nb") == "a\nb");
  BOOST_TEST(printable_lines("ab\ncd", "", 4) == "ab\nc...");
}

BOOST_AUTO_TEST_SUITE_END()
