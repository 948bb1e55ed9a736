// Settings that a program fills itself.
#include "options/settings.hpp"

#include <boost/test/unit_test.hpp>
#include <cmath>

#include "support/error_message.hpp"
#include "train/run_shape.hpp"

using namespace llama3d;

namespace {

TrainSettings with_rates(double largest, double lowest = TrainSettings().min_learning_rate) {
  TrainSettings settings;
  settings.learning_rate = largest;
  settings.min_learning_rate = lowest;
  return settings;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(settings)

BOOST_AUTO_TEST_CASE(the_lowest_rate_follows_the_largest_where_it_is_not_given) {
  for (const auto& [largest, lowest] : {std::pair{3e-4, 3e-5}, {1e-2, 3e-5}, {1e-5, 1e-5 / 10}, {0.0, 0.0}}) {
    const TrainSettings settings = with_rates(largest);
    BOOST_CHECK_NO_THROW(check_settings(settings));
    BOOST_CHECK_EQUAL(lowest_learning_rate(settings), lowest);
    BOOST_CHECK_EQUAL(learning_rate_schedule(settings).minimum, lowest);
  }
  BOOST_CHECK_EQUAL(learning_rate_schedule(with_rates(1e-3, 0)).minimum, 0);
  BOOST_CHECK_EQUAL(learning_rate_schedule(with_rates(1e-3, 1e-3)).minimum, 1e-3);
}

BOOST_AUTO_TEST_CASE(a_lowest_rate_out_of_bounds_is_refused) {
  for (const double lowest : {-1e-6, 2e-5, static_cast<double>(INFINITY)})
    BOOST_CHECK_EXCEPTION(check_settings(with_rates(1e-5, lowest)), ConfigurationError,
                          test::says({fmt::format("`min_learning_rate {}`", lowest)}));
}

BOOST_AUTO_TEST_SUITE_END()
