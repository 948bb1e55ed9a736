#pragma once
// Sums and maxima over a warp or a block, in a fixed order.

namespace llama3d::cuda {

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Over the 32 lanes of a full warp; every lane gets the result.
template <class T, class Operation>
__device__ __forceinline__ T warp_reduce(T value, Operation operation) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value = operation(value, __shfl_xor_sync(0xffffffffu, value, offset));
  return value;
}

/// Over all threads of a one-dimensional block of whole warps, at most 1024; every thread gets the result.
/// Synchronizes the block twice, so that `shared` (32 values) can be used again at once.
template <class T, class Operation>
__device__ __forceinline__ T block_reduce(T value, T identity, Operation operation, T* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  value = warp_reduce(value, operation);
  if (lane == 0) shared[warp] = value;
  __syncthreads();
  value = warp_reduce(lane < warps ? shared[lane] : identity, operation);
  __syncthreads();
  return value;
}

}  // namespace llama3d::cuda
