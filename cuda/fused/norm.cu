// RMSNorm, alone and behind the residual addition. Rows of whole packets up to 16,384 wide stay in registers
// between the sum of squares and the result; others are read twice.

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

constexpr int plain_threads = 256;

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
  grid_dependency_launch();
  grid_dependency_wait();
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
  grid_dependency_launch();
  grid_dependency_wait();
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

/// Waits for the G threads of one of a block's groups.
template <int G>
__device__ __forceinline__ void group_barrier(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "n"(G) : "memory");
}

/// Groups of G threads take rows in turn. A thread owns P packets of columns: their weights and their sums
/// stay with it, and the next row is on its way while this one is reduced. One block a multiprocessor, of
/// several groups where rows are short: the fewer blocks, the fewer partial sums to write and read again.
template <int P, int G, int Groups, class T>
__global__ __launch_bounds__(G* Groups) void backward_kernel(const Backward<T> b) {
  __shared__ float shared[Groups][2][32];
  __shared__ __align__(
      16) float sums[Groups][Groups > 1 ? P * G * packet_size : 1];  // of the groups but the first
  grid_dependency_wait();
  const int group = threadIdx.x / G, thread = threadIdx.x % G, lane = thread % 32, warp = thread / 32;
  const auto column = [=](int p) { return (p * G + thread) * packet_size; };
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
  std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * Groups + group;
  if (row < b.rows) load_row(row);
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
    row += static_cast<std::int64_t>(gridDim.x) * Groups;
    if (row < b.rows) load_row(row);
    // Alternating slots: a warp may be one row ahead of another, never two.
    projection = warp_reduce(projection, Sum());
    float* slots = shared[group][turn % 2];
    if (lane == 0) slots[warp] = projection;
    group_barrier<G>(group);
    const float mean = warp_reduce(lane < G / 32 ? slots[lane] : 0.0f, Sum()) / static_cast<float>(b.columns);
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
  // The first group adds the others' sums, one after the other.
  if (Groups > 1) {
#pragma unroll
    for (int p = 0; p < P; ++p)
      if (group > 0 && column(p) < b.columns) dw[p].store(sums[group] + column(p));
    __syncthreads();
  }
  for (int other = 1; group == 0 && other < Groups; ++other) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (column(p) >= b.columns) continue;
      const auto more = Packet<packet_size>::load(sums[other] + column(p));
#pragma unroll
      for (int k = 0; k < packet_size; ++k) dw[p].value[k] += more.value[k];
    }
  }
#pragma unroll
  for (int p = 0; p < P; ++p)
    if (group == 0 && column(p) < b.columns)
      dw[p].store(b.partial + static_cast<std::int64_t>(blockIdx.x) * b.columns + column(p));
}

template <class T>
__global__ __launch_bounds__(plain_threads) void plain_backward_kernel(const Backward<T> b) {
  __shared__ float shared[32];
  grid_dependency_launch();
  grid_dependency_wait();
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

// Launches with a whole row in registers; false when it is too wide for that.

template <class T>
bool forward_in_registers(const Forward<T>& f, unsigned rows, cudaStream_t stream) {
  const auto run = [&]<int P, int Threads>() {
    launch_dependent(forward_kernel<P, Threads, T>, rows, Threads, stream, f);
    return true;
  };
  if (f.columns <= 1024) return run.template operator()<1, 128>();
  if (f.columns <= 2048) return run.template operator()<2, 128>();
  if (f.columns <= 4096) return run.template operator()<2, 256>();
  if (f.columns <= 8192) return run.template operator()<2, 512>();
  return f.columns <= 16384 && run.template operator()<2, 1024>();
}

template <class T>
bool backward_in_registers(const Backward<T>& b, unsigned blocks, cudaStream_t stream) {
  const auto run = [&]<int P, int G, int Groups>() {
    launch_dependent(backward_kernel<P, G, Groups, T>, blocks, G * Groups, stream, b);
    return true;
  };
  if (b.columns <= 1024) return run.template operator()<1, 128, 8>();
  if (b.columns <= 2048) return run.template operator()<1, 256, 4>();
  if (b.columns <= 4096) return run.template operator()<2, 256, 2>();
  return b.columns <= 8192 && run.template operator()<2, 512, 1>();
}

template <class T>
void forward(const Forward<T>& f, const Tensor& x, bool packets, cudaStream_t stream) {
  const auto rows = static_cast<unsigned>(x.rows());
  if (!packets || !forward_in_registers(f, rows, stream))
    launch_dependent(plain_forward_kernel<T>, rows, plain_threads, stream, f);
}

/// The backward pass is persistent.
int backward_blocks(const GpuTraits& gpu) {
  return gpu.multiprocessors;
}

}  // namespace

std::size_t norm_scratch(const WorkspaceRequest& request, const GpuTraits& gpu) {
  Scratch scratch;
  scratch.take<float>(backward_blocks(gpu) * request.hidden, "");
  return scratch.used();
}

void CudaKernels::do_rms_norm_forward(const Tensor& x, const Tensor& w, float epsilon, const Tensor& y,
                                      const Tensor& rstd, Stream& stream) {
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

void CudaKernels::do_add_rms_norm_forward(const Tensor& residual, const Tensor& delta, const Tensor& w,
                                          float epsilon, const Tensor& sum, const Tensor& y,
                                          const Tensor& rstd, Stream& stream) {
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

void CudaKernels::do_rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                                       const Tensor& dresidual, const Tensor& dx, const Tensor& dw,
                                       Stream& stream) {
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
      if (N == 1 || !backward_in_registers(b, blocks, handle_of(stream)))
        launch_dependent(plain_backward_kernel<T>, blocks, plain_threads, handle_of(stream), b);
    });
  });
  with_type(dw.dtype(), [&]<class G>() {
    launch_dependent(add_partials_kernel<G>, blocks_for(columns, 32), 1024, handle_of(stream), partial,
                     blocks, elements<G>(dw), columns);
  });
  check_launch("rms_norm_backward", x.shape());
}

}  // namespace llama3d::cuda
