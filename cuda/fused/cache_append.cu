// Keys and values of new tokens, into the cache.

#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int threads = 128;

/// A block copies one row's keys and values.
template <int N, class T>
__global__ __launch_bounds__(threads) void append_kernel(const T* qkv, const std::int32_t* slot,
                                                         const std::int32_t* position, T* cache,
                                                         std::int64_t capacity, std::int64_t columns,
                                                         std::int64_t width) {
  grid_dependency_launch();
  grid_dependency_wait();
  const std::int64_t row = blockIdx.x;
  if (slot[row] < 0) return;
  const T* from = qkv + (row + 1) * columns - width;
  T* to = cache + (slot[row] * capacity + position[row]) * width;
  for (std::int64_t i = threadIdx.x * N; i < width; i += threads * N) Packet<N>::load(from + i).store(to + i);
}

}  // namespace

void CudaKernels::do_cache_append(const Tensor& qkv, const CacheRows& rows, const AttentionShape& shape,
                                  const Tensor& cache, Stream& stream) {
  if (qkv.rows() == 0) return;
  with_type(qkv.dtype(), [&]<class T>() {
    with_packet(shape.head_dim, {&qkv, &cache}, [&]<int N>() {
      launch_dependent(append_kernel<N, T>, dim3(static_cast<unsigned>(qkv.rows())), threads,
                       handle_of(stream), elements<T>(qkv), elements<std::int32_t>(rows.slot),
                       elements<std::int32_t>(rows.position), elements<T>(cache), cache.shape()[1],
                       shape.fused_columns(), cache.shape()[2]);
    });
  });
  check_launch("cache_append", qkv.shape());
}

}  // namespace llama3d::cuda
