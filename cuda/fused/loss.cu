// Cross entropy over a vocabulary split among ranks.

#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/workspace.hpp"

namespace llama3d::cuda {
namespace {

constexpr int threads = 512;
/// Packets a thread has under way at once.
constexpr int in_flight = 4;

/// The largest value so far and the sum of exp(value - largest).
struct Softmax {
  float largest = -INFINITY, sum = 0;

  __device__ __forceinline__ void add(float value) {
    if (value > largest) {
      sum *= __expf(largest - value);
      largest = value;
    }
    sum += __expf(value - largest);
  }
  template <int N>
  __device__ __forceinline__ void add(const Packet<N>& packet) {
    float top = packet.value[0];
#pragma unroll
    for (int k = 1; k < N; ++k) top = fmaxf(top, packet.value[k]);
    if (top > largest) {
      sum *= __expf(largest - top);
      largest = top;
    }
    if (largest == -INFINITY) return;  // only logits of minus infinity so far
#pragma unroll
    for (int k = 0; k < N; ++k) sum += __expf(packet.value[k] - largest);
  }
};

/// One row a block. Whole packets up to `columns`, the rest one by one.
template <int N, class T>
__global__ __launch_bounds__(threads) void statistics_kernel(const T* logits, const std::int32_t* targets,
                                                             std::int64_t first_id, int columns,
                                                             std::int64_t width, float* statistics) {
  __shared__ float shared[32];
  const T* row = logits + blockIdx.x * width;
  Softmax own;
  const int whole = columns / N * N;
  int c = threadIdx.x * N;
  for (; c + (in_flight - 1) * threads * N < whole; c += in_flight * threads * N) {
    Packet<N> packet[in_flight];
#pragma unroll
    for (int i = 0; i < in_flight; ++i) packet[i] = Packet<N>::load(row + c + i * threads * N);
#pragma unroll
    for (int i = 0; i < in_flight; ++i) own.add(packet[i]);
  }
  for (; c < whole; c += threads * N) own.add(Packet<N>::load(row + c));
  if (whole + static_cast<int>(threadIdx.x) < columns) own.add(widen(row[whole + threadIdx.x]));

  const float largest = block_reduce(own.largest, -INFINITY, Max(), shared);
  const float sum =
      block_reduce(own.sum == 0 ? 0.0f : own.sum * __expf(own.largest - largest), 0.0f, Sum(), shared);
  if (threadIdx.x != 0) return;
  const std::int64_t target = targets[blockIdx.x] - first_id;
  float* out = statistics + std::int64_t{blockIdx.x} * 3;
  out[0] = largest;
  out[1] = sum;
  out[2] = target >= 0 && target < columns ? widen(row[target]) : 0.0f;
}

/// Joins what the shards know of each row: its loss, and the largest logit with the reciprocal of the sum of
/// exp(logit - largest), which together give every softmax without cancellation.
__global__ __launch_bounds__(256) void join_kernel(const float* statistics, const std::int32_t* targets,
                                                   int rows, int shards, float* losses, float2* softmax) {
  const int row = blockIdx.x * 256 + threadIdx.x;
  if (row >= rows) return;
  const float* first = statistics + std::int64_t{row} * 3;
  const std::int64_t stride = std::int64_t{rows} * 3;
  float largest = -INFINITY, sum = 0, target = 0;
  for (int s = 0; s < shards; ++s) largest = fmaxf(largest, first[s * stride]);
  for (int s = 0; s < shards; ++s) {
    const float* shard = first + s * stride;
    // A shard without columns has sum 0 and largest -infinity: it adds nothing.
    if (shard[1] != 0) sum += shard[1] * expf(shard[0] - largest);
    target += shard[2];
  }
  losses[row] = targets[row] < 0 ? 0.0f : logf(sum) + (largest - target);
  softmax[row] = {largest, 1.0f / sum};
}

/// One row a block: logits become softmax - [column is the target], padding 0.
template <int N, class T>
__global__ __launch_bounds__(threads) void gradient_kernel(T* logits, const std::int32_t* targets,
                                                           std::int64_t first_id, int columns,
                                                           std::int64_t width, const float2* softmax) {
  const float2 whole = softmax[blockIdx.x];
  const bool counts = targets[blockIdx.x] >= 0;
  const std::int64_t target = counts ? targets[blockIdx.x] - first_id : -1;
  T* row = logits + blockIdx.x * width;
  const auto differentiate = [&](Packet<N> packet, int c) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      float gradient = __expf(packet.value[k] - whole.x) * whole.y;
      if (c + k == target) gradient -= 1.0f;
      packet.value[k] = counts && c + k < columns ? gradient : 0.0f;
    }
    packet.store(row + c);
  };
  int c = threadIdx.x * N;
  for (; c + (in_flight - 1) * threads * N < width; c += in_flight * threads * N) {
    Packet<N> packet[in_flight];
#pragma unroll
    for (int i = 0; i < in_flight; ++i) packet[i] = Packet<N>::load(row + c + i * threads * N);
#pragma unroll
    for (int i = 0; i < in_flight; ++i) differentiate(packet[i], c + i * threads * N);
  }
  for (; c < width; c += threads * N) differentiate(Packet<N>::load(row + c), c);
}

/// totals += the sum of the losses and the number of targets, in a fixed order.
__global__ __launch_bounds__(1024) void totals_kernel(const float* losses, const std::int32_t* targets,
                                                      int rows, double* totals) {
  __shared__ double shared[32];
  double sum = 0, count = 0;
  for (int row = threadIdx.x; row < rows; row += 1024) {
    sum += losses[row];
    count += targets[row] >= 0;
  }
  sum = block_reduce(sum, 0.0, Sum(), shared);
  count = block_reduce(count, 0.0, Sum(), shared);
  if (threadIdx.x == 0) {
    totals[0] += sum;
    totals[1] += count;
  }
}

}  // namespace

std::size_t loss_scratch(const WorkspaceRequest& request) {
  Scratch scratch;
  scratch.take<float2>(request.tokens, "");
  return scratch.used();
}

void CudaKernels::do_cross_entropy_statistics(const Tensor& logits, const Tensor& targets,
                                              std::int64_t first_id, std::int64_t columns,
                                              const Tensor& statistics, Stream& stream) {
  if (logits.rows() == 0) return;
  with_type(logits.dtype(), [&]<class T>() {
    with_packet(logits.columns(), {&logits}, [&]<int N>() {
      statistics_kernel<N><<<static_cast<unsigned>(logits.rows()), threads, 0, handle_of(stream)>>>(
          elements<T>(logits), elements<std::int32_t>(targets), first_id, static_cast<int>(columns),
          logits.columns(), elements<float>(statistics));
    });
  });
  check_launch("cross_entropy_statistics", logits.shape());
}

void CudaKernels::do_cross_entropy_finish(const Tensor& logits, const Tensor& targets, std::int64_t first_id,
                                          std::int64_t columns, const Tensor& statistics, bool gradient,
                                          const Tensor& losses, const Tensor& totals, Stream& stream) {
  const int rows = static_cast<int>(logits.rows());
  if (rows == 0) return;
  const int shards = static_cast<int>(statistics.elements() / (3 * rows));
  const auto* target = elements<std::int32_t>(targets);
  const auto* known = elements<float>(statistics);
  Scratch scratch(workspace_);
  float2* softmax = scratch.take<float2>(rows, "cross_entropy_finish");
  join_kernel<<<blocks_for(rows, 256), 256, 0, handle_of(stream)>>>(known, target, rows, shards,
                                                                    elements<float>(losses), softmax);
  totals_kernel<<<1, 1024, 0, handle_of(stream)>>>(elements<float>(losses), target, rows,
                                                   elements<double>(totals));
  if (gradient && logits.columns() > 0)
    with_type(logits.dtype(), [&]<class T>() {
      with_packet(logits.columns(), {&logits}, [&]<int N>() {
        gradient_kernel<N><<<static_cast<unsigned>(rows), threads, 0, handle_of(stream)>>>(
            elements<T>(logits), target, first_id, static_cast<int>(columns), logits.columns(), softmax);
      });
    });
  check_launch("cross_entropy_finish", logits.shape());
}

}  // namespace llama3d::cuda
