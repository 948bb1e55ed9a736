#pragma once
// For boost::unit_test::precondition: a case that a machine or a number of ranks has nothing for is reported
// as skipped, with the reason, and not as passed.

#include <boost/test/unit_test.hpp>
#include <string>

namespace llama3d::test {

/// Exit status of a program of which every case was skipped, which CTest reports as skipped.
inline constexpr int skipped_status = 77;

/// `holds` is called right before the case. In a program of several ranks it must be the same on all.
template <class Condition>
auto needs(const std::string& what, Condition holds) {
  return boost::unit_test::precondition([what, holds](boost::unit_test::test_unit_id) {
    boost::test_tools::assertion_result result(holds());
    result.message() << "it needs " << what;
    return result;
  });
}

}  // namespace llama3d::test
