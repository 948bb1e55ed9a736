// Main of a one-process test program: as Boost.Test's own, but
//  - a program without a test case fails, and so does a case that checks nothing;
//  - skipped cases are named, and where every case was skipped the status says so.
#define BOOST_TEST_NO_MAIN
#include <boost/test/unit_test.hpp>
#include <iostream>

#include "support/preconditions.hpp"

namespace {

namespace ut = boost::unit_test;

class SerialObserver final : public ut::test_observer {
 public:
  int cases = 0, skipped = 0, unchecked = 0;

  void test_unit_start(const ut::test_unit& unit) override {
    if (unit.p_type != ut::TUT_CASE) return;
    ++cases;
    checked_ = false;
  }
  void test_unit_finish(const ut::test_unit& unit, unsigned long) override {
    if (unit.p_type != ut::TUT_CASE || checked_) return;
    ++unchecked;
    std::cerr << "test " << unit.full_name() << " checked nothing\n";
  }
  void test_unit_skipped(const ut::test_unit& unit, ut::const_string reason) override {
    if (unit.p_type != ut::TUT_CASE || !unit.is_enabled()) return;
    ++skipped;
    std::cerr << "skipped " << unit.full_name() << ": " << reason << '\n';
  }
  void test_unit_aborted(const ut::test_unit&) override { checked_ = true; }
  void exception_caught(const boost::execution_exception&) override { checked_ = true; }
  void assertion_result(ut::assertion_result) override { checked_ = true; }
  int priority() override { return 5; }  // after those of Boost.Test, which begin with a clean slate

 private:
  bool checked_ = false;
};

SerialObserver& observer() {
  static SerialObserver instance;
  return instance;
}

bool set_up() {
  ut::framework::register_observer(observer());
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const int status = ut::unit_test_main(set_up, argc, argv);
  const auto& suite = ut::framework::master_test_suite();
  if (ut::framework::get<ut::test_suite>(suite.p_id).size() == 0) {
    std::cerr << "no test case in this program\n";
    return 1;
  }
  if (status != 0) return status;
  if (observer().unchecked > 0) return 1;
  return observer().cases == 0 && observer().skipped > 0 ? llama3d::test::skipped_status : 0;
}
