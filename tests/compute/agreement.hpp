#pragma once
// How far a result may be from the truth: in every row, and on the whole.

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "compute/tensor.hpp"
#include "support/row_errors.hpp"

namespace llama3d::test {

/// The largest relative error that correct arithmetic gives: one rounding to `dtype` (the unit roundoff of
/// bf16 is 2^-8), and fp32 sums of `length` terms, whose rounding errors of 2^-24 grow as the square root of
/// the length; 8 covers cancellation, the few operations around the sum, and the worst of millions of
/// elements.
inline double tolerance(DType dtype, std::int64_t length) {
  const double storage = dtype == DType::bf16 ? 0x1p-8 : 0;
  return storage + 8 * 0x1p-24 * std::sqrt(static_cast<double>(std::max<std::int64_t>(1, length)));
}

/// What is asked of every operation whatever its length.
inline double most(DType dtype) {
  return dtype == DType::bf16 ? 1e-2 : 1e-5;
}

/// The rows of a result, each of which has to agree: all its dimensions but those inside a row. A row may be
/// one element.
struct Rows {
  std::vector<std::int64_t> extents;
  /// The size of each row's terms, where it is not the size of their sum: an error is as large as the largest
  /// terms, also where these cancel. Empty: the norms of the rows themselves.
  std::vector<double> scales = {};
  /// How far beyond the bound one row may be: more than 1 where the error of a row is that of few roundings,
  /// which do not average within it.
  double spread = 1;
};

/// Part of `bound` that the errors of all rows together may reach. Errors that do not depend on each other,
/// each anywhere below the bound, have 1/sqrt(3) of it in the root mean square; `independent` of them scatter
/// about that.
inline double norm_share(double independent) {
  return std::min(1.0, std::sqrt(0.4 + 2 / std::sqrt(std::max(1.0, independent))));
}

/// Whether every row's error is within `bound` of its scale, and that of the whole within the part of it that
/// the errors of many rows may reach. `what` names operation and tensor. `--log_level=message` prints what
/// was measured.
template <class A, class B>
boost::test_tools::assertion_result agrees(const std::string& what, const std::vector<A>& actual,
                                           const std::vector<B>& expected, const Rows& rows, double bound) {
  std::size_t count = 1;
  for (const auto extent : rows.extents) count *= static_cast<std::size_t>(extent);
  const RowErrors errors = row_errors(std::span<const A>(actual), std::span<const B>(expected), count,
                                      std::span<const double>(rows.scales));
  const double row_bound = bound * rows.spread, norm_bound = bound * norm_share(errors.independent);
  std::string place;
  std::size_t left = errors.row;
  for (auto extent = rows.extents.rbegin(); extent != rows.extents.rend() && *extent > 0; ++extent) {
    place = std::to_string(left % static_cast<std::size_t>(*extent)) + (place.empty() ? "" : ", ") + place;
    left /= static_cast<std::size_t>(*extent);
  }
  BOOST_TEST_MESSAGE("measured " << boost::unit_test::framework::current_test_unit().full_name() << ": "
                                 << what << ": row (" << place << ") " << errors.largest << " of "
                                 << row_bound << ", norm " << errors.norm << " of " << norm_bound);
  boost::test_tools::assertion_result result(errors.largest <= row_bound && errors.norm <= norm_bound);
  result.message() << what << ": row (" << place << ") of " << count << " is off by " << errors.largest
                   << ", at most " << row_bound << " of its scale; the norm by " << errors.norm
                   << ", at most " << norm_bound;
  return result;
}

/// CHECK_AGREES("operation tensor", actual, expected, Rows{...}, bound)
#define CHECK_AGREES(...) BOOST_CHECK(::llama3d::test::agrees(__VA_ARGS__))

/// sqrt(a^2 + b^2 + ...) of each element: the size of independent errors together.
template <class... Parts>
std::vector<double> joined(const std::vector<double>& first, const Parts&... parts) {
  std::vector<double> sizes;
  for (std::size_t i = 0; i < first.size(); ++i)
    sizes.push_back(std::sqrt(((first[i] * first[i]) + ... + (parts[i] * parts[i]))));
  return sizes;
}

}  // namespace llama3d::test
