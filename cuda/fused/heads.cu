// Beside the projections of attention in some models: a bias on their output, and RMSNorm of every query and
// key head by itself, a warp a head.

#include <algorithm>

#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/workspace.hpp"
#include "cuda/fused/partials.cuh"

namespace llama3d::cuda {
namespace {

constexpr int threads = 256, warps = threads / 32;
/// Values of a head that a lane holds.
constexpr int lane_values = 8, largest_head = 32 * lane_values;

template <int N, class T>
__global__ __launch_bounds__(threads) void add_bias_kernel(T* y, const T* b, std::int64_t n, int columns) {
  grid_dependency_launch();
  grid_dependency_wait();
  const std::int64_t at = (static_cast<std::int64_t>(blockIdx.x) * threads + threadIdx.x) * N;
  if (at >= n) return;
  auto value = Packet<N>::load(y + at);
  const auto bias = Packet<N>::load(b + at % columns);
#pragma unroll
  for (int k = 0; k < N; ++k) value.value[k] += bias.value[k];
  value.store(y + at);
}

/// A thread a column, blocks in y take rows in turn: partial (gridDim.y, columns).
template <class T>
__global__ __launch_bounds__(threads) void sum_rows_kernel(const T* dy, std::int64_t rows, int columns,
                                                           float* partial) {
  grid_dependency_launch();
  grid_dependency_wait();
  const int column = blockIdx.x * threads + threadIdx.x;
  if (column >= columns) return;
  float sum = 0;
#pragma unroll 4
  for (std::int64_t row = blockIdx.y; row < rows; row += gridDim.y) sum += widen(dy[row * columns + column]);
  partial[static_cast<std::int64_t>(blockIdx.y) * columns + column] = sum;
}

/// Query and key heads of the rows: head h of row t begins at qkv + t * row_stride + h * size.
template <class T>
struct Heads {
  T* qkv;
  T* raw;  ///< (T, heads, size)
  const T *wq, *wk;
  float* rstd;  ///< (T, heads)
  std::int64_t count;
  int heads, query_heads, size;
  std::int64_t row_stride;

  __device__ __forceinline__ bool query(std::int64_t i) const { return i % heads < query_heads; }
  __device__ __forceinline__ const T* weight(std::int64_t i) const { return query(i) ? wq : wk; }
  __device__ __forceinline__ T* head(std::int64_t i) const {
    return qkv + i / heads * row_stride + i % heads * size;
  }
};

template <class T>
__global__ __launch_bounds__(threads) void head_norm_kernel(const Heads<T> h, float epsilon) {
  grid_dependency_launch();
  grid_dependency_wait();
  const int lane = threadIdx.x % 32;
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
  if (i >= h.count) return;
  T *head = h.head(i), *raw = h.raw + i * h.size;
  const T* w = h.weight(i);
  float x[lane_values], squares = 0;
#pragma unroll
  for (int k = 0; k < lane_values; ++k) {
    const int at = k * 32 + lane;
    x[k] = at < h.size ? widen(head[at]) : 0.0f;
    squares = fmaf(x[k], x[k], squares);
  }
  const float rstd = 1.0f / sqrtf(warp_reduce(squares, Sum()) / static_cast<float>(h.size) + epsilon);
#pragma unroll
  for (int k = 0; k < lane_values; ++k) {
    const int at = k * 32 + lane;
    if (at >= h.size) continue;
    raw[at] = narrow<T>(x[k]);
    head[at] = narrow<T>(rounded<T>(x[k] * rstd) * widen(w[at]));
  }
  if (lane == 0) h.rstd[i] = rstd;
}

/// Warps take heads in turn and keep the sums for both weights: partial (warps of the grid, size) each.
template <class T>
__global__ __launch_bounds__(threads) void head_norm_backward_kernel(const Heads<T> h, float* partial_q,
                                                                     float* partial_k) {
  grid_dependency_launch();
  grid_dependency_wait();
  const int lane = threadIdx.x % 32;
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * warps + threadIdx.x / 32,
                     step = static_cast<std::int64_t>(gridDim.x) * warps;
  float dwq[lane_values] = {}, dwk[lane_values] = {};
  for (std::int64_t i = warp; i < h.count; i += step) {
    T* d = h.head(i);
    const T *raw = h.raw + i * h.size, *w = h.weight(i);
    const bool query = h.query(i);
    const float rstd = h.rstd[i];
    float dy[lane_values], normalized[lane_values], projection = 0;
#pragma unroll
    for (int k = 0; k < lane_values; ++k) {
      const int at = k * 32 + lane;
      const bool there = at < h.size;
      normalized[k] = there ? widen(raw[at]) * rstd : 0.0f;
      const float gradient = there ? widen(d[at]) : 0.0f;
      const float weight_gradient = gradient * rounded<T>(normalized[k]);
      dwq[k] += query ? weight_gradient : 0.0f;
      dwk[k] += query ? 0.0f : weight_gradient;
      dy[k] = there ? gradient * widen(w[at]) : 0.0f;
      projection = fmaf(dy[k], normalized[k], projection);
    }
    const float mean = warp_reduce(projection, Sum()) / static_cast<float>(h.size);
#pragma unroll
    for (int k = 0; k < lane_values; ++k)
      if (const int at = k * 32 + lane; at < h.size) d[at] = narrow<T>(rstd * (dy[k] - normalized[k] * mean));
  }
#pragma unroll
  for (int k = 0; k < lane_values; ++k) {
    const int at = k * 32 + lane;
    if (at >= h.size) continue;
    partial_q[warp * h.size + at] = dwq[k];
    partial_k[warp * h.size + at] = dwk[k];
  }
}

template <class T>
Heads<T> heads_of(const Tensor& qkv, const Tensor& raw, const Tensor& wq, const Tensor& wk,
                  const Tensor& rstd, const AttentionShape& shape) {
  const std::int64_t heads = shape.query_heads + shape.key_value_heads;
  LLAMA3D_EXPECT(shape.head_dim <= largest_head, "norms of heads of {}; the largest is {}", shape.head_dim,
                 largest_head);
  return {elements<T>(qkv),
          elements<T>(raw),
          elements<T>(wq),
          elements<T>(wk),
          elements<float>(rstd),
          qkv.rows() * heads,
          static_cast<int>(heads),
          static_cast<int>(shape.query_heads),
          static_cast<int>(shape.head_dim),
          shape.fused_columns()};
}

int row_blocks(const GpuTraits& gpu) {
  return gpu.multiprocessors;
}
int head_blocks(const GpuTraits& gpu) {
  return 4 * gpu.multiprocessors;
}

template <class G>
void add_partials(const float* partial, int parts, const Tensor& total, cudaStream_t stream) {
  const int columns = static_cast<int>(total.elements());
  launch_dependent(add_partials_kernel<G>, blocks_for(columns, 32), 1024, stream, partial, parts,
                   elements<G>(total), columns);
}

}  // namespace

std::size_t heads_scratch(const WorkspaceRequest& request, const GpuTraits& gpu) {
  Scratch bias, norm;
  if (request.qkv_bias) bias.take<float>(row_blocks(gpu) * request.attention.fused_columns(), "");
  if (request.head_norm)
    for (int weight = 0; weight < 2; ++weight)
      norm.take<float>(std::int64_t{head_blocks(gpu)} * warps * request.attention.head_dim, "");
  return std::max(bias.used(), norm.used());
}

void CudaKernels::do_add_bias(const Tensor& y, const Tensor& b, Stream& stream) {
  const std::int64_t n = y.elements();
  if (n == 0) return;
  with_type(y.dtype(), [&]<class T>() {
    with_packet(y.columns(), {&y, &b}, [&]<int N>() {
      launch_dependent(add_bias_kernel<N, T>, blocks_for(n / N, threads), threads, handle_of(stream),
                       elements<T>(y), elements<T>(b), n, static_cast<int>(y.columns()));
    });
  });
  check_launch("add_bias", y.shape());
}

void CudaKernels::do_bias_backward(const Tensor& dy, const Tensor& db, Stream& stream) {
  if (dy.rows() == 0) return;
  const int columns = static_cast<int>(dy.columns());
  const int blocks = static_cast<int>(std::min<std::int64_t>(dy.rows(), row_blocks(gpu_)));
  Scratch scratch(workspace_);
  float* partial = scratch.take<float>(std::int64_t{blocks} * columns, "bias_backward");
  with_type(dy.dtype(), [&]<class T>() {
    launch_dependent(sum_rows_kernel<T>, dim3(blocks_for(columns, threads), static_cast<unsigned>(blocks)),
                     threads, handle_of(stream), elements<T>(dy), dy.rows(), columns, partial);
  });
  with_type(db.dtype(), [&]<class G>() { add_partials<G>(partial, blocks, db, handle_of(stream)); });
  check_launch("bias_backward", dy.shape());
}

void CudaKernels::do_head_norm_forward(const Tensor& qkv, const Tensor& wq, const Tensor& wk, float epsilon,
                                       const AttentionShape& shape, const Tensor& raw, const Tensor& rstd,
                                       Stream& stream) {
  if (qkv.rows() == 0) return;
  with_type(qkv.dtype(), [&]<class T>() {
    const auto heads = heads_of<T>(qkv, raw, wq, wk, rstd, shape);
    launch_dependent(head_norm_kernel<T>, blocks_for(heads.count, warps), threads, handle_of(stream), heads,
                     epsilon);
  });
  check_launch("head_norm_forward", qkv.shape());
}

void CudaKernels::do_head_norm_backward(const Tensor& dqkv, const Tensor& raw, const Tensor& wq,
                                        const Tensor& wk, const Tensor& rstd, const AttentionShape& shape,
                                        const Tensor& dwq, const Tensor& dwk, Stream& stream) {
  if (dqkv.rows() == 0) return;
  const std::int64_t count = dqkv.rows() * (shape.query_heads + shape.key_value_heads);
  const int blocks = static_cast<int>(std::min<std::int64_t>((count + warps - 1) / warps, head_blocks(gpu_)));
  const int parts = blocks * warps;
  Scratch scratch(workspace_);
  float* partial_q = scratch.take<float>(parts * shape.head_dim, "head_norm_backward");
  float* partial_k = scratch.take<float>(parts * shape.head_dim, "head_norm_backward");
  with_type(dqkv.dtype(), [&]<class T>() {
    launch_dependent(head_norm_backward_kernel<T>, blocks, threads, handle_of(stream),
                     heads_of<T>(dqkv, raw, wq, wk, rstd, shape), partial_q, partial_k);
  });
  with_type(dwq.dtype(), [&]<class G>() {
    add_partials<G>(partial_q, parts, dwq, handle_of(stream));
    add_partials<G>(partial_k, parts, dwk, handle_of(stream));
  });
  check_launch("head_norm_backward", dqkv.shape());
}

}  // namespace llama3d::cuda
