#pragma once
// What the softmax of attention on tensor cores is made of; four neighbouring lanes, a quad, hold a row.

namespace llama3d::cuda {

constexpr float log2_e = 1.4426950408889634f;

/// The reference of a row's exponents moves only when the largest score has outgrown it by this many powers
/// of two: below that nothing can overflow, and the output need not be rescaled.
constexpr float tolerated_growth = 8;

__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

}  // namespace llama3d::cuda
