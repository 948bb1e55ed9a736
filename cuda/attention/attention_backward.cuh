#pragma once
// What the backward passes of attention on tensor cores share: the sums over D of out * dout before them, and
// the accumulator of dQ, in the order of fragments, that is written as rows behind them.

#include "cuda/attention/attention_kernels.hpp"
#include "cuda/device/element.cuh"
#include "cuda/device/launch.cuh"

namespace llama3d::cuda {

struct BackwardArguments {
  const Bf16* qkv;
  const Bf16* dout;
  const float* lse;
  const float* delta;
  const std::int32_t* start;
  const std::int32_t* end;
  Bf16* dqkv;
  float* dq;
  int rows, query_heads, key_value_heads;
  float scale;

  explicit BackwardArguments(const AttentionCall& call)
      : qkv(static_cast<const Bf16*>(call.qkv)),
        dout(static_cast<const Bf16*>(call.dout)),
        lse(call.lse),
        delta(call.delta),
        start(call.start),
        end(call.end),
        dqkv(static_cast<Bf16*>(call.dqkv)),
        dq(call.dq),
        rows(call.rows),
        query_heads(call.query_heads),
        key_value_heads(call.key_value_heads),
        scale(call.scale) {}

  __host__ __device__ std::int64_t stride(int head_dim) const {
    return static_cast<std::int64_t>(query_heads + 2 * key_value_heads) * head_dim;
  }
  /// First element of a 16 x 8 fragment in the accumulator of dQ: (head, 16 rows, 8 columns, lane, 4).
  template <int D>
  __device__ __forceinline__ std::int64_t dq_offset(int head, int row16, int column8) const {
    const int rows16 = (rows + dq_tile - 1) / dq_tile * (dq_tile / 16);
    return ((static_cast<std::int64_t>(head) * rows16 + row16) * (D / 8) + column8) * 128;
  }
};

__device__ __forceinline__ void add_to(float* sum, const float (&value)[4]) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1,%2,%3,%4};" ::"l"(sum), "f"(value[0]), "f"(value[1]),
               "f"(value[2]), "f"(value[3])
               : "memory");
#else
#pragma unroll
  for (int i = 0; i < 4; ++i) atomicAdd(sum + i, value[i]);
#endif
}

/// delta[h][t] = sum over D of out * dout. A thread takes 8 elements, D / 8 neighbouring lanes a head.
template <int D>
static __global__ __launch_bounds__(256) void delta_kernel(const Bf16* out, const Bf16* dout, float* delta,
                                                           int rows, int query_heads) {
  const std::int64_t piece = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const std::int64_t pieces = static_cast<std::int64_t>(rows) * query_heads * (D / 8);
  float sum = 0;
  if (piece < pieces) {
    const auto x = Packet<8>::load(out + piece * 8), y = Packet<8>::load(dout + piece * 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(x.value[i], y.value[i], sum);
  }
#pragma unroll
  for (int offset = D / 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (piece >= pieces || piece % (D / 8) != 0) return;
  const std::int64_t head_row = piece / (D / 8);
  delta[head_row % query_heads * rows + head_row / query_heads] = sum;
}

/// dQ from the accumulator's order to rows, scaled and rounded. A thread takes 8 columns of two rows.
template <int D>
static __global__ __launch_bounds__(256) void query_gradient_kernel(const BackwardArguments a) {
  const int column8 = threadIdx.x % (D / 8), head = blockIdx.y;
  const int pair = blockIdx.x * (256 / (D / 8)) + threadIdx.x / (D / 8);  // 8 pairs of rows in 16 rows
  const int row16 = pair / 8, row = row16 * 16 + pair % 8;
  if (row >= a.rows) return;
  const float4* from =
      reinterpret_cast<const float4*>(a.dq + a.dq_offset<D>(head, row16, column8) + pair % 8 * 16);
  Packet<8> upper, lower;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float4 value = from[i];
    upper.value[2 * i] = value.x * a.scale;
    upper.value[2 * i + 1] = value.y * a.scale;
    lower.value[2 * i] = value.z * a.scale;
    lower.value[2 * i + 1] = value.w * a.scale;
  }
  const std::int64_t stride = a.stride(D);
  Bf16* to = a.dqkv + row * stride + head * D + column8 * 8;
  upper.store(to);
  if (row + 8 < a.rows) lower.store(to + 8 * stride);
}

/// Before the kernel that adds to dQ.
template <int D>
static void begin_backward(const BackwardArguments& a, const AttentionCall& call, cudaStream_t stream) {
  delta_kernel<D><<<blocks_for(std::int64_t{a.rows} * a.query_heads * (D / 8), 256), 256, 0, stream>>>(
      static_cast<const Bf16*>(call.out), a.dout, call.delta, a.rows, a.query_heads);
  check(cudaMemsetAsync(
            a.dq, 0, static_cast<std::size_t>(dq_elements(a.rows, a.query_heads, D)) * sizeof(float), stream),
        "clearing the gradient of the queries");
}
/// Behind it.
template <int D>
static void end_backward(const BackwardArguments& a, cudaStream_t stream) {
  const int pairs = (a.rows + 15) / 16 * 8, pairs_a_block = 256 / (D / 8);
  const dim3 grid((pairs + pairs_a_block - 1) / pairs_a_block, a.query_heads);
  query_gradient_kernel<D><<<grid, 256, 0, stream>>>(a);
}

}  // namespace llama3d::cuda
