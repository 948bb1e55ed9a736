// Main of a one-process test program: as Boost.Test's own, but a program without a test case fails.
#define BOOST_TEST_NO_MAIN
#include <boost/test/unit_test.hpp>
#include <iostream>

int main(int argc, char** argv) {
  const int status = boost::unit_test::unit_test_main([] { return true; }, argc, argv);
  const auto& suite = boost::unit_test::framework::master_test_suite();
  if (boost::unit_test::framework::get<boost::unit_test::test_suite>(suite.p_id).size() == 0) {
    std::cerr << "no test case in this program\n";
    return 1;
  }
  return status;
}
