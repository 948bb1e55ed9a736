#include "io/checkpoint/crc32c.hpp"

#include <boost/test/unit_test.hpp>
#include <random>
#include <string>
#include <vector>

using llama3d::io::crc32c;
using llama3d::io::crc32c_software;

BOOST_AUTO_TEST_SUITE(crc32c_suite)

// RFC 3720, appendix B.4.
BOOST_AUTO_TEST_CASE(matches_published_values) {
  std::string ascending(32, '\0'), descending(32, '\0');
  for (int i = 0; i < 32; ++i) {
    ascending[static_cast<std::size_t>(i)] = static_cast<char>(i);
    descending[static_cast<std::size_t>(i)] = static_cast<char>(31 - i);
  }
  const std::vector<std::pair<std::string, std::uint32_t>> published = {
      {"", 0u},
      {"123456789", 0xE3069283u},
      {std::string(32, '\0'), 0x8A9136AAu},
      {std::string(32, '\xff'), 0x62A8AB43u},
      {ascending, 0x46DD794Eu},
      {descending, 0x113FDB5Cu}};
  for (const auto& [text, value] : published) {
    BOOST_TEST(crc32c(text.data(), text.size()) == value);
    BOOST_TEST(crc32c_software(text.data(), text.size()) == value);
  }
}

BOOST_AUTO_TEST_CASE(parts_give_the_same_as_the_whole) {
  std::mt19937 random(1);
  std::string data(1000, '\0');
  for (char& c : data) c = static_cast<char>(random());
  const std::uint32_t all = crc32c(data.data(), data.size());
  for (std::size_t cut = 0; cut <= data.size(); cut += 37) {
    const std::uint32_t first = crc32c(data.data(), cut);
    BOOST_TEST(crc32c(data.data() + cut, data.size() - cut, first) == all);
    BOOST_TEST(crc32c_software(data.data() + cut, data.size() - cut, crc32c_software(data.data(), cut)) ==
               all);
  }
}

BOOST_AUTO_TEST_CASE(sees_every_single_flipped_bit) {
  std::string data(100, 'x');
  const std::uint32_t all = crc32c(data.data(), data.size());
  for (std::size_t bit = 0; bit < data.size() * 8; ++bit) {
    data[bit / 8] ^= static_cast<char>(1 << bit % 8);
    BOOST_TEST(crc32c(data.data(), data.size()) != all);
    data[bit / 8] ^= static_cast<char>(1 << bit % 8);
  }
}

BOOST_AUTO_TEST_SUITE_END()
