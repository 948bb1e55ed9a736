// Philox4x32-10 against the known answers of its authors (Random123, tests/kat_vectors).
#include "base/philox.hpp"

#include <boost/test/unit_test.hpp>
#include <ostream>
#include <set>

namespace std {
ostream& boost_test_print_type(ostream& out, const llama3d::PhiloxBlock& block) {
  for (const auto word : block) out << hex << word << ' ';
  return out;
}
}  // namespace std

using llama3d::philox4x32;
using llama3d::philox_key;
using llama3d::PhiloxBlock;

BOOST_AUTO_TEST_SUITE(philox)

BOOST_AUTO_TEST_CASE(known_answers) {
  BOOST_TEST(philox4x32(0, 0, 0) == (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  BOOST_TEST(philox4x32(~0ull, ~0ull, ~0ull) ==
             (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  BOOST_TEST(philox4x32(0x299f31d0'a4093822, 0x85a308d3'243f6a88, 0x03707344'13198a2e) ==
             (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

BOOST_AUTO_TEST_CASE(keys_differ_by_seed_and_name) {
  std::set<std::uint64_t> keys;
  for (const std::uint64_t seed : {0, 1, 2})
    for (const char* name : {"", "a", "b", "ab", "ba"}) keys.insert(philox_key(seed, name));
  BOOST_TEST(keys.size() == 15u);
}

BOOST_AUTO_TEST_SUITE_END()
