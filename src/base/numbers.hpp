#pragma once

#include <cmath>
#include <limits>

namespace llama3d {

/// The value, with every NaN without a sign: what 0 / 0 has depends on the machine, and prints as "-nan".
inline double unsigned_nan(double value) {
  return std::isnan(value) ? std::numeric_limits<double>::quiet_NaN() : value;
}

}  // namespace llama3d
