#include "base/bytes.hpp"

#include <boost/test/unit_test.hpp>

using namespace llama3d;

BOOST_AUTO_TEST_CASE(bytes_are_read_as_people_write_them) {
  BOOST_TEST(parse_bytes("5GB").value() == 5'000'000'000);
  BOOST_TEST(parse_bytes("0.5 GiB").value() == std::int64_t{1} << 29);
  BOOST_TEST(parse_bytes("10KB").value() == 10'000);
  BOOST_TEST(parse_bytes("1000").value() == 1000);
  BOOST_TEST(parse_bytes("7B").value() == 7);
  for (const char* text :
       {"", "GB", "5G", "five", "-5GB", "0", "0.1", "5GB5", "1e30TB", "nan", "inf", "5 gb"})
    BOOST_TEST(!parse_bytes(text).has_value(), text);
}

BOOST_AUTO_TEST_CASE(bytes_are_shown_with_three_digits) {
  BOOST_TEST(format_bytes(1023) == "1023 B");
  BOOST_TEST(format_bytes(1536) == "1.50 KiB");
  BOOST_TEST(format_bytes(std::size_t{300} << 30) == "300 GiB");
}
