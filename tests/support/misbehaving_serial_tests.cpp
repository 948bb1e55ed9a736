// Test cases of one process that must not pass, for failure_test.sh.
#include <boost/test/unit_test.hpp>

#include "support/preconditions.hpp"

BOOST_AUTO_TEST_CASE(passes) {
  BOOST_TEST(true);
}

BOOST_AUTO_TEST_CASE(checks_nothing) {}

BOOST_AUTO_TEST_CASE(is_skipped, *llama3d::test::needs("a thing", [] { return false; })) {
  BOOST_TEST(false);
}
