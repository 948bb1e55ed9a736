// Moving, adding and drawing elements.

#include <numbers>

#include "base/philox.hpp"
#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/fused/data_kernels.hpp"

namespace llama3d::cuda {
namespace {

constexpr int threads = 256;
/// Packets a thread has under way at once.
constexpr int in_flight = 2;

/// Calls body(index) for every packet of n elements: in_flight packets a thread, neighbours in neighbouring
/// threads, so that their loads can all start before the first is used.
template <int N, class Body>
__device__ __forceinline__ void for_each_packet(std::int64_t n, Body body) {
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * in_flight * threads + threadIdx.x) * N;
#pragma unroll
  for (int i = 0; i < in_flight; ++i) {
    const std::int64_t at = first + static_cast<std::int64_t>(i) * threads * N;
    if (at < n) body(at);
  }
}

template <int N>
unsigned packet_blocks(std::int64_t n) {
  return blocks_for(n, std::int64_t{in_flight} * threads * N);
}

template <int N, class In, class Out>
__global__ __launch_bounds__(threads) void convert_kernel(const In* in, Out* out, std::int64_t n) {
  grid_dependency_launch();
  grid_dependency_wait();
  for_each_packet<N>(n, [&](std::int64_t i) { Packet<N>::load(in + i).store(out + i); });
}

template <int N, class A, class T>
__global__ __launch_bounds__(threads) void add_kernel(const A* a, const T* b, T* out, std::int64_t n) {
  grid_dependency_launch();
  grid_dependency_wait();
  for_each_packet<N>(n, [&](std::int64_t i) {
    auto sum = Packet<N>::load(a + i);
    const auto other = Packet<N>::load(b + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sum.value[k] += other.value[k];
    sum.store(out + i);
  });
}

/// Box-Muller: two normal deviates from two words; see Kernels::fill_normal.
__device__ __forceinline__ void normal_pair(std::uint32_t first, std::uint32_t second, float* out) {
  const float u = static_cast<float>((first >> 8) + 1) * 0x1p-24f;
  const float v = static_cast<float>(second >> 8) * 0x1p-24f;
  const float radius = sqrtf(-2.0f * logf(u));
  const float angle = 2 * std::numbers::pi_v<float> * v;
  out[0] = radius * cosf(angle);
  out[1] = radius * sinf(angle);
}

/// A thread draws the Philox blocks that touch its part of a row: four elements each.
template <class T>
__global__ __launch_bounds__(threads) void fill_normal_kernel(T* out, std::uint64_t key, std::int64_t first,
                                                              std::int64_t columns,
                                                              std::int64_t global_columns, float deviation) {
  const std::int64_t row = blockIdx.y, begin = first + row * global_columns;
  const std::int64_t block = begin / 4 + static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (block * 4 >= begin + columns) return;
  const PhiloxBlock bits = philox4x32(key, static_cast<std::uint64_t>(block));
  float deviates[4];
  normal_pair(bits[0], bits[1], deviates);
  normal_pair(bits[2], bits[3], deviates + 2);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t at = block * 4 + i - begin;
    if (at >= 0 && at < columns) out[row * columns + at] = narrow<T>(deviates[i] * deviation);
  }
}

}  // namespace

void accumulate(const Tensor& in, const Tensor& sum, cudaStream_t stream) {
  const std::int64_t n = sum.elements();
  with_type(in.dtype(), [&]<class A>() {
    with_type(sum.dtype(), [&]<class T>() {
      with_packet(n, {&in, &sum}, [&]<int N>() {
        launch_dependent(add_kernel<N, A, T>, packet_blocks<N>(n), threads, stream, elements<A>(in),
                         elements<T>(sum), elements<T>(sum), n);
      });
    });
  });
  check_launch("accumulate", sum.shape());
}

void CudaKernels::do_fill_zero(const Tensor& out, Stream& stream) {
  check(cudaMemsetAsync(out.data(), 0, out.bytes(), handle_of(stream)),
        fmt::format("fill_zero of {}", out.shape().to_string()));
}

void CudaKernels::do_copy(const Tensor& in, const Tensor& out, Stream& stream) {
  const std::int64_t n = in.elements();
  if (n == 0) return;
  if (in.dtype() == out.dtype()) {
    check(cudaMemcpyAsync(out.data(), in.data(), in.bytes(), cudaMemcpyDeviceToDevice, handle_of(stream)),
          fmt::format("copy of {}", in.shape().to_string()));
    return;
  }
  with_type(in.dtype(), [&]<class In>() {
    with_type(out.dtype(), [&]<class Out>() {
      with_packet(n, {&in, &out}, [&]<int N>() {
        launch_dependent(convert_kernel<N, In, Out>, packet_blocks<N>(n), threads, handle_of(stream),
                         elements<In>(in), elements<Out>(out), n);
      });
    });
  });
  check_launch("copy", in.shape());
}

void CudaKernels::do_add(const Tensor& a, const Tensor& b, const Tensor& out, Stream& stream) {
  const std::int64_t n = a.elements();
  if (n == 0) return;
  with_type(a.dtype(), [&]<class T>() {
    with_packet(n, {&a, &b, &out}, [&]<int N>() {
      launch_dependent(add_kernel<N, T, T>, packet_blocks<N>(n), threads, handle_of(stream), elements<T>(a),
                       elements<T>(b), elements<T>(out), n);
    });
  });
  check_launch("add", a.shape());
}

void CudaKernels::do_fill_normal(const Tensor& out, std::uint64_t key, std::int64_t first_row,
                                 std::int64_t first_column, std::int64_t global_columns,
                                 float standard_deviation, Stream& stream) {
  const std::int64_t columns = out.columns();
  constexpr std::int64_t most_rows = 65535;  // of a grid
  with_type(out.dtype(), [&]<class T>() {
    for (std::int64_t row = 0; row < out.rows() && columns > 0; row += most_rows) {
      const std::int64_t rows = std::min(most_rows, out.rows() - row);
      const dim3 grid(blocks_for(columns / 4 + 2, threads), static_cast<unsigned>(rows));
      fill_normal_kernel<<<grid, threads, 0, handle_of(stream)>>>(
          elements<T>(out) + row * columns, key, (first_row + row) * global_columns + first_column, columns,
          global_columns, standard_deviation);
    }
  });
  check_launch("fill_normal", out.shape());
}

}  // namespace llama3d::cuda
