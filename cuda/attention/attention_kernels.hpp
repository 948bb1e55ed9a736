#pragma once
// The kernels of attention. attention_variants.cpp says which suits what.

#include <cuda_runtime_api.h>

#include "compute/kernels.hpp"
#include "cuda/device/host_device.hpp"

namespace llama3d::cuda {

/// Raw operands of a call; see Kernels::attention_forward and attention_backward.
struct AttentionCall {
  const void* qkv = nullptr;            ///< (T, fused columns)
  const std::int32_t* start = nullptr;  ///< (T)
  const std::int32_t* end = nullptr;    ///< (T)
  int rows = 0;                         ///< T
  int query_heads = 0, key_value_heads = 0, head_dim = 0;
  float scale = 1;       ///< 1 / sqrt(D)
  void* out = nullptr;   ///< (T, Hq D)
  float* lse = nullptr;  ///< (Hq, T)
  /// attention_forward_wgmma only: two, zero between calls, of calls that follow each other.
  int* counters = nullptr;
  // backward only
  const void* dout = nullptr;  ///< (T, Hq D)
  void* dqkv = nullptr;        ///< (T, fused columns)
  float* delta = nullptr;      ///< scratch (Hq, T): sums over D of out * dout
  float* dq = nullptr;         ///< scratch, dq_elements() fp32
  // attention_backward_wgmma only
  int splits = 1;            ///< blocks over which a key-value head's query heads are split, a divisor
  float* partial = nullptr;  ///< scratch where there are several: (splits, T, Hkv, 2, D)

  LLAMA3D_HOST_DEVICE std::int64_t fused_columns() const {
    return std::int64_t{query_heads + 2 * key_value_heads} * head_dim;
  }
  LLAMA3D_HOST_DEVICE std::int64_t output_columns() const { return std::int64_t{query_heads} * head_dim; }
};

// bf16 on tensor cores, head sizes 64 and 128, sm_80 and up (FlashAttention-2, Dao 2023). dq is summed by
// unordered atomic additions, so the last bits of its fp32 sums vary.
void attention_forward_mma(const AttentionCall& call, cudaStream_t stream);
void attention_backward_mma(const AttentionCall& call, cudaStream_t stream);
// The same by what only sm_90 has (wgmma, bulk copies); the backward pass for heads of 128.
/// Whether the build has code for it.
bool has_wgmma_code();
/// `multiprocessors`: of the GPU.
void attention_forward_wgmma(const AttentionCall& call, int multiprocessors, cudaStream_t stream);
void attention_backward_wgmma(const AttentionCall& call, cudaStream_t stream);
inline constexpr int wgmma_key_tile = 128;  ///< key rows of a block of the backward pass
/// Shared memory that a block takes: sm_80 and sm_90 have it, the smaller GPUs of their generations do not.
std::size_t mma_shared_bytes(int head_dim);
/// Elements of AttentionCall::dq: its rows are counted in tiles of dq_tile.
inline constexpr int dq_tile = 128;
std::int64_t dq_elements(std::int64_t rows, std::int64_t query_heads, std::int64_t head_dim);

// Any even head size up to 256, fp32 or bf16, one warp a row: for tests, fp32 runs and unusual models.
void attention_forward_plain(const AttentionCall& call, DType dtype, cudaStream_t stream);
void attention_backward_plain(const AttentionCall& call, DType dtype, cudaStream_t stream);
inline constexpr int largest_head_dim = 256;

}  // namespace llama3d::cuda
