#pragma once
// Functions of fp32 that compilers vectorize inside a simd loop without relaxing what infinity and NaN mean.

#include <bit>
#include <cstdint>
#include <limits>

#include "compute/host/elements.hpp"

namespace llama3d::host {

/// e^x within 2 ulp where it is a normal number; 0 below -87.7, infinity above 88.4, NaN for NaN.
/// x = n ln 2 + r with |r| <= ln(2) / 2 and a minimax polynomial of degree 7 for e^r
/// (Cody & Waite, "Software manual for the elementary functions", 1980; coefficients of Moshier's Cephes
/// expf).
[[gnu::always_inline]] inline float exponential(float x) {
  // Comparisons are written so that NaN falls through. At the ends n is -127 and 128.
  x = x < -88.0f ? -88.0f : x;
  x = x > 88.7f ? 88.7f : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
  constexpr float magic = 12582912.0f;
  const float shifted = x * 1.44269504088896341f + magic;
  const float whole = shifted - magic;
  float r = x - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // n + 127 in the exponent field: 2^n, 0 for n = -127 and infinity for n = 128.
  return p * std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) + 127u) << 23);
}

/// 1 / (1 + e^-x).
[[gnu::always_inline]] inline float sigmoid(float x) {
  return 1.0f / (1.0f + exponential(-x));
}

/// The largest of n elements, NaN skipped; -infinity for n = 0.
template <class T>
float largest(const T* in, std::int64_t n) {
  constexpr std::int64_t lanes = 64;
  float best[lanes];
  for (auto& b : best) b = -std::numeric_limits<float>::infinity();
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
#pragma omp simd
    for (std::int64_t l = 0; l < lanes; ++l) {
      const float value = widen(in[i + l]);
      best[l] = value > best[l] ? value : best[l];
    }
  }
  float result = best[0];
  for (const float b : best) result = b > result ? b : result;
  for (; i < n; ++i) result = widen(in[i]) > result ? widen(in[i]) : result;
  return result;
}

}  // namespace llama3d::host
