// RMSNorm, alone and behind the residual addition. Rows of whole packets up to 16,384 wide stay in registers
// between the sum of squares and the result; others are read twice.

#include "compute/contracts.hpp"
#include "cuda/check.hpp"
#include "cuda/cuda_kernels.hpp"
#include "cuda/cuda_stream.hpp"
#include "cuda/element.cuh"
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "cuda/workspace.hpp"

namespace llama3d::cuda {
namespace {

constexpr int plain_threads = 256;
/// Of the backward pass, which is persistent: enough loads under way to keep the memory busy.
constexpr int blocks_per_multiprocessor = 2;

template <class T>
struct Forward {
  const T* residual;
  const T* delta;  ///< null: the row is residual alone
  const T* w;
  T* sum;
  T* y;
  float* rstd;
  int columns;
  float epsilon;
};

/// One row a block; a thread keeps P packets of it.
template <int P, int Threads, class T>
__global__ __launch_bounds__(Threads) void forward_kernel(const Forward<T> f) {
  __shared__ float shared[32];
  wait_for_inputs();
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * f.columns;
  Packet<packet_size> x[P];
  const auto column = [](int p) { return (p * Threads + static_cast<int>(threadIdx.x)) * packet_size; };
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (column(p) < f.columns) x[p] = Packet<packet_size>::load(f.residual + row + column(p));
  if (f.delta) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (column(p) >= f.columns) continue;
      const auto delta = Packet<packet_size>::load(f.delta + row + column(p));
#pragma unroll
      for (int k = 0; k < packet_size; ++k) x[p].value[k] = rounded<T>(x[p].value[k] + delta.value[k]);
      x[p].store(f.sum + row + column(p));
    }
  }
  float squares = 0;
#pragma unroll
  for (int p = 0; p < P; ++p) {
    if (column(p) >= f.columns) continue;
#pragma unroll
    for (int k = 0; k < packet_size; ++k) squares = fmaf(x[p].value[k], x[p].value[k], squares);
  }
  squares = block_reduce(squares, 0.0f, Sum(), shared);
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(f.columns) + f.epsilon);
#pragma unroll
  for (int p = 0; p < P; ++p) {
    if (column(p) >= f.columns) continue;
    const auto w = Packet<packet_size>::load(f.w + column(p));
#pragma unroll
    for (int k = 0; k < packet_size; ++k) x[p].value[k] = rounded<T>(x[p].value[k] * rstd) * w.value[k];
    x[p].store(f.y + row + column(p));
  }
  if (threadIdx.x == 0) f.rstd[blockIdx.x] = rstd;
}

/// Any width, element by element.
template <class T>
__global__ __launch_bounds__(plain_threads) void plain_forward_kernel(const Forward<T> f) {
  __shared__ float shared[32];
  wait_for_inputs();
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * f.columns;
  const T* x = f.residual + row;
  if (f.delta) {
    for (int c = threadIdx.x; c < f.columns; c += plain_threads)
      f.sum[row + c] = narrow<T>(widen(x[c]) + widen(f.delta[row + c]));
    x = f.sum + row;  // every thread reads what it wrote
  }
  float squares = 0;
  for (int c = threadIdx.x; c < f.columns; c += plain_threads)
    squares = fmaf(widen(x[c]), widen(x[c]), squares);
  squares = block_reduce(squares, 0.0f, Sum(), shared);
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(f.columns) + f.epsilon);
  for (int c = threadIdx.x; c < f.columns; c += plain_threads)
    f.y[row + c] = narrow<T>(rounded<T>(widen(x[c]) * rstd) * widen(f.w[c]));
  if (threadIdx.x == 0) f.rstd[blockIdx.x] = rstd;
}

template <class T>
struct Backward {
  const T* dy;
  const T* x;
  const T* w;
  const float* rstd;
  const T* around;  ///< gradient that reaches x around the norm, or null
  T* dx;
  float* partial;  ///< (blocks, C): each block's sums for the gradient of w
  std::int64_t rows;
  int columns;
};

/// dx of one element: around + rstd (dy w - xhat mean).
__device__ __forceinline__ float input_gradient(float around, float dy, float w, float x, float rstd,
                                                float mean) {
  return around + rstd * (dy * w - x * rstd * mean);
}

/// Blocks take rows in turn. A thread owns P packets of columns: their weights and their sums stay with it,
/// and the next row is on its way while this one is reduced.
template <int P, int Threads, class T>
__global__ __launch_bounds__(Threads) void backward_kernel(const Backward<T> b) {
  __shared__ float shared[2][32];
  wait_for_inputs();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const auto column = [](int p) { return (p * Threads + static_cast<int>(threadIdx.x)) * packet_size; };
  RawPacket<T> w[P], dy[P], x[P], around[P];
  Packet<packet_size> dw[P];
  const auto load_row = [&](std::int64_t row) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (column(p) >= b.columns) continue;
      const std::int64_t at = row * b.columns + column(p);
      dy[p] = RawPacket<T>::load(b.dy + at);
      x[p] = RawPacket<T>::load(b.x + at);
      if (b.around) around[p] = RawPacket<T>::load(b.around + at);
    }
  };
#pragma unroll
  for (int p = 0; p < P; ++p) {
#pragma unroll
    for (int k = 0; k < packet_size; ++k) dw[p].value[k] = 0;
    if (column(p) < b.columns) w[p] = RawPacket<T>::load(b.w + column(p));
  }
  std::int64_t row = blockIdx.x;
  load_row(row);
  for (int turn = 0; row < b.rows; ++turn) {
    const float rstd = b.rstd[row];
    float projection = 0;
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (column(p) >= b.columns) continue;
      const auto g = dy[p].widened(), v = x[p].widened(), s = w[p].widened();
#pragma unroll
      for (int k = 0; k < packet_size; ++k) {
        const float normalized = v.value[k] * rstd;
        projection = fmaf(g.value[k] * s.value[k], normalized, projection);
        dw[p].value[k] = fmaf(g.value[k], rounded<T>(normalized), dw[p].value[k]);
      }
    }
    RawPacket<T> dy_now[P], x_now[P], around_now[P];
#pragma unroll
    for (int p = 0; p < P; ++p) {
      dy_now[p] = dy[p];
      x_now[p] = x[p];
      around_now[p] = around[p];
    }
    const std::int64_t this_row = row;
    row += gridDim.x;
    if (row < b.rows) load_row(row);
    // Alternating slots: a warp may be one row ahead of another, never two.
    projection = warp_reduce(projection, Sum());
    float* slots = shared[turn % 2];
    if (lane == 0) slots[warp] = projection;
    __syncthreads();
    const float mean =
        warp_reduce(lane < Threads / 32 ? slots[lane] : 0.0f, Sum()) / static_cast<float>(b.columns);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (column(p) >= b.columns) continue;
      const auto g = dy_now[p].widened(), v = x_now[p].widened(), s = w[p].widened();
      Packet<packet_size> out;
      if (b.around) out = around_now[p].widened();
#pragma unroll
      for (int k = 0; k < packet_size; ++k)
        out.value[k] =
            input_gradient(b.around ? out.value[k] : 0.0f, g.value[k], s.value[k], v.value[k], rstd, mean);
      out.store(b.dx + this_row * b.columns + column(p));
    }
  }
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (column(p) < b.columns)
      dw[p].store(b.partial + static_cast<std::int64_t>(blockIdx.x) * b.columns + column(p));
}

template <class T>
__global__ __launch_bounds__(plain_threads) void plain_backward_kernel(const Backward<T> b) {
  __shared__ float shared[32];
  wait_for_inputs();
  float* dw = b.partial + static_cast<std::int64_t>(blockIdx.x) * b.columns;
  for (int c = threadIdx.x; c < b.columns; c += plain_threads) dw[c] = 0;
  for (std::int64_t row = blockIdx.x; row < b.rows; row += gridDim.x) {
    const std::int64_t at = row * b.columns;
    const float rstd = b.rstd[row];
    float projection = 0;
    for (int c = threadIdx.x; c < b.columns; c += plain_threads) {
      const float dy = widen(b.dy[at + c]), normalized = widen(b.x[at + c]) * rstd;
      projection = fmaf(dy * widen(b.w[c]), normalized, projection);
      dw[c] = fmaf(dy, rounded<T>(normalized), dw[c]);
    }
    const float mean = block_reduce(projection, 0.0f, Sum(), shared) / static_cast<float>(b.columns);
    for (int c = threadIdx.x; c < b.columns; c += plain_threads)
      b.dx[at + c] = narrow<T>(input_gradient(b.around ? widen(b.around[at + c]) : 0.0f, widen(b.dy[at + c]),
                                              widen(b.w[c]), widen(b.x[at + c]), rstd, mean));
  }
}

/// dw += the blocks' sums, in order: 32 columns a block, a warp for each 32nd part of the sums.
template <class G>
__global__ __launch_bounds__(1024) void add_partials_kernel(const float* partial, int parts, G* dw,
                                                            int columns) {
  __shared__ float shared[32][33];
  wait_for_inputs();
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

/// Widest rows that fit the registers.
constexpr int widest_forward = 16384, widest_backward = 8192;

/// Calls f<P, Threads>() with room for `columns`, or returns false when the row is wider than Widest.
template <int Widest, class F>
bool with_row_in_registers(std::int64_t columns, F&& f) {
  if (columns <= 1024)
    f.template operator()<1, 128>();
  else if (columns <= 2048)
    f.template operator()<2, 128>();
  else if (columns <= 4096)
    f.template operator()<2, 256>();
  else if (columns <= 8192)
    f.template operator()<2, 512>();
  else if constexpr (Widest > 8192)
    return columns <= Widest && (f.template operator()<2, 1024>(), true);
  else
    return false;
  return true;
}

template <class T>
void forward(const Forward<T>& f, const Tensor& x, bool packets, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(x.rows());
  if (packets && with_row_in_registers<widest_forward>(x.columns(), [&]<int P, int Threads>() {
        launch_early(forward_kernel<P, Threads, T>, rows, Threads, stream, f);
      }))
    return;
  launch_early(plain_forward_kernel<T>, rows, plain_threads, stream, f);
}

int backward_blocks(const GpuTraits& gpu) {
  return blocks_per_multiprocessor * gpu.multiprocessors;
}

}  // namespace

std::size_t norm_scratch(const WorkspaceRequest& request, const GpuTraits& gpu) {
  Scratch scratch;
  scratch.take<float>(backward_blocks(gpu) * request.hidden, "");
  return scratch.used();
}

void CudaKernels::rms_norm_forward(const Tensor& x, const Tensor& w, float epsilon, const Tensor& y,
                                   const Tensor& rstd, Stream& stream) {
  contracts::rms_norm_forward(x, w, y, rstd);
  if (x.rows() == 0) return;
  with_type(x.dtype(), [&]<class T>() {
    with_packet(x.columns(), {&x, &w, &y}, [&]<int N>() {
      const Forward<T> f{elements<T>(x),
                         nullptr,
                         elements<T>(w),
                         nullptr,
                         elements<T>(y),
                         elements<float>(rstd),
                         static_cast<int>(x.columns()),
                         epsilon};
      forward(f, x, N > 1, handle_of(stream));
    });
  });
  check_launch("rms_norm_forward", x.shape());
}

void CudaKernels::add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w,
                                       float epsilon, const Tensor& sum, const Tensor& y, const Tensor& rstd,
                                       Stream& stream) {
  contracts::add_rms_norm_forward(residual, delta, w, sum, y, rstd);
  if (residual.rows() == 0) return;
  with_type(residual.dtype(), [&]<class T>() {
    with_packet(residual.columns(), {&residual, &delta, &w, &sum, &y}, [&]<int N>() {
      const Forward<T> f{elements<T>(residual),
                         elements<T>(delta),
                         elements<T>(w),
                         elements<T>(sum),
                         elements<T>(y),
                         elements<float>(rstd),
                         static_cast<int>(residual.columns()),
                         epsilon};
      forward(f, residual, N > 1, handle_of(stream));
    });
  });
  check_launch("add_rms_norm_forward", residual.shape());
}

void CudaKernels::rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                                    const Tensor& dresidual, const Tensor& dx, const Tensor& dw,
                                    Stream& stream) {
  contracts::rms_norm_backward(dy, x, w, rstd, dresidual, dx, dw);
  if (x.rows() == 0) return;
  const int columns = static_cast<int>(x.columns());
  const int blocks = static_cast<int>(std::min<std::int64_t>(x.rows(), backward_blocks(gpu_)));
  Scratch scratch(workspace_);
  float* partial = scratch.take<float>(std::int64_t{blocks} * columns, "rms_norm_backward");
  with_type(x.dtype(), [&]<class T>() {
    const Backward<T> b{elements<T>(dy),
                        elements<T>(x),
                        elements<T>(w),
                        elements<float>(rstd),
                        dresidual ? elements<T>(dresidual) : nullptr,
                        elements<T>(dx),
                        partial,
                        x.rows(),
                        columns};
    with_packet(columns, {&dy, &x, &w, &dx, dresidual ? &dresidual : &dx}, [&]<int N>() {
      const bool done = N > 1 && with_row_in_registers<widest_backward>(columns, [&]<int P, int Threads>() {
                          launch_early(backward_kernel<P, Threads, T>, blocks, Threads, handle_of(stream), b);
                        });
      if (!done) launch_early(plain_backward_kernel<T>, blocks, plain_threads, handle_of(stream), b);
    });
  });
  with_type(dw.dtype(), [&]<class G>() {
    launch_early(add_partials_kernel<G>, blocks_for(columns, 32), 1024, handle_of(stream), partial, blocks,
                 elements<G>(dw), columns);
  });
  check_launch("rms_norm_backward", x.shape());
}

}  // namespace llama3d::cuda
