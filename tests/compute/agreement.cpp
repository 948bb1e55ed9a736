// The comparison itself: it must fail when one element is wrong, and when anything is not finite.
#include "compute/machines.hpp"

namespace llama3d::test {

BOOST_AUTO_TEST_SUITE(agreement)

BOOST_AUTO_TEST_CASE(one_wrong_element_among_many_is_noticed) {
  const auto expected = random_values(10000, DType::fp32, 1);
  auto actual = expected;
  BOOST_CHECK_EQUAL(error_of(actual, expected), 0);
  // The norm of 10000 unit deviates is 100: an error of 1 in one of them is 1e-2 of it.
  actual[1234] += 1;
  BOOST_CHECK_GT(error_of(actual, expected), tolerance(DType::bf16, 10000));
}

BOOST_AUTO_TEST_CASE(nan_infinity_and_sizes_are_noticed) {
  const std::vector<float> expected = {1, 2, 3};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    BOOST_CHECK_GT(error_of(std::vector<float>{1, bad, 3}, expected), 1e30);
  }
  BOOST_CHECK_GT(error_of(std::vector<float>{1, 2}, expected), 1e30);
}

BOOST_DATA_TEST_CASE(fresh_buffers_are_poisoned, boost::unit_test::data::make(machines()), machine) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64}) {
    for (const float value : Buffer(machine.get(), dtype, {2, 3}).read()) BOOST_CHECK(std::isnan(value));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
