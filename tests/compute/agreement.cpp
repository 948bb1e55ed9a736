// The comparison itself: what it must see, and what the norm alone does not.
#include "compute/agreement.hpp"

#include "compute/machines.hpp"

namespace llama3d::test {

namespace {

constexpr std::int64_t rows = 4096, columns = 128;

/// What rounding to bf16 makes of values, and the values.
struct Stored {
  std::vector<float> expected = random_values(rows * columns, DType::fp32, 1),
                     actual = rounded(expected, DType::bf16);

  float& at(std::int64_t row, std::int64_t column) {
    return actual[static_cast<std::size_t>(row * columns + column)];
  }
  bool agrees() const {
    return static_cast<bool>(
        test::agrees("stored", actual, expected, Rows{{rows}}, tolerance(DType::bf16, 1)));
  }
  RowErrors errors() const {
    return row_errors(std::span<const float>(actual), std::span<const float>(expected), rows);
  }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(agreement)

BOOST_AUTO_TEST_CASE(one_wrong_row_of_thousands_is_noticed) {
  Stored stored;
  BOOST_CHECK(stored.agrees());
  // A row that lacks a tenth of its sum. All rows together hardly change.
  for (std::int64_t i = 0; i < columns; ++i) stored.at(1234, i) *= 0.9f;
  BOOST_CHECK(!stored.agrees());
  BOOST_CHECK_EQUAL(stored.errors().row, 1234u);
  BOOST_CHECK_LE(stored.errors().norm, tolerance(DType::bf16, 1) * norm_share(rows));
}

BOOST_AUTO_TEST_CASE(one_wrong_element_of_a_million_is_noticed) {
  Stored stored;
  stored.at(77, 5) = 0;
  BOOST_CHECK(!stored.agrees());
  BOOST_CHECK_EQUAL(stored.errors().row, 77u);
  BOOST_CHECK_LE(stored.errors().norm, tolerance(DType::bf16, 1) * norm_share(rows));
}

BOOST_AUTO_TEST_CASE(a_little_too_much_everywhere_is_noticed) {
  // A factor that is stale by 0.25%: no row is far off, but all are.
  Stored stored;
  for (float& value : stored.actual) value *= 1.0025f;
  BOOST_CHECK_LE(stored.errors().largest, tolerance(DType::bf16, 1));
  BOOST_CHECK(!stored.agrees());
}

BOOST_AUTO_TEST_CASE(nan_infinity_and_sizes_are_noticed) {
  const std::vector<float> expected = {1, 2, 3};
  const auto error = [&](const std::vector<float>& actual, std::size_t count,
                         const std::vector<double>& scales = {}) {
    const RowErrors errors = row_errors(std::span<const float>(actual), std::span<const float>(expected),
                                        count, std::span<const double>(scales));
    return std::min(errors.largest, errors.norm);
  };
  BOOST_CHECK_EQUAL(error(expected, 3), 0);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const std::size_t count : {1, 3}) {
      BOOST_CHECK_GT(error({1, bad, 3}, count), 1e30);
      BOOST_CHECK_GT(error({1, bad, 3}, count, std::vector<double>(count, 1)), 1e30);
    }
  BOOST_CHECK_GT(error({1, 2}, 1), 1e30);
  BOOST_CHECK_GT(error(expected, 2), 1e30);
  BOOST_CHECK_GT(error(expected, 0), 1e30);
  BOOST_CHECK_GT(error(expected, 3, {1, 1}), 1e30);
}

BOOST_AUTO_TEST_CASE(a_row_without_scale_must_be_exact) {
  const std::vector<float> expected = {1, 0}, off = {1, 1e-30f};
  const auto largest = [&](const std::vector<float>& actual) {
    return row_errors(std::span<const float>(actual), std::span<const float>(expected), 2).largest;
  };
  BOOST_CHECK_EQUAL(largest(expected), 0);
  BOOST_CHECK_GT(largest(off), 1e30);
}

BOOST_DATA_TEST_CASE(fresh_buffers_are_poisoned, boost::unit_test::data::make(machines()), machine) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64}) {
    for (const float value : Buffer(machine.get(), dtype, {2, 3}).read()) BOOST_CHECK(std::isnan(value));
  }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace llama3d::test
