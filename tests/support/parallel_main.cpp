// Main of a test program that runs under mpirun. It cannot pass by accident:
//  - the number of ranks must be LLAMA3D_TEST_RANKS, as the test was registered;
//  - all ranks run the same number of test cases, at least one, and each case checks something on some rank;
//  - a failure on one rank fails all, and is printed with its rank;
//  - ranks wait for each other around each case; one that does not come within LLAMA3D_TEST_TIMEOUT seconds
//    (120 unless set) ends the job, naming test and rank.
// Skipped cases are named, and where every case was skipped the status says so.
#define BOOST_TEST_NO_MAIN
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/test/results_reporter.hpp>
#include <boost/test/unit_test.hpp>
#include <boost/test/unit_test_log.hpp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <streambuf>

#include "base/error.hpp"
#include "comm/failure.hpp"
#include "support/mpi_fixture.hpp"
#include "support/preconditions.hpp"

namespace llama3d::test {
namespace {

namespace ut = boost::unit_test;

MpiSession* current_session = nullptr;

/// Sends whole lines to standard error, each in one write and after the rank's name. That so many tests are
/// running is said by rank 0 alone.
class RankLines final : public std::streambuf {
 public:
  explicit RankLines(int rank) : rank_(rank) {}

 protected:
  int overflow(int c) override {
    if (c == traits_type::eof()) return 0;
    line_ += static_cast<char>(c);
    if (c == '\n') {
      if (rank_ == 0 || !line_.starts_with("Running ")) {
        const std::string text = fmt::format("[rank {}] {}", rank_, line_);
        std::cerr.write(text.data(), static_cast<std::streamsize>(text.size())).flush();
      }
      line_.clear();
    }
    return c;
  }

 private:
  int rank_;
  std::string line_;
};

/// What the alarm says; written before each alarm, read by the signal handler.
std::array<char, 512> alarm_text{};

extern "C" void llama3d_test_alarm(int) {
  // The launcher ends the other ranks when one leaves without finalizing MPI.
  [[maybe_unused]] const auto written =
      write(STDERR_FILENO, alarm_text.data(), std::strlen(alarm_text.data()));
  _exit(1);
}

unsigned case_seconds() {
  const char* text = std::getenv("LLAMA3D_TEST_TIMEOUT");
  return text ? static_cast<unsigned>(std::max(1, std::atoi(text))) : 120;
}

void set_alarm(unsigned seconds, const std::string& situation) {
  alarm(0);
  const std::string text = fmt::format("[rank {} on {}] {}\n", control().rank(), control().host(), situation);
  const std::size_t length = std::min(text.size(), alarm_text.size() - 1);
  std::copy_n(text.data(), length, alarm_text.data());
  alarm_text[length] = '\0';
  alarm(seconds);
}

/// Keeps the ranks together around each test case and their verdicts the same.
class ParallelObserver final : public ut::test_observer {
 public:
  std::int64_t cases = 0, skipped = 0;
  bool failed = false;

  void test_unit_start(const ut::test_unit& unit) override {
    if (unit.p_type != ut::TUT_CASE) return;
    ++cases;
    checks_ = 0;
    case_failed_ = false;
    set_alarm(case_seconds(),
              fmt::format("test {} has not ended after {} s", unit.full_name(), case_seconds()));
    control().barrier();
  }

  void test_unit_finish(const ut::test_unit& unit, unsigned long) override {
    if (unit.p_type != ut::TUT_CASE) return;
    // Where the test ended, wait a little longer, so that the rank where it did not speaks first. After a
    // failure here the others may wait in vain for this rank's part of a collective: then wait less.
    if (case_failed_)
      set_alarm(std::min(case_seconds(), 15u),
                fmt::format("test {} failed here and goes on elsewhere", unit.full_name()));
    else
      set_alarm(case_seconds() + 3,
                fmt::format("test {} ended here and goes on elsewhere", unit.full_name()));
    const bool failed_somewhere = control().all_max(case_failed_ ? 1 : 0) != 0;
    const bool checked_somewhere = control().all_max(checks_) != 0;
    alarm(0);
    failed = failed || failed_somewhere || !checked_somewhere;
    if (!checked_somewhere && control().rank() == 0)
      std::cerr << "test " << unit.full_name() << " checked nothing on any rank\n";
  }

  void test_unit_skipped(const ut::test_unit& unit, ut::const_string reason) override {
    if (unit.p_type != ut::TUT_CASE || !unit.is_enabled()) return;
    ++skipped;
    if (control().rank() != 0) return;
    std::cerr << fmt::format("skipped {}: {}\n", unit.full_name(),
                             std::string_view(reason.begin(), reason.size()));
  }
  void test_unit_aborted(const ut::test_unit&) override { case_failed_ = true; }
  void exception_caught(const boost::execution_exception&) override { case_failed_ = true; }
  void assertion_result(ut::assertion_result result) override {
    ++checks_;
    if (result == ut::AR_FAILED) case_failed_ = true;
  }
  int priority() override { return 5; }

 private:
  std::int64_t checks_ = 0;
  bool case_failed_ = false;
};

ParallelObserver& observer() {
  static ParallelObserver instance;
  return instance;
}

bool set_up() {
  const int rank = control().rank();
  static RankLines lines(rank);
  static std::ostream errors(&lines);
  static std::ostream nowhere(nullptr);
  ut::unit_test_log.set_stream(errors);
  ut::results_reporter::set_stream(nowhere);  // it knows one rank only; run_tests reports for all
  ut::framework::register_observer(observer());
  return true;
}

void expect_registered_ranks() {
  const char* wanted = std::getenv("LLAMA3D_TEST_RANKS");
  if (!wanted)
    throw ConfigurationError(
        "LLAMA3D_TEST_RANKS is not set (a test must not run on a number of ranks by accident); "
        "start it with ctest, or set it to mpirun's -np");
  if (std::atoi(wanted) != control().size())
    throw ConfigurationError(
        fmt::format("LLAMA3D_TEST_RANKS is {} but this test runs on {} ranks (they must agree); "
                    "start mpirun with -np {}",
                    wanted, control().size(), wanted));
}

int run_tests(int argc, char** argv) {
  fail_together(control(), expect_registered_ranks);
  std::signal(SIGALRM, llama3d_test_alarm);
  int status = ut::unit_test_main(set_up, argc, argv);
  if (observer().failed) status = std::max(status, 1);
  const std::int64_t most = control().all_max(observer().cases),
                     least = -control().all_max(-observer().cases);
  const bool all_skipped =
      status == 0 && most == 0 && control().all_max(observer().skipped == 0 ? 1 : 0) == 0;
  if (least != most || (most == 0 && !all_skipped)) {
    if (control().rank() == 0)
      std::cerr << fmt::format(
          "ranks ran between {} and {} test cases (all must run the same, at least one)\n", least, most);
    status = std::max(status, 1);
  }
  if (all_skipped) status = skipped_status;
  status = static_cast<int>(control().all_max(status));
  if (control().rank() == 0)
    std::cerr << fmt::format("{} test cases on {} ranks: {}\n", most, control().size(),
                             all_skipped ? "all skipped"
                             : status    ? "FAILED"
                                         : "no errors");
  return status;
}

}  // namespace

MpiSession& session() {
  LLAMA3D_EXPECT(current_session != nullptr,
                 "no MPI session: this program was not started by the parallel main");
  return *current_session;
}

}  // namespace llama3d::test

int main(int argc, char** argv) {
  using namespace llama3d;
  try {
    MpiSession session(argc, argv);
    test::current_session = &session;
    return run_and_report(session.control(), [&] { return test::run_tests(argc, argv); });
  } catch (...) {
    return report_startup_failure();
  }
}
