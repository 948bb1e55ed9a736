// Test cases that must not pass, for failure_test.sh: it runs them one by one and wants each to fail.
#include <boost/test/unit_test.hpp>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "support/mpi_fixture.hpp"
#include "support/preconditions.hpp"

using namespace llama3d::test;

BOOST_AUTO_TEST_CASE(passes) {
  BOOST_TEST(control().all_max(1) == 1);
}

BOOST_AUTO_TEST_CASE(fails_on_the_last_rank) {
  BOOST_TEST(control().rank() != control().size() - 1);
}

BOOST_AUTO_TEST_CASE(throws_on_rank_1) {
  BOOST_TEST(true);
  if (control().rank() == 1) throw std::runtime_error("alone");
}

BOOST_AUTO_TEST_CASE(checks_nothing) {}

BOOST_AUTO_TEST_CASE(is_skipped, *needs("a thing", [] { return false; })) {
  BOOST_TEST(false);
}

BOOST_AUTO_TEST_CASE(hangs_on_rank_1) {
  BOOST_TEST(true);
  while (control().rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(1));
}

BOOST_AUTO_TEST_CASE(leaves_the_others_in_a_collective) {
  BOOST_TEST_REQUIRE(control().rank() != 1);
  control().barrier();
  control().barrier();
  control().barrier();
}
