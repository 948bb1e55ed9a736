// Chooses how attention is computed.

#include <algorithm>
#include <cmath>

#include "compute/contracts.hpp"
#include "cuda/attention/attention_kernels.hpp"
#include "cuda/device/check.hpp"
#include "cuda/device/cuda_kernels.hpp"
#include "cuda/device/cuda_stream.hpp"
#include "cuda/device/workspace.hpp"

namespace llama3d::cuda {
namespace {

bool suits_mma(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return dtype == DType::bf16 && (head_dim == 64 || head_dim == 128) &&
         mma_shared_bytes(static_cast<int>(head_dim)) <= gpu.shared_bytes;
}

/// Where mma does.
bool suits_wgmma(const GpuTraits& gpu) {
  return gpu.architecture == 90 && has_wgmma_code();
}

bool backward_suits_wgmma(const GpuTraits& gpu, DType dtype, std::int64_t head_dim) {
  return suits_mma(gpu, dtype, head_dim) && suits_wgmma(gpu) && head_dim == 128;
}

/// Over how many blocks a key-value head's query heads are split: their number divides that of the heads. A
/// key tile is a block, and the first tile of a causal sequence takes twice the mean time. So with fewer than
/// two blocks a multiprocessor some would stand idle, with four and more the sums of several blocks cost more
/// than they even out; between these two halves are fastest (H100, sequences of 4096 and 8192).
int backward_splits(const GpuTraits& gpu, std::int64_t rows, const AttentionShape& shape) {
  const std::int64_t group = shape.query_heads / shape.key_value_heads;
  const std::int64_t blocks = shape.key_value_heads * ((rows + wgmma_key_tile - 1) / wgmma_key_tile);
  const double each = static_cast<double>(blocks) / gpu.multiprocessors;
  if (each >= 4) return 1;
  std::int64_t splits = group % 2 == 0 ? 2 : 1;
  while (group % splits != 0 || (splits < group && each * static_cast<double>(splits) < 1.9)) ++splits;
  return static_cast<int>(splits);
}

AttentionCall make_call(const Tensor& qkv, const DocumentRows& documents, const AttentionShape& shape,
                        const Tensor& out, const Tensor& lse) {
  LLAMA3D_EXPECT(shape.head_dim <= largest_head_dim, "head size {}, at most {} on GPUs", shape.head_dim,
                 largest_head_dim);
  AttentionCall call;
  call.qkv = qkv.data();
  call.start = documents.start.as<std::int32_t>();
  call.end = documents.end.as<std::int32_t>();
  call.rows = static_cast<int>(qkv.rows());
  call.query_heads = static_cast<int>(shape.query_heads);
  call.key_value_heads = static_cast<int>(shape.key_value_heads);
  call.head_dim = static_cast<int>(shape.head_dim);
  call.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  call.out = out.data();
  call.lse = lse.as<float>();
  return call;
}

struct BackwardScratch {
  float* delta;
  float* dq;
  float* partial = nullptr;
  int splits;
  BackwardScratch(Scratch& scratch, const GpuTraits& gpu, DType dtype, std::int64_t rows,
                  const AttentionShape& shape)
      : delta(scratch.take<float>(shape.query_heads * rows, "attention_backward")),
        dq(scratch.take<float>(dq_elements(rows, shape.query_heads, shape.head_dim), "attention_backward")),
        splits(backward_suits_wgmma(gpu, dtype, shape.head_dim) ? backward_splits(gpu, rows, shape) : 1) {
    if (splits > 1)
      partial = scratch.take<float>(splits * rows * shape.key_value_heads * 2 * shape.head_dim,
                                    "attention_backward");
  }
};

}  // namespace

std::size_t attention_scratch(const WorkspaceRequest& request, const GpuTraits& gpu) {
  // Fewer rows may be split more often.
  std::size_t most = 0;
  for (std::int64_t rows = request.tokens; rows > 0; rows = (rows - 1) / wgmma_key_tile * wgmma_key_tile) {
    Scratch scratch;
    BackwardScratch(scratch, gpu, request.compute, rows, request.attention);
    most = std::max(most, scratch.used());
  }
  return most;
}

void CudaKernels::attention_forward(const Tensor& qkv, const DocumentRows& documents,
                                    const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                    Stream& stream) {
  contracts::attention_forward(qkv, documents, shape, out, lse);
  if (qkv.rows() == 0) return;
  AttentionCall call = make_call(qkv, documents, shape, out, lse);
  call.counters = counters_;
  if (!suits_mma(gpu_, qkv.dtype(), shape.head_dim))
    attention_forward_plain(call, qkv.dtype(), handle_of(stream));
  else if (suits_wgmma(gpu_))
    attention_forward_wgmma(call, gpu_.multiprocessors, handle_of(stream));
  else
    attention_forward_mma(call, handle_of(stream));
  check_launch("attention_forward", qkv.shape());
}

void CudaKernels::attention_backward(const Tensor& qkv, const DocumentRows& documents,
                                     const AttentionShape& shape, const Tensor& out, const Tensor& lse,
                                     const Tensor& dout, const Tensor& dqkv, Stream& stream) {
  contracts::attention_backward(qkv, documents, shape, out, lse, dout, dqkv);
  if (qkv.rows() == 0) return;
  AttentionCall call = make_call(qkv, documents, shape, out, lse);
  call.dout = dout.data();
  call.dqkv = dqkv.data();
  Scratch scratch(workspace_);
  const BackwardScratch space(scratch, gpu_, qkv.dtype(), qkv.rows(), shape);
  call.delta = space.delta;
  call.dq = space.dq;
  call.partial = space.partial;
  if (backward_suits_wgmma(gpu_, qkv.dtype(), shape.head_dim))
    attention_backward_wgmma(call, space.splits, handle_of(stream));
  else if (suits_mma(gpu_, qkv.dtype(), shape.head_dim))
    attention_backward_mma(call, handle_of(stream));
  else
    attention_backward_plain(call, qkv.dtype(), handle_of(stream));
  check_launch("attention_backward", qkv.shape());
}

}  // namespace llama3d::cuda
