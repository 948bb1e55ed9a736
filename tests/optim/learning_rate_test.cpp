// The learning rate of a step against its definition.
#include "optim/learning_rate.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>

#include "base/error.hpp"

using namespace llama3d;

namespace {

constexpr double peak = 0.5, minimum = 0.125;

LearningRateSchedule schedule(LearningRateKind kind, std::int64_t warmup = 10) {
  return {.kind = kind,
          .peak = peak,
          .minimum = minimum,
          .warmup_steps = warmup,
          .steps = 110,
          .decay_fraction = 0.2};
}

constexpr LearningRateKind kinds[] = {LearningRateKind::cosine, LearningRateKind::linear,
                                      LearningRateKind::constant, LearningRateKind::wsd};

}  // namespace

BOOST_AUTO_TEST_SUITE(learning_rate)

BOOST_AUTO_TEST_CASE(the_warm_up_is_a_line_from_zero_that_ends_at_the_peak) {
  for (const LearningRateKind kind : kinds) BOOST_TEST_CONTEXT(name_of(kind)) {
      BOOST_TEST(schedule(kind).at(1) == peak / 10);
      BOOST_TEST(schedule(kind).at(9) == peak * 9 / 10);
      BOOST_TEST(schedule(kind).at(10) == peak);
    }
}

BOOST_AUTO_TEST_CASE(without_a_warm_up_the_first_step_is_the_first_of_the_decay) {
  BOOST_TEST(schedule(LearningRateKind::constant, 0).at(1) == peak);
  BOOST_TEST(schedule(LearningRateKind::wsd, 0).at(1) == peak);
  BOOST_TEST(schedule(LearningRateKind::linear, 0).at(1) == minimum + (peak - minimum) * 109 / 110,
             boost::test_tools::tolerance(1e-15));
}

BOOST_AUTO_TEST_CASE(a_cosine_passes_its_middle_and_ends_at_the_minimum) {
  const auto cosine = schedule(LearningRateKind::cosine);
  const auto close = boost::test_tools::tolerance(1e-12);
  BOOST_TEST(cosine.at(60) == (peak + minimum) / 2, close);
  BOOST_TEST(cosine.at(35) == minimum + (peak - minimum) * (0.5 + std::sqrt(0.125)), close);  // at 45 degrees
  BOOST_TEST(cosine.at(109) > minimum);
  BOOST_TEST(cosine.at(110) == minimum);
  BOOST_TEST(cosine.at(1000) == minimum);
}

BOOST_AUTO_TEST_CASE(a_line_ends_at_the_minimum) {
  const auto linear = schedule(LearningRateKind::linear);
  BOOST_TEST(linear.at(35) == minimum + (peak - minimum) * 0.75);
  BOOST_TEST(linear.at(60) == (peak + minimum) / 2);
  BOOST_TEST(linear.at(110) == minimum);
  BOOST_TEST(linear.at(111) == minimum);
}

BOOST_AUTO_TEST_CASE(a_constant_rate_has_no_minimum) {
  for (const std::int64_t step : {10, 60, 110, 1000})
    BOOST_TEST(schedule(LearningRateKind::constant).at(step) == peak);
}

BOOST_AUTO_TEST_CASE(wsd_stays_at_the_peak_until_its_last_steps) {
  const auto wsd = schedule(LearningRateKind::wsd);  // 22 of 110 steps decay
  BOOST_TEST(wsd.at(88) == peak);
  BOOST_TEST(wsd.at(99) == (peak + minimum) / 2);
  BOOST_TEST(wsd.at(110) == minimum);
  auto decays_only = wsd;
  decays_only.decay_fraction = 1;  // from the end of the warm-up on
  BOOST_TEST(decays_only.at(10) == peak);
  BOOST_TEST(decays_only.at(60) == (peak + minimum) / 2);
}

BOOST_AUTO_TEST_CASE(words_and_kinds_map_to_each_other) {
  for (const LearningRateKind kind : kinds) BOOST_CHECK(parse_learning_rate_kind(name_of(kind)) == kind);
  BOOST_CHECK_THROW(parse_learning_rate_kind("Cosine"), ConfigurationError);
}

BOOST_AUTO_TEST_SUITE_END()
