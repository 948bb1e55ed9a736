#pragma once
// Gradients of parameters that every row adds to: blocks write their sums side by side, one kernel adds them.

#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/reduce.cuh"

namespace llama3d::cuda {

/// dw += the blocks' sums, in order: 32 columns a block, a warp for each 32nd part of the sums.
template <class G>
__global__ __launch_bounds__(1024) void add_partials_kernel(const float* partial, int parts, G* dw,
                                                            int columns) {
  __shared__ float shared[32][33];
  grid_dependency_launch();
  grid_dependency_wait();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
  float sum = 0;
  if (column < columns)
#pragma unroll 8
    for (int part = warp; part < parts; part += 32)
      sum += partial[static_cast<std::int64_t>(part) * columns + column];
  shared[warp][lane] = sum;
  __syncthreads();
  const float total = warp_reduce(shared[lane][warp], Sum());
  const int out = blockIdx.x * 32 + warp;
  if (lane == 0 && out < columns) dw[out] = narrow<G>(widen(dw[out]) + total);
}

}  // namespace llama3d::cuda
