#pragma once
// The one measure of agreement between two results.

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace llama3d::test {

/// |actual - expected| / |expected| in the Euclidean norm; the norm of `actual` when `expected` is zero;
/// infinity when sizes differ or anything is not finite, so that a comparison can never pass by accident.
template <class A, class B>
double relative_error(std::span<const A> actual, std::span<const B> expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double a = static_cast<double>(static_cast<float>(actual[i]));
    const double e = static_cast<double>(static_cast<float>(expected[i]));
    if (!std::isfinite(a) || !std::isfinite(e)) return std::numeric_limits<double>::infinity();
    difference += (a - e) * (a - e);
    norm += e * e;
  }
  return norm > 0 ? std::sqrt(difference / norm) : std::sqrt(difference);
}

}  // namespace llama3d::test
