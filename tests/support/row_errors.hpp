#pragma once
// The measure that sees one row: the largest error over rows, and that of all rows together.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace llama3d::test {

struct RowErrors {
  double largest = 0;      ///< over rows, of |actual - expected| / scale
  std::size_t row = 0;     ///< where
  double norm = 0;         ///< of all rows: |actual - expected| / |scales|
  double independent = 0;  ///< rows that `norm` is a mean over: (sum of scale^2)^2 / sum of scale^4
};

/// Errors of `rows` rows of one length, in the Euclidean norm. `scales`: one a row, or none for |expected|. A
/// row of scale 0 must be exact. Infinity when sizes differ or anything is not finite.
template <class A, class B>
RowErrors row_errors(std::span<const A> actual, std::span<const B> expected, std::size_t rows,
                     std::span<const double> scales = {}) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto ratio = [](double error, double scale) {
    return error == 0 ? 0 : scale > 0 ? std::sqrt(error / scale) : infinity;
  };
  RowErrors errors;
  if (actual.size() != expected.size() || (rows == 0 ? actual.size() : actual.size() % rows) != 0 ||
      (!scales.empty() && scales.size() != rows)) {
    errors.largest = errors.norm = infinity;
    return errors;
  }
  double all = 0, squares = 0, fourths = 0;
  const std::size_t columns = rows == 0 ? 0 : actual.size() / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    double difference = 0, norm = 0;
    for (std::size_t i = row * columns; i < (row + 1) * columns; ++i) {
      const auto a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
      difference += std::isfinite(a) && std::isfinite(e) ? (a - e) * (a - e) : infinity;
      norm += e * e;
    }
    if (!scales.empty()) norm = scales[row] * scales[row];
    const double error = ratio(difference, norm);
    if (!(error <= errors.largest)) {
      errors.largest = error;
      errors.row = row;
    }
    all += difference;
    squares += norm;
    fourths += norm * norm;
  }
  errors.norm = ratio(all, squares);
  errors.independent = fourths > 0 ? squares * squares / fourths : 0;
  return errors;
}

}  // namespace llama3d::test
