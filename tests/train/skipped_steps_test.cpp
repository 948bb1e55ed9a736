// Steps that taught nothing: what is told of them, and when they end a run.
#include "train/skipped_steps.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>

#include "comm/failure.hpp"
#include "support/error_message.hpp"
#include "support/temporary_folder.hpp"

using namespace llama3d;
using test::says;

namespace {

struct Skipping {
  Skipping() { settings.max_skipped_steps = 3; }
  void good(std::int64_t step) { skipped.count(step, result(2.0, 10, false)); }
  void broken(std::int64_t step) { skipped.count(step, result(std::nan(""), 10, true)); }
  void empty(std::int64_t step) { skipped.count(step, result(std::nan(""), 0, true)); }

  static StepResult result(double loss, double targets, bool skip) {
    StepResult r;
    r.loss = loss;
    r.targets = targets;
    r.skipped = skip;
    return r;
  }

  TrainSettings settings;
  test::TemporaryFolder folder;
  std::unique_ptr<ControlPlane> control = make_local_control_plane();
  RunLog log{false};
  MetricsRecorder metrics{
      folder / "metrics.h5", {}, *control, [](const std::string&) {}, [] { return true; }};
  SkippedSteps skipped{settings, *control, metrics, log};
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(skipped_steps, Skipping)

BOOST_AUTO_TEST_CASE(steps_that_are_not_finite_end_the_run_when_they_follow_each_other) {
  broken(1);
  broken(2);
  BOOST_TEST(skipped.in_a_row() == 2);
  good(3);
  BOOST_TEST(skipped.in_a_row() == 0);
  broken(4);
  broken(5);
  try {
    broken(6);
    BOOST_TEST(false, "the third one in a row passes");
  } catch (const CollectiveError& error) {
    BOOST_CHECK(error.status() == ExitStatus::numerics);
    BOOST_TEST(says({"3 steps in a row", "not finite", "around step 6"})(error));
  }
}

BOOST_AUTO_TEST_CASE(steps_without_a_target_are_a_matter_of_the_data) {
  empty(1);
  broken(2);
  empty(3);
  BOOST_TEST(skipped.in_a_row() == 0, "not of the numerics");
  empty(4);
  BOOST_CHECK_EXCEPTION(empty(5), CollectiveError, says({"had no token to learn"}));
}

BOOST_AUTO_TEST_CASE(a_run_may_not_end_in_steps_that_were_skipped) {
  good(1);
  BOOST_CHECK_NO_THROW(skipped.expect_finite_end(1));
  broken(2);
  BOOST_CHECK_EXCEPTION(skipped.expect_finite_end(2), CollectiveError,
                        says({"the last 1 steps were skipped"}));
}

BOOST_AUTO_TEST_SUITE_END()
