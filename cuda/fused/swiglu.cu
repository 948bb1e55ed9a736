// SwiGLU: h = silu(gate) * up, silu(g) = g / (1 + e^-g).

#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {
namespace {

constexpr int threads = 256;
/// Packets of a row that a thread has under way at once.
constexpr int in_flight = 2;

template <int N>
dim3 row_grid(std::int64_t rows, std::int64_t columns) {
  return dim3(static_cast<unsigned>(rows), blocks_for(columns, std::int64_t{in_flight} * threads * N));
}

/// First column of the i-th packet of this thread.
template <int N>
__device__ __forceinline__ int column_of(int i) {
  return ((blockIdx.y * in_flight + i) * threads + threadIdx.x) * N;
}

/// n / (1 + e^-x): to a few units in the last place for fp32 tensors; fast for bf16 ones, which keep 8 bits.
template <class T>
__device__ __forceinline__ float over_one_plus_exp(float n, float x) {
  if constexpr (std::is_same_v<T, float>)
    return n / (1.0f + expf(-x));
  else
    return __fdividef(n, 1.0f + __expf(-x));
}

template <class T>
__device__ __forceinline__ float activate(float gate, float up) {
  // g / (1 + e^-g) rather than g * sigmoid(g): one rounding less, and 0 where e^-g overflows.
  return over_one_plus_exp<T>(gate, gate) * up;
}

template <int N, class T>
__global__ __launch_bounds__(threads) void forward_kernel(const T* gate_up, T* h, int columns) {
  grid_dependency_launch();
  grid_dependency_wait();
  const T* gate = gate_up + static_cast<std::int64_t>(blockIdx.x) * 2 * columns;
  T* out = h + static_cast<std::int64_t>(blockIdx.x) * columns;
  Packet<N> g[in_flight], u[in_flight];
#pragma unroll
  for (int i = 0; i < in_flight; ++i) {
    const int c = column_of<N>(i);
    if (c >= columns) continue;
    g[i] = Packet<N>::load(gate + c);
    u[i] = Packet<N>::load(gate + columns + c);
  }
#pragma unroll
  for (int i = 0; i < in_flight; ++i) {
    const int c = column_of<N>(i);
    if (c >= columns) continue;
#pragma unroll
    for (int k = 0; k < N; ++k) g[i].value[k] = activate<T>(g[i].value[k], u[i].value[k]);
    g[i].store(out + c);
  }
}

template <int N, class T>
__global__ __launch_bounds__(threads) void backward_kernel(const T* gate_up, const T* dh, T* dgate_up, T* h,
                                                           int columns) {
  grid_dependency_launch();
  grid_dependency_wait();
  const std::int64_t row = blockIdx.x;
  const T* gate = gate_up + row * 2 * columns;
  const T* dout = dh + row * columns;
  T* dgate = dgate_up + row * 2 * columns;
  Packet<N> g[in_flight], u[in_flight], d[in_flight];
#pragma unroll
  for (int i = 0; i < in_flight; ++i) {
    const int c = column_of<N>(i);
    if (c >= columns) continue;
    g[i] = Packet<N>::load(gate + c);
    u[i] = Packet<N>::load(gate + columns + c);
    d[i] = Packet<N>::load(dout + c);
  }
#pragma unroll
  for (int i = 0; i < in_flight; ++i) {
    const int c = column_of<N>(i);
    if (c >= columns) continue;
    if (h) {
      Packet<N> activated;
#pragma unroll
      for (int k = 0; k < N; ++k) activated.value[k] = activate<T>(g[i].value[k], u[i].value[k]);
      activated.store(h + row * columns + c);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float gk = g[i].value[k], uk = u[i].value[k], dk = d[i].value[k],
                  s = over_one_plus_exp<T>(1.0f, gk);
      g[i].value[k] = dk * uk * s * (1.0f + gk * (1.0f - s));
      u[i].value[k] = dk * gk * s;
    }
    g[i].store(dgate + c);
    u[i].store(dgate + columns + c);
  }
}

}  // namespace

void CudaKernels::do_swiglu_forward(const Tensor& gate_up, const Tensor& h, Stream& stream) {
  if (h.elements() == 0) return;
  with_type(h.dtype(), [&]<class T>() {
    with_packet(h.columns(), {&gate_up, &h}, [&]<int N>() {
      launch_dependent(forward_kernel<N, T>, row_grid<N>(h.rows(), h.columns()), threads, handle_of(stream),
                       elements<T>(gate_up), elements<T>(h), static_cast<int>(h.columns()));
    });
  });
  check_launch("swiglu_forward", h.shape());
}

void CudaKernels::do_swiglu_backward(const Tensor& gate_up, const Tensor& dh, const Tensor& dgate_up,
                                     const Tensor& h, Stream& stream) {
  if (dh.elements() == 0) return;
  with_type(dh.dtype(), [&]<class T>() {
    with_packet(dh.columns(), {&gate_up, &dh, &dgate_up, h ? &h : &dh}, [&]<int N>() {
      launch_dependent(backward_kernel<N, T>, row_grid<N>(dh.rows(), dh.columns()), threads,
                       handle_of(stream), elements<T>(gate_up), elements<T>(dh), elements<T>(dgate_up),
                       h ? elements<T>(h) : nullptr, static_cast<int>(dh.columns()));
    });
  });
  check_launch("swiglu_backward", dh.shape());
}

}  // namespace llama3d::cuda
